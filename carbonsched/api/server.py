"""Serves the API on a Unix socket of mode 0660, with the caller's credentials in every request, from one thread.

uvicorn's own `uds=` makes the socket world-writable, so it is bound here: under a hidden name, given its mode, and only
then renamed into place, which also replaces a stale one without a gap.
"""

import asyncio
import contextlib
import fcntl
import os
import socket
import stat
import threading
import time
from pathlib import Path
from typing import IO

import uvicorn
from starlette.types import ASGIApp

from carbonsched.api import tcp
from carbonsched.api.connection import Connection
from carbonsched.errors import InputError, StateError

SOCKET_MODE = 0o660
PATH_BYTES = 107
"""Longest possible path of a Unix socket (sun_path, less its end)."""
START_S = 10.0
STOP_S = 3.0


class _Waiting(uvicorn.Server):
    """uvicorn's server, but it waits for its end, where uvicorn's own checks ten times a second whether it has ended."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self._end = asyncio.Event()
        self._loop: asyncio.AbstractEventLoop | None = None

    async def main_loop(self) -> None:
        self._loop = asyncio.get_running_loop()
        if not self.should_exit:
            await self._end.wait()

    def end(self) -> None:
        """From any thread; safe to call twice."""
        self.should_exit = True
        if self._loop is not None:
            with contextlib.suppress(RuntimeError):  # it has ended
                self._loop.call_soon_threadsafe(self._end.set)


class Server:
    """Serves an application on a socket until stopped. It can be started and stopped once.

    Example::

        server = Server(create_app(service), Path("/run/carbonsched/api.sock"))
        server.start()
        server.stop()
    """

    def __init__(self, app: ASGIApp, path: Path, tcp_address: tuple[str, int] | None = None) -> None:
        """tcp_address: of a second listener, on loopback; None: only the socket."""
        self.path, self._tcp_address = path, tcp_address
        config = uvicorn.Config(
            app,
            loop="asyncio",
            http=Connection,
            ws="none",
            lifespan="on",
            log_config=None,
            access_log=False,
            server_header=False,
            date_header=False,  # `Connection` adds the date to its responses itself
            timeout_keep_alive=5,
            timeout_graceful_shutdown=2,
        )
        self._server = _Waiting(config)
        self._thread: threading.Thread | None = None
        self._lock: IO[bytes] | None = None
        self._inode: int | None = None

    def start(self) -> None:
        """Bind and serve from a background thread; returns once requests are answered.

        Raises StateError if another daemon answers on the socket, InputError for an invalid address.
        """
        self._lock = _lock(self.path)
        socks: list[socket.socket] = []
        try:
            if self._tcp_address is not None:
                socks.append(tcp.bind(self._tcp_address))
            socks.append(bind(self.path))
        except BaseException:
            for sock in socks:
                sock.close()
            self._lock.close()
            raise
        self._inode = self.path.stat().st_ino
        self._thread = threading.Thread(target=self._serve, args=(socks,), name="api", daemon=True)
        self._thread.start()
        deadline = time.monotonic() + START_S
        while not self._server.started:
            if not self._thread.is_alive() or time.monotonic() > deadline:
                self.stop()
                raise StateError(f"the API did not start on {self.path}; the log says why")
            time.sleep(0.005)

    @property
    def connections(self) -> int:
        """Number of open connections."""
        return len(self._server.server_state.connections)

    def stop(self) -> None:
        """Let running requests end (for a moment), then remove the socket. Safe to call twice."""
        self._server.end()
        if self._thread is not None:
            self._thread.join(STOP_S)
        if self._inode is not None and _inode(self.path) == self._inode:
            self.path.unlink(missing_ok=True)
        self._inode = None
        if self._lock is not None:
            self._lock.close()

    def _serve(self, socks: list[socket.socket]) -> None:
        asyncio.run(self._server.serve(sockets=socks))


def serve(app: ASGIApp, socket_path: Path, tcp_address: tuple[str, int] | None = None) -> Server:
    """A server for `app`, not yet started."""
    return Server(app, socket_path, tcp_address)


def bind(path: Path) -> socket.socket:
    """A listening socket at `path`, mode 0660. It replaces a stale socket, but not one that is answered."""
    if len(os.fsencode(path)) > PATH_BYTES - len(".new"):
        raise InputError("api.socket", f"{path} is too long for a Unix socket", "choose a shorter path")
    _refuse_if_taken(path)
    fresh = path.with_name(f"{path.name}.new")
    fresh.unlink(missing_ok=True)
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        sock.bind(str(fresh))
        fresh.chmod(SOCKET_MODE)
        sock.listen(128)
        fresh.rename(path)
    except OSError as e:
        sock.close()
        fresh.unlink(missing_ok=True)
        raise _unusable(path, e) from e
    return sock


def _refuse_if_taken(path: Path) -> None:
    try:
        mode = path.lstat().st_mode
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(mode):
        raise InputError("api.socket", f"{path} is there and is no socket", "move it or choose another path")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(2.0)
        try:
            probe.connect(str(path))
        except (ConnectionRefusedError, FileNotFoundError):
            return  # stale: its daemon is gone
        except OSError as e:
            raise StateError(f"cannot tell whether a daemon answers on {path}: {e.strerror or e}") from e
    raise _taken(path)


def _lock(path: Path) -> IO[bytes]:
    """Held as long as the server lives, so that two daemons that start together do not replace each other's socket."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o755)
        file = path.with_name(f"{path.name}.lock").open("ab")
    except OSError as e:
        raise _unusable(path, e) from e
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as e:
        file.close()
        raise _taken(path) from e
    return file


def _taken(path: Path) -> StateError:
    return StateError(
        f"another daemon already serves {path}; stop it first, or give this one its own api.socket"
    )


def _unusable(path: Path, error: OSError) -> InputError:
    return InputError(
        "api.socket", f"{path} cannot be bound: {error.strerror}", "choose a folder you can write"
    )


def _inode(path: Path) -> int | None:
    try:
        return path.lstat().st_ino
    except OSError:
        return None
