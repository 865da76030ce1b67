"""The daemon's way of a clock: chosen, locked by a real helper, told to the trainer, noted, and given back."""

import os
import shutil
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any, ClassVar

import pytest
from support.clocks import BOARD, ClocksBox
from support.nvml.fake import build_fake_nvml
from support.processes import until
from support.rig import Played, Rig, spec

from carbonsched.model.job import JobSpec
from carbonsched.power.replay import EPOCH, PowerCurve, ReplayMeter
from carbonsched.report import build, render

pytestmark = pytest.mark.skipif(shutil.which("gcc") is None, reason="needs gcc to build the stand-in")


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_fake_nvml(tmp_path_factory.mktemp("nvml"))


@pytest.fixture
def box(library: Path, tmp_path: Path) -> Iterator[ClocksBox]:
    box = ClocksBox(tmp_path, library)
    yield box
    box.close()


def rig(tmp_path: Path, **power: Any) -> Rig:
    power = {
        "gpu": "replay",
        "host": "none",
        "replay_file": str(tmp_path / "rig" / "watts.csv"),
        "clocks": "auto",
        "clocks_socket": str(tmp_path / "sock"),
    } | power
    return Rig(tmp_path / "rig", boards=(BOARD,), extra={"power": power})


def training(here: Rig, **carbon: Any) -> Played:
    """A job that has loaded its model, in this process's name."""
    here.launcher.pid = os.getpid()
    job = here.submit(spec(**carbon))
    here.run(1)
    job.started(device="cuda:0", gpu_uuid=BOARD)
    here.run(1)
    return job


def segment(job: Played, k: int, seconds: float) -> int | None:
    """Plays a segment that takes so long; returns the clock that it was told."""
    job.ready(k)
    job.rig.run(1)
    dial = job.rig.supervisor.control.clocks

    def told() -> bool:
        job.rig.run(1)
        assert dial.helper is not None
        wanted = job.rig.supervisor.runs[job.id].clock.mhz
        return bool(dial.helper.held(BOARD) == wanted == job.control()["clocks"])

    until(told)
    assert job.control()["k"] == k
    job.rig.run(seconds)
    job.done(k, job.control()["rho"], float(seconds))
    job.rig.run(1)
    clocks = job.control()["clocks"]
    assert clocks is None or isinstance(clocks, int)
    return clocks


def test_a_lower_clock_is_tried_kept_where_it_takes_less_and_given_back(
    tmp_path: Path, box: ClocksBox
) -> None:
    here = rig(tmp_path)
    job = training(here, clocks="auto", max_slowdown=2.0)
    until(lambda: here.supervisor.control.clocks.helper.levels(BOARD) != ())  # type: ignore[union-attr]
    assert segment(job, 0, 40) is None
    assert segment(job, 1, 32) == 1275  # tried, and took fewer joules
    assert box.mhz == 1275
    assert segment(job, 2, 60) == 1125  # tried, and took more
    assert segment(job, 3, 32) == 1275
    notes = [note["mhz"] for note in here.ledger.history(job.id, kinds=("clocks",))]
    assert notes == [1275, 1125, 1275]
    job.finish()
    here.run(1)
    until(lambda: box.mhz == 0)
    assert here.ledger.history(job.id, kinds=("clocks",))[-1]["mhz"] is None
    report = build(here.ledger, job.id, now=here.clock.now())
    assert [line.clock_mhz for line in report.segments] == [None, 1275, 1125, 1275]
    assert report.savings is not None
    effect = report.savings.clocks
    assert effect is not None
    # 100 W: 400 s·W at the board's own clock against 320, 600 and 320, at about one ρ
    assert effect.saved_g == pytest.approx(
        (3 * 40 - 32 - 60 - 32) / 40 * report.segments[0].spent_g, abs=0.1 * report.segments[0].spent_g
    )
    assert effect.low_g is not None
    assert effect.saved_g is not None
    assert effect.low_g < effect.saved_g
    assert effect.estimated
    assert "Saved by lower clocks" in render(report, here.ledger, "html")
    here.supervisor.stop()


class ClockedCurve(PowerCurve):
    """A board that draws what its clock lets it draw."""

    WATTS: ClassVar = {0: 100.0, 1275: 76.0, 1125: 80.0}

    def __init__(self, box: ClocksBox) -> None:
        self.box, self.at, self.mj, self.watts_limit = box, EPOCH, 0.0, 100.0

    def watts(self, at: datetime) -> float:
        return self.WATTS[self.box.mhz]

    def counter_mj(self, at: datetime) -> int:
        self.mj += self.watts(at) * 1000 * ((at - self.at).total_seconds() if self.at > EPOCH else 0.0)
        self.at = at
        return round(self.mj)


