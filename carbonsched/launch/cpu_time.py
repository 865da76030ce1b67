"""Reads CPU time: what the processes of a job used since they began, and what the whole box used.

A job's time is its cgroup's if it has one of its own; otherwise that of its process tree: each process's own time and that of the children
it has waited for, which moves to the parent at the moment a child is reaped. So the sum neither counts a child twice nor loses one that
ended. Only a child that its parent does not wait for (SIGCHLD ignored) loses its time: the kernel keeps it nowhere.
"""

import os
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from carbonsched.launch.process_group import Process

_PROC: Final = Path("/proc")
_TICKS_PER_S: Final = os.sysconf("SC_CLK_TCK")
_START: Final = 19
_TIMES: Final = slice(11, 15)
"""utime, stime, cutime, cstime of proc_pid_stat(5), counted from the state on."""
_BUSY: Final = (0, 1, 2, 5, 6)
"""user, nice, system, irq, softirq of proc_stat(5); guests are in the first two, stolen time is other machines'."""
LOOK_S: Final = 10.0
"""Interval at which processes of a command outside its process tree are searched for: that scans all processes of the box."""


def cgroup_s(folder: Path | None) -> float | None:
    """CPU seconds of a version 2 cgroup and everything below it (`usage_usec`); None if it does not exist or nothing ran in it."""
    with suppress(OSError, ValueError, StopIteration):
        if folder is not None:
            lines = (folder / "cpu.stat").read_text().splitlines()
            usage = int(next(line for line in lines if line.startswith("usage_usec ")).split()[1])
            return usage / 1e6 if usage else None
    return None


def box_s(proc: Path = _PROC) -> float | None:
    """CPU seconds that any processor of the box was busy since boot; None if the kernel does not report it."""
    with suppress(OSError, ValueError, IndexError), (proc / "stat").open("rb") as file:
        times = file.readline().split()[1:]
        return sum(int(times[column]) for column in _BUSY) / _TICKS_PER_S
    return None


def tree_s(pid: int, start_time: int, proc: Path = _PROC) -> float | None:
    """CPU seconds of a process and all its descendants, including zombies and reaped ones; None if it is gone. Read from the top down: a
    child that is reaped meanwhile is missed once, never counted twice."""
    fields = _fields(pid, proc)
    if fields is None or int(fields[_START]) != start_time:
        return None
    seconds, beneath, found = _seconds(fields), [pid], _Children(proc)
    while beneath:
        for child in found.of(beneath.pop()):
            if (fields := _fields(child, proc)) is not None:
                seconds += _seconds(fields)
                beneath.append(child)
    return seconds


@dataclass(slots=True)
class _Children:
    """The children of each process: from the kernel's list, or without one (no CONFIG_PROC_CHILDREN) from one scan of all processes."""

    proc: Path
    _all: dict[int, list[int]] | None = None

    def of(self, pid: int) -> list[int]:
        if self._all is None:
            try:
                return list(self._listed(pid))
            except FileNotFoundError:
                self._all = {}
                for name in os.listdir(self.proc):  # noqa: PTH208 - a Path each would double the time
                    if name.isdigit() and (fields := _fields(int(name), self.proc)) is not None:
                        self._all.setdefault(int(fields[1]), []).append(int(name))
        return self._all.get(pid, [])

    def _listed(self, pid: int) -> Iterator[int]:
        tasks = self.proc / str(pid) / "task"
        with suppress(ProcessLookupError):
            for thread in tasks.iterdir() if tasks.is_dir() else ():
                yield from map(int, (thread / "children").read_text().split())


@dataclass(slots=True)
class CommandRoots:
    """The topmost processes of a command, searched for every ten seconds.

    Example::

        roots = CommandRoots(lambda: command.living(job_dir, run))
        seconds = [tree_s(root.pid, root.start_time) for root in roots.now(run.pid)]
    """

    find: Callable[[], Iterable[Process]]
    """Find all its processes. Raises OSError."""
    _roots: list[Process] = field(default_factory=list)
    _looked_s: float | None = None

    def now(self) -> list[Process]:
        """The result of the last search. Raises OSError if that cannot be determined."""
        at = time.monotonic()
        if self._looked_s is None or at - self._looked_s >= LOOK_S:
            found = list(self.find())
            pids = {process.pid for process in found}
            self._roots = [process for process in found if process.parent not in pids]
            self._looked_s = at
        return self._roots


def _fields(pid: int, proc: Path) -> list[bytes] | None:
    """The fields of /proc/PID/stat from the state on."""
    try:
        with open(f"{proc}/{pid}/stat", "rb") as file:  # noqa: PTH123 - many a second
            fields = file.read().rpartition(b")")[2].split()
    except OSError:
        return None
    return fields if len(fields) > _START else None


def _seconds(fields: list[bytes]) -> float:
    return sum(map(int, fields[_TIMES])) / _TICKS_PER_S
