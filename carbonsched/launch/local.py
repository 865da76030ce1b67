"""Starts jobs as processes of this machine, each held by a shim that outlives the daemon (see `shim`).

run.json identifies a job: pid, start time and boot id together, held fast by a pidfd while it is signalled, so a
reused pid is never taken for the job. The job directory stays the daemon's; an owner gets only what the trainer writes
(`events.jsonl`, `checkpoints/`, `output/`), so no owner can plant a link where the daemon, as root, writes next.
"""

import contextlib
import errno
import os
import pwd
import signal
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from pydantic import ValidationError

from carbonsched.errors import InputError, LaunchError
from carbonsched.launch import command, cpu_time, liveness_lock, process_group, shim
from carbonsched.launch.base import ProcessStatus
from carbonsched.launch.handover import check_readable, handed_over, runs_as_owner
from carbonsched.launch.job_folder import make_written, open_to_owner, readable_umask
from carbonsched.model.base import Doc
from carbonsched.model.error_words import first_words
from carbonsched.model.files import load, read, save
from carbonsched.model.job import JobSpec, Owner
from carbonsched.model.protocol import ExitRecord, RunRecord
from carbonsched.text import several

_PRIVATE = (
    "NOTIFY_SOCKET",
    "WATCHDOG_",
    "LISTEN_",
    "CREDENTIALS_DIRECTORY",
    "INVOCATION_ID",
    "JOURNAL_STREAM",
)
"""Variables of the daemon's environment that concern only the daemon."""
_PUBLIC = (
    *("PATH", "LANG", "LC_", "TZ", "LD_LIBRARY_PATH"),
    *("CUDA_", "NVIDIA_", "CUBLAS_", "CUDNN_", "PYTORCH_", "TORCH_", "TORCHINDUCTOR_", "TRITON_"),
    *(
        "NCCL_",
        "GLOO_",
        "UCX_",
        "OMP_",
        "MKL_",
        "KMP_",
        "GOMP_",
        "OPENBLAS_",
        "MALLOC_",
        "TOKENIZERS_PARALLELISM",
    ),
    *("HF_HUB_OFFLINE", "HF_DATASETS_OFFLINE", "TRANSFORMERS_OFFLINE"),
)
"""The only variables that another user's job gets, all of which tune a run: others may hold tokens."""
_WRITTEN = (
    "CACHE",
    "TORCH_HOME",
    "TRITON_HOME",
    "EXTENSIONS_DIR",
    "DUMP",
    "TRACE",
    "DEBUG_FILE",
    "DEBUG_DIR",
)
"""Those of them that name writable places: the daemon's are not the owner's."""
_OF_A_START = ("run.", "exit.", "control.json", "events.jsonl", "log.", "checkpoints", "output")
"""What a job's folder contains from its first start on."""
_D = TypeVar("_D", bound=Doc)


