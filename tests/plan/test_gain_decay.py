"""The worth of later segments from the frontiers seen so far."""

import itertools
import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from carbonsched.plan.gain_decay import decay
from carbonsched.plan.planner import solve
from carbonsched.plan.problem import EnergyModel, JobSegment, Problem, Slot
from carbonsched.plan.segment_arrays import SegmentArrays
from carbonsched.units import J_PER_KWH

HOUR = 3600.0
LINEAR = ((0.0, 0.0), (1.0, 1.0))
SMOLLM2 = (49_823.0, 44_281.0, 36_215.0, 25_556.0, 22_136.0, 22_545.0)
"""Right ends of the frontiers of six segments of a real fine-tuning of SmolLM2-135M on package descriptions."""


def test_nothing_is_discounted_before_two_frontiers_tell():
    assert decay([], 10) == 1.0
    assert decay([(0, 5.0)], 10) == 1.0
    assert decay([(0, 5.0), (0, 4.0)], 10) == 1.0
    assert decay([(0, 0.0), (1, math.nan), (2, 3.0)], 10) == 1.0


def test_a_fall_is_learned_the_better_the_more_of_it_was_seen():
    true = 0.25 ** (1 / 24)
    seen = [(k, true**k) for k in range(24)]
    few, half, all_ = (decay(seen[:n], 24) for n in (3, 12, 24))
    assert 1.0 > few > half > all_ > true
    assert all_ == pytest.approx(true, abs=0.01)


def test_a_real_fine_tuning_falls_and_is_seen_to():
    found = [decay(list(enumerate(SMOLLM2[:n])), 6) ** 5 for n in range(1, 7)]
    assert found[0] == 1.0
    assert all(b < a for a, b in itertools.pairwise(found[:5]))
    # 0.45 of the first gain is left at the end; shrunk, as six frontiers of one batch each are no proof
    assert 0.45 < found[-1] < 0.65


def test_one_frontier_that_is_twice_too_high_does_not_make_a_fall():
    flat = [(k, 1.0) for k in range(12)]
    assert decay([(0, 2.2), *flat[1:]], 12) == pytest.approx(1.0, abs=0.01)


@given(
    gains=st.lists(st.floats(1e-3, 1e6), min_size=2, max_size=40),
    more=st.integers(0, 100),
    scale=st.floats(1e-3, 1e3),
)
def test_the_scale_does_not_count_and_the_answer_is_bounded(gains, more, scale):
    n = len(gains) + more
    found = decay(list(enumerate(gains)), n)
    assert math.exp(-2.5) - 1e-9 <= found**n <= math.exp(2.5) + 1e-9
    assert decay([(k, g * scale) for k, g in enumerate(gains)], n) == pytest.approx(found)


def test_noise_alone_is_hardly_discounted():
    rng = np.random.default_rng(0)
    found = [decay(list(enumerate(np.exp(rng.normal(0, 0.2, 12)))), 24) ** 24 for _ in range(50)]
    assert np.mean(np.abs(np.log(found))) < 0.25


def problem(n: int, budget_g: float, **more: object) -> Problem:
    slots = tuple(Slot(i * HOUR, (i + 1) * HOUR, 100.0, 100.0) for i in range(n))
    energy = EnergyModel(J_PER_KWH, 0.2, HOUR, 1.0, sigma=0.0)
    return replace(
        Problem(tuple(JobSegment(k, 1, LINEAR) for k in range(n)), slots, energy, budget_g, 0.4, 1.0), **more
    )


@pytest.mark.parametrize("n", [8, 400])
def test_the_planner_spends_where_a_gram_is_worth_most(n):
    plan = solve(problem(n, n * 76.0, decay=0.5 ** (1 / n)))
    rho = np.array([p.rho for p in plan.segments])
    assert np.all(np.diff(rho) <= 1e-9)
    assert rho[0] == 1.0
    assert rho[-1] == pytest.approx(0.4)
    assert plan.spend_g <= n * 76.0
    # shares of one job still add up to one, in groups as one by one
    assert SegmentArrays(problem(n, 1.0, decay=0.9), 16).share.sum() == pytest.approx(1.0)
    assert sum(p.gain for p in plan.segments) > sum(p.gain for p in solve(problem(n, n * 76.0)).segments)


def test_a_flat_gain_is_no_discount_at_all():
    a, b = solve(problem(8, 600.0)), solve(problem(8, 600.0, decay=1.0))
    assert a == b
