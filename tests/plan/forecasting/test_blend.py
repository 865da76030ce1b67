"""Forecasts from the past, with weights and errors learned from what came."""

import numpy as np
import pytest

from carbonsched.plan.forecasting.blend import BINS, Blend, ForecastErrors, ProviderForecast, ReadingHistory

DAY = 86_400.0
HOURS = np.arange(29 * 24) * 3600.0


def daily(noise: float = 0.0, day_s: float = DAY) -> ReadingHistory:
    rng = np.random.default_rng(1)
    wave = 300 + 100 * np.sin(2 * np.pi * HOURS / DAY)
    return ReadingHistory(HOURS * day_s / DAY, wave * np.exp(rng.normal(0, noise, len(wave))), day_s)


def until(past: ReadingHistory, row: int) -> ReadingHistory:
    """What was known when that row began."""
    return ReadingHistory(past.at[: row + 1], past.value[: row + 1], past.day_s)


def test_a_grid_that_repeats_itself_is_foretold_exactly():
    past = daily()
    now = float(past.at[-1])
    ahead = np.arange(1, 48) * 3600.0
    expected, with_provider = Blend.learn(past).expect(now, ahead, past, ProviderForecast(*[np.empty(0)] * 4))
    assert expected == pytest.approx(300 + 100 * np.sin(2 * np.pi * (now + ahead) / DAY), rel=0.01)
    assert not with_provider.any()


def test_a_compressed_replay_is_foretold_like_the_real_thing():
    slow, fast = daily(0.05), daily(0.05, day_s=480.0)
    nothing = ProviderForecast(*[np.empty(0)] * 4)
    a, _ = Blend.learn(slow).expect(float(slow.at[-1]), np.arange(1, 20) * 3600.0, slow, nothing)
    b, _ = Blend.learn(fast).expect(float(fast.at[-1]), np.arange(1, 20) * 20.0, fast, nothing)
    assert a == pytest.approx(b, rel=1e-6)


def test_a_provider_that_is_a_third_too_low_is_corrected():
    past = daily(0.02)
    provider = ProviderForecast(past.at, past.at + 3600.0, past.value * 0.67, np.full(len(past.at), np.nan))
    cut = len(past.at) - 48
    known = until(past, cut)
    blend = Blend.learn(known, provider)
    ahead = np.arange(1, 40) * 3600.0
    expected, with_provider = blend.expect(float(past.at[cut]), ahead, known, provider)
    assert with_provider.all()
    assert np.abs(expected / past.value[cut + 1 : cut + 40] - 1).mean() < 0.05


def test_a_present_miss_is_carried_forward_and_fades():
    past = daily()
    value = past.value.copy()
    value[-1] *= 1.4
    shifted = ReadingHistory(past.at, value, DAY)
    ahead = np.array([0.5, 6.0, 24.0]) * 3600.0
    plain = Blend.plain()
    usual, _ = plain.expect(float(past.at[-1]), ahead, past, ProviderForecast(*[np.empty(0)] * 4))
    bent, _ = plain.expect(float(past.at[-1]), ahead, shifted, ProviderForecast(*[np.empty(0)] * 4))
    ratio = bent / usual
    assert ratio[0] > 1.25
    assert ratio[0] > ratio[1] > 1.0


def test_the_learned_band_holds_nine_of_ten_unseen_hours():
    rng = np.random.default_rng(7)
    hits = []
    for _ in range(40):
        shock = np.zeros(len(HOURS))
        for i in range(1, len(shock)):
            shock[i] = 0.97 * shock[i - 1] + rng.normal(0, 0.05)
        past = ReadingHistory(HOURS, 300 * np.exp(0.3 * np.sin(2 * np.pi * HOURS / DAY) + shock), DAY)
        cut = len(HOURS) - 49
        known = until(past, cut)
        blend = Blend.learn(known)
        ahead = np.arange(1, 48) * 3600.0
        expected, _ = blend.expect(float(HOURS[cut]), ahead, known, ProviderForecast(*[np.empty(0)] * 4))
        high = expected * (1 + blend.errors_without_provider.highs(ahead, 0.95))
        hits.append((past.value[cut + 1 : cut + 48] <= high).mean())
    assert np.mean(hits) > 0.85


def test_gaps_of_days_leave_a_forecast_that_is_still_a_number():
    past = daily(0.05)
    keep = np.ones(len(HOURS), dtype=bool)
    keep[-200:-112] = False
    holed = ReadingHistory(past.at[keep], past.value[keep], DAY)
    expected, _ = Blend.learn(holed).expect(
        float(holed.at[-1]), np.arange(1, 168) * 3600.0, holed, ProviderForecast(*[np.empty(0)] * 4)
    )
    assert np.isfinite(expected).all()
    assert expected.min() > 100


def test_without_any_past_nothing_is_claimed():
    empty = ReadingHistory(np.empty(0), np.empty(0), DAY)
    expected, _ = Blend.learn(empty).expect(
        0.0, np.array([3600.0]), empty, ProviderForecast(*[np.empty(0)] * 4)
    )
    assert np.isnan(expected).all()


def test_errors_by_horizon_give_quantiles_and_unknown_ones_fifteen_percent():
    hour, two, days = np.array([3600.0]), np.array([7200.0]), np.array([3 * DAY])
    assert ForecastErrors().highs(hour, 0.95)[0] == pytest.approx(0.15)
    at_two_hours = tuple(i / 100 for i in range(100))
    errors = ForecastErrors(by_bin=((), at_two_hours, *((),) * (len(BINS) - 2)))
    assert errors.highs(hour / 2, 0.95)[0] == pytest.approx(0.15)
    assert errors.highs(two, 0.95)[0] == pytest.approx(0.95, abs=0.02)
    # a farther horizon nothing is known of is no surer than the nearer one
    assert errors.highs(days, 0.95) == errors.highs(two, 0.95)
    assert errors.lows(two, 0.95)[0] == 0.0
