"""What a provider forecast and what came, as it is kept."""

import math
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from carbonsched.model.grid import Basis, Forecast, ForecastPoint, Kind, Reading, Source
from carbonsched.plan.forecasting.archive import (
    ForecastArchive,
    KeptForecast,
    ProviderRecord,
    ReadingArchive,
    Series,
    ms,
)

T0 = datetime(2026, 3, 1, tzinfo=UTC)


def source(kind: Kind = Kind.FORECAST) -> Source:
    return Source(provider="x", zone="X", basis=Basis.AVERAGE_DIRECT, kind=kind, fetched_at=T0)


def forecast(points: list[tuple[float, float, float, float | None]], issued_h: float = 0.0) -> Forecast:
    """(start, end, value, high), times in hours from T0."""
    return Forecast(
        issued_at=T0 + timedelta(hours=issued_h),
        source=source(),
        points=tuple(
            ForecastPoint(start=T0 + timedelta(hours=a), end=T0 + timedelta(hours=b), g_per_kwh=v, high=high)
            for a, b, v, high in points
        ),
    )


@given(
    st.lists(
        st.tuples(st.integers(0, 200), st.integers(0, 8), st.floats(0, 2000), st.none() | st.floats(0, 3000)),
        max_size=30,
    )
)
def test_points_are_kept_as_they_were_but_for_those_that_overlap(rows: list) -> None:
    points = [(a / 4, (a + n) / 4, v, high) for a, n, v, high in rows]
    expected, end_before = [], -1.0
    for a, b, v, high in sorted(points, key=lambda p: p[0]):
        if b > a and a >= end_before:
            expected.append((a, b, v, high))
            end_before = b
    kept = KeptForecast.of(T0, forecast(points))
    hours = [((a - ms(T0)) / 3.6e6, (b - ms(T0)) / 3.6e6) for a, b, _ in kept.points()]
    assert hours == [(a, b) for a, b, _, _ in expected]
    assert [v for _, _, v in kept.points()] == pytest.approx([v for _, _, v, _ in expected], abs=0.01)
    if kept.highs is not None:
        found = [None if math.isnan(h) else h for h in kept.highs]
        assert found == pytest.approx([h for *_, h in expected], abs=0.01)
    else:
        assert all(h is None for *_, h in expected)


def test_four_weeks_of_the_longest_forecast_stay_below_the_cap() -> None:
    archive = ForecastArchive()
    quarters = [(q / 4, (q + 1) / 4, 100.0 + q % 96, 250.0) for q in range(24 * 4 * 20)]  # twenty days
    kept = KeptForecast.of(T0, forecast(quarters))
    assert len(kept.values) == 1200
    for hour in range(29 * 24):
        at = ms(T0) + hour * 3_600_000
        archive.put(KeptForecast(at, at, kept.runs, kept.values, kept.highs))
    assert archive.size == sum(row.size for row in archive.rows)
    assert 3_980_000 < archive.size <= 4_000_000


def test_a_clock_that_was_set_back_forgets_what_lies_ahead() -> None:
    archive = ForecastArchive()
    for hour in range(4):
        archive.add(T0 + timedelta(hours=hour), forecast([(hour, hour + 1, 100, None)], hour))
    archive.add(T0 + timedelta(hours=1.5), None)
    assert [row.at - ms(T0) for row in archive.rows] == [0, 3_600_000]
    assert archive.size == sum(row.size for row in archive.rows)


@given(st.lists(st.tuples(st.integers(0, 60), st.integers(1, 9), st.integers(0, 5)), max_size=40))
def test_a_revision_replaces_what_it_overlaps(rows: list[tuple[int, int, int]]) -> None:
    archive, plain = ReadingArchive(), []
    for start, length, value in rows:
        new = (start, start + length, float(value))
        changed = archive.put(*new)
        assert changed == (new not in plain)
        plain = sorted([old for old in plain if old[1] <= new[0] or old[0] >= new[1]] + [new])
    assert list(zip(archive.starts, archive.ends, archive.values, strict=True)) == plain


def test_only_what_is_over_and_came_is_held_against_a_forecast() -> None:
    record = ProviderRecord.of(Series.of(source()))
    rows = [
        (0, Kind.ACTUAL),
        (1, Kind.ESTIMATED),
        (2, Kind.FORECAST),
        (3, Kind.FALLBACK),
        (4, Kind.ACTUAL),  # runs still
    ]
    readings = [
        Reading(
            start=T0 + timedelta(hours=h),
            end=T0 + timedelta(hours=h + 1),
            g_per_kwh=100 + h,
            source=source(kind),
        )
        for h, kind in rows
    ]
    found = record.add_readings(T0 + timedelta(hours=4.5), readings)
    assert [value for *_, value in found] == [100, 101]
    assert record.add_readings(T0 + timedelta(hours=4.5), readings) == []
    assert record.version == 1
