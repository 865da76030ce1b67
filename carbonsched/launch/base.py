"""The launcher protocol: start a job so that it outlives the daemon, and find its process again after a restart."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol

from carbonsched.launch.shim import LOG_BYTES
from carbonsched.model.job import JobSpec, Owner
from carbonsched.model.protocol import ExitRecord, RunRecord


@dataclass(frozen=True, slots=True)
class ProcessStatus:
    """What became of a job's process.

    Example:
        >>> ProcessStatus("absent").exit is None
        True
    """

    state: Literal["absent", "running", "exited", "lost", "unknown"]
    """`absent`: never started; `lost`: gone without an exit record (power cut, kill -9 of the shim); `unknown`: that cannot
    be told now (EIO, no file handles), which is not dead: ask again."""
    run: RunRecord | None = None
    exit: ExitRecord | None = None
    problem: str = ""
    """Why a record cannot be read, where one cannot."""


class Launcher(Protocol):
    """Starts the processes of jobs and finds them again. Tests give one that starts nothing.

    Example::

        run = launcher.start(job_dir, [python, "-m", "trainer", "run", str(job_dir)], {}, owner)
        if launcher.poll(job_dir).state == "lost":
            launcher.kill(job_dir)
    """

    def check(self, spec: JobSpec, owner: Owner) -> None:
        """Before a job is accepted: raises InputError where it names files that its owner, or its process, may not read."""

    def prepare(self, job_dir: Path, owner: Owner) -> None:
        """Make a new job's folder its owner's to read and nobody else's. Raises OSError."""

    def start(
        self,
        job_dir: Path,
        argv: list[str],
        env: dict[str, str],
        owner: Owner,
        spec: JobSpec | None = None,
        log_bytes: int = LOG_BYTES,
    ) -> RunRecord:
        """Start `argv` under the shim, output to log.txt, of which one of so many bytes is kept beside the one that grows.

        spec: whose files are opened for it. Raises LaunchError.
        """

    def adopt(self, job_dir: Path, pid: int, argv: tuple[str, ...], owner: Owner) -> RunRecord:
        """Watch a process that the owner started, as the job's. Raises InputError where it is not theirs, LaunchError."""

    def note_exit(self, job_dir: Path, record: ExitRecord) -> None:
        """How such a process ended, by whoever started it; what was said before stands. Raises LaunchError."""

    def starter_lives(self, job_dir: Path, owner: Owner) -> bool:
        """Whether who started such a process is there to say how it ended; true where that cannot be seen."""

    def poll(self, job_dir: Path) -> ProcessStatus:
        """Identity is checked (pid, start time, boot id), so a reused pid is never taken for the job."""

    def pids(self, job_dir: Path) -> set[int]:
        """Processes of the job beneath which all others of it are; empty where none is known."""

    def cpu_times(self, job_dir: Path) -> dict[str, float]:
        """CPU seconds that its processes took so far, by counter (`exit`: all of it, of a job that has ended); empty: not known."""

    def terminate(self, job_dir: Path) -> None:
        """SIGTERM to the trainer: it checkpoints and ends. No error where nothing runs."""

    def kill(self, job_dir: Path) -> None:
        """SIGKILL to everything of the job. No error where nothing runs."""

    def remaining(self, job_dir: Path) -> int:
        """How many processes there are of a command that was adopted. Raises LaunchError where that cannot be told."""

    def sweep(self, job_dir: Path) -> int:
        """SIGKILL to whatever a job whose process is gone has left; how many processes of it are still there.

        Its devices are free once that is 0. Raises LaunchError where that cannot be told.
        """

    def open_written(self, job_dir: Path, owner: Owner) -> None:
        """As the owner of a job that is over, let the daemon into the folders that its process made, so that it can delete them.

        Does nothing where jobs run as the daemon's user, or it is root. Raises LaunchError.
        """
