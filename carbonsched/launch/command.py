"""A command that `carbonsched run` started and nobody holds: known by its pid and start time, and by a mark in its environment.

It is over when none of its processes is left, so that what it leaves in the background is metered to its end. No shim writes
how it ended: `carbonsched run` says it, and where that was killed nobody knows.
"""

import os
import signal
from datetime import UTC, datetime
from pathlib import Path

from carbonsched.errors import InputError, LaunchError
from carbonsched.launch import process_group, shim
from carbonsched.model.job import Owner
from carbonsched.model.protocol import RunRecord

MARK = "CARBONSCHED_RUN_DIR"
"""In the environment of the command and of all that it starts."""
_GENERATIONS = 100


def identify(pid: int, argv: tuple[str, ...], owner: Owner) -> RunRecord:
    """Raises InputError for a process that is not the asker's own, or not beneath it."""
    try:
        found = process_group.look_up(pid)
    except OSError as e:
        raise LaunchError(f"process {pid} cannot be looked up: {e.strerror}") from e
    if found is None and _hidden(pid):
        raise LaunchError(
            f"process {pid} is hidden from the daemon, whose unit says ProtectProc=invisible; an admin lets it see users' "
            "processes: systemctl edit carbonsched, [Service], ProtectProc=default"
        )
    if found is None or owner.uid not in (found.user, 0) or not _beneath(found, owner.pid):
        raise InputError("pid", f"{pid} is no process of yours here", "give one that you started")
    return RunRecord(
        pid=pid,
        start_time=found.start_time,
        boot_id=shim.boot_id(),
        started_at=datetime.now(UTC),
        argv=argv,
        held=False,
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


def living(job_dir: Path, run: RunRecord) -> list[process_group.Process]:
    """The command where it runs, and what it started. Raises OSError where that cannot be told."""
    main = process_group.look_up(run.pid) if run.boot_id == shim.boot_id() else None
    first = [main] if main is not None and main.start_time == run.start_time else []
    return [*first, *process_group.members(job_dir, run, None, MARK)]


def tell(job_dir: Path, run: RunRecord, number: signal.Signals) -> None:
    """A signal to all of it. Raises OSError where it may not be sent."""
    for process in living(job_dir, run):
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