class LocalLauncher:
    """A `Launcher` for jobs on this box.

    Where the daemon is root, a job runs as its owner: uid, gid, groups, HOME. Else it runs as the daemon's user.

    Example:
        >>> LocalLauncher().poll(Path("no-such-job")).state
        'absent'
    """

    def __init__(self, python: str = sys.executable, start_timeout_s: float = 30.0) -> None:
        """`python` runs the shim, which needs the standard library alone; the job's own is in its argv."""
        self._python = python
        self._start_timeout_s = start_timeout_s
        self._cgroup = process_group.delegated_cgroup()
        self._roots: dict[Path, cpu_time.CommandRoots] = {}

    def check(self, spec: JobSpec, owner: Owner) -> None:
        """See `Launcher.check`."""
        check_readable(spec, owner, self._python)

    def prepare(self, job_dir: Path, owner: Owner) -> None:
        """See `Launcher.prepare`."""
        open_to_owner(job_dir, owner)

    def start(
        self,
        job_dir: Path,
        argv: list[str],
        env: dict[str, str],
        owner: Owner,
        spec: JobSpec | None = None,
        log_bytes: int = shim.LOG_BYTES,
    ) -> RunRecord:
        """Start `argv`; `env` is laid over the daemon's environment. Records of an earlier attempt stay as
        run.N.json and exit.N.json.

        Raises LaunchError: the job runs already, or `argv` cannot be executed (exit.json then says 127), or the shim
        took too long; nothing comes of a start that failed.
        """
        job_dir = job_dir.resolve()
        before = self.poll(job_dir)
        if before.state == "running":
            raise LaunchError(f"{job_dir.name} runs already; stop it before it is started again")
        if before.state == "unknown":
            raise LaunchError(f"whether {job_dir.name} runs already cannot be told: {before.problem}")
        if left := self.sweep(job_dir):
            raise LaunchError(f"{several(left, 'process', 'processes')} of {job_dir.name} cannot be ended")
        return self._start(job_dir, argv, env, owner, spec, log_bytes)

    def _start(
        self,
        job_dir: Path,
        argv: list[str],
        env: dict[str, str],
        owner: Owner,
        spec: JobSpec | None,
        log_bytes: int,
    ) -> RunRecord:
        try:
            return self._start_shim(job_dir, ["--log-bytes", str(log_bytes), "--", *argv], env, owner, spec)
        except LaunchError:
            with contextlib.suppress(OSError):
                process_group.end(lambda: process_group.marked(job_dir, process_group.HELD))
            raise

    def _start_shim(
        self, job_dir: Path, rest: list[str], env: dict[str, str], owner: Owner, spec: JobSpec | None
    ) -> RunRecord:
        """rest: the shim's command line from the size of the log on."""
        options: list[str] = []
        base = {k: v for k, v in os.environ.items() if not k.startswith(_PRIVATE)}
        try:
            rotate(job_dir)
            open_to_owner(job_dir, owner)
            if runs_as_owner(owner):
                options, base = _as_owner(job_dir, owner)
            elif owner.uid != os.geteuid():
                make_written(job_dir)  # the ACL of the job's folder goes on to them
            if (group := process_group.make_cgroup(self._cgroup, job_dir)) is not None:
                options += ["--cgroup", str(group)]
            with handed_over(job_dir, spec, owner) as handed:
                done = subprocess.run(
                    [
                        *(self._python, "-I", "-S", shim.__file__),
                        *(str(job_dir), *options, *handed.options, *rest),
                    ],
                    env=base | env | {process_group.HELD: str(job_dir)},
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.DEVNULL,
                    stderr=subprocess.PIPE,
                    timeout=self._start_timeout_s,
                    check=False,
                    pass_fds=handed.fds,
                    umask=-1 if owner.uid == os.geteuid() else readable_umask(),
                )
        except InputError as e:
            raise LaunchError(f"{job_dir.name} cannot be started: {e}") from e
        except OSError as e:
            raise LaunchError(f"{job_dir.name} cannot be started: {e}") from e
        except subprocess.TimeoutExpired as e:
            raise LaunchError(f"{job_dir.name}: the shim did not start in {self._start_timeout_s:g} s") from e
        run = load(job_dir / "run.json", RunRecord)
        if done.returncode != 0 or run is None:
            reason = done.stderr.decode(errors="replace").strip() or f"the shim ended with {done.returncode}"
            raise LaunchError(f"{job_dir.name} cannot be started: {reason.splitlines()[-1]}")
        return run

    def adopt(self, job_dir: Path, pid: int, argv: tuple[str, ...], owner: Owner) -> RunRecord:
        """See `Launcher.adopt`."""
        run = command.identify(pid, argv, owner)
        try:
            for path in make_written(job_dir):
                if os.geteuid() == 0 != owner.uid:
                    os.chown(path, owner.uid, owner.gid, follow_symlinks=False)
            if run.locked:
                liveness_lock.make(job_dir)
            save(job_dir / "run.json", run)
        except OSError as e:
            raise LaunchError(f"{job_dir.name} cannot be kept: {e.strerror}") from e
        return run

    def note_exit(self, job_dir: Path, record: ExitRecord) -> None:
        """See `Launcher.note_exit`."""
        if (job_dir / "exit.json").exists():
            return
        try:
            save(job_dir / "exit.json", record)
        except OSError as e:
            raise LaunchError(f"how {job_dir.name} ended cannot be kept: {e.strerror}") from e

    def starter_lives(self, job_dir: Path, owner: Owner) -> bool:
        """See `Launcher.starter_lives`."""
        run, _ = record(job_dir / "run.json", RunRecord)
        return run is not None and command.starter_lives(run, owner)

    def poll(self, job_dir: Path) -> ProcessStatus:
        """See `Launcher.poll`. Where run.json cannot be read, the job's processes are looked for by their mark."""
        run, unread = record(job_dir / "run.json", RunRecord)
        try:
            if run is not None and not run.held:
                told = (job_dir / "exit.json").exists()
                lives = bool(_process_of(run)) or command.lives(job_dir.resolve(), run, told=told)
                end, _ = record(job_dir / "exit.json", ExitRecord)
                return ProcessStatus("running" if lives else "lost" if end is None else "exited", run, end)
            lives = run is not None and bool(self._shim_of(job_dir.resolve(), run))
            if (
                not lives
                and not (job_dir / "exit.json").is_file()
                and (run or unread or _was_started(job_dir))
            ):
                # run.json may be partly or wholly wrong; without its shim a job is lost, whatever workers are left
                lives = bool(self._shims(job_dir.resolve()))
                unread = unread or (
                    _Unread("run.json", "names a process that is gone", passing=False) if lives else None
                )
        except OSError as e:
            return ProcessStatus("unknown", run, problem=f"its process cannot be looked for: {e.strerror}")
        end, unended = record(
            job_dir / "exit.json", ExitRecord
        )  # read last: the shim exits after it has written it
        problem = "; ".join(text for text in (unread and str(unread), unended and str(unended)) if text)
        if end is not None and (run is not None or not lives):
            return ProcessStatus("exited", run, end, problem)
        if lives:
            return ProcessStatus("running", run, problem=problem or ("" if run else "run.json is gone"))
        if any(text is not None and text.passing for text in (unread, unended)):
            return ProcessStatus("unknown", run, problem=problem)
        return ProcessStatus("absent" if run is None and unread is None else "lost", run, problem=problem)

    def terminate(self, job_dir: Path) -> None:
        """SIGTERM to the trainer alone, passed on by the shim; not to its workers, or it could not checkpoint."""
        run, _ = record(job_dir / "run.json", RunRecord)
        try:
            if run is not None and not run.held:
                command.send_signal(job_dir.resolve(), run, signal.SIGTERM)
                return
            folder = job_dir.resolve()
            for process in (self._shim_of(folder, run) if run is not None else []) or self._shims(folder):
                self._send(folder, process, signal.SIGTERM)
        except OSError as e:
            raise LaunchError(f"{job_dir.name} cannot be told to stop: {e.strerror}") from e

    def kill(self, job_dir: Path) -> None:
        """SIGKILL to everything of the job but the shim, which then writes exit.json; also to what a killed shim left."""
        self.sweep(job_dir)

    def pids(self, job_dir: Path) -> set[int]:
        """See `Launcher.pids`."""
        run, _ = record(job_dir / "run.json", RunRecord)
        if run is None:
            return set()
        group = command.group_of(run.pid) if run.locked else None
        return {run.pid} if group is None else {run.pid, group}

    def cpu_times(self, job_dir: Path) -> dict[str, float]:
        """See `Launcher.cpu_times`. The daemon's own cgroup tells no job from another: only one of the job's own counts."""
        job_dir = job_dir.resolve()
        run, _ = record(job_dir / "run.json", RunRecord)
        times: dict[str, float] = {}
        if run is not None and run.boot_id == shim.boot_id():
            if run.held and (seconds := cpu_time.cgroup_s(self._cgroup_of_job(job_dir))) is not None:
                return {"cgroup": seconds}
            for pid, start_time in self._roots_of(job_dir, run):
                if (seconds := cpu_time.tree_s(pid, start_time)) is not None:
                    times[f"{pid}:{start_time}"] = seconds
        if not times:
            self._roots.pop(job_dir, None)
            end, _ = record(job_dir / "exit.json", ExitRecord)
            told = None if end is None else end.detail.get("cpu_s")
            times = {"exit": float(told)} if isinstance(told, int | float) else {}
        return times

    def _cgroup_of_job(self, job_dir: Path) -> Path | None:
        """A cgroup of this job alone."""
        return None if self._cgroup is None else process_group.cgroup_of(self._cgroup, job_dir)

    def _roots_of(self, job_dir: Path, run: RunRecord) -> set[tuple[int, int]]:
        """(pid, start time) of the topmost processes of a job. A shim is the only one of its job."""
        first = {(run.pid, run.start_time)}
        if run.held:
            return first
        roots = self._roots.setdefault(job_dir, cpu_time.CommandRoots(lambda: command.living(job_dir, run)))
        with contextlib.suppress(OSError):
            first |= {(each.pid, each.start_time) for each in roots.now()}
        return first

    def _shim_of(self, job_dir: Path, run: RunRecord) -> list[process_group.Process]:
        """The shim of `run`; none if it is gone. Raises OSError if that cannot be determined."""
        return _process_of(run)

    def _shims(self, job_dir: Path) -> list[process_group.Process]:
        """The job's shim, found without run.json. Raises OSError if that cannot be determined."""
        return process_group.shims(job_dir)

    def _send(self, job_dir: Path, process: process_group.Process, number: signal.Signals) -> None:
        """Send a signal to a shim. Raises OSError if that is not permitted."""
        process_group.send(process, number)

    def remaining(self, job_dir: Path) -> int:
        """See `Launcher.remaining`."""
        run, _ = record(job_dir / "run.json", RunRecord)
        try:
            return 0 if run is None else command.count(job_dir.resolve(), run)
        except OSError as e:
            raise LaunchError(f"processes of {job_dir.name} cannot be counted: {e.strerror}") from e

    def sweep(self, job_dir: Path) -> int:
        """See `Launcher.sweep`. The shim of a job that lives is left to write exit.json. Raises LaunchError."""
        job_dir = job_dir.resolve()
        run, _ = record(job_dir / "run.json", RunRecord)
        group = None if self._cgroup is None else process_group.cgroup_of(self._cgroup, job_dir)
        try:
            if run is not None and run.locked:
                return command.count(job_dir, run)
            if run is not None and not run.held:
                return process_group.end(lambda: command.living(job_dir, run))
            left = process_group.end(lambda: process_group.members(job_dir, run, group))
        except OSError as e:
            raise LaunchError(f"processes of {job_dir.name} cannot be ended: {e.strerror}") from e
        if left == 0:
            process_group.remove_cgroup(group)
        return left

    def open_written(self, job_dir: Path, owner: Owner) -> None:
        """See `Launcher.open_written`: the daemon's user made these folders, or is root."""


