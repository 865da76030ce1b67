"""Budgets that grow with time: what was granted by when, what is saved up, and jobs that live on it."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.auto import Auto
from support.rig import START, Rig, spec

from carbonsched.model.job_state import JobState
from carbonsched.supervisor.budgets.accrual import FIRST_H, SAVED_H, Accrual

AT = datetime(2026, 11, 1, tzinfo=UTC)


@given(
    rate=st.floats(0.01, 100.0),
    moves=st.lists(st.tuples(st.floats(-5.0, 100.0), st.floats(0.0, 1.0)), max_size=30),
)
def test_never_more_than_the_rate_gives_nor_more_than_a_day_saved(
    rate: float, moves: list[tuple[float, float]]
) -> None:
    accrual, spent, now = Accrual.begin(rate, AT), 0.0, AT
    for hours, share in moves:
        now += timedelta(hours=hours)
        before = accrual.granted_g
        granted = accrual.grow(now, spent)
        assert granted >= before
        latest = max((accrual.at - AT).total_seconds() / 3600, 0.0)
        assert granted <= rate * (latest + FIRST_H) * (1 + 1e-9)
        assert granted - spent <= rate * max(SAVED_H, FIRST_H) * (1 + 1e-9)
        spent += share * (granted - spent)


@settings(max_examples=20)
@given(cuts=st.lists(st.floats(0.0, 40.0), max_size=6))
def test_who_spends_nothing_has_a_day_saved_however_often_one_looks(cuts: list[float]) -> None:
    accrual = Accrual.begin(2.0, AT)
    for hours in sorted(cuts):
        accrual.grow(AT + timedelta(hours=hours), 0.0)
    assert accrual.grow(AT + timedelta(hours=50), 0.0) == pytest.approx(2.0 * SAVED_H)


# 100 W at 400 g/kWh are 40 g/h; a segment of 10 steps takes 20 s and 0.22 g at full speed
def test_a_job_trains_when_enough_has_accrued_and_ends_with_its_epochs(tmp_path: Path) -> None:
    rig = Rig(tmp_path, extra={"zone": {"worst_g_per_kwh": 450}})
    rate = 4.0
    job = rig.submit(spec(budget_g=None, budget_rate_g_per_h=rate))
    Auto(job)
    states = set()
    for _ in range(1500):
        rig.run(1)
        view = job.show()
        states.add(view.state)
        hours = (rig.clock.now() - START).total_seconds() / 3600
        assert view.spent_g <= rate * (hours + FIRST_H) + 1e-9
        assert view.budget_g is None or view.spent_g <= view.budget_g
        if view.state.ended:
            break
    assert job.show().state is JobState.FINISHED, job.show().reason
    assert [s.k for s in job.show().segments_done] == [0, 1, 2, 3]


def test_a_job_that_has_used_up_its_rate_waits_for_more(tmp_path: Path) -> None:
    rig = Rig(tmp_path, extra={"zone": {"worst_g_per_kwh": 450}})
    rate = 0.6
    job = rig.submit(spec(budget_g=None, budget_rate_g_per_h=rate))
    Auto(job)
    reasons = []
    for _ in range(1200):
        rig.run(5)
        view = job.show()
        assert view.budget_g is None or view.spent_g <= view.budget_g
        if view.state is JobState.WAITING:
            reasons.append(view.reason)
        if view.state.ended:
            break
    assert view.state is JobState.FINISHED, view.reason
    assert any("at 0.6 g/h" in reason for reason in reasons)
    hours = (rig.clock.now() - START).total_seconds() / 3600
    assert view.spent_g > rate * FIRST_H, "more than the first hour's: it lived on what accrued"
    assert view.spent_g <= rate * (hours + FIRST_H)
    assert rig.ledger.verify().ok


def test_what_accrued_outlives_the_daemon(tmp_path: Path) -> None:
    rig = Rig(tmp_path)
    job = rig.submit(spec(budget_g=None, budget_rate_g_per_h=3.0))
    rig.run(1)
    job.started()
    job.ready(0)
    rig.run(30)
    before = job.show().budget_g
    assert before == pytest.approx(3.0 + 3.0 * 31 / 3600, abs=0.01)
    rig.die()
    rig.clock.advance(60)
    rig.boot()
    rig.run(1)
    assert job.show().budget_g == pytest.approx(3.0 + 3.0 * 92 / 3600, abs=0.01)


def test_a_segment_that_a_day_cannot_save_for_is_refused_with_the_grams(tmp_path: Path) -> None:
    rig = Rig(tmp_path, extra={"zone": {"worst_g_per_kwh": 450}})
    job = rig.submit(spec(budget_g=None, budget_rate_g_per_h=0.006))
    rig.run(1)
    for _ in range(5):
        if job.show().state.ended:
            break
        rig.run(1)
    view = job.show()
    assert view.state in (JobState.STOPPED, JobState.WAITING)
    assert "0.006 g/h" in view.reason
