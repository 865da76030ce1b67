"""The launcher protocol: start a job so that it outlives the daemon, and find its process again after a restart."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol

from carbonsched.launch.shim import LOG_BYTES
from carbonsched.model.job import JobSpec, Owner
from carbonsched.model.protocol import ExitRecord, RunRecord


@dataclass(frozen=True, slots=True)
class ProcessStatus:
    """The state of a job's process.

    Example:
        >>> ProcessStatus("absent").exit is None
        True
    """

    state: Literal["absent", "running", "exited", "lost", "unknown"]
    """`absent`: never started; `lost`: gone without an exit record (power cut, kill -9 of the shim); `unknown`: cannot be determined now
    (EIO, no file handles), which does not mean dead: poll again."""
    run: RunRecord | None = None
    exit: ExitRecord | None = None
    problem: str = ""
    """Why a record cannot be read, if one cannot."""


class Launcher(Protocol):
    """Starts the processes of jobs and finds them again. Tests pass one that starts nothing.

    Example::

        run = launcher.start(job_dir, [python, "-m", "trainer", "run", str(job_dir)], {}, owner)
        if launcher.poll(job_dir).state == "lost":
            launcher.kill(job_dir)
    """

    def check(self, spec: JobSpec, owner: Owner) -> None:
        """Before a job is accepted: raise InputError if it names files that its owner, or its process, may not read."""

    def prepare(self, job_dir: Path, owner: Owner) -> None:
        """Make a new job's folder readable by its owner and by no other user. Raises OSError."""

    def start(
        self,
        job_dir: Path,
        argv: list[str],
        env: dict[str, str],
        owner: Owner,
        spec: JobSpec | None = None,
        log_bytes: int = LOG_BYTES,
    ) -> RunRecord:
        """Start `argv` under the shim with output to log.txt, which is rotated at so many bytes; one older file is kept. spec: its files
        are opened for the job. Raises LaunchError."""

    def adopt(self, job_dir: Path, pid: int, argv: tuple[str, ...], owner: Owner) -> RunRecord:
        """Watch a process that the owner started, as the job's. Raises InputError if it is not theirs, LaunchError."""

    def note_exit(self, job_dir: Path, record: ExitRecord) -> None:
        """Record how such a process ended, as its starter reports; an earlier report stands. Raises LaunchError."""

    def starter_lives(self, job_dir: Path, owner: Owner) -> bool:
        """Whether the starter of such a process still lives and can report its end; true if that cannot be seen."""

    def poll(self, job_dir: Path) -> ProcessStatus:
        """The state of the process. Its identity is checked (pid, start time, boot id), so a reused pid is never taken for the job."""

    def pids(self, job_dir: Path) -> set[int]:
        """The topmost processes of the job, whose descendants are all others; empty if none is known."""

    def cpu_times(self, job_dir: Path) -> dict[str, float]:
        """CPU seconds of its processes so far, by counter (`exit`: the total of a job that has ended); empty: unknown."""

    def terminate(self, job_dir: Path) -> None:
        """Send SIGTERM to the trainer: it checkpoints and exits. No error if nothing runs."""

    def kill(self, job_dir: Path) -> None:
        """Send SIGKILL to all processes of the job. No error if nothing runs."""

    def remaining(self, job_dir: Path) -> int:
        """How many processes an adopted command has. Raises LaunchError if that cannot be determined."""

    def sweep(self, job_dir: Path) -> int:
        """Send SIGKILL to what a job left behind whose process is gone; returns how many processes remain. Its devices are free once that
        is 0. Raises LaunchError if that cannot be determined."""

    def open_written(self, job_dir: Path, owner: Owner) -> None:
        """As the owner of a job that is over, give the daemon access to the folders its process made, so that it can delete them. Does
        nothing if jobs run as the daemon's user, or the daemon is root. Raises LaunchError."""
