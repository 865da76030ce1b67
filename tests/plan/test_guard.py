"""The nets under the budget."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from carbonsched.plan import guard
from carbonsched.plan.problem import EnergyModel, JobSegment, Problem, Slot
from carbonsched.plan.segment_arrays import SegmentArrays
from carbonsched.units import grams

LINEAR = ((0.0, 0.0), (1.0, 1.0))
ENERGY = EnergyModel(3600.0, 0.2, 10.0, 1.0, sigma=0.0, watts_high=400.0)


def arrays(budget_g: float, high: float = 300.0, n: int = 3, sigma: float = 0.0) -> SegmentArrays:
    energy = EnergyModel(3600.0, 0.2, 10.0, 1.0, sigma=sigma, watts_high=400.0)
    slots = (Slot(0, 1000, 300.0, 300.0), Slot(1000, 10_000, 300.0, high))
    segments = tuple(JobSegment(k, 100, LINEAR) for k in range(n))
    return SegmentArrays(Problem(segments, slots, energy, budget_g, 0.4, 1.0))


@given(
    left=st.floats(0.0, 50.0),
    watts=st.floats(1.0, 1000.0),
    rho=st.floats(0.4, 1.0),
    worst=st.floats(10.0, 2000.0),
    reserve_j=st.floats(0.0, 1e5),
    pue=st.floats(1.0, 2.0),
)
def test_a_lease_run_to_its_end_at_the_worst_stays_inside_the_budget(left, watts, rho, worst, reserve_j, pue):
    energy = EnergyModel(watts * 2, 0.3, 2.0, 0.3, sigma=0.1, watts_high=watts)
    allowance = guard.allowance(left, energy, rho, worst, pue=pue, reserve_j=reserve_j, tick_s=1.0)
    assert allowance.seconds >= 0
    assert allowance.steps >= 0
    used = grams(watts * allowance.seconds + reserve_j, worst, pue) if allowance.seconds else 0.0
    assert used <= left + 1e-9
    if allowance.steps and allowance.seconds < 300:
        assert grams(allowance.steps * energy.joules(rho, 1), worst, pue) <= left + 1e-9


def test_a_lease_without_room_is_none_at_all():
    assert guard.allowance(0.5, ENERGY, 0.5, 1000.0, reserve_j=3600.0) == guard.Allowance(0.0, 0)


def test_a_lease_lasts_no_longer_than_it_is_allowed_to():
    allowance = guard.allowance(1e6, ENERGY, 0.5, 1000.0, longest_s=120.0)
    assert allowance.seconds == 120.0
    # 10 s a step: more steps than fit would only let a runaway trainer go on
    assert 12 <= allowance.steps <= 30


def test_where_the_power_is_unknown_the_models_own_stands_in():
    energy = EnergyModel(3600.0, 0.2, 10.0, 1.0, sigma=0.1)
    allowance = guard.allowance(1.0, energy, 1.0, 1000.0, longest_s=1e6, tick_s=0.0)
    assert grams(360.0 * 1.3 * allowance.seconds, 1000.0) == pytest.approx(1.0)


def test_must_stop_at_the_tick_that_could_pass_the_budget():
    tick = grams(400.0 * 1.0, 1000.0)
    assert not guard.must_stop(tick + 1e-9, 400.0, 1.0, 0.0, 1000.0)
    assert guard.must_stop(tick - 1e-9, 400.0, 1.0, 0.0, 1000.0)
    assert guard.must_stop(tick + 1e-9, 400.0, 1.0, 1.0, 1000.0)


def test_the_cap_leaves_the_floor_of_the_rest():
    # a segment at full takes 360 kJ = 30 g here, at 0.4 15.6 g; two of those must stay: 31.2 g
    cap = guard.cap_rho(arrays(56.0), 56.0)
    assert cap.fits
    assert cap.needs_g == pytest.approx(3 * 15.6)
    # 24.8 g are left for the first: 30·(0.2 + 0.8ρ) = 24.8
    assert cap.rho == pytest.approx((24.8 / 30 - 0.2) / 0.8, abs=1e-6)


def test_a_higher_quantile_lowers_the_cap_and_never_the_bound():
    calm, wild = guard.cap_rho(arrays(60.0), 60.0), guard.cap_rho(arrays(60.0, high=400.0), 60.0)
    assert wild.rho < calm.rho
    broke = guard.cap_rho(arrays(40.0), 40.0)
    assert not broke.fits
    assert broke.rho == pytest.approx(0.4)


def test_an_unsure_energy_model_lowers_the_cap():
    assert guard.cap_rho(arrays(70.0, sigma=0.2), 70.0).rho < guard.cap_rho(arrays(70.0), 70.0).rho


def test_rho_is_lowered_in_mid_segment_where_the_guard_would_no_longer_grant_it_and_only_then():
    plenty, tight = arrays(100.0, n=4).problem, arrays(30.0, n=4).problem
    assert guard.rest_rho(plenty, 0.9) is None
    lowered = guard.rest_rho(tight, 0.9)
    assert lowered is not None
    assert 0.4 <= lowered < 0.85
    # what it is lowered to is what the guard grants for the rest, so a second look changes nothing
    assert guard.rest_rho(tight, lowered) is None
    # a small fall is left until the next segment
    assert guard.rest_rho(tight, lowered + 0.04) is None
    # nothing fits any more: the lowest, and must_stop has the last word
    assert guard.rest_rho(arrays(1.0, n=4).problem, 0.9) == pytest.approx(0.4)
