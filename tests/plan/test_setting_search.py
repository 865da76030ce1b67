"""A planner over settings: never worse than any one of them by its own reckoning, in real points, inside grams and deadline."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from carbonsched.plan.planner import solve
from carbonsched.plan.problem import EnergyModel, JobSegment, Plan, PlanPoint, Problem, Slot

LINE = ((0.4, 0.0), (1.0, 1.0))
FULL = PlanPoint("full", 1.0, 400.0, 4.0, 1.0)
REACH = PlanPoint("greentrainer", 0.6, 240.0, 2.4, 0.5)
TOKENS = PlanPoint("tokens", 0.5, 200.0, 2.0, 0.6, share=0.25)
LORA = PlanPoint("lora", 0.68, 272.0, 2.7, 0.5)
ENERGY = EnergyModel(400.0, 0.0, 4.0, 0.0, sigma=0.0)
HOUR = 3600.0


def problem(levels: list[float], budget_g: float, points: tuple[PlanPoint, ...], **more: object) -> Problem:
    slots = tuple(Slot(i * HOUR, (i + 1) * HOUR, g, g) for i, g in enumerate(levels))
    segments = tuple(JobSegment(k, 450, LINE) for k in range(8))
    made = Problem(segments, slots, ENERGY, budget_g, 0.4, 1.0, points=points, has_forecast=True)
    return replace(made, **more)  # type: ignore[arg-type]


def worth(plan: Plan) -> float:
    return sum(p.gain for p in plan.segments)


def grams_of(plan: Plan) -> float:
    return sum(p.grams for p in plan.segments)


def of_constant(asked: Problem, point: PlanPoint, at_s: float) -> float:
    """What the point alone would bring from `at_s` on, reckoned by hand: hour by hour, as many segments as fit."""
    spent, t, done = 0.0, at_s, 0.0
    edges = [s.end_s for s in asked.slots]
    for segment in asked.segments:
        lasts, left, cost = segment.steps * point.seconds, segment.steps * point.seconds, 0.0
        at = t
        while left > 1e-9:
            i = min(int(np.searchsorted(edges, at + 1e-9)), len(edges) - 1)
            part = min(left, max(edges[i] - at, 0.0) if i < len(edges) - 1 else left)
            cost += segment.steps * point.joules * part / lasts * asked.slots[i].g_per_kwh / 3.6e6
            at, left = at + part, left - part
        late = asked.deadline_s is not None and at > asked.deadline_s
        if spent + cost > asked.budget_g or late:
            break
        spent, t, done = spent + cost, at, done + segment.steps * point.worth
    whole = sum(s.steps for s in asked.segments)
    return done / whole if asked.may_end_early or done >= whole * point.worth * (1 - 1e-9) else 0.0


points = st.builds(
    PlanPoint,
    method=st.sampled_from(["full", "tokens", "greentrainer", "lora"]),
    rho=st.floats(0.35, 1.0),
    joules=st.floats(60, 500),
    seconds=st.floats(0.5, 5),
    worth=st.floats(0.05, 1.0),
).map(lambda p: replace(p, whole_job=p.method == "lora"))


@settings(max_examples=20, deadline=None)
@given(
    levels=st.lists(st.floats(30, 700), min_size=6, max_size=14).map(
        lambda found: [*found, *[float(np.mean(found))] * 6]
    ),
    chosen=st.lists(points, min_size=1, max_size=4, unique_by=lambda p: p.name),
    share=st.floats(0.05, 1.2),
    early=st.booleans(),
    pauses=st.booleans(),
    hours=st.one_of(st.none(), st.floats(1, 14)),
)
@example(  # one kind of adapters in two settings, which a job may change between
    levels=[30.0] * 12,
    chosen=[
        PlanPoint("lora", 1.0, 60.0, 1.0, 1.0, whole_job=True),
        PlanPoint("lora", 0.5, 60.0, 1.0, 0.5, whole_job=True),
    ],
    share=1.0,
    early=False,
    pauses=False,
    hours=None,
)
@example(  # full takes the fewest joules too, but so long that it ends in a dearer hour than the budget pays for
    levels=[30.0, 31.0, *[30.0] * 4, *[181 / 6] * 6],
    chosen=[PlanPoint("full", 1.0, 60.0, 2.0, 1.0), PlanPoint("tokens", 1.0, 60.0, 1.0, 1.0)],
    share=1.0,
    early=False,
    pauses=False,
    hours=None,
)
@example(  # the same joules a step take half the time, in a dirtier hour: no reason to refuse the other
    levels=[36.0, 33.0, 30.0, 30.0, 30.0, 118.0, *[277 / 6] * 6],
    chosen=[
        PlanPoint("full", 1.0, 60.0, 2.0, 1.0),
        PlanPoint("tokens", 1.0, 60.0, 1.0, 0.5),
    ],
    share=0.75,
    early=False,
    pauses=False,
    hours=None,
)
def test_no_setting_alone_is_worth_more_than_the_plan_and_every_segment_is_a_real_point(
    levels: list[float], chosen: list[PlanPoint], share: float, early: bool, pauses: bool, hours: float | None
) -> None:
    dearest = max(p.joules for p in chosen) * 3600 * float(np.mean(levels)) / 3.6e6
    asked = problem(
        levels, share * dearest, tuple(chosen), may_end_early=early, may_pause=pauses,
        deadline_s=None if hours is None else hours * HOUR,
    )  # fmt: skip
    plan = solve(asked)
    alone = max(of_constant(asked, p, 0.0) for p in chosen)
    if plan.action == "stop":
        assert alone == 0.0
        return
    assert worth(plan) >= alone - 1e-6 or "guard" in plan.binding
    assert all(p.point in chosen for p in plan.segments)
    assert [p.k for p in plan.segments] == list(range(len(plan.segments)))
    assert early or len(plan.segments) == 8
    if alone > 0:  # something fits: so does what is planned
        assert grams_of(plan) <= asked.budget_g * (1 + 1e-6)
        assert hours is None or plan.segments[-1].end_s <= hours * HOUR + 1e-3
    kept = {(p.point.method, p.point.share) if p.point.whole_job else None for p in plan.segments if p.point}
    assert len(kept) == 1, "the same adapters in all segments (at other clocks, maybe), or none in any"
    if "guard" in plan.binding:
        return
    for point in chosen:
        single = solve(replace(asked, points=(point,)))
        late = bool(single.segments and hours and single.segments[-1].end_s > hours * HOUR + 1e-3)
        assert single.action == "stop" or late or worth(plan) >= worth(single) - 1e-9
        if pauses:
            # what lies behind the last slot is reckoned at the mean of all
            begun = [
                of_constant(asked, point, h * HOUR) for h in range(int(min(hours or 99, len(levels) - 5)))
            ]
            assert worth(plan) >= max(begun) - 1e-6, "nor one that begins in any later hour"


def test_full_with_fewer_steps_beats_tensors_where_steps_may_be_left_out_and_tensors_win_where_not() -> None:
    half = 0.62 * 8 * 450 * 400 * 300 / 3.6e6
    thinned = solve(problem([300.0] * 12, half, (FULL, REACH, LORA), may_end_early=True))
    assert thinned.point == FULL
    assert (
        worth(thinned) >= 0.5 > worth(solve(problem([300.0] * 12, half, (REACH,), may_end_early=True))) - 1e-9
    )
    assert thinned.reason.startswith("auto: full for 1800 steps, ")
    assert "tensors at rho 0.60 50%" in thinned.reason
    whole = solve(problem([300.0] * 12, half, (FULL, REACH, LORA)))
    assert len(whole.segments) == 8
    assert {p.point for p in whole.segments} <= {FULL, REACH, LORA}


def test_tokens_are_chosen_where_they_bring_more_a_joule_and_full_where_grams_are_to_spare() -> None:
    full_g = 8 * 450 * 400 * 300 / 3.6e6
    tight = solve(problem([300.0] * 12, 0.5 * full_g, (FULL, TOKENS, REACH), may_end_early=True))
    assert tight.point == TOKENS
    assert worth(tight) == pytest.approx(0.6)
    plenty = solve(problem([300.0] * 12, 1.01 * full_g, (FULL, TOKENS, REACH), may_end_early=True))
    assert plenty.point == FULL
    assert worth(plenty) == pytest.approx(1.0)
    assert "budget" not in plenty.binding


def test_adapters_are_planned_for_all_that_is_left_or_for_nothing() -> None:
    """Mixed with full they would bring more here, but a job stays with what it has begun."""
    full_g = 8 * 450 * 400 * 300 / 3.6e6
    adapters = PlanPoint("lora", 0.7, 280.0, 2.8, 0.8, whole_job=True)
    for budget, wanted in ((0.5 * full_g, adapters), (0.85 * full_g, FULL), (1.01 * full_g, FULL)):
        plan = solve(problem([300.0] * 12, budget, (FULL, REACH, adapters), may_end_early=True))
        assert len({p.point == adapters for p in plan.segments}) == 1
        assert plan.point == wanted, plan.reason
    assert (
        "alone full"
        in solve(problem([300.0] * 12, 0.5 * full_g, (FULL, adapters), may_end_early=True)).reason
    )


def test_a_deadline_that_binds_buys_time_with_grams_of_the_other_kind() -> None:
    """Clocks: the same steps for fewer joules and more seconds. Grams bind without a deadline, seconds with one."""
    slow = PlanPoint("full", 1.0, 300.0, 6.0, 1.0, clocks=1200)
    fast_s = 8 * 450 * 4.0
    ample = 8 * 450 * 400 * 300 / 3.6e6 * 0.8
    free = solve(problem([300.0] * 12, ample, (FULL, slow), may_end_early=True))
    assert free.point == slow
    assert worth(free) == pytest.approx(1.0)
    pressed = solve(
        problem([300.0] * 12, 10 * ample, (FULL, slow), may_end_early=True, deadline_s=fast_s * 1.02)
    )
    assert pressed.point == FULL
    assert worth(pressed) == pytest.approx(1.0)


def test_it_waits_for_clean_hours_and_stops_where_no_segment_is_paid_for() -> None:
    asked = problem([600.0, 600.0] + [60.0] * 12, 12.0, (FULL, REACH), may_end_early=True, may_pause=True)
    plan = solve(asked)
    assert plan.action == "wait"
    assert plan.wait_s == pytest.approx(2 * HOUR, abs=400)
    assert "then auto: full" in plan.reason
    nothing = solve(problem([600.0] * 12, 0.5, (FULL, REACH), may_end_early=True))
    assert nothing.action == "stop"
    assert "no further segment" in nothing.reason


def test_more_settings_and_clocks_than_are_mixed_leave_no_setting_alone_ahead() -> None:
    offered = tuple(
        PlanPoint("full" if i == 63 else "greentrainer", 0.4 + 0.6 * i / 63, 4.0 * (100 - c) * (0.4 + 0.6 * i / 63),
                  4.0 * (0.4 + 0.6 * i / 63) / (1 - 0.1 * c), (0.4 + 0.6 * i / 63) ** 1.2, clocks=2000 - 200 * c if c else None)
        for i in range(64)
        for c in range(5)
    )  # fmt: skip
    budget = 0.6 * 8 * 450 * 400 * 300 / 3.6e6
    asked = problem([300.0, 200.0, 400.0] * 4, budget, offered, may_end_early=True, may_pause=True)
    plan = solve(asked)
    assert plan.action == "train" or plan.wait_s
    assert grams_of(plan) <= budget * (1 + 1e-6)
    assert {p.point for p in plan.segments} <= set(offered)
    alone = max(of_constant(asked, p, 0.0) for p in offered if p.clocks is None)
    assert worth(plan) >= alone - 1e-9
