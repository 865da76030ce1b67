"""Keeps which boards are locked, for which process and until when, and resets them at the end of that.

A board's name is in the file before its clock is locked and leaves it after the reset, so that the guard or the next helper
of a killed helper knows what to reset.
"""

import logging
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from carbonsched.clocks.boards import Boards
from carbonsched.clocks.request import Request
from carbonsched.errors import InputError, PowerError, StateError

log = logging.getLogger(__name__)

_DEPTH = 100
"""Most ancestors of a process that are checked."""


@dataclass(frozen=True, slots=True)
class Lease:
    """One locked board.

    Example:
        >>> Lease(mhz=1200, pid=4711, until_s=60.0).mhz
        1200
    """

    mhz: int
    pid: int
    until_s: float
    """Monotonic time."""


class Leases:
    """The locked boards of a helper.

    Example::

        leases = Leases(NvmlBoards(), Path("/run/carbonsched-clocks/locked"), time.monotonic)
        leases.restore()  # boards that an earlier helper left locked
        leases.lock(request, uid=0)
        leases.expire()  # once a second
    """

    def __init__(self, boards: Boards, file: Path, monotonic: Callable[[], float]) -> None:
        """file: the names of the boards that are locked, or about to be locked."""
        self._boards, self._file, self._monotonic = boards, file, monotonic
        self.held: dict[str, Lease] = {}
        self._owed: set[str] = set(recorded(file))
        """Boards whose reset has not succeeded yet."""
        self._logged: set[str] = set()
        """Those of them that the log has reported."""

    def levels(self, board: str) -> tuple[int, ...]:
        return self._boards.clocks(board)

    def lock(self, request: Request, uid: int) -> None:
        """Lock, or renew for another lease. uid: the caller's, from the kernel.

        Raises InputError for an invalid clock or process, StateError for a board that others use.
        """
        board, pid = request.board, request.pid
        if request.mhz not in self._boards.clocks(board):
            raise InputError("mhz", f"{request.mhz} is none of the clocks that {board} supports")
        owner = _uid(pid)
        if owner is None or uid not in (0, owner):
            raise InputError("pid", f"process {pid} is not there, or not the caller's")
        held = self.held.get(board)
        try:
            self._check_alone(board, pid)
        except (StateError, PowerError):
            self.reset(board)
            raise
        if held is None or held.mhz != request.mhz:
            self._record({*self.held, board})
            try:
                self._boards.lock(board, request.mhz)
            except PowerError:
                self._record(set(self.held))  # as before
                raise
            self._owed.discard(board)
            log.info("%s locked at %d MHz for process %d", board, request.mhz, pid)
        self.held[board] = Lease(request.mhz, pid, self._monotonic() + request.lease_s)

    def reset(self, board: str) -> None:
        """Restore the board's own clock if it was locked here; `expire` tries again if the driver refuses."""
        if self.held.pop(board, None) is None and board not in self._owed:
            return
        self._owed.add(board)
        try:
            self._boards.reset(board)
        except PowerError as e:
            if board not in self._logged:
                self._logged.add(board)
                log.warning("%s is not reset yet, which is tried again: %s", board, e)
        else:
            self._owed.discard(board)
            self._logged.discard(board)
            log.info("%s runs at its own clock again", board)
        self._record(set(self.held))

    def expire(self) -> None:
        """Reset boards whose lease was not renewed, whose process has ended, or that another process uses."""
        for board, lease in list(self.held.items()):
            why = ""
            if self._monotonic() >= lease.until_s:
                why = "nobody renewed it"
            elif not _alive(lease.pid):
                why = "its process has ended"
            else:
                try:
                    self._check_alone(board, lease.pid)
                except (StateError, PowerError) as e:
                    why = str(e)
            if why:
                log.info("%s: %s", board, why)
                self.reset(board)
        for board in list(self._owed):
            self.reset(board)

    def restore(self) -> None:
        """Reset all boards, including those of an earlier helper."""
        for board in (*self.held, *self._owed):
            self.reset(board)

    def _check_alone(self, board: str, pid: int) -> None:
        held = self.held.get(board)
        if held is not None and held.pid != pid and _alive(held.pid):
            raise StateError(f"{board} is locked for process {held.pid}")
        if self._boards.split(board):
            raise StateError(f"{board} is split into instances, which have one clock")
        for user in self._boards.users(board):
            if pid not in _ancestors(user):
                raise StateError(f"{board} is not a job's alone: process {user} uses it, too")

    def _record(self, boards: set[str]) -> None:
        fresh = self._file.with_name(f"{self._file.name}.new")
        with fresh.open("w", encoding="ascii") as file:
            file.write("".join(f"{board}\n" for board in sorted(boards | self._owed)))
            file.flush()
            os.fsync(file.fileno())
        fresh.rename(self._file)


def recorded(file: Path) -> list[str]:
    """The boards that a helper locked and has not reset."""
    try:
        return file.read_text(encoding="ascii").split()
    except FileNotFoundError:
        return []


def _uid(pid: int) -> int | None:
    try:
        return Path(f"/proc/{pid}").stat().st_uid
    except OSError:
        return None


def _alive(pid: int) -> bool:
    fields = _stat(pid)
    return fields is not None and fields[0] not in "ZX"


def _ancestors(pid: int) -> Iterator[int]:
    """The process and its ancestors."""
    for _ in range(_DEPTH):
        yield pid
        fields = _stat(pid)
        if fields is None or int(fields[1]) <= 1:
            return
        pid = int(fields[1])


def _stat(pid: int) -> list[str] | None:
    """State, parent and so on; None: there is no such process."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None
    return text.rpartition(")")[2].split()
