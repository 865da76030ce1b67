"""Provider forecasts kept as they were issued, and what is learned from them."""

from datetime import UTC, datetime, timedelta

import numpy as np
import pytest

from carbonsched.model.grid import Basis, Forecast, ForecastPoint, Kind, Reading, Source
from carbonsched.plan.forecasting.archive import ForecastArchive, Series
from carbonsched.plan.forecasting.provider_forecast import ForecastHistory, ProviderForecast
from carbonsched.plan.forecasting.slots import slots

T0 = datetime(2026, 3, 1, tzinfo=UTC)
HOUR = timedelta(hours=1)
SOURCE = Source(provider="x", zone="X", basis=Basis.AVERAGE_DIRECT, kind=Kind.ACTUAL, fetched_at=T0)
DAYS = 28


def real(t: float) -> float:
    """g/kWh at hour t: a day's wave on a level that wanders with the weather."""
    return (
        300
        + 80 * np.sin(2 * np.pi * t / 24)
        + 60 * np.sin(2 * np.pi * t / 97)
        + 40 * np.sin(2 * np.pi * t / 41)
    )


def issued(hour: int, error: float, hours: int = 48, bias: float = 1.0) -> Forecast:
    """A forecast whose relative error grows with the horizon up to `error` at two days."""
    rng = np.random.default_rng(hour)
    values = [real(hour + h) * bias * float(np.exp(rng.normal(0, error * h / 48))) for h in range(hours)]
    points = tuple(
        ForecastPoint(start=T0 + (hour + h) * HOUR, end=T0 + (hour + h + 1) * HOUR, g_per_kwh=v)
        for h, v in enumerate(values)
    )
    return Forecast(issued_at=T0 + hour * HOUR, source=SOURCE, points=points)


def readings(hours: int) -> list[Reading]:
    return [
        Reading(start=T0 + h * HOUR, end=T0 + (h + 1) * HOUR, g_per_kwh=real(h), source=SOURCE)
        for h in range(hours)
    ]


def kept(error: float, bias: float = 1.0) -> ForecastArchive:
    archive = ForecastArchive()
    for hour in range(DAYS * 24):
        archive.add(T0 + hour * HOUR, issued(hour, error, bias=bias))
    return archive


def ahead(archive: ForecastArchive | None, error: float, bias: float = 1.0):
    now = DAYS * 24 - 1
    history = readings(now + 1)
    return slots(
        T0 + now * HOUR, 47 * 3600.0, history[-1], issued(now, error, bias=bias), history, archive=archive
    )


def width(built, hour: int) -> float:
    slot = built[hour]
    return (slot.high - (slot.low or 0.0)) / slot.g_per_kwh


def test_the_band_is_what_the_provider_has_earned_and_grows_with_the_horizon():
    good, bad = ahead(kept(0.05), 0.05), ahead(kept(0.5), 0.5)
    plain = ahead(None, 0.05)
    assert width(plain, 3) == pytest.approx(0.3, abs=0.02)
    assert width(good, 3) < 0.1
    assert width(good, 3) < width(good, 40) < 0.3
    assert width(bad, 40) > 0.35
    assert width(bad, 40) > 2 * width(good, 40)


def test_a_provider_that_is_always_too_high_is_set_right():
    built = ahead(kept(0.05, bias=1.4), 0.05, bias=1.4)
    now = DAYS * 24 - 1
    off = [built[h].g_per_kwh / real(now + h) - 1 for h in range(6, 40)]
    assert abs(np.mean(off)) < 0.05


def test_what_was_said_later_is_not_known_before():
    first = ProviderForecast(np.array([0.0]), np.array([100.0]), np.array([5.0]), np.array([np.nan]))
    second = ProviderForecast(np.array([0.0]), np.array([100.0]), np.array([7.0]), np.array([9.0]))
    history = ForecastHistory(np.array([10.0, 20.0]), (first, second))
    value, high = history.at(np.array([50.0, 50.0, 50.0, 500.0]), np.array([5.0, 15.0, 25.0, 25.0]))
    assert np.array_equal(value, [np.nan, 5.0, 7.0, np.nan], equal_nan=True)
    assert np.array_equal(high, [np.nan, np.nan, 9.0, np.nan], equal_nan=True)


def test_one_forecast_an_hour_is_kept_for_four_weeks():
    archive = ForecastArchive()
    for minute in range(0, 60 * 24 * 40, 20):
        at = T0 + timedelta(minutes=minute)
        archive.add(at, issued(minute // 60, 0.1, hours=3))
    found = ForecastHistory.of(archive, T0 + timedelta(days=40))
    assert len(found.times) == pytest.approx(29 * 24, abs=2)
    assert found.times[0] == pytest.approx(-29 * 86_400, abs=3700)
    archive.add(T0 + timedelta(days=41), None)
    assert len(ForecastHistory.of(archive, T0 + timedelta(days=41)).times) == len(found.times)


def test_a_forecast_that_says_nothing_new_is_kept_once():
    archive = ForecastArchive()
    for hour in range(10):
        archive.add(T0 + hour * HOUR, issued(0, 0.1))
    assert len(ForecastHistory.of(archive, T0).times) == 1


def test_absurd_values_are_not_believed():
    forecast = issued(0, 0.0).model_copy(
        update={
            "points": tuple(
                ForecastPoint(start=T0 + h * HOUR, end=T0 + (h + 1) * HOUR, g_per_kwh=v)
                for h, v in enumerate((100.0, -5.0, 50_000.0, 120.0))
            )
        }
    )
    archive = ForecastArchive()
    archive.add(T0, forecast)
    value, _ = ForecastHistory.of(archive, T0).at(np.array([1.0, 3601.0, 7201.0, 10_801.0]), np.zeros(4))
    assert np.array_equal(value, [100.0, np.nan, np.nan, 120.0], equal_nan=True)


@pytest.mark.parametrize("kind", [Kind.FORECAST, Kind.FALLBACK, Kind.ACTUAL])
def test_only_the_providers_own_measured_values_tell_how_right_it_is(kind: Kind):
    """A value that is the forecast itself, or another provider's, earns no narrow band."""
    now = DAYS * 24 - 1
    other = "x" if kind is not Kind.ACTUAL else "y"
    foreign = SOURCE.model_copy(update={"kind": kind, "provider": other})
    history = [r.model_copy(update={"source": foreign}) for r in readings(now + 1)]
    forecast = issued(now, 0.05)
    told_by = Series.of(SOURCE)
    built = slots(
        *(T0 + now * HOUR, 47 * 3600.0, history[-1], forecast, history), archive=kept(0.05), told_by=told_by
    )
    assert width(built, 3) == pytest.approx(0.3, abs=0.02)
    own = slots(
        *(T0 + now * HOUR, 47 * 3600.0, None, forecast, readings(now)), archive=kept(0.05), told_by=told_by
    )
    assert width(own, 3) < 0.1
