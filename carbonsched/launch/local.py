"""Starts jobs as processes of this machine, each held by a shim that outlives the daemon (see `shim`).

run.json identifies a job: pid, start time and boot id together, held fast by a pidfd while it is signalled, so a
reused pid is never taken for the job. The job directory stays the daemon's; an owner gets only what the trainer writes
(`events.jsonl`, `checkpoints/`, `output/`), so no owner can plant a link where the daemon, as root, writes next.
"""

import contextlib
import os
import pwd
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from carbonsched.errors import LaunchError
from carbonsched.launch import shim
from carbonsched.launch.base import ProcessStatus
from carbonsched.model.files import load
from carbonsched.model.job import Owner
from carbonsched.model.protocol import ExitRecord, RunRecord

_PRIVATE = (
    "NOTIFY_SOCKET",
    "WATCHDOG_",
    "LISTEN_",
    "CREDENTIALS_DIRECTORY",
    "INVOCATION_ID",
    "JOURNAL_STREAM",
)
"""Of the daemon's environment, what speaks of the daemon alone."""
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
"""All that another user's job gets to see of it, and it tunes a run: the rest may hold tokens."""
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
"""Of that, what names places that are written to: the daemon's are not the owner's."""
_HELD = "CARBONSCHED_SHIM_OF"
"""In the environment of the shim itself, too, unlike `shim.MARK`."""


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

    def start(self, job_dir: Path, argv: list[str], env: dict[str, str], owner: Owner) -> RunRecord:
        """Start `argv`; `env` is laid over the daemon's environment. Records of an earlier attempt stay as
        run.N.json and exit.N.json.

        Raises LaunchError: the job runs already, or `argv` cannot be executed (exit.json then says 127), or the shim
        took too long; nothing comes of a start that failed.
        """
        job_dir = job_dir.resolve()
        if self.poll(job_dir).state == "running":
            raise LaunchError(f"{job_dir.name} runs already; stop it before it is started again")
        _kill_marked(shim.MARK, job_dir)
        try:
            return self._start(job_dir, argv, env, owner)
        except LaunchError:
            _kill_marked(_HELD, job_dir)
            raise

    def _start(self, job_dir: Path, argv: list[str], env: dict[str, str], owner: Owner) -> RunRecord:
        ids: list[str] = []
        base = {k: v for k, v in os.environ.items() if not k.startswith(_PRIVATE)}
        try:
            _rotate(job_dir)
            if os.geteuid() == 0 and owner.uid != 0:
                ids, base = _as_owner(job_dir, owner)
            done = subprocess.run(
                [self._python, "-I", "-S", shim.__file__, str(job_dir), *ids, "--", *argv],
                env=base | env | {_HELD: str(job_dir)},
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
                timeout=self._start_timeout_s,
                check=False,
            )
        except OSError as e:
            raise LaunchError(f"{job_dir.name} cannot be started: {e}") from e
        except subprocess.TimeoutExpired as e:
            raise LaunchError(f"{job_dir.name}: the shim did not start in {self._start_timeout_s:g} s") from e
        run = load(job_dir / "run.json", RunRecord)
        if done.returncode != 0 or run is None:
            reason = done.stderr.decode(errors="replace").strip() or f"the shim ended with {done.returncode}"
            raise LaunchError(f"{job_dir.name} cannot be started: {reason.splitlines()[-1]}")
        return run

    def poll(self, job_dir: Path) -> ProcessStatus:
        """See `Launcher.poll`. A record that cannot be read counts as none."""
        run = load(job_dir / "run.json", RunRecord)
        if run is not None and not (job_dir / "exit.json").exists() and _alive(run):
            return ProcessStatus("running", run)
        if end := load(job_dir / "exit.json", ExitRecord):  # read last: the shim ends after it has written it
            return ProcessStatus("exited", run, end)
        return ProcessStatus("lost" if (job_dir / "run.json").exists() else "absent", run)

    def terminate(self, job_dir: Path) -> None:
        """SIGTERM to the trainer alone, passed on by the shim; not to its workers, or it could not checkpoint."""
        run = load(job_dir / "run.json", RunRecord)
        if run is not None:
            _terminate(run)

    def kill(self, job_dir: Path) -> None:
        """SIGKILL to everything of the job but the shim, which then writes exit.json; also to what a killed shim left."""
        run = load(job_dir / "run.json", RunRecord)
        if run is not None and _alive(run):
            for pid in _children(run.pid):
                with contextlib.suppress(OSError):
                    os.kill(
                        pid, signal.SIGKILL
                    )  # a child of the shim stays a zombie until the shim has seen it
        _kill_marked(shim.MARK, job_dir.resolve())


