"""The socket: its mode, who may take it over, and what the kernel says about the caller."""

import asyncio
import contextlib
import os
import socket
import stat
import tempfile
import threading
import time
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from pathlib import Path

import httpx
import pytest
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.types import Receive, Scope, Send
from support.box import Box, serving

from carbonsched.api.connection import Connection
from carbonsched.api.server import bind, serve
from carbonsched.errors import InputError, StateError


def client(path: Path) -> httpx.Client:
    return httpx.Client(transport=httpx.HTTPTransport(uds=str(path)), base_url="http://carbonsched")


async def who(scope: Scope, receive: Receive, send: Send) -> None:
    """The smallest application that shows what the server adds to a request."""
    if scope["type"] == "lifespan":
        while (await receive())["type"] != "lifespan.shutdown":
            await send({"type": "lifespan.startup.complete"})
        await send({"type": "lifespan.shutdown.complete"})
        return
    if scope["path"] == "/long":
        await Response(b"x" * 2**24)(scope, receive, send)
        return
    if scope["path"] == "/slow":
        await asyncio.sleep(0.3)
    caller = Request(scope).state.caller
    await JSONResponse([caller.pid, caller.uid, caller.gid])(scope, receive, send)


def test_socket_is_for_owner_and_group_alone(tmp_path: Path) -> None:
    old = os.umask(0)
    try:
        with serving(Box(tmp_path), tmp_path / "run" / "api.sock") as path:
            info = path.stat()
            assert stat.S_ISSOCK(info.st_mode)
            assert stat.S_IMODE(info.st_mode) == 0o660
    finally:
        os.umask(old)


def test_socket_is_gone_after_stop_and_start_works_again(tmp_path: Path) -> None:
    path = tmp_path / "api.sock"
    for _ in range(2):
        with serving(Box(tmp_path), path), client(path) as http:
            assert http.get("/v1/jobs").json() == {"jobs": [], "left_out": 0, "drained": None}
        assert not path.exists()


def test_a_server_that_nobody_asks_sleeps(tmp_path: Path) -> None:
    """uvicorn's own looks ten times a second whether its end has come."""
    server = serve(who, tmp_path / "api.sock")
    server.start()
    try:
        assert server._thread is not None
        status = Path(f"/proc/self/task/{server._thread.native_id}/status")

        def slept() -> int:
            return int(status.read_text().split("\nvoluntary_ctxt_switches:")[1].split()[0])

        time.sleep(0.5)
        before = slept()
        time.sleep(2.0)
        assert slept() - before <= 3
    finally:
        began = time.monotonic()
        server.stop()
    assert time.monotonic() - began < 2.5, "it is woken to end"


def test_answers_are_dated_as_they_are_given(tmp_path: Path) -> None:
    server = serve(who, tmp_path / "api.sock")
    server.start()
    try:
        with client(tmp_path / "api.sock") as http:
            for _ in range(2):
                before = datetime.now(UTC).replace(microsecond=0)
                [date] = http.get("/").headers.get_list("date")
                assert before <= parsedate_to_datetime(date) <= datetime.now(UTC)
                time.sleep(1.1)
    finally:
        server.stop()


def test_kernel_names_the_caller(tmp_path: Path) -> None:
    server = serve(who, tmp_path / "api.sock")
    server.start()
    try:
        with client(server.path) as http:
            assert http.get("/").json() == [os.getpid(), os.getuid(), os.getgid()]
    finally:
        server.stop()


