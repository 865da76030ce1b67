"""Intensity over time as an integral."""

import numpy as np
import pytest

from carbonsched.plan.intensity_curve import IntensityCurve
from carbonsched.plan.problem import Slot

HOUR = 3600.0
SLOTS = (Slot(0, HOUR, 100.0, 120.0, 90.0), Slot(HOUR, 2 * HOUR, 300.0, 400.0, 200.0))


def test_a_segment_that_straddles_slots_pays_each_for_its_time():
    curve = IntensityCurve(SLOTS)
    start, end = np.array([0.5 * HOUR]), np.array([1.25 * HOUR])
    assert curve.mean_between(start, end)[0] == pytest.approx((0.5 * 100 + 0.25 * 300) / 0.75)
    assert curve.mean_between(start, end, "high")[0] == pytest.approx((0.5 * 120 + 0.25 * 400) / 0.75)
    assert curve.mean_between(start, end, "low")[0] == pytest.approx((0.5 * 90 + 0.25 * 200) / 0.75)


def test_past_the_last_slot_the_mean_of_all_holds():
    curve = IntensityCurve(SLOTS)
    assert curve.mean_between(np.array([5 * HOUR]), np.array([6 * HOUR]))[0] == pytest.approx(200.0)
    assert curve.now == 100.0


def test_past_the_last_slot_the_given_values_take_equal_parts_of_the_time():
    curve = IntensityCurve(SLOTS, beyond=(100.0, 500.0, 300.0), until_s=8 * HOUR)
    parts = [
        curve.mean_between(np.array([2 * n * HOUR]), np.array([2 * (n + 1) * HOUR]))[0] for n in (1, 2, 3)
    ]
    assert sorted(parts) == pytest.approx([100.0, 300.0, 500.0])
    assert curve.end_s == 2 * HOUR, "what is known reaches no further"


@pytest.mark.parametrize("slots", [(), (SLOTS[0], Slot(2 * HOUR, 3 * HOUR, 1.0, 1.0)), (SLOTS[1], SLOTS[0])])
def test_slots_that_are_no_time_line_are_refused(slots):
    with pytest.raises(ValueError, match="slot"):
        IntensityCurve(slots)
