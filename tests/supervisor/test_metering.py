"""Whose energy it was when the clock on the wall is not to be trusted."""

from datetime import datetime, timedelta
from pathlib import Path

import pytest
from support.rig import ME, START, Rig, spec

from carbonsched.ledger.rows import moment
from carbonsched.model.base import rfc3339
from carbonsched.model.job_state import JobState
from carbonsched.units import grams


@pytest.mark.parametrize("hours", [-1.0, 1.0])
def test_a_clock_that_is_set_charges_the_job_on(tmp_path: Path, hours: float) -> None:
    rig = Rig(tmp_path)
    job = rig.running()
    list(job.play(0))
    job.ready(1)
    rig.run(5)
    run = rig.supervisor.runs[job.id]
    rig.clock.at += timedelta(hours=hours)
    rig.run(2)  # the replayed counter is one of wall time, and jumps with it: the second value bears it out
    stepped = run.account.spent_mj
    rig.run(100)
    assert run.account.spent_mj - stepped == 100 * 100_000
    assert run.process.segment == 1
    assert run.account.segment_mj[1] >= 100 * 100_000
    job.done(1, 1.0, 105.0)
    rig.run(1)
    fit = rig.supervisor.control.estimates.costs.fits.get(run.id)
    assert fit is not None
    assert fit.model().overhead_s < 60, "the hour on the wall was nobody's time"
    rig.supervisor.flush()
    assert rig.energy().get("idle", 0) <= 100_000


def test_a_word_from_the_future_counts_from_now(tmp_path: Path) -> None:
    rig = Rig(tmp_path)
    job = rig.running()
    clock, rig.clock.at = rig.clock.at, START + timedelta(days=3650)
    job.ready(0)
    rig.clock.at = clock
    rig.run(10)
    assert rig.supervisor.runs[job.id].account.segment_mj[0] == pytest.approx(10 * 100_000, rel=0.15)
    starts = [span.start for span in rig.supervisor.runs[job.id].process.spans]
    assert max(starts) <= rig.clock.now(), rfc3339(max(starts))


@pytest.mark.parametrize("hours", [2, 24 * 30])
def test_a_suspended_box_costs_its_jobs_no_time(tmp_path: Path, hours: int) -> None:
    rig = Rig(tmp_path)
    job = rig.running(spec(budget_g=1e6))
    job.ready(0)
    rig.run(10)
    rig.clock.suspend(hours * 3600)
    rig.run(10)
    job.done(0, job.control()["rho"], 20.0)
    rig.run(1)
    assert job.show().state is JobState.RUNNING
    fit = rig.supervisor.control.estimates.costs.fits[job.id].model()
    assert fit.overhead_s < 30, "a segment is not taken for one that takes hours"
    rows = [row for row in rig.ledger.rows(job.id) if "suspended" in (row["reason"] or "")]
    assert all(row["end_us"] - row["start_us"] < 2e6 for row in rows)
    rig.supervisor.flush()
    assert sum(rig.energy().values()) == rig.metered_mj(), "what the counter says is charged"
    assert rig.ledger.verify().ok


def test_a_job_that_was_told_to_end_has_its_time_after_a_suspend_too(tmp_path: Path) -> None:
    rig = Rig(tmp_path)
    job = rig.running(spec(budget_g=1e6))
    rig.service.pause(job.id, ME)
    rig.run(2)
    rig.clock.suspend(8 * 3600)
    rig.run(100)
    assert ("kill", job.dir) not in rig.launcher.asked
    rig.run(30)
    assert ("kill", job.dir) in rig.launcher.asked


def test_the_feeds_are_asked_at_once_after_a_suspend_and_a_lease_is_renewed(tmp_path: Path) -> None:
    rig = Rig(tmp_path)
    job = rig.running(spec(budget_g=1e6))
    job.ready(0)
    rig.run(5)
    asked, seq = rig.chain.view(1).feeds[0].last_success, job.control()["seq"]
    rig.clock.suspend(6 * 3600)
    rig.run(1)
    assert asked is not None
    again = rig.chain.view(1).feeds[0].last_success
    assert again is not None
    assert (again - asked).total_seconds() > 6 * 3600
    assert job.control()["seq"] > seq
    assert datetime.fromisoformat(job.control()["lease"]["valid_until"]) > rig.clock.now()


def test_rows_are_cut_where_the_pue_changes_also_of_a_time_when_nobody_looked(tmp_path: Path) -> None:
    """The daemon is away for three hours, and in the second another PUE begins."""
    change = START + timedelta(hours=2)
    afternoon = {"hours": [f"{change:%H:%M}-24:00"], "pue": 1.5, "source": "BMS"}
    rig = Rig(tmp_path, extra={"pue": 1.2, "pue_source": "report", "pue_hours": [afternoon]})
    job = rig.running(spec(budget_g=1e6))
    job.ready(0)
    rig.run(60)
    rig.die()
    rig.clock.advance(3 * 3600)
    rig.boot()
    rig.run(60)
    rig.supervisor.flush()
    rows = [row for row in rig.ledger.rows() if row["energy_mj"]]
    found = {(row["pue"], row["pue_source"]) for row in rows}
    assert found == {(1.2, "report"), (1.5, "BMS")}
    for row in rows:
        start, end = moment(row["start_us"]), moment(row["end_us"])
        assert end <= change or start >= change, "no row spans both"
        assert row["pue"] == (1.5 if start >= change else 1.2)
        assert row["grams"] == pytest.approx(grams(row["energy_mj"] / 1000, row["g_per_kwh"], row["pue"]))
    assert rig.ledger.verify().ok
    assert sum(rig.energy().values()) == rig.metered_mj()
    assert rig.supervisor.metering.box_kw() == pytest.approx(0.1 * 1.5)
    assert rig.supervisor.control.estimates.config().pue == 1.5, "plans reckon with the one of now"


def test_a_daemon_killed_before_its_first_rows_are_full_loses_nothing(tmp_path: Path) -> None:
    """The counter is read on from the last row: there has to be one before any job can have started."""
    rig = Rig(tmp_path)
    job = rig.submit(spec())
    rig.run(1)
    read, job_id = rig.clock.now(), job.id
    job.started()
    rig.run(2)
    rig.die()
    rig.clock.advance(60)
    rig.boot()
    rig.run(10)
    rig.supervisor.flush()
    begun, now = rig.supervisor.runs[job_id].process.alive_from, rig.clock.now()
    assert begun == read
    charged = sum(row["energy_mj"] for row in rig.ledger.rows() if row["job_id"] == job_id)
    assert charged == (now - read).total_seconds() * 100_000
