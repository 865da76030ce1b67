"""A launcher that starts nothing: the double behind the Launcher Protocol for tests and simulations."""

from dataclasses import dataclass, field
from pathlib import Path

from carbonsched.clock import Clock
from carbonsched.launch.base import Look
from carbonsched.model.job import Owner
from carbonsched.model.protocol import ExitRecord, RunRecord


@dataclass(slots=True)
class ReplayLauncher:
    clock: Clock
    looks: dict[Path, Look] = field(default_factory=dict)
    argv: dict[Path, list[str]] = field(default_factory=dict)
    asked: list[tuple[str, Path]] = field(default_factory=list)
    """`terminate` and `kill` calls, oldest first."""

    def start(self, job_dir: Path, argv: list[str], env: dict[str, str], owner: Owner) -> RunRecord:
        run = RunRecord(pid=1, start_time=1, boot_id="replay", started_at=self.clock.now(), argv=tuple(argv))
        self.looks[job_dir], self.argv[job_dir] = Look("running", run=run), argv
        return run

    def look(self, job_dir: Path) -> Look:
        return self.looks.get(job_dir, Look("absent"))

    def terminate(self, job_dir: Path) -> None:
        self.asked.append(("terminate", job_dir))

    def kill(self, job_dir: Path) -> None:
        self.asked.append(("kill", job_dir))
        self.end(job_dir, signal=9)

    def end(self, job_dir: Path, code: int | None = 0, signal: int | None = None) -> None:
        """Let the process end now."""
        code = None if signal is not None else code
        record = ExitRecord(code=code, signal=signal, at=self.clock.now())
        self.looks[job_dir] = Look("exited", run=self.looks[job_dir].run, exit=record)
