"""A daemon whose boards answer what a script says, on the script's clock: the real meter over the stand-in library, the real
supervisor and ledger, in this process or in one of its own that can be killed.

The script and the daemon share a file that both map (`World`): two clocks, and what each board answers. Run in a process
that finds the stand-in library first (`support.nvml.fake`).
"""

import contextlib
import json
import mmap
import os
import signal
import struct
import subprocess
import sys
import time
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final, Protocol

from support.rig import ME, spec

from carbonsched.config import Config
from carbonsched.feeds.base import Site
from carbonsched.feeds.factory import build_chain
from carbonsched.launch.base import ProcessStatus
from carbonsched.ledger.ledger import Ledger
from carbonsched.model import files
from carbonsched.model.job import JobSpec, Owner
from carbonsched.model.protocol import ExitRecord, RunRecord
from carbonsched.power.nvml_meter import NvmlMeter
from carbonsched.supervisor import Supervisor
from carbonsched.supervisor.service import SupervisorService

EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_CLOCKS: Final = struct.Struct("<qqq")
"""Wall and boot time in microseconds, and the code that the driver answers."""
_READ: Final = struct.Struct("<QIi")
"""A board's counter in millijoules, its power in milliwatts, and the code that it answers."""
_ANSWER: Final = struct.Struct("<qQii")
BOARDS: Final = 16


class World:
    """The file that the script writes, the library answers from, and the daemon tells the time by.

    Example::

        world = World(folder)
        world.set_clocks(wall_us, boot_us, driver_code=0)
        world.set_board(0, energy_mj=5_000, power_mw=250_000, code=0)
    """

    def __init__(self, folder: Path) -> None:
        path = folder / "world"
        size = _CLOCKS.size + BOARDS * _READ.size
        if not path.exists():
            path.write_bytes(bytes(size))
        with path.open("r+b") as file:
            self._map = mmap.mmap(file.fileno(), size)

    def set_clocks(self, wall_us: int, boot_us: int, driver_code: int) -> None:
        _CLOCKS.pack_into(self._map, 0, wall_us, boot_us, driver_code)

    def set_board(self, index: int, energy_mj: int, power_mw: int, code: int) -> None:
        _READ.pack_into(self._map, _CLOCKS.size + index * _READ.size, energy_mj, power_mw, code)

    def now(self) -> datetime:
        return EPOCH + timedelta(microseconds=_CLOCKS.unpack_from(self._map)[0])

    def monotonic(self) -> float:
        return float(_CLOCKS.unpack_from(self._map)[1] / 1e6)

    def awake(self) -> float:
        return self.monotonic()


def answers(folder: Path) -> list[tuple[int, int, int, int]]:
    """(microseconds on the wall, millijoules, board, code) of every read of a counter, in order."""
    return list(_ANSWER.iter_unpack((folder / "answers").read_bytes()))


@dataclass(slots=True)
class FileLauncher:
    """Starts nothing; what a process is, and that it is over, stands in its folder, so that the next daemon finds it."""

    clock: World
    found: dict[Path, RunRecord] = field(default_factory=dict)
    gone: dict[Path, ExitRecord] = field(default_factory=dict)

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
        assert not (job_dir / "run.json").exists(), f"{job_dir.name} is started twice"
        run = RunRecord(pid=1, start_time=1, boot_id="b", started_at=self.clock.now(), argv=tuple(argv))
        (job_dir / "board").write_text(env["CUDA_VISIBLE_DEVICES"])
        files.save(job_dir / "run.json", run)
        return run

    def adopt(self, job_dir: Path, pid: int, argv: tuple[str, ...], owner: Owner) -> RunRecord:
        raise NotImplementedError

    def note_exit(self, job_dir: Path, record: ExitRecord) -> None:
        raise NotImplementedError

    def starter_lives(self, job_dir: Path, owner: Owner) -> bool:
        raise NotImplementedError

    def poll(self, job_dir: Path) -> ProcessStatus:
        for known, name, kind in (
            (self.found, "run.json", RunRecord),
            (self.gone, "exit.json", ExitRecord),
        ):
            if job_dir not in known and (record := files.load(job_dir / name, kind)) is not None:
                known[job_dir] = record  # type: ignore[index]
        run, ended = self.found.get(job_dir), self.gone.get(job_dir)
        if run is None:
            return ProcessStatus("absent")
        return ProcessStatus("running" if ended is None else "exited", run=run, exit=ended)

    def pids(self, job_dir: Path) -> set[int]:
        return set()  # there is no process: nobody's boards are busy by it

    def cpu_times(self, job_dir: Path) -> dict[str, float]:
        return {}

    def terminate(self, job_dir: Path) -> None:
        (job_dir / "asked").touch()

    def kill(self, job_dir: Path) -> None:
        (job_dir / "asked").touch()

    def remaining(self, job_dir: Path) -> int:
        return int(self.poll(job_dir).state == "running")

    def open_written(self, job_dir: Path, owner: Owner) -> None:
        pass

    def sweep(self, job_dir: Path) -> int:
        return 0


