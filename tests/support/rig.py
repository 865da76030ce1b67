"""A rig for the supervisor: the real supervisor, ledger, chain and planner on a manual clock, jobs played by the test."""

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from support.manual_clock import ManualClock
from support.replay_launcher import ReplayLauncher

from carbonsched.config import Config
from carbonsched.errors import LedgerError
from carbonsched.feeds.base import Site
from carbonsched.feeds.factory import build_chain
from carbonsched.feeds.prices.factory import build_prices
from carbonsched.feeds.pue_feed import build_pue_feed
from carbonsched.feeds.supply.factory import build_supply
from carbonsched.ledger.ledger import Ledger
from carbonsched.model.base import rfc3339
from carbonsched.model.job import JobSpec, Owner
from carbonsched.model.profile import CheckResult
from carbonsched.model.protocol import VERSION
from carbonsched.model.views import JobDetail
from carbonsched.power.base import Meter
from carbonsched.power.combined import CombinedMeter
from carbonsched.power.factory import build_meter
from carbonsched.power.replay import ReplayMeter
from carbonsched.supervisor import Supervisor
from carbonsched.supervisor.service import SupervisorService

START = datetime(2026, 11, 1, 12, 0, tzinfo=UTC)
ME = Owner(uid=0, gid=0, pid=1, user="root")
FRONTIER = [(0.4, 0.1), (0.5, 0.5), (0.6, 0.7), (0.8, 0.9), (1.0, 1.0)]


def spec(name: str = "tiny", *, method: str = "greentrainer", **carbon: Any) -> JobSpec:
    carbon = {"budget_g": 100.0, "may_pause": False} | carbon
    return JobSpec.parse(
        {
            "name": name,
            "model": {"name_or_path": "m"},
            "data": {"name_or_path": "d"},
            "train": {"segment": 10, "max_steps": 40, "method": method},
            "carbon": {k: v for k, v in carbon.items() if v is not None},
        }
    )


def checked(steps: int = 40, segments: int = 4, **fields: Any) -> CheckResult:
    """A trainer's check of the job that `Played` plays; on a box that never trained a step takes 2 s and 75 W."""
    base = {
        "ok": True,
        "model": "m",
        "params": 1000,
        "rows": 160,
        "validation_rows": 0,
        "steps": steps,
        "segments": segments,
        "rho_floor": 0.4,
        "step_flops_full": 6e12,
        "batch": 4,
        "seq": 128,
    }
    return CheckResult.parse(base | fields)


@dataclass
class Rig:
    """100 W on one device; 3.6 MJ and 1 kWh are 10 hours of it."""

    root: Path
    clock: ManualClock = field(default_factory=lambda: ManualClock(START))
    g_per_kwh: float = 400.0
    watts: str = "0,100\n3600,100\n"
    """Rows of the device's power curve; it begins anew every hour after START if it spans one."""
    extra: dict[str, Any] = field(default_factory=dict)
    devices: int = 1
    """Each with the same power curve."""
    boards: tuple[str, ...] = ()
    """UUIDs of the boards that devices stand in for; none: what they are called by themselves."""
    launchers: Callable[[ManualClock], ReplayLauncher] = ReplayLauncher
    meters: Callable[..., Meter] = ReplayMeter
    """Of the devices, where they are several."""
    autos: list[Any] = field(default_factory=list)
    """Trainers that play themselves (`support.auto`): asked once a second, before the daemon."""

    def __post_init__(self) -> None:
        self.root.mkdir(parents=True, exist_ok=True)
        (self.root / "watts.csv").write_text("seconds,watts\n" + self.watts)
        feed = {
            "provider": "static",
            "g_per_kwh": self.g_per_kwh,
            "basis": "average-lifecycle",
            "source": "test",
        }
        self.config = Config.parse(
            {
                "state_dir": str(self.root / "state"),
                "feeds": [feed],
                "power": {"gpu": "replay", "host": "none", "replay_file": str(self.root / "watts.csv")},
                "ledger": {"row_s": 10},
                **self.extra,
            }
        )
        (self.root / "state" / "jobs").mkdir(parents=True, exist_ok=True)
        self.launcher = self.launchers(self.clock)
        self.boot()

    def boot(self) -> None:
        """A new daemon process on the same state."""
        self.ledger = Ledger.open(self.config.ledger_url)
        site = Site(self.config.zone, self.clock, self.config.state)
        self.chain, self.prices = build_chain(self.config.feeds, site), build_prices(self.config.prices, site)
        self.meter = build_meter(self.config.power.meters, self.clock)
        if self.devices > 1 or self.boards:
            curve, names = self.root / "watts.csv", self.boards or (None,) * self.devices
            self.meter = CombinedMeter([self.meters(curve, self.clock, *each) for each in enumerate(names)])
        self.chain.poll_due()
        self.supervisor = Supervisor(
            self.config,
            self.ledger,
            self.chain,
            self.meter,
            self.launcher,
            self.clock,
            self.prices,
            build_supply(self.config.supply, site),
            build_pue_feed(self.config.pue_feed, site),
        )
        self.supervisor.starter.starts.tick_wait_s = 60.0  # what is started at a tick runs in that tick
        self.supervisor.placement.driver_calls.patience_s = 60.0
        self.supervisor.prices.poll()
        self.supervisor.supply.poll()
        self.supervisor.pue.poll()
        self.service = SupervisorService(self.supervisor)
        self.supervisor.start()

    def die(self) -> None:
        """As by kill -9: nothing is flushed."""
        self.ledger.close()

    def run_on_a_full_disk(self, seconds: float, monkeypatch: pytest.MonkeyPatch) -> None:
        """Run while the ledger refuses to record any change of a job's state."""

        def refuse(*_: object, **__: object) -> None:
            raise LedgerError("disk full")

        with monkeypatch.context() as patch:
            patch.setattr(self.ledger, "set_state", refuse)
            self.run(seconds)

    def run(self, seconds: float) -> None:
        """Tick once a second."""
        for _ in range(round(seconds)):
            self.clock.advance(1.0)
            for auto in self.autos:
                auto.second()
            self.chain.poll_due()
            self.supervisor.prices.poll()
            self.supervisor.tick()

    def submit(self, job: JobSpec | None = None, foreseen: CheckResult | None = None) -> "Played":
        job_id = self.service.submit(job or spec(), ME, foreseen).id
        return Played(self, job_id)

    def running(self, job: JobSpec | None = None, foreseen: CheckResult | None = None) -> "Played":
        """A job that was submitted, has said that it started, and was heard."""
        played = self.submit(job, foreseen)
        self.run(1)
        played.started()
        self.run(1)
        return played

    def energy(self) -> dict[str, int]:
        """Account → millijoules in the ledger, all rows."""
        found: dict[str, int] = {}
        for row in self.ledger.rows():
            found[row["account"]] = found.get(row["account"], 0) + (row["energy_mj"] or 0)
        return found

    def metered_mj(self) -> int:
        """What the device's counter went up by between the first and the last row."""
        rows = list(self.ledger.rows())
        return int(rows[-1]["counter_end_mj"] - rows[0]["counter_start_mj"])


