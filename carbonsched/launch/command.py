"""A command that `carbonsched run` started and nobody holds: known by its pid and start time, and by a mark in its environment.

It is over when none of its processes is left, so that what it leaves in the background is metered to its end. No shim writes
how it ended: `carbonsched run` says it, and where that was killed nobody knows. A daemon that is neither root nor the command's user
cannot see the mark, nor under its unit the process: there the command holds a lock (`liveness_lock`), which the kernel lets go.
"""

import os
import signal
import time
from datetime import UTC, datetime
from pathlib import Path

from carbonsched.errors import InputError, LaunchError
from carbonsched.launch import liveness_lock, process_group, shim
from carbonsched.launch.leftover_processes import MARK
from carbonsched.model.job import Owner
from carbonsched.model.protocol import RunRecord

UNLOCKED_S = 10.0
"""A command whose lock nobody holds yet is taken to live for so long after it was told of: it takes it before it begins."""
_GENERATIONS = 100
_TICKS = os.sysconf("SC_CLK_TCK")


def identify(pid: int, argv: tuple[str, ...], owner: Owner) -> RunRecord:
    """Raises InputError for a process that is not the asker's own, or not beneath it."""
    try:
        found = process_group.look_up(pid)
    except OSError as e:
        raise LaunchError(f"process {pid} cannot be looked up: {e.strerror}") from e
    locked = os.geteuid() not in (0, owner.uid) or (found is None and _hidden(pid))
    if found is not None:
        own = owner.uid in (found.user, 0) and _beneath(found, owner.pid)
    else:
        own = locked and _beside(pid, owner.pid)
    if not own:
        raise InputError("pid", f"{pid} is no process of yours here", "give one that you started")
    return RunRecord(
        pid=pid,
        start_time=_ticks_now() if found is None else found.start_time,
        boot_id=shim.boot_id(),
        started_at=datetime.now(UTC),
        argv=argv,
        held=False,
        locked=locked,
    )


def _hidden(pid: int) -> bool:
    """Whether there is a process of this number all the same: a unit's /proc may show those of its own user alone."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:
        return not Path(f"/proc/{pid}").exists()
    return False  # our own: a zombie


def _beside(pid: int, asker: int | None) -> bool:
    """Whether two processes, of which /proc may show none, are of one process group: a shell makes one of what its user types."""
    return pid > 1 and bool(asker) and (mine := group_of(pid)) is not None and mine == group_of(asker or 0)


def group_of(pid: int) -> int | None:
    """Its process group, which the kernel tells also of a process that /proc hides; None: there is no such process."""
    try:
        return os.getpgid(pid)
    except OSError:
        return None


def _ticks_now() -> int:
    """In the unit of field 22 of /proc/PID/stat."""
    return int(time.clock_gettime(time.CLOCK_BOOTTIME) * _TICKS)


def starter_lives(run: RunRecord, owner: Owner) -> bool:
    """Whether the process that asked for it is there still; true where that cannot be seen. It began before the command did."""
    if owner.pid is None:
        return True
    if run.boot_id != shim.boot_id():
        return False
    try:
        found = process_group.look_up(owner.pid)
    except OSError:
        return True
    return _hidden(owner.pid) if found is None else found.start_time <= run.start_time


def lives(job_dir: Path, run: RunRecord, *, told: bool) -> bool:
    """Whether anything of it runs; told: how the command itself ended is known. Raises OSError where that cannot be seen now."""
    if not run.locked:
        return bool(living(job_dir, run))
    if liveness_lock.held(job_dir):
        return True
    young = run.boot_id == shim.boot_id() and _ticks_now() - run.start_time < UNLOCKED_S * _TICKS
    return young and not told


def living(job_dir: Path, run: RunRecord) -> list[process_group.Process]:
    """The command where it runs, and what it started, as far as it can be seen. Raises OSError where that cannot be told."""
    main = process_group.look_up(run.pid) if run.boot_id == shim.boot_id() else None
    first = [main] if main is not None and main.start_time == run.start_time else []
    return [*first, *process_group.members(job_dir, run, None, MARK)]


def count(job_dir: Path, run: RunRecord) -> int:
    """How many processes of it there are; 1 where the daemon can only tell that there are some. Raises OSError."""
    seen = len(living(job_dir, run))
    return seen or int(run.locked and liveness_lock.held(job_dir))


def send_signal(job_dir: Path, run: RunRecord, number: signal.Signals) -> None:
    """A signal to all of it. Raises OSError where it may not be sent.

    One with a lock is another user's: `carbonsched run` asks once a second whether it is to end, and tells it.
    """
    for process in () if run.locked else living(job_dir, run):
        process_group.send(process, number)


def _beneath(process: process_group.Process, above: int | None) -> bool:
    """Whether it is `above`, or was started by it; None: nobody on this box."""
    seen: process_group.Process | None = process
    for _ in range(_GENERATIONS):
        if seen is None:
            return False
        if above == seen.pid:
            return True
        seen = process_group.look_up(seen.parent)
    return False
