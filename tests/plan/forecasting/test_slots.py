"""From feed documents to slots."""

import math
from datetime import UTC, datetime, timedelta
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from carbonsched.model.grid import Basis, Forecast, ForecastPoint, Kind, Reading, Source
from carbonsched.plan.forecasting.slots import slots
from carbonsched.plan.intensity_curve import IntensityCurve

NOW = datetime(2026, 3, 1, 12, 20, tzinfo=UTC)
HOUR = timedelta(hours=1)
SOURCE = Source(provider="test", zone="XX", basis=Basis.AVERAGE_LIFECYCLE, kind=Kind.ACTUAL, fetched_at=NOW)


def reading(start: datetime, value: float, length: timedelta = HOUR) -> Reading:
    return Reading(start=start, end=start + length, g_per_kwh=value, source=SOURCE)


def past(days: int = 3, base: float = 300.0) -> list[Reading]:
    first = NOW.replace(minute=0) - timedelta(days=days)
    return [
        reading(first + i * HOUR, base + 100 * math.sin(2 * math.pi * (first + i * HOUR).hour / 24))
        for i in range(days * 24 + 1)
    ]


def points(values: list[float], first: datetime | None = None) -> Forecast:
    first = first or NOW.replace(minute=0)
    return Forecast(
        issued_at=NOW,
        source=SOURCE,
        points=tuple(
            ForecastPoint(start=first + i * HOUR, end=first + (i + 1) * HOUR, g_per_kwh=v)
            for i, v in enumerate(values)
        ),
    )


def whole(built, horizon_s: float) -> None:
    assert built[0].start_s == 0
    assert built[-1].end_s == pytest.approx(horizon_s)
    assert all(a.end_s == b.start_s for a, b in pairwise(built))
    assert all(s.end_s > s.start_s for s in built)
    assert all(0 <= (s.low or 0) <= s.g_per_kwh <= s.high for s in built)
    IntensityCurve(built)


def test_the_first_slot_is_what_holds_now_to_the_readings_end():
    built = slots(NOW, 6 * 3600, reading(NOW.replace(minute=0), 250.0), None, [])
    assert (built[0].end_s, built[0].g_per_kwh, built[0].high) == (40 * 60, 250.0, 250.0)
    # one reading and no past: what holds now goes on, with the error of the unknown
    assert built[-1].g_per_kwh == pytest.approx(250.0)
    assert built[-1].high == pytest.approx(250.0 * 1.15)
    whole(built, 6 * 3600)


def test_a_providers_forecast_is_followed_where_it_reaches_and_the_past_beyond():
    built = slots(NOW, 48 * 3600, reading(NOW.replace(minute=0), 400.0), points([400, 380, 360, 340]), past())
    whole(built, 48 * 3600)
    second = next(s for s in built if s.start_s == pytest.approx(40 * 60))
    assert second.g_per_kwh == pytest.approx(380, rel=0.02)
    tomorrow = next(s for s in built if s.start_s <= 30 * 3600 < s.end_s)
    hour = (NOW + timedelta(seconds=30 * 3600)).hour
    assert tomorrow.g_per_kwh == pytest.approx(300 + 100 * math.sin(2 * math.pi * hour / 24), rel=0.15)


def test_the_providers_own_high_is_kept_where_it_is_wider():
    forecast = points([300.0] * 3)
    wide = forecast.model_copy(
        update={"points": tuple(p.model_copy(update={"high": 600.0}) for p in forecast.points)}
    )
    built = slots(NOW, 2 * 3600, reading(NOW.replace(minute=0), 300.0), wide, [])
    assert built[1].high == pytest.approx(600.0)


def test_history_alone_repeats_the_day():
    built = slots(NOW, 24 * 3600, past()[-1], None, past())
    for s in built[1:]:
        hour = (NOW + timedelta(seconds=(s.start_s + s.end_s) / 2)).replace(minute=0).hour
        assert s.g_per_kwh == pytest.approx(300 + 100 * math.sin(2 * math.pi * hour / 24), rel=0.05)


def test_nothing_known_at_all_is_reckoned_at_the_worst():
    built = slots(NOW, 3600, None, None, [], worst=900.0)
    assert [s.g_per_kwh for s in built] == [900.0] * len(built)
    whole(built, 3600)


def test_absurd_and_ended_forecasts_are_refused():
    now = reading(NOW.replace(minute=0), 200.0)
    mad = slots(NOW, 3 * 3600, now, points([200, -5, 1e9, 2e5]), [])
    assert all(s.g_per_kwh == pytest.approx(200.0, rel=0.01) for s in mad)
    old = slots(NOW, 3 * 3600, now, points([900] * 5, NOW - timedelta(days=2)), [])
    assert all(s.g_per_kwh == pytest.approx(200.0, rel=0.01) for s in old)


def test_a_stale_reading_still_holds_now():
    built = slots(NOW, 3600, reading(NOW - timedelta(hours=5), 222.0), None, [])
    assert built[0].g_per_kwh == 222.0
    whole(built, 3600)


def test_a_high_is_never_above_the_stated_worst():
    built = slots(NOW, 3 * 3600, reading(NOW.replace(minute=0), 950.0), None, [], worst=1000.0)
    assert max(s.high for s in built) == pytest.approx(1000.0)


@settings(max_examples=40, deadline=None)
@given(
    values=st.lists(st.floats(0, 2000), max_size=60),
    provider=st.lists(st.floats(-100, 20_000), max_size=30),
    horizon=st.floats(10.0, 200_000.0),
    shift=st.integers(-80, 80),
    known=st.booleans(),
)
def test_whatever_the_feeds_give_the_slots_are_whole(values, provider, horizon, shift, known):
    first = NOW - timedelta(minutes=len(values) * 47)
    history = [reading(first + i * timedelta(minutes=47), v) for i, v in enumerate(values)]
    current = reading(NOW - timedelta(minutes=shift), 300.0) if known and shift >= 0 else None
    built = slots(NOW, horizon, current, points(provider, NOW + shift * HOUR) if provider else None, history)
    whole(built, horizon)