@dataclass
class Played:
    """One job, whose trainer is the test."""

    rig: Rig
    id: str
    steps: int = 40
    segment: int = 10

    @property
    def dir(self) -> Path:
        return self.rig.supervisor.job_dir(self.id)

    def show(self) -> JobDetail:
        return self.rig.service.show(self.id, ME)

    def say(self, event: str, **fields: Any) -> None:
        line = json.dumps({"at": rfc3339(self.rig.clock.now()), "event": event, **fields})
        with (self.dir / "events.jsonl").open("a") as file:
            file.write(line + "\n")

    def control(self) -> dict[str, Any]:
        return json.loads((self.dir / "control.json").read_text())  # type: ignore[no-any-return]

    def started(
        self,
        first_step: int = 0,
        device: str = "cpu",
        gpu_uuid: str | None = None,
        **more: Any,
    ) -> None:
        """more: fields that are other than a trainer of today would say of this job."""
        told = {
            "pid": 1,
            "segments": -(-self.steps // self.segment),
            "steps": self.steps,
            "first_step": first_step,
            "params": 1000,
            "device": device,
            "gpu_uuid": gpu_uuid,
            "protocol": VERSION,
        }
        self.say("started", **told | more)

    def ready(self, k: int, points: Sequence[dict[str, Any]] = (), seconds_per_step: float = 2.0) -> None:
        self.say(
            "segment_ready",
            k=k,
            segments=self.steps // self.segment,
            first_step=k * self.segment,
            steps=self.segment,
            steps_left=self.steps - k * self.segment,
            importance_batches=1,
            frontier=[{"rho": r, "importance": i} for r, i in FRONTIER],
            flops_full=1e12,
            rho_floor=0.4,
            seconds_per_step=seconds_per_step,
            importance_seconds=1.0,
            points=points,
        )

    def done(self, k: int, rho: float, seconds: float) -> None:
        self.say(
            "segment_done",
            k=k,
            segments=self.steps // self.segment,
            first_step=k * self.segment,
            steps=self.segment,
            rho_directed=rho,
            rho_planned=rho,
            rho_realised=rho,
            flops=rho * 1e12,
            flops_full=1e12,
            waste={"stock_flops": 1.6e12, "padding_flops": 0.2e12, "head_flops": 0.4e12, "orders": 16},
            loss=2.0 - 0.1 * k,
            seconds=seconds,
            importance_seconds=1.0,
            selection_seconds=0.1,
            selected=["a"],
            directive_seq=self.control()["seq"],
        )

    def play(self, k: int) -> Iterator[float]:
        """One segment, as long as its ρ says; yields the ρ it was directed."""
        self.ready(k)
        self.rig.run(1)
        directive = self.control()
        assert directive["k"] == k
        assert directive["action"] == "train", directive["reason"]
        yield directive["rho"]
        seconds = round(self.segment * 2 * directive["rho"])
        self.rig.run(seconds)
        self.done(k, directive["rho"], float(seconds))
        self.rig.run(1)

    def finish(self, reason: str = "done") -> None:
        self.say("finished", step=self.steps, reason=reason)
        self.rig.launcher.end(self.dir)
        self.rig.run(1)
