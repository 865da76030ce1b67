"""Allowed hours and min-carbon on the rig: when a job trains, and for how few grams."""

from datetime import timedelta
from pathlib import Path

import pytest
from support.auto import Auto
from support.rig import START, Rig, spec

from carbonsched.model.job_state import JobState

FULL_G = 4 * 10 * 2 * 100 / 3.6e6 * 400


def span(start_s: float, end_s: float) -> str:
    """Allowed hours, in minutes after the rig's start at noon."""
    return "-".join(f"{START + timedelta(seconds=s):%H:%M}" for s in (start_s, end_s))


def test_a_job_waits_in_the_queue_for_its_hours(tmp_path: Path) -> None:
    rig = Rig(tmp_path)
    job = rig.submit(spec(allowed_hours=[span(120, 3600)]))
    rig.run(5)
    assert job.show().state is JobState.QUEUED
    assert job.show().reason == "waits for its allowed hours, from 2026-11-01 12:02 UTC"
    rig.run(120)
    assert job.show().state is JobState.RUNNING


def test_a_time_zone_moves_the_hours(tmp_path: Path) -> None:
    rig = Rig(tmp_path)
    here = rig.submit(spec(allowed_hours=["13:00-14:00"], timezone="Europe/Berlin"))
    rig.run(2)
    assert here.show().state is JobState.RUNNING, "noon UTC is 13:00 there in November"


def test_in_mid_segment_the_hours_end_and_the_job_goes_on_in_the_next(tmp_path: Path) -> None:
    rig = Rig(tmp_path)
    spans = [span(0, 60), span(780, 3600)]
    job = rig.submit(spec(budget_g=5.0, allowed_hours=spans))
    auto = Auto(job)
    rig.run(50)
    lease = job.control()["lease"]["valid_until"]
    assert lease <= "2026-11-01T12:01:00.000Z", "should the daemon be away then, the trainer waits by itself"
    assert job.show().state is JobState.RUNNING
    rig.run(20)
    view = job.show()
    assert view.state is JobState.WAITING, view.reason
    assert "allowed hours" in view.reason
    assert 20 < auto.saved < 30, "in mid-segment, with a checkpoint"
    before = auto.saved
    rig.run(600)
    assert (job.show().state, auto.saved) == (JobState.WAITING, before)
    rig.run(180)
    assert job.show().state is JobState.FINISHED, job.show().reason


def test_min_carbon_reaches_the_wanted_quality_and_spends_no_more(tmp_path: Path) -> None:
    rig = Rig(tmp_path)
    wish = {"objective": "min-carbon", "rho_mean": 0.7, "deadline": "1h", "budget_g": None}
    job = rig.submit(spec(**wish))
    Auto(job)
    rig.run(120)
    view = job.show()
    assert view.state is JobState.FINISHED, view.reason
    mean = sum(s.rho_realised for s in view.segments_done) / len(view.segments_done)
    assert mean == pytest.approx(0.7, abs=0.02)
    assert view.budget_g is None
    assert view.spent_g < 0.9 * FULL_G
    assert all(s.reason.startswith("min-carbon: mean rho 0.") for s in view.segments_done)


def test_min_carbon_uses_the_cleaner_hour(tmp_path: Path) -> None:
    trace = tmp_path / "trace.csv"
    day = [600] * 2 + [60] * 22
    rows = [f"2026-01-{d:02}T{h:02}:00:00Z,{g},{g}" for d in (1, 2, 3) for h, g in enumerate(day)]
    trace.write_text("datetime,g_per_kwh,forecast_g_per_kwh\n" + "\n".join(rows) + "\n")
    feed = {"provider": "replay", "file": str(trace), "hour_s": 30, "anchor": "2026-11-01T12:00:00Z"}
    rig = Rig(tmp_path, watts="0,5\n3600,5\n", extra={"feeds": [feed]})
    wish = {"objective": "min-carbon", "rho_mean": 0.8, "deadline": "5m", "budget_g": None, "may_pause": True}
    job = rig.submit(spec(**wish))
    Auto(job)
    rig.run(10)
    assert job.control()["action"] == "wait", job.control()["reason"]
    rig.run(200)
    view = job.show()
    assert view.state is JobState.FINISHED, view.reason
    mean = sum(s.rho_realised for s in view.segments_done) / 4
    assert mean >= 0.78
    assert all(s.g_per_kwh == 60 for s in view.segments_done[1:])


def test_a_budget_caps_min_carbon(tmp_path: Path) -> None:
    rig = Rig(tmp_path, extra={"zone": {"worst_g_per_kwh": 450}})
    wish = {"objective": "min-carbon", "rho_mean": 1.0, "deadline": "1h", "budget_g": FULL_G * 0.85}
    job = rig.submit(spec(**wish))
    Auto(job)
    rig.run(120)
    view = job.show()
    assert view.state is JobState.FINISHED, view.reason
    assert view.spent_g <= FULL_G * 0.85
    assert "the budget is the cap" in view.segments_done[0].reason