@dataclass(frozen=True, slots=True)
class _Unread:
    """Why a record cannot be read."""

    name: str
    why: str
    passing: bool
    """Whether it may be readable at the next try: the file was not opened, so it is not known to be damaged."""

    def __str__(self) -> str:
        return f"{self.name} cannot be read: {self.why}"


def record(path: Path, kind: type[_D]) -> tuple[_D | None, _Unread | None]:
    """The record and None, or None and why; (None, None) if there is none."""
    try:
        return read(path, kind), None
    except FileNotFoundError:
        return None, None
    except ValidationError as e:
        return None, _Unread(path.name, first_words(e.errors()), passing=False)
    except OSError as e:
        return None, _Unread(
            path.name, str(e.strerror), passing=e.errno not in (errno.EINVAL, errno.ELOOP, errno.EFBIG)
        )


def _was_started(job_dir: Path) -> bool:
    """Whether its folder shows a start; only then are all processes of the box searched. Raises OSError."""
    try:
        names = os.listdir(job_dir)  # noqa: PTH208 - a Path each would double the time
    except FileNotFoundError:
        return True  # what held it was taken away
    return any(name.startswith(_OF_A_START) for name in names)


def _process_of(run: RunRecord) -> list[process_group.Process]:
    """The process of `run`; none if it is gone, or a zombie. Raises OSError if that cannot be determined."""
    if shim.boot_id() != run.boot_id:
        return []
    found = process_group.look_up(run.pid)
    return [found] if found is not None and found.start_time == run.start_time else []


