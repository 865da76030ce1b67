"""What is locked, for whom and until when: the rules, on boards of the test's own."""

import os
from pathlib import Path

import pytest

from carbonsched.clocks.leases import Leases, recorded
from carbonsched.clocks.request import Request
from carbonsched.errors import InputError, PowerError, StateError

A, B = "GPU-aaaaaaaa", "GPU-bbbbbbbb"
ME = os.getpid()


class Boards:
    """Two boards; what was done to them is in `said`."""

    def __init__(self) -> None:
        self.said: list[str] = []
        self.on: tuple[int, ...] = ()
        self.mig = False
        self.broken = False

    def clocks(self, board: str) -> tuple[int, ...]:
        return (1410, 1200, 900)

    def lock(self, board: str, mhz: int) -> None:
        if self.broken:
            raise PowerError("no")
        self.said.append(f"{board} {mhz}")

    def reset(self, board: str) -> None:
        if self.broken:
            raise PowerError("no")
        self.said.append(f"{board} reset")

    def users(self, board: str) -> tuple[int, ...]:
        return self.on

    def split(self, board: str) -> bool:
        return self.mig


@pytest.fixture
def boards() -> Boards:
    return Boards()


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def leases(boards: Boards, clock: Clock, tmp_path: Path) -> Leases:
    return Leases(boards, tmp_path / "locked", clock)


def lock(board: str = A, mhz: int = 1200, pid: int = ME) -> Request:
    return Request("lock", board, mhz, pid, 15.0)


def test_a_lease_is_renewed_and_lapses(boards: Boards, clock: Clock, leases: Leases) -> None:
    leases.lock(lock(), uid=0)
    clock.now = 14.0
    leases.lock(lock(), uid=0)
    clock.now = 28.0
    leases.expire()
    assert boards.said == [f"{A} 1200"]  # a renewal does not touch the board
    clock.now = 29.0
    leases.expire()
    leases.expire()
    assert boards.said == [f"{A} 1200", f"{A} reset"]


def test_the_name_is_written_before_the_clock_is_locked(
    leases: Leases, boards: Boards, tmp_path: Path
) -> None:
    seen: list[list[str]] = []
    boards.lock = lambda board, mhz: seen.append(recorded(tmp_path / "locked"))  # type: ignore[method-assign]
    boards.reset = lambda board: seen.append(recorded(tmp_path / "locked"))  # type: ignore[method-assign]
    leases.lock(lock(A), uid=0)
    leases.lock(lock(B), uid=0)
    leases.reset(A)
    assert seen == [[A], [A, B], [A, B]]
    assert recorded(tmp_path / "locked") == [B]


def test_the_next_helper_resets_what_is_written(
    boards: Boards, clock: Clock, leases: Leases, tmp_path: Path
) -> None:
    leases.lock(lock(A), uid=0)
    boards.said.clear()
    boards.broken = True
    again = Leases(boards, tmp_path / "locked", clock)
    again.restore()
    assert recorded(tmp_path / "locked") == [A]
    boards.broken = False
    again.expire()
    assert boards.said == [f"{A} reset"]
    assert recorded(tmp_path / "locked") == []


@pytest.mark.parametrize("case", ["stranger", "instances", "other job", "clock", "pid", "owner"])
def test_never_on_a_board_that_is_shared_nor_for_what_is_not_the_callers(
    boards: Boards, leases: Leases, case: str
) -> None:
    uid, request = 0, lock()
    if case == "stranger":
        boards.on = (ME, os.getppid())
    elif case == "instances":
        boards.mig = True
    elif case == "other job":
        leases.lock(lock(pid=os.getppid()), uid=0)
        boards.said.clear()
    elif case == "clock":
        request = lock(mhz=1201)
    elif case == "pid":
        request = lock(pid=2**31 - 1)
    else:
        uid = 12345
    with pytest.raises((StateError, InputError)):
        leases.lock(request, uid)
    # what was locked there is reset, too
    assert boards.said == ([f"{A} reset"] if case == "other job" else [])


def test_who_comes_later_ends_it(boards: Boards, leases: Leases) -> None:
    boards.on = (ME,)
    leases.lock(lock(pid=os.getppid()), uid=0)  # what it started may
    leases.expire()
    assert boards.said == [f"{A} 1200"]
    boards.on = (ME, 1)
    leases.expire()
    assert boards.said == [f"{A} 1200", f"{A} reset"]


def test_a_driver_that_refuses_to_lock_leaves_nothing_behind(
    boards: Boards, leases: Leases, tmp_path: Path
) -> None:
    boards.broken = True
    with pytest.raises(PowerError):
        leases.lock(lock(), uid=0)
    assert (leases.held, recorded(tmp_path / "locked")) == ({}, [])
