"""What a job wants of its grams: pace under a rate, the fewest grams for a quality, an ordinary budget left alone."""

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from carbonsched.plan.allocation import mean_rho
from carbonsched.plan.objective import NO_LIMIT_G, BudgetRate, Objective, solve_for
from carbonsched.plan.planner import solve
from carbonsched.plan.problem import EnergyModel, JobSegment, Problem, Slot
from carbonsched.units import J_PER_KWH

HOUR = 3600.0
LINEAR = ((0.4, 0.4), (1.0, 1.0))
CONCAVE = ((0.4, 0.6), (0.6, 0.9), (1.0, 1.0))


def job(values: list[float], n: int = 6, curve: tuple[tuple[float, float], ...] = LINEAR, **more) -> Problem:
    """1 kWh and half an hour a segment at full speed."""
    slots = tuple(Slot(i * HOUR, (i + 1) * HOUR, v, v * 1.2, v * 0.9) for i, v in enumerate(values))
    segments = tuple(JobSegment(k, 1, curve) for k in range(n))
    energy = EnergyModel(J_PER_KWH, 0.2, HOUR / 2, 0.2, sigma=0.05)
    return replace(Problem(segments, slots, energy, 0.0, 0.4, 1.0), **more)


def test_an_ordinary_budget_is_the_planners():
    problem = job([300.0] * 24, budget_g=1000.0)
    assert solve_for(problem, Objective()) == (problem, solve(problem))


def test_a_segment_begins_only_when_its_grams_are_there():
    problem = job([300.0] * 48, n=100)
    rich = BudgetRate(g_per_h=100.0, level_g=500.0, most_g=2400.0)
    _, plan = solve_for(problem, Objective(budget_rate=rich))
    assert plan.action == "train"
    poor = replace(rich, level_g=50.0)
    _, plan = solve_for(problem, Objective(budget_rate=poor))
    assert plan.action == "wait"
    # 300 g at 1.2 × the expected intensity and 1.645 × 5% above the expected energy, and a little to spare
    needs = 300 * 1.2 * (1 + 1.645 * 0.05)
    assert plan.wait_s == pytest.approx((1.2 * needs - 50) / 100 * HOUR, rel=0.02)
    assert "at 100 g/h, 50 g are there" in plan.reason
    resident = replace(poor, resident_s=1e9)
    _, plan = solve_for(problem, Objective(budget_rate=resident))
    assert plan.wait_s == pytest.approx((needs - 50) / 100 * HOUR, rel=0.02)


def test_an_endless_job_trains_at_the_rho_that_gains_most_a_gram():
    problem = job([300.0] * 48, n=1000, curve=CONCAVE)
    _, plan = solve_for(problem, Objective(budget_rate=BudgetRate(20.0, 400.0, 480.0)))
    assert plan.rho == pytest.approx(0.6, abs=0.03), "gain 0.9 for 0.68 kWh"
    _, linear = solve_for(
        replace(problem, segments=job([1.0], n=1000).segments),
        Objective(budget_rate=BudgetRate(20.0, 400.0, 480.0)),
    )
    assert linear.rho == pytest.approx(1.0)


def test_time_and_not_grams_binds_a_rate_that_is_plenty():
    asked, plan = solve_for(
        job([300.0] * 24, n=20), Objective(budget_rate=BudgetRate(5000.0, 5000.0, 120_000.0))
    )
    assert len(asked.segments) == 20
    assert plan.rho == pytest.approx(1.0)


def test_what_a_day_cannot_save_up_stops_with_the_grams():
    _, plan = solve_for(job([300.0] * 24), Objective(budget_rate=BudgetRate(2.0, 10.0, 48.0)))
    assert plan.action == "stop"
    assert "no more than 48 g are saved up" in plan.reason
    _, plan = solve_for(job([300.0] * 24), Objective(budget_rate=BudgetRate(10.0, 240.0, 240.0)))
    assert plan.action == "train", "a lower rho fits what can be saved"
    assert 0.4 <= plan.rho < 0.7


@settings(max_examples=40, deadline=None)
@given(
    rate=st.floats(0.5, 500.0),
    share=st.floats(0.0, 1.0),
    values=st.lists(st.floats(50.0, 600.0), min_size=4, max_size=24),
    pause=st.booleans(),
    deadline=st.none() | st.floats(1.0, 200.0),
)
def test_no_segment_ever_begins_with_less_than_it_needs(rate, share, values, pause, deadline):
    deadline_s = None if deadline is None else deadline * HOUR
    problem = job(values, n=30, may_pause=pause, deadline_s=deadline_s, reserve_g=1.0)
    budget_rate = BudgetRate(rate, share * 24 * rate, 24 * rate, again_g=2.0)
    _, plan = solve_for(problem, Objective(budget_rate=budget_rate))
    if plan.action == "train":
        expected = problem.energy.joules(plan.rho, 1) / J_PER_KWH * min(values)
        assert expected + problem.reserve_g <= budget_rate.level_g + 1e-6
        assert 0.4 - 1e-9 <= plan.rho <= 1.0
    elif plan.action == "wait":
        assert plan.wait_s > 0
    else:
        assert "needs" in plan.reason


def test_the_fewest_grams_for_a_quality_are_unguarded_without_a_budget():
    problem = job([300.0, 100.0] * 12, budget_g=NO_LIMIT_G, may_pause=True, deadline_s=24 * HOUR)
    asked, plan = solve_for(problem, Objective(rho_mean=0.7))
    assert mean_rho(asked, plan) == pytest.approx(0.7, abs=2e-3)
    assert asked.budget_g < 6 * 300
    assert "budget" not in plan.binding
    assert plan.reason.startswith("min-carbon: mean rho 0.700 for")


def test_a_budget_below_it_is_the_cap_and_a_deadline_too_near_is_told():
    problem = job([300.0] * 24, budget_g=1000.0, deadline_s=24 * HOUR)
    _, plan = solve_for(problem, Objective(rho_mean=0.9))
    assert "would take" in plan.reason
    assert plan.spend_g <= 1000.0
    late = job([300.0] * 24, budget_g=NO_LIMIT_G, deadline_s=2 * HOUR)
    _, plan = solve_for(late, Objective(rho_mean=0.9))
    assert "the wanted 0.900 is out of reach before the deadline" in plan.reason
