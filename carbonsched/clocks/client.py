"""The daemon's side of the helper: sends the wanted clocks, and renews them while the daemon ticks. Only its thread waits for the helper."""

import json
import logging
import socket
import threading
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

from carbonsched.clocks.request import Request

log = logging.getLogger(__name__)

LEASE_S: Final = 20.0
_RENEW_S: Final = 5.0
_BEAT_S: Final = 15.0
"""A daemon that has not ticked for this long renews nothing."""
_ANSWER_S: Final = 3.0
_SAID_AGAIN_S: Final = 600.0


@dataclass(frozen=True, slots=True)
class _Board:
    mhz: int | None = None
    """The wanted clock; None: the board's own."""
    pid: int = 0
    held: int | None = None
    """The clock that the helper last reported."""


class ClockClient:
    """Keeps boards at the wanted clocks, as far as the helper agrees.

    Example::

        client = ClockClient(Path("/run/carbonsched-clocks/helper.sock"))
        client.want("GPU-1f2e3d4c", 1200, pid=4711, wait_s=0.1)
        client.beat()  # at every tick
        client.held("GPU-1f2e3d4c")
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._boards: dict[str, _Board] = {}
        self._levels: dict[str, tuple[int, ...]] = {}
        self._lock = threading.Lock()
        self._due = threading.Event()
        self._done = threading.Event()
        self._stopped = False
        self._beat_s = time.monotonic()
        self._logged: tuple[str, float] = "", 0.0
        self._thread = threading.Thread(target=self._run, name="clocks", daemon=True)
        self._thread.start()

    def levels(self, board: str) -> tuple[int, ...]:
        """The supported clocks, MHz, descending; empty: unknown until the helper has reported them."""
        with self._lock:
            self._boards.setdefault(board, _Board())
        self._due.set()
        return self._levels.get(board, ())

    def want(self, board: str, mhz: int | None, pid: int = 0, *, wait_s: float = 0.0) -> int | None:
        """Set the wanted clock of a board from now on; None: its own. Returns its known clock, after at most `wait_s`."""
        with self._lock:
            before = self._boards.get(board, _Board())
            self._boards[board] = replace(before, mhz=mhz, pid=pid)
            if (before.mhz, before.pid) == (mhz, pid) and before.held == mhz:
                return mhz
            self._done.clear()
        self._due.set()
        self._done.wait(wait_s)
        return self.held(board)

    def held(self, board: str) -> int | None:
        """The locked clock, MHz; None: not locked."""
        with self._lock:
            return self._boards.get(board, _Board()).held

    def wanted(self) -> dict[str, int]:
        """The boards with a wanted clock, and the process that it is for."""
        with self._lock:
            return {board: one.pid for board, one in self._boards.items() if one.mhz is not None}

    def beat(self) -> None:
        """The daemon has ticked."""
        self._beat_s = time.monotonic()

    def stop(self) -> None:
        """The boards get their own clocks again; running jobs go on at those."""
        with self._lock:
            self._boards = {board: replace(one, mhz=None) for board, one in self._boards.items()}
        self._stopped = True
        self._due.set()
        self._thread.join(_ANSWER_S)

    # ---- its thread

    def _run(self) -> None:
        while True:
            last = self._stopped
            self._due.wait(_RENEW_S)
            self._due.clear()
            with self._lock:
                boards = dict(self._boards)
            for board, one in boards.items():
                self._bring(board, one)
            self._done.set()
            if last or self._stopped:
                return

    def _bring(self, board: str, one: _Board) -> None:
        if board not in self._levels and (told := self._ask(Request("levels", board))):
            self._levels[board] = tuple(told.get("clocks", ()))
        if one.mhz is None:
            if one.held is not None and self._ask(Request("reset", board)):
                self._note(board, None)
        elif time.monotonic() - self._beat_s < _BEAT_S:
            told = self._ask(Request("lock", board, one.mhz, one.pid, LEASE_S))
            self._note(board, None if told is None else one.mhz)

    def _note(self, board: str, held: int | None) -> None:
        with self._lock:
            self._boards[board] = replace(self._boards[board], held=held)

    def _ask(self, request: Request) -> dict[str, Any] | None:
        """The helper's response; None: it refused or did not respond, which the log says once."""
        try:
            with socket.socket(socket.AF_UNIX) as caller:
                caller.settimeout(_ANSWER_S)
                caller.connect(str(self._path))
                caller.sendall(request.write())
                answer = json.loads(caller.makefile("rb").readline())
        except (OSError, ValueError) as e:
            self._refused(f"the helper does not answer on {self._path}: {e}")
            return None
        if isinstance(answer, dict) and answer.get("ok") is True:
            return answer
        self._refused(str(answer.get("error") if isinstance(answer, dict) else answer))
        return None

    def _refused(self, why: str) -> None:
        text, said_s = self._logged
        if why != text or time.monotonic() - said_s > _SAID_AGAIN_S:
            self._logged = why, time.monotonic()
            log.warning("clocks: %s", why)
