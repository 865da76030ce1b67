"""The planner, as what it directs: against brute force, against its bounds, and in words."""

import itertools
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from carbonsched.plan.planner import solve
from carbonsched.plan.problem import EnergyModel, JobSegment, Problem, Slot
from carbonsched.plan.segment_arrays import SegmentArrays
from carbonsched.units import J_PER_KWH

LINEAR = ((0.0, 0.0), (1.0, 1.0))
CONCAVE = tuple((r / 20, float(np.sqrt(r / 20))) for r in range(21))
HOUR = 3600.0
KWH = EnergyModel(J_PER_KWH, 0.2, HOUR, 1.0, sigma=0.0)


def slots_of(values: list[float], step: float = HOUR, high: float = 1.0) -> tuple[Slot, ...]:
    return tuple(Slot(i * step, (i + 1) * step, v, v * high) for i, v in enumerate(values))


def hourly(values: list[float], budget_g: float, frontier=LINEAR, **more) -> Problem:
    """One segment of a kWh an hour, fixed slots."""
    segments = tuple(JobSegment(k, 1, frontier) for k in range(more.pop("n", len(values))))
    return Problem(segments, slots_of(values, high=more.pop("high", 1.0)), KWH, budget_g, 0.4, 1.0, **more)


def midway(values: list[float], share: float = 0.5) -> float:
    return sum(values) * (0.52 + share * 0.48)


intensities = st.lists(st.floats(20.0, 900.0), min_size=1, max_size=6)


@settings(max_examples=60, deadline=None)
@given(values=intensities, share=st.floats(0.0, 1.2))
def test_fixed_slots_linear_gain_is_the_exact_optimum(values, share):
    budget = midway(values, share)
    plan = solve(hourly(values, budget))
    # the optimum of this linear program: raise the cleanest hours first
    left, gain = budget - sum(values) * 0.52, 0.4 * len(values)
    for v in sorted(values):
        rise = min(max(left, 0.0) / (0.8 * v), 0.6)
        left -= rise * 0.8 * v
        gain += rise
    assert sum(p.gain for p in plan.segments) == pytest.approx(gain / len(values), abs=1e-6)
    assert plan.spend_g <= budget * (1 + 1e-9)
    assert plan.gap == pytest.approx(0.0, abs=1e-6)


@settings(max_examples=15, deadline=None)
@given(values=st.lists(st.floats(50.0, 600.0), min_size=6, max_size=6), share=st.floats(0.05, 0.95))
def test_a_pausing_plan_is_near_brute_force_on_a_tiny_problem(values, share):
    """Two segments, six hours, ρ in 13 steps, one hour a segment: every choice tried."""
    two = sorted(values)[:2]
    floor, full = sum(two) * 0.52, (values[0] + values[1])
    budget = floor + share * max(full - floor, 1.0)
    problem = hourly(values, budget, n=2, may_pause=True, deadline_s=6 * HOUR)
    plan = solve(problem)
    rhos = np.linspace(0.4, 1.0, 13)
    best = 0.0
    for a, b in itertools.combinations(range(6), 2):
        for r, q in itertools.product(rhos, rhos):
            if values[a] * (0.2 + 0.8 * r) + values[b] * (0.2 + 0.8 * q) <= budget:
                best = max(best, (r + q) / 2)
    assert sum(p.gain for p in plan.segments) >= best - 0.02
    assert plan.spend_g <= budget * (1 + 1e-9)
    assert plan.segments[-1].end_s <= 6 * HOUR + 1e-3


