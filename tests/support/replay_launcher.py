"""A launcher that starts nothing: what stands behind the Launcher protocol in tests."""

from dataclasses import dataclass, field
from pathlib import Path

from carbonsched.clock import Clock
from carbonsched.launch.base import ProcessStatus
from carbonsched.model.job import JobSpec, Owner
from carbonsched.model.protocol import ExitRecord, RunRecord


@dataclass(slots=True)
class ReplayLauncher:
    clock: Clock
    pid: int = 1
    """Of every process that it is said to have started."""
    statuses: dict[Path, ProcessStatus] = field(default_factory=dict)
    argv: dict[Path, list[str]] = field(default_factory=dict)
    env: dict[Path, dict[str, str]] = field(default_factory=dict)
    left: dict[Path, int] = field(default_factory=dict)
    """Processes of a job that is gone, which cannot be ended."""
    cpu: dict[Path, dict[str, float]] = field(default_factory=dict)
    """What `cpu_times` answers."""
    starters: bool = True
    """Whether who started a command is there still."""
    asked: list[tuple[str, Path]] = field(default_factory=list)
    """`terminate` and `kill` calls, oldest first."""

    def check(self, spec: JobSpec, owner: Owner) -> None: ...
    def prepare(self, job_dir: Path, owner: Owner) -> None: ...

    def start(
        self,
        job_dir: Path,
        argv: list[str],
        env: dict[str, str],
        owner: Owner,
        spec: JobSpec | None = None,
        log_bytes: int = 0,
    ) -> RunRecord:
        run = RunRecord(
            pid=self.pid, start_time=1, boot_id="replay", started_at=self.clock.now(), argv=tuple(argv)
        )
        self.statuses[job_dir], self.argv[job_dir] = ProcessStatus("running", run=run), argv
        self.env[job_dir] = env
        return run

    def adopt(self, job_dir: Path, pid: int, argv: tuple[str, ...], owner: Owner) -> RunRecord:
        run = RunRecord(
            pid=pid, start_time=1, boot_id="replay", started_at=self.clock.now(), argv=argv, held=False
        )
        self.statuses[job_dir] = ProcessStatus("running", run=run)
        return run

    def note_exit(self, job_dir: Path, record: ExitRecord) -> None:
        self.statuses[job_dir] = ProcessStatus("exited", run=self.statuses[job_dir].run, exit=record)

    def starter_lives(self, job_dir: Path, owner: Owner) -> bool:
        return self.starters

    def poll(self, job_dir: Path) -> ProcessStatus:
        return self.statuses.get(job_dir, ProcessStatus("absent"))

    def pids(self, job_dir: Path) -> set[int]:
        run = self.poll(job_dir).run
        return set() if run is None else {run.pid}

    def cpu_times(self, job_dir: Path) -> dict[str, float]:
        return dict(self.cpu.get(job_dir, {}))

    def terminate(self, job_dir: Path) -> None:
        self.asked.append(("terminate", job_dir))

    def kill(self, job_dir: Path) -> None:
        self.asked.append(("kill", job_dir))
        self.end(job_dir, signal=9)

    def end(self, job_dir: Path, code: int | None = 0, signal: int | None = None) -> None:
        """Let the process end now."""
        code = None if signal is not None else code
        record = ExitRecord(code=code, signal=signal, at=self.clock.now())
        self.statuses[job_dir] = ProcessStatus("exited", run=self.statuses[job_dir].run, exit=record)

    def remaining(self, job_dir: Path) -> int:
        return int(self.poll(job_dir).state == "running")

    def open_written(self, job_dir: Path, owner: Owner) -> None:
        pass

    def sweep(self, job_dir: Path) -> int:
        return self.left.get(job_dir, 0)
