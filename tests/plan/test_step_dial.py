"""How many steps a job of open end takes, and when it cools down."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from carbonsched.plan.problem import EnergyModel, JobSegment, Problem, Slot
from carbonsched.plan.step_dial import SHORTEST, OpenEnd, judge, lay_out

FULL = ((1.0, 1.0),)
ENERGY = EnergyModel(3600.0, 1.0, 10.0, 1.0, tail_j=3600.0, tail_s=10.0, sigma=0.0, watts_high=360.0)
"""A step takes 1 Wh and 10 s: 0.3 g at 300 g/kWh."""
JOB = OpenEnd(done=0, k=0, here=50, length=50, share=0.2, look_s=10.0)


def problem(budget_g: float, **fields: object) -> Problem:
    slots = (Slot(0.0, 86_400.0, 300.0, 300.0),)
    asked = Problem((JobSegment(0, 50, FULL),), slots, ENERGY, budget_g, 1.0, 1.0, worst_g_per_kwh=300.0)
    return replace(asked, **fields)  # type: ignore[arg-type]


def at(done: int, **fields: object) -> OpenEnd:
    here = JOB.length - done % JOB.length
    return replace(JOB, done=done, k=done // JOB.length, here=here, **fields)  # type: ignore[arg-type]


def test_as_many_steps_as_the_grams_pay_for_the_last_fifth_of_them_cooling_down() -> None:
    laid, plan = lay_out(problem(0.3 * 201), JOB)  # 200 steps and the evaluation
    assert (plan.phase, plan.end, plan.cooldown_from) == ("stable", 199, 159)
    assert [s.steps for s in laid.segments] == [50, 50, 50, 49]
    assert laid.open_end
    assert "stable, then a cooldown from about step 159 to about step 199 (estimated)" in plan.reason


def test_it_cools_down_when_a_later_look_would_come_too_late() -> None:
    """Of 201 steps' grams n are spent: what is left pays for 200 − n steps and the evaluation."""
    begun = next(n for n in range(200) if judge(problem(0.3 * (201 - n)), at(n)).phase == "cooldown")
    plan = judge(problem(0.3 * (201 - begun)), at(begun))
    assert begun == 159
    assert (plan.cooldown_from, plan.end) == (159, 200), "all that is left is for it"


@pytest.mark.parametrize(
    ("left", "steps"),
    [(41.0, 40), (61.0, 60), (21.0, 20), (2.0, 3), (0.5, 3)],
    ids=["as begun", "longer", "shorter", "2% at least", "and then a stop"],
)
def test_a_cooldown_that_runs_follows_what_is_left(left: float, steps: int) -> None:
    plan = judge(problem(0.3 * left), at(160, cools_from=160))
    assert (plan.phase, plan.cooldown_from) == ("cooldown", 160)
    assert plan.cooldown_steps == pytest.approx(steps, abs=1)
    assert plan.cooldown_steps >= SHORTEST * 160


@pytest.mark.parametrize(("deadline_s", "end"), [(10.0 * 81, 80), (10.0 * 301, 200)])
def test_a_deadline_binds_like_grams(deadline_s: float, end: int) -> None:
    _, plan = lay_out(problem(0.3 * 201, deadline_s=deadline_s), JOB)
    assert plan.end == pytest.approx(end, abs=1)


def test_a_bound_is_no_aim_but_the_most() -> None:
    laid, plan = lay_out(problem(1e6), replace(JOB, most=120))
    assert (plan.end, plan.cooldown_from) == (120, 96)
    assert sum(s.steps for s in laid.segments) == 120
    plan = judge(problem(1e6), at(95, most=120))
    assert (plan.phase, plan.cooldown_from, plan.end) == ("cooldown", 96, 120), "said before it begins"


def test_what_may_be_wrong_is_kept_back() -> None:
    sure = judge(problem(0.3 * 201), at(150))
    doubtful = judge(problem(0.3 * 51, energy=replace(ENERGY, sigma=0.2)), at(150))
    dirty = judge(problem(0.3 * 51, slots=(Slot(0.0, 86_400.0, 300.0, 420.0),)), at(150))
    assert sure.phase == "stable"
    assert doubtful.phase == dirty.phase == "cooldown"


def test_cleaner_hours_pay_for_more_steps_where_it_may_wait() -> None:
    slots = (Slot(0.0, 7200.0, 300.0, 300.0), Slot(7200.0, 86_400.0, 100.0, 100.0))
    now, later = (
        lay_out(problem(0.3 * 201, slots=slots, may_pause=may_pause, deadline_s=20_000.0), JOB)[1]
        for may_pause in (False, True)
    )
    assert now.end == 199
    assert later.end == pytest.approx(600, rel=0.02)


def test_it_trains_in_allowed_hours_alone() -> None:
    asked = problem(1e6, deadline_s=7200.0, allowed=((0.0, 1000.0), (6000.0, 86_400.0)))
    _, plan = lay_out(asked, JOB)
    assert plan.end == pytest.approx((1000 + 1200) / 10 - 1, abs=1)


def test_a_trainer_that_may_be_further_than_it_says_cools_down_from_a_step_it_has_not_taken() -> None:
    energy = replace(ENERGY, seconds_full=0.1)
    plan = judge(problem(0.3 * 61, energy=energy), at(170, lag_s=2.0))
    assert (plan.phase, plan.cooldown_from) == ("cooldown", 190)


@given(
    left=st.floats(0.01, 1e4),
    done=st.integers(0, 10_000),
    share=st.floats(0.02, 0.9),
    sigma=st.floats(0.0, 0.5),
    most=st.none() | st.integers(10_001, 20_000),
    cooling=st.booleans(),
)
def test_it_always_ends_behind_where_it_is_and_never_behind_its_bound(
    left: float, done: int, share: float, sigma: float, most: int | None, *, cooling: bool
) -> None:
    cools_from = done // 2 if cooling else None
    job = replace(at(done), share=share, most=most, cools_from=cools_from)
    laid, plan = lay_out(problem(left, energy=replace(ENERGY, sigma=sigma)), job)
    assert plan.end > done
    assert plan.cooldown_steps >= 1
    assert most is None or plan.end <= most
    assert sum(s.steps for s in laid.segments) == plan.end - done
    assert min(s.steps for s in laid.segments) >= 1
