"""Finds and ends every process of a job: its cgroup where there is one, and else by mark, session and descent.

A job's shim sweeps up what CMD leaves; where the shim was killed, nobody does, and what CMD had started is on the job's
device still. It is found by what it cannot all shed: `CARBONSCHED_JOB_DIR` in its environment, the shim's session, a parent
that is found. One that left all three behind (a double fork into a session of its own with another environment) is found
only in the job's cgroup, which needs a service with `Delegate=yes` (docs/install.md).
"""

import contextlib
import errno
import os
import signal
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from carbonsched.launch import leftover_processes, shim
from carbonsched.model.protocol import RunRecord

HELD = "CARBONSCHED_SHIM_OF"
"""A variable that, unlike `shim.MARK`, is also in the environment of the shim itself."""
_ROUNDS, _PAUSE_S = 5, 0.02
"""Repeated, because one process may fork while another is being killed."""
_NO_CGROUP = (errno.ENOENT, errno.ENODEV, errno.EOPNOTSUPP)
"""Errors of a cgroup that is missing, or was removed meanwhile; or one of threads, whose processes are above it."""
_OUT_OF_FILES = (errno.EMFILE, errno.ENFILE, errno.ENOMEM)


@dataclass(frozen=True, slots=True)
class Process:
    """A process as it was seen.

    Example:
        >>> import os
        >>> next(p for p in processes() if p.pid == os.getpid()).parent == os.getppid()
        True
    """

    pid: int
    parent: int
    session: int
    start_time: int
    """With the pid it identifies a process for ever."""
    user: int


def processes() -> Iterator[Process]:
    """All visible running processes of this machine; no zombies. Raises OSError if none is visible."""
    for name in os.listdir("/proc"):  # noqa: PTH208 - a Path each would double the time
        if name.isdigit() and (found := look_up(int(name))) is not None:
            yield found


def look_up(pid: int) -> Process | None:
    """The process with this pid; None if there is none, or it is a zombie. Raises OSError if that cannot be seen now."""
    try:
        fields, user = shim.stat_fields(pid), os.stat(f"/proc/{pid}").st_uid  # noqa: PTH116
    except OSError as e:
        if e.errno in _OUT_OF_FILES:
            raise
        return None
    if len(fields) < 20 or fields[0] in "ZX":
        return None
    return Process(pid, int(fields[1]), int(fields[3]), int(fields[19]), user)


def marked(job_dir: Path, *names: str) -> list[Process]:
    """Processes whose environment has `job_dir` as one of `names`. Raises OSError if that cannot be seen now."""
    marks = {f"{name}={job_dir}".encode() for name in names}
    return [p for p in processes() if p.pid != os.getpid() and not marks.isdisjoint(_environment(p))]


def shims(job_dir: Path) -> list[Process]:
    """The job's shim, found without run.json: it holds the job but does not have its mark."""
    inside = {process.pid for process in marked(job_dir, shim.MARK)}
    return [process for process in marked(job_dir, HELD) if process.pid not in inside]


def members(
    job_dir: Path, run: RunRecord | None, cgroup: Path | None, name: str = shim.MARK
) -> list[Process]:
    """Every process of the job but its shim; `name` marks them. Raises OSError if that cannot be seen now."""
    seen = [process for process in processes() if process.pid not in (1, os.getpid())]
    mark = f"{name}={job_dir}".encode()
    inside = listed(cgroup)
    ours = {p.pid for p in seen if p.pid in inside or mark in _environment(p)}
    if run is not None and run.boot_id == shim.boot_id():
        users = _users(job_dir)
        # a pid is not reused while its session has members
        theirs = any(p.pid == run.pid and p.start_time != run.start_time for p in seen)
        if not theirs:
            ours |= {
                p.pid
                for p in seen
                if run.pid in (p.session, p.parent) and p.start_time >= run.start_time and p.user in users
            }
    while more := {p.pid for p in seen if p.parent in ours} - ours:
        ours |= more
    holder = None if run is None else (run.pid, run.start_time)
    return [p for p in seen if p.pid in ours and (p.pid, p.start_time) != holder]


def end(find: Callable[[], list[Process]]) -> int:
    """Send SIGKILL to what `find` finds until it finds nothing, for a moment; returns how many are left. Raises OSError."""
    for _ in range(_ROUNDS):
        found = find()
        if not found:
            return 0
        for process in found:
            send(process, signal.SIGKILL)
        time.sleep(_PAUSE_S)
    return len(find())


def send(process: Process, number: signal.Signals) -> None:
    """Send a signal to exactly this process; no error if it is gone. Raises OSError if that is not permitted."""
    try:
        handle = os.pidfd_open(process.pid)
    except ProcessLookupError:
        return
    try:
        # checked after opening the pidfd: the pid cannot be reused any more
        if shim.start_time(process.pid) == process.start_time:
            signal.pidfd_send_signal(handle, number)
    except (ProcessLookupError, FileNotFoundError):
        pass
    finally:
        os.close(handle)


def delegated_cgroup() -> Path | None:
    """The cgroup that systemd delegated to the daemon (`Delegate=yes`); None: it did not, or it is not writable."""
    with contextlib.suppress(OSError, ValueError, StopIteration):
        own = next(
            line[3:] for line in Path("/proc/self/cgroup").read_text().splitlines() if line.startswith("0::")
        )
        folder = Path(f"{_cgroup2()}{own}")
        if os.getxattr(folder, "user.delegate") == b"1" and os.access(folder / "cgroup.procs", os.W_OK):
            return folder
    return None


def slice_of(name: str) -> Path | None:
    """The cgroup of a systemd slice, whether it exists now or not; None: this box has no version 2 cgroups."""
    with contextlib.suppress(OSError, StopIteration):
        return _cgroup2() / name
    return None


def _cgroup2() -> Path:
    lines = map(str.split, Path("/proc/self/mounts").read_text().splitlines())
    return Path(next(fields[1] for fields in lines if fields[2] == "cgroup2"))


def cgroup_of(parent: Path, job_dir: Path) -> Path:
    return parent / f"job-{job_dir.name}"


def make_cgroup(parent: Path | None, job_dir: Path) -> Path | None:
    """Make the cgroup of a job that is about to start; None if that is impossible."""
    if parent is None:
        return None
    group = cgroup_of(parent, job_dir)
    try:
        group.mkdir(exist_ok=True)
    except OSError:
        return None
    return group


def remove_cgroup(group: Path | None) -> None:
    """Remove it if it is empty."""
    if group is not None:
        with contextlib.suppress(OSError):
            group.rmdir()


def listed(cgroup: Path | None) -> set[int]:
    """The pids in a cgroup and below it; none if it does not exist. Raises OSError if that cannot be seen now."""
    found: set[int] = set()
    for folder, _, _ in () if cgroup is None else os.walk(cgroup, onerror=_unless_gone):
        try:
            found.update(map(int, Path(folder, "cgroup.procs").read_text().split()))
        except OSError as e:
            _unless_gone(e)
    return found


def _unless_gone(error: OSError) -> None:
    if error.errno not in _NO_CGROUP:
        raise error


def _environment(process: Process) -> list[bytes]:
    try:
        return leftover_processes.environment(process.pid)
    except OSError as e:
        if e.errno in _OUT_OF_FILES:
            raise
        return []


def _users(job_dir: Path) -> set[int]:
    """The users who may run processes of the job: the daemon's user, and the owner of these files."""
    found = {os.geteuid()}
    for name in ("events.jsonl", "checkpoints", "output"):
        with contextlib.suppress(OSError):
            found.add((job_dir / name).lstat().st_uid)
    return found