def rotate(job_dir: Path) -> None:
    """Keep the records of an earlier attempt as run.N.json and exit.N.json, N from 1. run.json is renamed last: it determines N, so a
    daemon killed in between never uses another number."""
    n = 1 + sum(1 for _ in job_dir.glob("run.*.json"))
    for kind in ("exit", "run"):
        with contextlib.suppress(FileNotFoundError):
            (job_dir / f"{kind}.json").rename(job_dir / f"{kind}.{n}.json")


def public_environment() -> dict[str, str]:
    """The part of this process's environment that another user's job gets."""
    return {
        k: v
        for k, v in os.environ.items()
        if k.startswith(_PUBLIC) and not any(word in k for word in _WRITTEN)
    }


def _as_owner(job_dir: Path, owner: Owner) -> tuple[list[str], dict[str, str]]:
    """The shim's options that run CMD as `owner`, and its environment. What the trainer writes in the job directory is created and given to
    the owner."""
    try:
        entry = pwd.getpwuid(owner.uid)
        user, home, shell = entry.pw_name, entry.pw_dir, entry.pw_shell
        groups = os.getgrouplist(user, owner.gid)
    except KeyError:  # a uid without an account, as in a container
        user, home, shell, groups = owner.user, "/", "/bin/sh", [owner.gid]
    with contextlib.suppress(FileNotFoundError):
        (job_dir / "spec.json").chmod(0o644)  # the trainer has to read it, whatever the daemon's umask is
    for path in make_written(job_dir):
        os.chown(path, owner.uid, owner.gid, follow_symlinks=False)
    ids = ["--uid", str(owner.uid), "--gid", str(owner.gid), "--groups", ",".join(map(str, groups))]
    return ids, public_environment() | {"HOME": home, "USER": user, "LOGNAME": user, "SHELL": shell}
