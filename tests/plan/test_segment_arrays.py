"""Time, grams and gain of a vector of ρ."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from carbonsched.plan.problem import EnergyModel, JobSegment, Problem, Slot
from carbonsched.plan.segment_arrays import GainCurve, SegmentArrays
from carbonsched.units import J_PER_KWH

HOUR = 3600.0


def test_a_schedule_counts_overheads_waits_and_the_tail():
    energy = EnergyModel(
        J_PER_KWH / 10, 0.5, HOUR / 20, 0.5, overhead_j=3600.0, overhead_s=60.0, tail_j=7200.0, tail_s=10.0
    )
    problem = Problem(
        (JobSegment(0, 10, ((0, 0), (1, 1))), JobSegment(1, 10, ((0, 0), (1, 1)))),
        (Slot(0, 100 * HOUR, 100.0, 100.0),),
        energy,
        1e9,
        0.4,
        1.0,
        pue=1.5,
        may_pause=True,
        idle_w=100.0,
        switch_j=36_000.0,
    )
    arrays = SegmentArrays(problem)
    rho = np.array([1.0, 1.0])
    plain = arrays.schedule(rho)
    assert plain.end_s == pytest.approx([1860.0, 3720.0])
    assert plain.spend_g == pytest.approx((2 * (3_600_000 + 3600) + 7200) / J_PER_KWH * 150)
    waited = arrays.schedule(rho, np.array([0.0, 2860.0]))
    assert waited.start_s == pytest.approx([0.0, 2860.0])
    assert waited.spend_g - plain.spend_g == pytest.approx((100 * 1000 + 36_000) / J_PER_KWH * 150)


def test_a_frontier_is_scaled_to_its_right_end_and_clipped_to_the_bounds():
    one = GainCurve.of(((0.4, 2.0), (0.5, 6.0), (0.7, 7.0), (1.0, 10.0)), 0.45, 0.9)
    assert one.rho[[0, -1]] == pytest.approx([0.45, 0.9])
    assert one.at(0.5) == pytest.approx(0.6)
    assert one.at(0.9) == pytest.approx(0.9)
    # 0.7 lies under the line from 0.5 to 0.9
    assert 0.7 not in one.hull_rho


def test_a_frontier_without_any_gain_counts_as_linear():
    one = GainCurve.of(((0.4, 0.0), (1.0, 0.0)), 0.4, 1.0)
    assert one.at(0.7) == pytest.approx(0.7)


@given(st.lists(st.tuples(st.floats(0.3, 1.0), st.floats(0, 5)), min_size=2, max_size=30))
def test_the_hull_is_concave_and_never_below_the_curve(points):
    ascending = sorted({round(r, 3): g for r, g in points}.items())
    one = GainCurve.of(tuple(ascending), 0.0, 1.0)
    slopes = np.diff(one.hull_gain) / np.diff(one.hull_rho)
    assert np.all(np.diff(slopes) <= 1e-6)
    assert np.all(np.interp(one.rho, one.hull_rho, one.hull_gain) >= one.gain - 1e-9)
    assert np.all(np.diff(one.gain) >= 0)


def test_an_empty_frontier_is_refused():
    with pytest.raises(ValueError, match="non-empty"):
        GainCurve.of((), 0.4, 1.0)