@pytest.mark.skipif(os.getuid() != 0, reason="only root can become another user")
def test_another_user_is_told_apart(tmp_path: Path) -> None:
    server = serve(who, tmp_path / "api.sock")
    server.start()
    try:
        tmp_path.chmod(0o755)
        os.chown(server.path, 0, 54321)
        for parent in tmp_path.parents:
            if parent == Path(tempfile.gettempdir()):
                break
            parent.chmod(0o755)
        read, write = os.pipe()
        pid = os.fork()
        if pid == 0:  # the child: another user, in the socket's group
            try:
                os.setgroups([])
                os.setresgid(54321, 54321, 54321)
                os.setresuid(54322, 54322, 54322)
                with socket.socket(socket.AF_UNIX) as sock:
                    sock.connect(str(server.path))
                    sock.sendall(b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
                    while data := sock.recv(4096):
                        os.write(write, data)
            finally:
                os._exit(0)
        os.close(write)
        os.waitpid(pid, 0)
        answer = os.read(read, 65536).decode()
        os.close(read)
        assert answer.endswith(f"[{pid},54322,54321]")
    finally:
        server.stop()


def test_second_daemon_is_refused_and_first_goes_on(tmp_path: Path) -> None:
    with serving(Box(tmp_path), tmp_path / "api.sock") as path:
        with pytest.raises(StateError, match="another daemon already serves"):
            serve(who, path).start()
        with client(path) as http:
            assert http.get("/v1/jobs").status_code == 200


def test_daemon_that_answers_without_our_lock_is_not_replaced(tmp_path: Path) -> None:
    path = tmp_path / "api.sock"
    with bind(path), pytest.raises(StateError, match="another daemon already serves"):
        bind(path)


def test_stale_socket_is_replaced(tmp_path: Path) -> None:
    path = tmp_path / "api.sock"
    bind(path).close()  # a daemon killed -9 leaves this behind
    assert path.exists()
    with serving(Box(tmp_path), path), client(path) as http:
        assert http.get("/v1/version").status_code == 200


def test_only_one_of_many_that_start_at_once_serves(tmp_path: Path) -> None:
    servers = [serve(who, tmp_path / "api.sock") for _ in range(4)]
    won: list[int] = []

    def start(n: int) -> None:
        try:
            servers[n].start()
        except StateError:
            return
        won.append(n)

    threads = [threading.Thread(target=start, args=(n,)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(won) == 1
    with client(tmp_path / "api.sock") as http:
        assert http.get("/").status_code == 200
    servers[won[0]].stop()


def test_file_in_the_sockets_place_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "api.sock"
    path.write_text("mine")
    with pytest.raises(InputError, match="is no socket; move it"):
        serve(who, path).start()
    assert path.read_text() == "mine"


def test_path_too_long_for_a_socket_is_bad_input(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="too long for a Unix socket"):
        bind(tmp_path / ("x" * 120))


def test_folder_that_cannot_be_made_is_bad_input(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="cannot be bound"):
        serve(who, tmp_path / "file" / "api.sock").start()


@pytest.mark.parametrize(
    ("sent", "read"),
    [(b"", True), (b"GET /v1/version HT", True), (b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\n{", True),
     (b"GET / HTTP/1.1\r\nHost: x\r\n\r\nGET", True), (b"GET /long HTTP/1.1\r\nHost: x\r\n\r\n", False)],
    ids=["idle", "half a head", "half a body", "half a second request", "an answer nobody reads"],
)  # fmt: skip
def test_connection_that_keeps_us_waiting_is_ended(
    tmp_path: Path, sent: bytes, read: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Connection, "request_s", 0.2)
    monkeypatch.setattr(Connection, "unread_s", 0.2)
    server = serve(who, tmp_path / "api.sock")
    server.start()
    try:
        with socket.socket(socket.AF_UNIX) as sock:
            sock.settimeout(30)
            sock.connect(str(server.path))
            sock.sendall(sent)
            if not read:
                assert sock.recv(1) == b"H"
                while server.connections:
                    time.sleep(0.02)
            while sock.recv(2**20):
                pass
        with client(server.path) as http:
            assert http.get("/").status_code == 200
    finally:
        server.stop()


def test_work_that_takes_long_is_not_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Connection, "request_s", 0.1)
    server = serve(who, tmp_path / "api.sock")
    server.start()
    try:
        with client(server.path) as http:
            assert http.get("/slow").status_code == 200
    finally:
        server.stop()


def test_one_user_cannot_take_all_file_handles_by_connections(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A daemon without handles cannot tell whether others' jobs live."""
    monkeypatch.setattr(Connection, "most", 3)
    server = serve(who, tmp_path / "api.sock")
    server.start()
    opened: list[socket.socket] = []
    try:
        for _ in range(6):
            opened.append(socket.socket(socket.AF_UNIX))
            opened[-1].settimeout(30)
            opened[-1].connect(str(server.path))
        for sock in opened[3:]:
            with contextlib.suppress(ConnectionResetError):
                assert sock.recv(1) == b""
        assert server.connections == 3
        opened[0].sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        assert opened[0].recv(8) == b"HTTP/1.1"
        for sock in opened:
            sock.close()
        while server.connections:
            time.sleep(0.02)
        with client(server.path) as http:
            assert http.get("/").status_code == 200
    finally:
        for sock in opened:
            sock.close()
        server.stop()