def _alive(run: RunRecord) -> bool:
    """Whether the very process of `run` still runs; a zombie does not."""
    try:
        return (
            shim.boot_id() == run.boot_id
            and shim.start_time(run.pid) == run.start_time
            and shim.stat_fields(run.pid)[0] not in "ZX"
        )
    except (OSError, IndexError):
        return False


def _terminate(run: RunRecord) -> None:
    try:
        handle = os.pidfd_open(run.pid)
    except OSError:
        return
    try:
        if _alive(run):  # asked after the handle was taken: the number cannot change hands any more
            signal.pidfd_send_signal(handle, signal.SIGTERM)
    except ProcessLookupError:
        pass
    except OSError as e:
        raise LaunchError(f"process {run.pid} cannot be told to stop: {e.strerror}") from e
    finally:
        os.close(handle)


def _children(pid: int) -> list[int]:
    try:
        return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except OSError:
        return []


def _marked(name: str, job_dir: Path) -> Iterator[int]:
    """pidfds of the processes in whose environment `name` is `job_dir`; the caller closes them."""
    mark = f"{name}={job_dir}".encode()
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit() or int(entry.name) == os.getpid():
            continue
        try:
            handle = os.pidfd_open(int(entry.name))
        except OSError:
            continue
        try:
            ours = mark in (entry / "environ").read_bytes().split(b"\0")
        except OSError:
            ours = False
        if ours:
            yield handle
        else:
            os.close(handle)


def _kill_marked(name: str, job_dir: Path) -> None:
    for _ in range(50):  # one may fork while another is being killed
        handles = list(_marked(name, job_dir))
        if not handles:
            return
        for handle in handles:
            with contextlib.suppress(OSError):
                signal.pidfd_send_signal(handle, signal.SIGKILL)
            os.close(handle)
        time.sleep(0.02)


def _rotate(job_dir: Path) -> None:
    """Keep the records of an earlier attempt as run.N.json and exit.N.json, N from 1."""
    n = 1 + sum(1 for _ in job_dir.glob("run.*.json"))
    for kind in ("run", "exit"):
        with contextlib.suppress(FileNotFoundError):
            (job_dir / f"{kind}.json").rename(job_dir / f"{kind}.{n}.json")


def _as_owner(job_dir: Path, owner: Owner) -> tuple[list[str], dict[str, str]]:
    """The shim's options that make CMD run as `owner`, and the environment it gets to see.

    The owner's group may look into the job directory; what the trainer writes there is made and handed over.
    """
    try:
        entry = pwd.getpwuid(owner.uid)
        user, home, shell = entry.pw_name, entry.pw_dir, entry.pw_shell
        groups = os.getgrouplist(user, owner.gid)
    except KeyError:  # a uid without an account, as in a container
        user, home, shell, groups = owner.user, "/", "/bin/sh", [owner.gid]
    os.chown(job_dir, -1, owner.gid)
    job_dir.chmod(0o750)
    with contextlib.suppress(FileNotFoundError):
        (job_dir / "spec.json").chmod(0o644)  # the trainer reads it, whatever the daemon's umask was
    written = [job_dir / name for name in ("events.jsonl", "checkpoints", "output")]
    written[0].touch(mode=0o644)
    for folder in written[1:]:
        folder.mkdir(exist_ok=True)
    for path in written:
        os.chown(path, owner.uid, owner.gid, follow_symlinks=False)
    public = {
        k: v
        for k, v in os.environ.items()
        if k.startswith(_PUBLIC) and not any(word in k for word in _WRITTEN)
    }
    ids = ["--uid", str(owner.uid), "--gid", str(owner.gid), "--groups", ",".join(map(str, groups))]
    return ids, public | {"HOME": home, "USER": user, "LOGNAME": user, "SHELL": shell}
