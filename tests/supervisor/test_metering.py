"""Whose energy it was when the clock on the wall is not to be trusted."""

from datetime import timedelta
from pathlib import Path

import pytest
from support.rig import START, Rig

from carbonsched.model.base import rfc3339


@pytest.mark.parametrize("hours", [-1.0, 1.0])
def test_a_clock_that_is_set_charges_the_job_on(tmp_path: Path, hours: float) -> None:
    rig = Rig(tmp_path)
    job = rig.running()
    list(job.play(0))
    job.ready(1)
    rig.run(5)
    run = rig.supervisor.runs[job.id]
    rig.clock.at += timedelta(hours=hours)
    rig.run(1)  # the replayed counter is one of wall time, and jumps with it
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