@settings(max_examples=25, deadline=None)
@given(
    values=st.lists(st.floats(30.0, 800.0), min_size=4, max_size=24),
    share=st.floats(-0.2, 1.3),
    c0=st.floats(0.2, 1.0),
    pause=st.booleans(),
    slack=st.floats(1.0, 3.0),
    high=st.floats(1.0, 1.6),
    curve=st.sampled_from([LINEAR, CONCAVE, ((0.45, 0.1), (0.6, 0.1), (0.62, 0.9), (1.0, 1.0))]),
)
def test_every_plan_keeps_bounds_budget_and_deadline(values, share, c0, pause, slack, high, curve):
    n = max(2, len(values) // 2)
    full = float(np.mean(values)) * n
    budget = full * 0.52 + share * full * 0.48
    problem = Problem(
        tuple(JobSegment(k, 10, curve) for k in range(n)),
        slots_of(values, high=high),
        EnergyModel(J_PER_KWH / 10, 0.2, HOUR / 10, c0, sigma=0.02),
        budget,
        0.4,
        0.95,
        deadline_s=n * HOUR * slack,
        may_pause=pause,
        switch_j=1e4,
        idle_w=20.0,
    )
    plan = solve(problem)
    assert plan.reason
    if plan.action == "stop":
        assert plan.floor_g > budget
        assert "needs" in plan.reason
        return
    # two standard deviations of the energy model are not held against a job
    assert plan.floor_g * (1 - 2 * 0.02) <= budget * (1 + 1e-9)
    assert plan.spend_g <= max(budget, plan.floor_g) * (1 + 1e-6)
    if plan.action == "wait":
        assert pause
        assert plan.wait_s is not None
        assert plan.wait_s > 0
    else:
        assert plan.rho is not None
        assert max(0.4, curve[0][0]) - 1e-9 <= plan.rho <= 0.95 + 1e-9
    ends = [p.end_s for p in plan.segments]
    assert all(a.end_s <= b.start_s + 1e-6 for a, b in itertools.pairwise(plan.segments))
    assert ends[-1] <= problem.deadline_s + 1.0


@settings(max_examples=20, deadline=None)
@given(values=st.lists(st.floats(50.0, 700.0), min_size=3, max_size=8), a=st.floats(0, 1), b=st.floats(0, 1))
def test_more_budget_never_plans_less_gain(values, a, b):
    low, high = sorted((midway(values, a), midway(values, b)))
    less, more = solve(hourly(values, low, CONCAVE)), solve(hourly(values, high, CONCAVE))
    assert sum(p.gain for p in more.segments) >= sum(p.gain for p in less.segments) - 1e-9
    assert more.spend_g >= less.spend_g - 1e-6


@settings(max_examples=20, deadline=None)
@given(values=st.lists(st.floats(50.0, 700.0), min_size=2, max_size=10), share=st.floats(0.05, 0.95))
def test_dirty_hours_never_get_more_rho_than_clean_ones(values, share):
    for curve in (LINEAR, CONCAVE):
        segments = solve(hourly(values, midway(values, share), curve)).segments
        for x, y in itertools.combinations(range(len(values)), 2):
            if values[x] < values[y] - 1e-6:
                assert segments[x].rho >= segments[y].rho - 1e-6


def test_flat_intensity_and_concave_gain_ask_for_one_rho():
    fine = tuple((r / 400, float(np.sqrt(r / 400))) for r in range(401))
    rhos = [p.rho for p in solve(hourly([300.0] * 8, midway([300.0] * 8), fine)).segments]
    assert max(rhos) - min(rhos) <= 1 / 400 + 1e-6


def test_a_budget_below_the_floor_is_said_in_grams():
    plan = solve(hourly([300.0] * 4, 600.0))
    assert plan.action == "stop"
    assert plan.reason == "stop: budget below floor, needs 624 g, has 600 g"
    assert plan.segments == ()


def test_below_the_floor_a_job_that_may_pause_waits_for_the_clean_hours():
    values = [500.0, 500.0, 100.0, 100.0]
    budget = 2 * 100 * 0.52 + 5
    asked = hourly(values, budget, n=2, may_pause=True, deadline_s=4 * HOUR)
    plan = solve(asked)
    assert plan.action == "wait"
    assert plan.wait_s == pytest.approx(2 * HOUR, abs=60)
    assert "wait 2 h for 100 g/kWh, now 500" in plan.reason
    # the deadline no longer leaves those hours: the same budget stops
    assert solve(replace(asked, deadline_s=2.5 * HOUR)).action == "stop"
    assert solve(replace(asked, may_pause=False)).action == "stop"


def test_a_job_under_way_is_not_given_up_while_the_low_forecast_could_pay():
    slots = tuple(Slot(i * HOUR, (i + 1) * HOUR, 300.0, 390.0, low=270.0) for i in range(72))
    # 11,232 g at the expectation, 10,109 g with every hour of three days at its low
    problem = replace(hourly([300.0] * 72, 10_150.0), slots=slots)
    assert solve(problem).action == "stop"
    plan = solve(replace(problem, done=0.25))
    assert plan.action == "train"
    assert plan.rho == pytest.approx(0.4)
    assert "lowest rho" in plan.reason
    assert solve(replace(problem, done=0.25, budget_g=9_400.0)).action == "stop"
    # the nearer the end, the less a stop would save: lows are not believed to the last gram
    assert solve(replace(problem, done=0.75, budget_g=9_400.0)).action == "train"
    # what has not begun is begun where the forecast may well be too high
    assert solve(replace(problem, budget_g=10_900.0)).action == "train"


def test_the_more_is_done_the_more_is_kept_for_the_end():
    asked = hourly([300.0] * 6, midway([300.0] * 6, 0.3), high=1.3)
    early, late = solve(asked), solve(replace(asked, done=0.8))
    assert early.rho is not None
    assert late.rho is not None
    assert late.rho < early.rho


def test_enough_budget_trains_at_the_top_and_does_not_wait():
    plan = solve(hourly([900.0, 100.0, 100.0], 5000.0, n=2, may_pause=True, deadline_s=3 * HOUR))
    assert (plan.action, plan.rho, plan.price) == ("train", 1.0, 0.0)
    assert "the budget does not bind" in plan.reason
    assert plan.binding == ("rho_max",)


def test_a_tight_deadline_lowers_rho_where_that_saves_time():
    energy = EnergyModel(J_PER_KWH, 0.2, HOUR, 0.2, sigma=0.0)
    problem = replace(hourly([300.0] * 4, 1e6), energy=energy, deadline_s=3 * HOUR)
    plan = solve(problem)
    assert plan.segments[-1].end_s <= 3 * HOUR + 1e-3
    assert "deadline" in plan.binding
    assert "budget" not in plan.binding
    # three hours for four segments of 0.2 + 0.8ρ hours
    assert np.mean([p.rho for p in plan.segments]) == pytest.approx((3 / 4 - 0.2) / 0.8, abs=0.01)


def test_a_deadline_that_cannot_be_met_is_said_and_trained_on_at_the_lowest_rho():
    plan = solve(replace(hourly([300.0] * 4, 1e6), deadline_s=2 * HOUR))
    assert plan.action == "train"
    assert "deadline is missed by 2 h" in plan.reason
    energy = EnergyModel(J_PER_KWH, 0.2, HOUR, 0.2, sigma=0.0)
    late = solve(replace(hourly([300.0] * 4, 1e6), energy=energy, deadline_s=1 * HOUR))
    assert late.rho == pytest.approx(0.4)


def test_the_guard_keeps_the_rest_affordable_at_the_high_quantile():
    slots = (Slot(0, HOUR, 200.0, 200.0), Slot(HOUR, 4 * HOUR, 300.0, 450.0))
    problem = replace(hourly([1.0] * 4, 700.0), slots=slots)
    plan = solve(problem)
    assert "guard" in plan.binding
    assert plan.rho is not None
    calm = solve(replace(problem, slots=(slots[0], Slot(HOUR, 4 * HOUR, 300.0, 300.0))))
    assert calm.rho is not None
    assert plan.rho < calm.rho
    assert "guard keeps" in plan.reason


def test_a_frontier_that_begins_above_rho_max_is_named():
    plan = solve(replace(hourly([300.0], 1e6, ((0.41, 0.0), (1.0, 1.0))), rho_max=0.35, rho_min=0.3))
    assert plan.action == "stop"
    assert "below the model's floor 0.410" in plan.reason


def test_a_short_pause_is_not_worth_its_switch():
    values = [310.0, 300.0, 300.0]
    problem = hourly(values, 300 * 2 * 0.8, n=2, may_pause=True, deadline_s=3 * HOUR)
    assert solve(problem).action == "wait"
    assert solve(replace(problem, switch_j=5e5)).action == "train"
    # who already waits has nothing to save by going on at once
    assert solve(replace(problem, switch_j=5e5, waiting=True)).action == "wait"


def test_the_guard_knows_that_the_rest_may_wait():
    # the two cleanest hours follow each other; with the first segment run now the second may still have one of them
    plan = solve(
        hourly([51.0, 600.0, 600.0, 50.0, 50.0, 300.0], 127.0, n=2, may_pause=True, deadline_s=6 * HOUR)
    )
    assert (plan.action, plan.rho) == ("train", pytest.approx(1.0))
    assert "guard" not in plan.binding


def test_reserve_is_never_planned_for():
    values = [300.0] * 4
    plan = solve(replace(hourly(values, midway(values)), reserve_g=50.0))
    assert plan.spend_g <= midway(values) - 50.0 + 1e-6


def test_many_short_segments_are_planned_in_groups_that_cover_them_all():
    energy = EnergyModel(J_PER_KWH / 100, 0.2, 36.0, 0.3, sigma=0.0)
    segments = tuple(JobSegment(k, 1, LINEAR) for k in range(1000))
    problem = Problem(segments, slots_of([200.0, 500.0] * 10), energy, 2600.0, 0.4, 1.0)
    plan = solve(problem)
    assert plan.action == "train"
    assert [p.k for p in plan.segments] == list(range(1000))
    assert len(SegmentArrays(problem, 192).groups) <= 192
    assert plan.segments[0].end_s - plan.segments[0].start_s <= 36.0
    assert SegmentArrays(problem).schedule(np.full(1000, 0.4)).spend_g == pytest.approx(
        plan.floor_g, rel=1e-6
    )


def test_nothing_left_to_plan_is_an_error():
    with pytest.raises(ValueError, match="no segment"):
        solve(replace(hourly([300.0], 1.0), segments=()))
    with pytest.raises(ValueError, match="slot"):
        solve(replace(hourly([300.0], 1.0), slots=()))
    with pytest.raises(ValueError, match="without holes"):
        solve(replace(hourly([300.0], 1.0), slots=(Slot(0, 1, 1, 1), Slot(2, 3, 1, 1))))


def test_a_deadline_far_beyond_the_forecast_makes_the_horizon_roll():
    segments = tuple(JobSegment(k, 1, LINEAR) for k in range(500))
    problem = Problem(
        segments,
        slots_of([200.0, 500.0] * 48),
        KWH,
        500 * 350 * 0.75,
        0.4,
        1.0,
        deadline_s=800 * HOUR,
        may_pause=True,
    )
    plan = solve(problem)
    assert "looks 4 d ahead, 60 of 500 segments" in plan.reason
    assert plan.spend_g <= problem.budget_g * 60 / 500 * (1 + 1e-9)
    assert plan.segments[-1].end_s <= 96 * HOUR + 1
