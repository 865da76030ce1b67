"""The daemon's way of a clock: chosen, locked by a real helper, told to the trainer, noted, and given back."""

import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from support.clocks import BOARD, ClocksBox
from support.nvml.fake import build_fake_nvml
from support.processes import until
from support.rig import Played, Rig, spec

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
        assert dial.keeper is not None
        wanted = job.rig.supervisor.runs[job.id].clock.mhz
        return bool(dial.keeper.held(BOARD) == wanted == job.control()["clocks"])

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
    until(lambda: here.supervisor.control.clocks.keeper.levels(BOARD) != ())  # type: ignore[union-attr]
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
    assert (dial.keeper is None) == (why == "config")
    here.supervisor.stop()
