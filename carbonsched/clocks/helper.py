"""Serves a Unix socket: locks and resets clocks for callers with an allowed uid, as the kernel reports it, and for nobody else."""

import contextlib
import json
import logging
import pwd
import selectors
import signal
import socket
import struct
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import IO

from carbonsched.clocks.boards import Boards, NvmlBoards
from carbonsched.clocks.guard import start_guard, take_place
from carbonsched.clocks.leases import Leases
from carbonsched.clocks.request import MOST_BYTES, Request
from carbonsched.errors import CarbonschedError, InputError, StateError

log = logging.getLogger(__name__)

SOCKET_MODE = 0o660
_LOOK_S = 1.0
"""Pause between two checks of leases, processes and the guard."""
_ASK_S = 1.0
"""Longest time of a caller's request."""
_UCRED = struct.Struct("iII")


class Helper:
    """Serves until SIGTERM or SIGINT; then, or after any other end, every clock is reset.

    Example::

        Helper(Path("/run/carbonsched-clocks/helper.sock"), Path("/run/carbonsched-clocks/locked"), {991}).run()
    """

    def __init__(self, path: Path, file: Path, uids: set[int], boards: Boards | None = None) -> None:
        """uids: allowed callers, beside root. Raises StateError if another helper is in charge of the file."""
        self.path, self.file, self.uids = path, file, {0, *uids}
        place = take_place(file)
        if place is None:
            raise StateError(f"another helper minds {file}; stop it first")
        self._place: IO[bytes] = place
        self.leases = Leases(boards or NvmlBoards(), file, time.monotonic)
        self._guard: subprocess.Popen[bytes] | None = None
        self._stopped = False

    def run(self, ready: Callable[[], None] = lambda: None) -> None:
        """ready: called once requests are answered."""
        wake, waker = socket.socketpair()
        wake.setblocking(False)
        waker.setblocking(False)
        signal.set_wakeup_fd(waker.fileno(), warn_on_full_buffer=False)
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._stop)
        try:
            self.leases.restore()
            self._mind_guard()
            with bind(self.path) as listener, selectors.DefaultSelector() as selector:
                selector.register(listener, selectors.EVENT_READ)
                selector.register(wake, selectors.EVENT_READ)
                ready()
                self._serve(listener, wake, selector)
        finally:
            self.leases.restore()
            self.path.unlink(missing_ok=True)
            self._end_guard()
            self._place.close()

    def _serve(self, listener: socket.socket, wake: socket.socket, selector: selectors.BaseSelector) -> None:
        due_s = time.monotonic() + _LOOK_S
        while not self._stopped:
            for key, _ in selector.select(max(due_s - time.monotonic(), 0.0)):
                if key.fileobj is listener:
                    caller, _ = listener.accept()
                    with caller:
                        self._answer(caller)
                else:
                    wake.recv(64)
            if time.monotonic() >= due_s:
                self.leases.expire()
                self._mind_guard()
                due_s = time.monotonic() + _LOOK_S

    def _stop(self, *_: object) -> None:
        self._stopped = True

    def _answer(self, caller: socket.socket) -> None:
        caller.settimeout(_ASK_S)
        _, uid, _ = _UCRED.unpack(caller.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _UCRED.size))
        with contextlib.suppress(OSError):  # a caller that is gone, or too slow
            answer = self._answer_to(_line(caller), uid)
            caller.sendall(json.dumps(answer).encode() + b"\n")

    def _answer_to(self, line: bytes, uid: int) -> dict[str, object]:
        try:
            if uid not in self.uids:
                raise StateError(f"uid {uid} may not ask")
            return self._do(Request.read(line), uid)
        except CarbonschedError as e:
            return {"ok": False, "error": str(e)}
        except OSError as e:
            log.warning("%s: %s", self.file, e)
            return {"ok": False, "error": f"what is locked cannot be written down: {e.strerror}"}

    def _do(self, request: Request, uid: int) -> dict[str, object]:
        if request.op == "levels":
            return {"ok": True, "clocks": self.leases.levels(request.board)}
        if request.op == "lock":
            self.leases.lock(request, uid)
            return {"ok": True, "mhz": request.mhz}
        self.leases.reset(request.board)
        return {"ok": True, "mhz": None}

    def _mind_guard(self) -> None:
        if self._guard is None or self._guard.poll() is not None:
            if self._guard is not None:
                log.warning("the guard has ended, another one is started")
            self._guard = start_guard(self.file)

    def _end_guard(self) -> None:
        if self._guard is not None and self._guard.stdin is not None:
            self._guard.stdin.close()


def _line(caller: socket.socket) -> bytes:
    """A request up to its newline. Raises OSError if the caller does not send one in time."""
    found, until_s = b"", time.monotonic() + _ASK_S
    while b"\n" not in found:
        part = caller.recv(MOST_BYTES)
        if not part or time.monotonic() > until_s:
            raise TimeoutError
        found += part
        if len(found) > MOST_BYTES:
            break  # the parser reports it
    return found.partition(b"\n")[0]


def bind(path: Path) -> socket.socket:
    """A listening socket of mode 0660 that replaces a stale one. The caller is in charge of the file, so there is no other helper."""
    fresh = path.with_name(f"{path.name}.new")
    fresh.unlink(missing_ok=True)
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    sock.bind(str(fresh))
    fresh.chmod(SOCKET_MODE)
    sock.listen(16)
    fresh.rename(path)
    return sock


def uid_of(user: str) -> int:
    """The uid of a name or a number. Raises InputError."""
    if user.isdigit():
        return int(user)
    try:
        return pwd.getpwnam(user).pw_uid
    except KeyError as e:
        raise InputError("--user", f"there is no user {user}", "name the daemon's") from e