SLOWER = {None: 1.0, 1275: 1.1, 1125: 1.3}
"""Seconds of a step over those at the board's own clock: of the joules .84 and 1.04."""
OFFERS = [
    {"setting": {"method": "full"}, "rho": 1.0, "gain": 1.0, "low": 0.0, "high": 2.0},
    {"setting": {"method": "greentrainer"}, "rho": 0.6, "gain": 0.5, "low": 0.0, "high": 2.0},
]


def choosing(here: Rig, box: ClocksBox, steps: int, **carbon: Any) -> Played:
    """A job of method auto whose board follows the helper's clock."""

    class Meter(ReplayMeter):
        def __init__(self, *args: Any) -> None:
            super().__init__(*args)
            self._curve = ClockedCurve(box)

    here.meters = Meter
    here.supervisor.stop()
    here.die()
    here.boot()
    asked = spec(method="auto", clocks="auto", max_slowdown=2.0, **carbon).dump()
    asked["train"]["max_steps"] = steps
    here.launcher.pid = os.getpid()
    job = here.submit(JobSpec.parse(asked))
    job.steps = steps
    here.run(1)
    job.started(device="cuda:0", gpu_uuid=BOARD)
    here.run(1)
    until(lambda: here.supervisor.control.clocks.helper.levels(BOARD) != ())  # type: ignore[union-attr]
    return job


def trained(job: Played, k: int) -> tuple[str, int | None]:
    """Plays a segment of a job that chooses; (method, clock) that it was told."""
    run, dial = job.rig.supervisor.runs[job.id], job.rig.supervisor.control.clocks
    job.ready(k, points=OFFERS)
    job.rig.run(1)

    def told() -> bool:
        job.rig.run(1)
        assert dial.helper is not None
        return bool(dial.helper.held(BOARD) == run.clock.mhz == job.control()["clocks"])

    until(told)
    control = job.control()
    assert (control["k"], control["action"]) == (k, "train"), control["reason"]
    seconds = round(job.segment * 2 * control["rho"] * SLOWER[control["clocks"]])
    job.rig.run(seconds)
    job.done(k, control["rho"], float(seconds))
    job.rig.run(1)
    return control["setting"]["method"], control["clocks"]


def test_where_grams_bind_a_plan_of_settings_takes_full_at_a_lower_clock_rather_than_tensors(
    tmp_path: Path, box: ClocksBox
) -> None:
    """From metered joules to a point of the plan, to control.json, to the board."""
    here = rig(tmp_path)
    full_g = 240 * 2 * 100 / 3.6e6 * 400
    job = choosing(here, box, 240, budget_g=1.15 * full_g)
    told = [trained(job, k) for k in range(6)]
    assert [clock for _, clock in told[:3]] == [None, 1275, 1125], "measured one after the other"
    assert [clock for _, clock in told[3:]] == [1275] * 3, job.control()["reason"]
    assert told[-1] == ("full", 1275)
    assert box.mhz == 1275
    assert "full, 1275 MHz for" in job.control()["reason"]
    notes = here.ledger.history(job.id, kinds=("clocks",))
    assert notes[-1]["mhz"] == 1275
    assert "of the joules and 1.10 of the seconds" in notes[-1]["reason"]
    job.finish()
    here.run(1)
    until(lambda: box.mhz == 0)
    here.supervisor.stop()


def test_where_time_binds_so_many_segments_go_back_to_the_boards_own_clock(
    tmp_path: Path, box: ClocksBox
) -> None:
    here = rig(tmp_path)
    job = choosing(here, box, 200, budget_g=100.0, deadline="620s")
    told = [trained(job, k) for k in range(4)]
    assert told[-1] == ("full", 1275), "as many steps for fewer grams, and in time"
    left_s = 620 - here.clock.monotonic()
    here.run(left_s - 16 * 24.0)  # something keeps the trainer: at 1275 MHz all of it would take 16 · 25 s
    told = [trained(job, k) for k in range(4, 20)]
    assert ("full", None) in told
    assert [method for method, _ in told].count("full") >= 12, "hardly a step is worth less for that"
    here.supervisor.stop()


@pytest.mark.parametrize("why", ["config", "job", "shared", "helper gone"])
def test_clocks_stay_as_they_are(tmp_path: Path, box: ClocksBox, why: str) -> None:
    here = rig(tmp_path, **({"clocks": "off"} if why == "config" else {}))
    job = training(here, **({} if why == "job" else {"clocks": "auto"}))
    dial = here.supervisor.control.clocks
    if why == "shared":
        here.supervisor.placement.strangers = {BOARD: "not a job's alone"}
    if why == "helper gone":
        box.helper.kill()
    for k in range(2):
        job.ready(k)
        here.run(2)
        assert job.control()["action"] == "train"
        assert job.control()["clocks"] is None
        here.run(30)
        job.done(k, job.control()["rho"], 30.0)
        here.run(1)
    assert box.mhz == 0
    assert (dial.helper is None) == (why == "config")
    here.supervisor.stop()
