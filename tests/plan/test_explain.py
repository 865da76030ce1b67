"""A plan told before anything is spent."""

from dataclasses import replace

import pytest

from carbonsched.plan.explain import explain
from carbonsched.plan.planner import solve
from carbonsched.plan.problem import EnergyModel, JobSegment, Problem, Slot
from carbonsched.units import J_PER_KWH

HOUR = 3600.0


def problem(values: list[float], budget_g: float, **more) -> Problem:
    slots = tuple(Slot(i * HOUR, (i + 1) * HOUR, v, v * 1.2, v * 0.9) for i, v in enumerate(values))
    n = more.pop("n", len(values))
    segments = tuple(JobSegment(k, 1, ((0.0, 0.0), (1.0, 1.0))) for k in range(n))
    energy = EnergyModel(J_PER_KWH, 0.2, HOUR, 1.0, sigma=0.0)
    return replace(Problem(segments, slots, energy, budget_g, 0.4, 1.0), **more)


def test_a_budget_that_binds_says_what_a_gram_would_buy():
    asked = problem([300.0] * 4, 1000.0)
    told = explain(asked, solve(asked))
    assert told.action == "train"
    assert "budget" in told.binding
    assert (told.start_s, told.end_s) == (0.0, 4 * HOUR)
    assert told.g == pytest.approx(sum(s.g for s in told.segments))
    assert told.low_g < told.g < told.high_g
    assert all(s.low_g < s.g < s.high_g for s in told.segments)
    # the errors of four hours partly cancel: the sum's band is narrower than the bands' sum
    assert told.high_g < sum(s.high_g for s in told.segments)
    # 240 g buy a ρ of 1 in one of four segments
    assert told.gain_per_more_g == pytest.approx(1 / 240 / 4, rel=0.02)
    assert told.gain_per_more_hour is None


def test_plenty_of_grams_buy_nothing_more():
    told = explain(problem([300.0] * 4, 5000.0))
    assert told.rho == pytest.approx(1.0)
    assert told.gain == pytest.approx(1.0)
    assert told.gain_per_more_g == 0.0


def test_an_hour_more_before_the_deadline_buys_a_cleaner_one():
    told = explain(problem([300.0, 300.0, 80.0, 80.0], 320.0, n=2, may_pause=True, deadline_s=3 * HOUR))
    assert told.gain_per_more_hour is not None
    assert told.gain_per_more_hour > 0.1


def test_a_job_that_cannot_be_afforded_is_told_so():
    told = explain(problem([300.0] * 4, 100.0))
    assert told.action == "stop"
    assert told.floor_g == pytest.approx(624.0)
    assert told.reason.startswith("stop: budget below floor")
    assert told.start_s is None
    assert told.segments == ()
