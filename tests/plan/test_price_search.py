"""The price at which a plan spends the budget."""

import numpy as np
import pytest

from carbonsched.plan.price_search import min_grams_plan, search
from carbonsched.plan.problem import EnergyModel, JobSegment, Problem, Slot
from carbonsched.plan.segment_arrays import SegmentArrays
from carbonsched.units import J_PER_KWH

HOUR = 3600.0
VALUES = (500.0, 100.0, 300.0, 200.0)


def arrays(c0_s: float = 1.0, *, may_pause: bool = False) -> SegmentArrays:
    """Four segments of an hour and a kWh at ρ = 1."""
    slots = tuple(Slot(i * HOUR, (i + 1) * HOUR, v, v) for i, v in enumerate(VALUES))
    segments = tuple(JobSegment(k, 1, ((0.0, 0.0), (1.0, 1.0))) for k in range(4))
    energy = EnergyModel(J_PER_KWH, 0.2, HOUR, c0_s)
    return SegmentArrays(Problem(segments, slots, energy, 0.0, 0.4, 1.0, may_pause=may_pause))


def test_with_fixed_times_the_cleanest_hours_are_raised_first_and_the_price_is_the_marginal_hours():
    job = arrays()
    floor = min_grams_plan(job)
    # 100 and 200 g/kWh whole take 0.48 of each, half of the hour at 300 is left
    found = search(job, floor, floor.schedule.spend_g + 0.48 * (100 + 200 + 150), separable=True)
    assert found.solution.rho == pytest.approx([0.4, 1.0, 0.7, 1.0])
    assert found.price == pytest.approx(0.25 / (0.8 * 300))
    assert found.bound == pytest.approx(0.25 * found.solution.rho.sum())


@pytest.mark.parametrize("may_pause", [False, True])
def test_where_times_follow_rho_the_budget_is_spent_and_never_passed(may_pause: bool):
    job = arrays(0.2, may_pause=may_pause)
    floor = min_grams_plan(job)
    for more in (1.0, 50.0, 150.0):
        budget = floor.schedule.spend_g + more
        found = search(job, floor, budget, separable=False)
        assert budget * 0.98 <= found.solution.schedule.spend_g <= budget * (1 + 1e-9)
        assert found.bound >= float(job.gains(found.solution.rho).sum()) - 1e-9


def test_full_speed_that_fits_has_no_price():
    job = arrays()
    found = search(job, min_grams_plan(job), 1e6, separable=True)
    assert (found.price, np.all(found.solution.rho == 1.0)) == (0.0, True)
