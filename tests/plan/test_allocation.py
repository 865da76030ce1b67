"""Budgets from a wanted quality, and one pool for several jobs."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from carbonsched.plan.allocation import divide, least_budget, mean_rho
from carbonsched.plan.planner import solve
from carbonsched.plan.problem import EnergyModel, JobSegment, Problem, Slot
from carbonsched.units import J_PER_KWH

HOUR = 3600.0
LINEAR = ((0.0, 0.0), (1.0, 1.0))


def job(values: list[float], kwh: float = 1.0, n: int | None = None, **more) -> Problem:
    slots = tuple(Slot(i * HOUR, (i + 1) * HOUR, v, v) for i, v in enumerate(values))
    segments = tuple(JobSegment(k, 1, LINEAR) for k in range(n or len(values)))
    energy = EnergyModel(kwh * J_PER_KWH, 0.2, HOUR, 1.0, sigma=0.0)
    return replace(Problem(segments, slots, energy, 0.0, 0.4, 1.0), **more)


@settings(max_examples=15, deadline=None)
@given(values=st.lists(st.floats(50.0, 600.0), min_size=2, max_size=8), rho=st.floats(0.4, 1.0))
def test_the_least_budget_reaches_the_wanted_rho_and_a_little_less_does_not(values, rho):
    problem = job(values)
    budget, plan = least_budget(problem, rho)
    assert mean_rho(problem, plan) >= rho - 1e-4
    less = solve(replace(problem, budget_g=budget * 0.99))
    assert mean_rho(problem, less) < rho
    # fixed slots: the cleanest hours are raised first
    rise, grams = (rho - 0.4) * len(values), sum(values) * 0.52
    for v in sorted(values):
        step = min(rise, 0.6)
        grams, rise = grams + 0.8 * step * v, rise - step
    assert budget == pytest.approx(grams, rel=3e-3)


def test_pauses_make_the_same_quality_cheaper():
    values = [500.0, 500.0, 100.0, 100.0]
    at_once, _ = least_budget(job(values, n=2), 0.8)
    waited, plan = least_budget(job(values, n=2, may_pause=True, deadline_s=4 * HOUR), 0.8)
    assert waited < 0.3 * at_once
    assert plan.action == "wait"


def test_a_quality_beyond_the_bounds_gets_the_budget_of_the_top():
    budget, plan = least_budget(job([300.0] * 3, rho_max=0.7), 0.9)
    assert plan.rho == pytest.approx(0.7, abs=1e-3)
    assert budget == pytest.approx(3 * 300 * 0.76, rel=3e-3)


def test_a_pool_is_spent_where_a_gram_gains_most():
    small, large = job([300.0] * 4, 1.0), job([300.0] * 4, 4.0)
    floors = 4 * 300 * 0.52 * 5
    (a, b), price = divide([small, large], floors + 500.0)
    # the same gain costs the small job a quarter of the grams
    assert a.budget_g == pytest.approx(a.floor_g + 500.0)
    assert b.budget_g == pytest.approx(b.floor_g)
    assert price > 0
    (a, b), _ = divide([small, large], floors + 500.0, [1.0, 10.0])
    assert a.budget_g == pytest.approx(a.floor_g)


def test_who_was_let_in_first_keeps_the_floor():
    jobs = [job([300.0] * 4), job([300.0] * 4)]
    (first, second), _ = divide(jobs, 4 * 300 * 0.52 + 100.0, [1.0, 100.0])
    assert first.budget_g == pytest.approx(first.floor_g + 100.0)
    assert second.budget_g == 0.0
    assert solve(replace(jobs[1], budget_g=second.budget_g)).action == "stop"


def test_plenty_for_all_has_no_price_and_what_is_over_is_everyones_margin():
    parts, price = divide([job([300.0] * 4), job([200.0] * 4)], 5000.0, [1.0, 2.0])
    assert price == 0.0
    assert [p.budget_g for p in parts] == pytest.approx([1200.0 + 1000.0, 800.0 + 2000.0])


@settings(max_examples=30, deadline=None)
@given(
    sizes=st.lists(st.floats(0.2, 5.0), min_size=1, max_size=5),
    pool=st.floats(0.0, 20_000.0),
    seed=st.integers(0, 1000),
)
def test_the_parts_of_a_pool_never_pass_it(sizes, pool, seed):
    rng = np.random.default_rng(seed)
    jobs = [job(rng.uniform(50, 600, 5).tolist(), kwh) for kwh in sizes]
    parts, _ = divide(jobs, pool, rng.uniform(0.1, 3, len(jobs)).tolist())
    assert sum(p.budget_g for p in parts) <= pool + 1e-6
    assert all(p.budget_g == 0 or p.budget_g >= p.floor_g - 1e-9 for p in parts)


def test_equal_jobs_get_equal_parts_and_a_weight_decides_between_them():
    jobs = [job([300.0, 200.0, 100.0, 250.0], rho_max=0.9) for _ in range(3)]
    pool = sum(4 * 0.52 * 250 for _ in jobs)
    parts, price = divide(jobs, pool)
    assert [p.budget_g for p in parts] == pytest.approx([pool / 3] * 3)
    assert price > 0
    (light, heavy, also), _ = divide(jobs, pool, [1.0, 3.0, 1.0])
    assert heavy.budget_g > light.budget_g == pytest.approx(also.budget_g)
    assert light.budget_g >= light.floor_g


@settings(max_examples=30, deadline=None)
@given(
    sizes=st.lists(st.tuples(st.floats(0.2, 5.0), st.booleans()), min_size=1, max_size=5),
    pool=st.floats(0.0, 8_000.0),
)
def test_jobs_under_way_keep_their_floors_before_others_are_let_in(sizes, pool):
    jobs = [job([300.0, 150.0, 450.0], kwh) for kwh, _ in sizes]
    begun = [b for _, b in sizes]
    parts, _ = divide(jobs, pool, None, begun)
    assert sum(p.budget_g for p in parts) <= pool + 1e-6
    due = sum(p.floor_g for p, b in zip(parts, begun, strict=True) if b)
    for part, under_way in zip(parts, begun, strict=True):
        if under_way and due <= pool:
            assert part.budget_g >= part.floor_g - 1e-9
        if not under_way:
            assert part.budget_g == 0.0 or part.budget_g >= part.floor_g - 1e-9
    if due > pool:
        assert all(p.budget_g == 0 for p, b in zip(parts, begun, strict=True) if not b)


def test_weights_must_fit_the_jobs():
    with pytest.raises(ValueError, match="one weight"):
        divide([job([300.0])], 10.0, [1.0, 2.0])


def test_a_job_near_its_end_does_not_outbid_one_that_has_just_begun():
    begun, fresh = job([300.0] * 4), job([300.0] * 4, n=1, done=0.75)
    (a, b), price = divide([begun, fresh], 5 * 300 * 0.52 + 360.0)
    # a gram of either buys the same: a quarter of the whole job for each segment
    assert (a.budget_g - a.floor_g) / (b.budget_g - b.floor_g) == pytest.approx(4.0)
    assert price == pytest.approx(0.25 / (0.8 * 300))


def test_the_price_is_what_one_more_gram_buys():
    jobs = [job([300.0] * 4), job([300.0] * 4)]
    floors = 2 * 4 * 300 * 0.52
    _, price = divide(jobs, floors)
    assert price == pytest.approx(0.25 / (0.8 * 300)), "nothing is over, the first gram would buy this"
    (more,), _ = divide(jobs[:1], floors / 2 + 1.0)
    gains = [
        sum(p.gain for p in solve(replace(jobs[0], budget_g=b)).segments) for b in (floors / 2, more.budget_g)
    ]
    assert gains[1] - gains[0] == pytest.approx(price, rel=1e-3)
    assert divide(jobs, floors / 4)[1] is None, "nobody was let in"
    assert divide([], 10.0) == ((), None)


def test_jobs_that_cannot_trade_still_share_a_pool():
    stiff = job([300.0] * 4, rho_min=1.0)
    (only,), price = divide([stiff], 5000.0)
    assert (only.budget_g, price) == (5000.0, 0.0)
    (a, b), _ = divide([stiff, job([300.0] * 4)], 1200 + 4 * 300 * 0.52 + 100.0)
    assert a.budget_g == pytest.approx(1200.0)
    assert b.budget_g == pytest.approx(b.floor_g + 100.0)