def config(folder: Path) -> Config:
    """Intensities change every 10 minutes, so that rows are cut there, too."""
    rows = [
        f"{(EPOCH + timedelta(days=20_000, minutes=10 * n)):%Y-%m-%dT%H:%M:%SZ},{200 + 37 * (n % 11)}\n"
        for n in range(80)
    ]
    (folder / "trace.csv").write_text("datetime,g_per_kwh\n" + "".join(rows))
    feed = {"provider": "replay", "file": str(folder / "trace.csv"), "basis": "average-lifecycle"}
    static = {"provider": "static", "g_per_kwh": 400, "basis": "average-lifecycle", "source": "test"}
    return Config.parse(
        {
            "state_dir": str(folder / "state"),
            "feeds": [feed, static],
            "power": {"gpu": "nvml", "host": "none"},
            "ledger": {"row_s": 10},
        }
    )


class Daemon(Protocol):
    """What the script does with a daemon.

    Example::

        daemon.submit("a-1")
        daemon.tick()
        daemon.die()  # and another is made on the same folder
    """

    def submit(self, name: str) -> str: ...
    def tick(self) -> None: ...
    def die(self) -> None: ...
    def stop(self) -> None: ...


class Here:
    """In this process; `die` is as by kill -9: nothing is flushed, the next one opens the ledger again.

    Example::

        daemon = Here(folder)
    """

    def __init__(self, folder: Path) -> None:
        world, settings = World(folder), config(folder)
        (settings.state / "jobs").mkdir(parents=True, exist_ok=True)
        self.ledger = Ledger.open(settings.ledger_url)
        self.chain = build_chain(settings.feeds, Site(settings.zone, world, settings.state))
        self.chain.poll_due()
        self.meter = NvmlMeter(world, "boot", must_answer=False)
        self.supervisor = Supervisor(
            settings, self.ledger, self.chain, self.meter, FileLauncher(world), world
        )
        self.supervisor.starter.starts.tick_wait_s = 60.0
        self.supervisor.start()

    def submit(self, name: str) -> str:
        return SupervisorService(self.supervisor).submit(spec(name, budget_g=1e6), ME, None).id

    def tick(self) -> None:
        self.chain.poll_due()
        self.supervisor.tick()

    def die(self) -> None:
        self.meter.close()
        self.ledger.close()

    def stop(self) -> None:
        self.supervisor.stop()
        self.ledger.close()


class Apart:
    """In a process of its own, which `die` kills at whatever it is doing.

    Example::

        daemon = Apart(folder)
        daemon.begin_tick()
        daemon.die()
    """

    def __init__(self, folder: Path) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "support.scripted_box", str(folder)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self._answer()

    def _tell(self, line: str) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(line + "\n")
        self._process.stdin.flush()

    def _answer(self) -> str:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        assert line.startswith("ok"), "the daemon's process ended"
        return line[2:].strip()

    def submit(self, name: str) -> str:
        self._tell(f"submit {name}")
        return self._answer()

    def tick(self) -> None:
        self._tell("tick")
        self._answer()

    def die(self, after_s: float = 0.0) -> None:
        """In the middle of a tick, so many seconds after it began."""
        self._tell("tick")
        time.sleep(after_s)
        self._process.send_signal(signal.SIGKILL)
        self._close()

    def stop(self) -> None:
        self._tell("stop")
        self._answer()
        self._close()

    def _close(self) -> None:
        self._process.wait(timeout=60)
        for pipe in (self._process.stdin, self._process.stdout):
            assert pipe is not None
            with contextlib.suppress(BrokenPipeError):
                pipe.close()


def serve(folder: Path) -> None:
    """The process of `Apart`: a command a line, an answer a line."""
    daemon = Here(folder)
    _tell("ok")
    for line in sys.stdin:
        verb, _, rest = line.strip().partition(" ")
        answer = ""
        if verb == "submit":
            answer = daemon.submit(rest)
        elif verb == "tick":
            daemon.tick()
        else:
            daemon.stop()
        _tell(f"ok {answer}")
        if verb == "stop":
            return


def _tell(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def say(job_dir: Path, at: datetime, event: str, **fields: object) -> None:
    """A trainer's word, as `events.jsonl` has it."""
    line = json.dumps({"at": at.isoformat(), "event": event, **fields})
    with (job_dir / "events.jsonl").open("a") as file:
        file.write(line + "\n")


if __name__ == "__main__":
    os.environ.pop("CUDA_VISIBLE_DEVICES", None)
    serve(Path(sys.argv[1]))
