"""The energy model learned from metered segments."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from carbonsched.plan.energy_fit import EnergyFit

TRUE_J, TRUE_C0 = 120.0, 0.28


def joules(rho: float, steps: int = 50) -> float:
    return steps * TRUE_J * (TRUE_C0 + (1 - TRUE_C0) * rho)


def taught(rhos: list[float], noise: list[float] | None = None) -> EnergyFit:
    fit = EnergyFit.prior(seconds_full=1.0, watts=300.0)
    for i, rho in enumerate(rhos):
        factor = 1 + (noise[i] if noise else 0.0)
        fit = fit.observe(rho, 50, joules(rho) * factor, 50 * (0.3 + 0.7 * rho))
    return fit


def test_before_any_segment_the_prior_holds_and_says_it_is_unsure():
    model = EnergyFit.prior(seconds_full=2.0, watts=150.0, c0=0.4).model()
    assert model.joules(1.0, 10) == pytest.approx(3000.0)
    assert model.joules(0.0, 10) == pytest.approx(1200.0)
    assert model.seconds(1.0, 10) == pytest.approx(20.0)
    assert model.sigma >= 0.2
    assert not model.slope_known
    assert model.watts_high >= 150.0


def test_three_segments_at_different_rho_predict_within_five_percent():
    model = taught([0.5, 0.7, 1.0]).model()
    for rho in (0.4, 0.6, 0.8, 1.0):
        assert model.joules(rho, 50) == pytest.approx(joules(rho), rel=0.05)
        assert model.seconds(rho, 50) == pytest.approx(50 * (0.3 + 0.7 * rho), rel=0.05)
    assert model.slope_known


def test_a_constant_rho_finds_the_level_there_but_never_claims_the_slope():
    fit = taught([0.6] * 6)
    model = fit.model()
    assert model.joules(0.6, 50) == pytest.approx(joules(0.6), rel=0.03)
    assert not model.slope_known
    line = fit.energy_line()
    assert line.sigma_at(0.6) < 0.05 < line.sigma_at(0.2)


def test_one_throttled_segment_among_eight_moves_the_line_little():
    rhos = [0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0, 0.45]
    spoilt = [0.01, -0.01, 1.5, 0.0, 0.01, -0.02, 0.01, 0.0]
    model = taught(rhos, spoilt).model()
    for rho in (0.4, 0.7, 1.0):
        assert model.joules(rho, 50) == pytest.approx(joules(rho), rel=0.06)


def test_noise_shows_in_sigma():
    rng = np.random.default_rng(4)
    rhos = rng.uniform(0.4, 1.0, 30).tolist()
    calm = taught(rhos, rng.normal(0, 0.01, 30).tolist()).model().sigma
    wild = taught(rhos, rng.normal(0, 0.15, 30).tolist()).model().sigma
    assert calm < 0.04
    assert wild > 0.08


def test_unknown_energy_still_teaches_the_time():
    fit = EnergyFit.prior(1.0, 100.0).observe(0.5, 10, None, 30.0)
    assert fit.model().joules_full == pytest.approx(100.0)
    assert fit.model().seconds(0.5, 10) == pytest.approx(30.0, rel=0.05)


def test_overheads_are_kept_apart_and_one_slow_checkpoint_does_not_count_for_all():
    fit = EnergyFit.prior(1.0, 100.0)
    for extra in (10.0, 12.0, 900.0):
        fit = fit.observe(0.5, 10, 500.0, 6.0, overhead_j=extra, overhead_s=extra / 100)
    assert fit.model().overhead_j == pytest.approx(12.0)
    assert fit.model().overhead_s == pytest.approx(0.12)


def test_a_segment_that_tells_nothing_changes_nothing():
    fit = EnergyFit.prior(1.0, 100.0)
    assert fit.observe(0.5, 0, 10.0, 1.0) == fit
    assert fit.observe(0.5, 3, 10.0, 0.0) == fit
    assert fit.observe(float("nan"), 3, 10.0, 1.0) == fit


def test_power_is_bounded_from_above_by_the_rating_or_what_was_seen():
    fit = EnergyFit.prior(1.0, 100.0, rated_watts=250.0)
    assert fit.observe(1.0, 10, 4000.0, 10.0).model().watts_high == pytest.approx(1.25 * 400.0)
    assert fit.observe(1.0, 10, 1000.0, 10.0).model().watts_high == pytest.approx(250.0)
    assert EnergyFit.prior(1.0, 100.0, rated_watts=250.0).model().watts_high == pytest.approx(250.0)


@given(
    st.lists(
        st.tuples(st.floats(0.33, 1.0), st.floats(0.1, 1e6), st.floats(0.01, 1e4)), min_size=1, max_size=8
    )
)
def test_whatever_was_metered_the_model_is_one_a_plan_can_use(rows: list[tuple[float, float, float]]):
    fit = EnergyFit.prior(1.0, 100.0)
    for rho, used, took in rows:
        fit = fit.observe(rho, 5, used, took)
    model = fit.model()
    assert 0 <= model.joules_c0 <= 1
    assert 0 <= model.seconds_c0 <= 1
    assert model.joules_full > 0
    assert model.seconds_full > 0
    assert 0 < model.sigma <= 1
    assert model.joules(0.4, 5) <= model.joules(1.0, 5) * (1 + 1e-9)
