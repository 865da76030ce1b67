"""Allowed hours: a plan never trains outside them, loses nothing where there are none, and pays for each interruption."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from carbonsched.model.allowed_hours import stretches as daily
from carbonsched.plan.planner import solve
from carbonsched.plan.problem import EnergyModel, JobSegment, Problem, Slot
from carbonsched.plan.simulation.policies import PolicyMemory, decide
from carbonsched.plan.simulation.request import SimRequest, TraceArrays
from carbonsched.plan.simulation.simulate import simulate
from carbonsched.plan.working_time import WorkingTime
from carbonsched.units import J_PER_KWH, grams

HOUR = 3600.0
KWH = EnergyModel(J_PER_KWH, 0.2, HOUR, 1.0, sigma=0.0)
LINEAR = ((0.0, 0.0), (1.0, 1.0))


def problem(values: list[float], n: int, budget_g: float, allowed: object, **more: object) -> Problem:
    slots = tuple(Slot(i * HOUR, (i + 1) * HOUR, v, v) for i, v in enumerate(values))
    hours = None if allowed is None else tuple((a * HOUR, b * HOUR) for a, b in allowed)  # type: ignore[attr-defined]
    segments = tuple(JobSegment(k, 1, LINEAR) for k in range(n))
    return replace(Problem(segments, slots, KWH, budget_g, 0.4, 1.0, allowed=hours), **more)


stretches = st.lists(st.floats(0.1, 9.0), min_size=2, max_size=12).map(
    lambda lengths: [
        (float(a) * HOUR, float(b) * HOUR)
        for a, b in np.cumsum(lengths)[: len(lengths) // 2 * 2].reshape(-1, 2)
    ]
)


@given(rows=stretches, work=st.floats(0, 200_000), wall=st.floats(0, 200_000))
def test_working_time_and_wall_time_are_each_others_inverse(rows, work, wall):
    hours = WorkingTime.of(rows)
    work = min(work, float(hours.before[-1]) - 1.0)
    wall = min(wall, float(hours.end[-1]) - 1.0)
    assert float(hours.working_s(hours.wall_start(work))) == pytest.approx(work, abs=1e-2)
    assert float(hours.working_s(hours.wall_end(work))) == pytest.approx(work, abs=1e-2)
    assert hours.wall_end(work) <= hours.wall_start(work) + 1e-2
    assert hours.wall_start(float(hours.working_s(wall))) >= wall - 1e-2
    assert 0 <= float(hours.working_s(wall)) <= wall + 1e-6


def test_hours_that_lie_behind_or_overlap_are_refused():
    with pytest.raises(ValueError, match="no allowed hours lie ahead"):
        WorkingTime.of([(-10.0, -5.0)])
    with pytest.raises(ValueError, match="disjoint"):
        WorkingTime.of([(0.0, 10.0), (5.0, 20.0)])


@settings(max_examples=60, deadline=None)
@given(
    values=st.lists(st.floats(30.0, 800.0), min_size=24, max_size=24),
    share=st.floats(0.0, 1.2),
    pause=st.booleans(),
    opens=st.integers(0, 6),
    lasts=st.floats(0.5, 8.0),
    gap=st.floats(0.5, 8.0),
    n=st.integers(1, 6),
)
def test_no_segment_begins_or_ends_outside_the_allowed_hours(values, share, pause, opens, lasts, gap, n):
    allowed = [(opens + i * (lasts + gap), opens + i * (lasts + gap) + lasts) for i in range(12)]
    budget = n * max(values) * (0.52 + 0.48 * share)
    asked = problem(values, n, budget, allowed, may_pause=pause, deadline_s=80 * HOUR if pause else None)
    plan = solve(asked)
    worked = WorkingTime.of(asked.allowed)
    if opens and plan.action != "stop":
        assert plan.action == "wait"
        assert plan.wait_s >= opens * HOUR - 1e-3
    for p in plan.segments:
        assert any(a * HOUR - 1e-2 <= p.start_s < b * HOUR for a, b in allowed)
        assert any(a * HOUR < p.end_s <= b * HOUR + 1e-2 for a, b in allowed)
        assert float(worked.working_s(p.end_s) - worked.working_s(p.start_s)) == pytest.approx(HOUR, abs=0.1)
    assert all(b.start_s >= a.end_s - 1e-2 for a, b in zip(plan.segments, plan.segments[1:], strict=False))
    assert plan.spend_g <= budget * (1 + 1e-9) or plan.floor_g > budget


def test_the_whole_day_is_no_constraint():
    values = [100.0 + 40 * ((i * 7) % 11) for i in range(24)]
    for pause in (False, True):
        asked = problem(values, 8, 1200.0, None, may_pause=pause, deadline_s=20 * HOUR if pause else None)
        free, bound = solve(asked), solve(replace(asked, allowed=((0.0, 24 * HOUR),)))
        assert (free.action, free.rho, free.wait_s) == (bound.action, bound.rho, bound.wait_s)
        assert free.spend_g == pytest.approx(bound.spend_g)


def test_among_allowed_hours_the_cleanest_is_chosen():
    values = [100.0] * 4 + [500.0, 500.0, 300.0, 200.0, 500.0, 500.0] + [100.0] * 6
    plan = solve(problem(values, 1, 1e6, [(4, 10)], may_pause=True, deadline_s=16 * HOUR))
    assert plan.action == "wait"
    tight = solve(problem(values, 1, 150.0, [(4, 10)], may_pause=True, deadline_s=16 * HOUR))
    assert tight.segments[0].start_s == pytest.approx(7 * HOUR, abs=60)


def test_an_interruption_is_paid_for_by_the_segment_that_crosses_it():
    flat = [100.0] * 10
    within = solve(problem(flat, 2, 1e6, [(0, 10)], idle_w=10.0, switch_j=36_000.0))
    across = solve(problem(flat, 2, 1e6, [(0, 1.5), (3.5, 10)], idle_w=10.0, switch_j=36_000.0))
    more = grams(36_000.0 + 10.0 * 2 * HOUR, 100.0)
    assert across.spend_g - within.spend_g == pytest.approx(more)
    assert across.segments[0].grams == pytest.approx(within.segments[0].grams)
    assert across.segments[1].end_s == pytest.approx(4 * HOUR)


def test_a_deadline_that_the_hours_leave_no_room_for_is_said():
    plan = solve(problem([100.0] * 24, 6, 1e6, [(0, 2), (12, 14)], deadline_s=20 * HOUR, may_pause=True))
    assert "the deadline is missed by" in plan.reason


@pytest.mark.parametrize("policy", ["full", "constant", "dual", "threshold", "mpc"])
def test_every_policy_waits_for_the_hours(policy):
    asked = problem([100.0] * 24, 4, 1e6, [(5, 24)], may_pause=True, deadline_s=20 * HOUR)
    step = decide(policy, asked, PolicyMemory(), asked.slots)
    assert (step.action, step.wait_s) == ("wait", 5 * HOUR)


@pytest.mark.parametrize("policy", ["full", "constant", "threshold", "mpc", "oracle"])
@pytest.mark.parametrize("pause", [False, True])
def test_a_simulated_job_runs_at_night_only(policy, pause):
    t0 = datetime(2022, 3, 1, tzinfo=UTC)
    t = np.arange(24 * 60)
    trace = TraceArrays(
        [t0 + timedelta(hours=int(h)) for h in t], (300 + 100 * np.sin(t * np.pi / 12)).tolist()
    )
    asked = SimRequest(
        trace, t0 + timedelta(days=30, hours=12), 10, 1.0, 1.5, 0.2, 4000.0 if policy == "full" else 2500.0,
        policy=policy, forecast="perfect", may_pause=pause, deadline_hours=96.0 if pause else None, allowed_hours=("22:00-06:00",),
    )  # fmt: skip
    result = simulate(asked)
    found = daily(asked.allowed_hours, "UTC", asked.start, asked.start + timedelta(days=5))
    allowed = [tuple((at - asked.start).total_seconds() for at in pair) for pair in found]
    for s in result.segments:
        start, end = ((at - asked.start).total_seconds() for at in (s.start, s.end))
        assert any(a - 1e-2 <= start < b for a, b in allowed)
        assert any(a < end <= b + 1e-2 for a, b in allowed)
    assert result.finished
    assert result.spent_g == pytest.approx(sum(s.spent_g for s in result.segments))
    assert result.floor_g <= result.spent_g + 1e-6 or pause
    if policy == "full":
        # by hand: ten segments of 90 minutes at ρ = 1 are the fifteen hours from 22 to 5 and, the next night, to 6
        night = [
            trace.g[trace.row_at((t0 + timedelta(days=30, hours=h)).timestamp())]
            for h in (*range(22, 30), *range(46, 53))
        ]
        assert result.spent_g == pytest.approx(sum(night) / 1.5, rel=1e-3)
