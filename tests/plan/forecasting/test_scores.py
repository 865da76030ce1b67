"""Scores of forecasts against a plain reference, one millisecond after the other."""

from array import array
from itertools import pairwise
from statistics import fmean

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from carbonsched.model.grid import Basis
from carbonsched.plan.forecasting.archive import KeptForecast, ProviderRecord, Series, append_span
from carbonsched.plan.forecasting.blend import BINS
from carbonsched.plan.forecasting.scores import EDGES_H, score

DAY = 48
"""Milliseconds of a grid day in these replays: two an hour."""


def record() -> ProviderRecord:
    return ProviderRecord.of(Series("x", "X", Basis.AVERAGE_DIRECT, 86_400_000 / DAY))


def kept(at: int, points: list[tuple[int, int, float]]) -> KeptForecast:
    runs = array("q")
    for start, end, _ in points:
        append_span(runs, start, end)
    return KeptForecast(at, at, runs, array("f", [value for *_, value in points]))


def spans(draw: st.DrawFn, first: int, last: int) -> list[tuple[int, int, float]]:
    """Ascending, with holes; values that a float of 32 bits holds exactly."""
    found, at = [], first
    while at < last and len(found) < 60:
        at += draw(st.sampled_from([0, 0, 0, 0, 1, 5]))
        length = draw(st.sampled_from([1, 2, 2, 2, 4, 7]))
        found.append((at, at + length, float(draw(st.integers(0, 900)))))
        at += length
    return found


@st.composite
def records(draw: st.DrawFn) -> ProviderRecord:
    made = record()
    for start, end, value in spans(draw, 0, 150):
        made.readings.put(start, end, value)
    for at in sorted(draw(st.sets(st.integers(30, 120), max_size=4))):
        made.forecasts.put(kept(at, spans(draw, at + draw(st.integers(-5, 5)), at + 120)))
    return made


def by_the_millisecond(made: ProviderRecord, lo: float, hi: float) -> list[tuple[float, float, float]]:
    """(forecast, persistence, actual) of what is scored at a horizon."""
    came = {
        at: value
        for start, end, value in zip(
            made.readings.starts, made.readings.ends, made.readings.values, strict=True
        )
        for at in range(start, end)
    }
    found = []
    for row in made.forecasts.rows:
        for start, end, value in row.points():
            if start < row.at or not lo <= (start - row.at) * 24 / DAY < hi:
                continue
            days = next(k for k in range(1, 99) if end - k * DAY <= row.at)
            now, before = (range(start - k * DAY, end - k * DAY) for k in (0, days))
            if all(at in came for at in (*now, *before)):
                found.append((value, fmean(came[at] for at in before), fmean(came[at] for at in now)))
    return found


@settings(max_examples=40, deadline=None)
@given(records())
def test_scores_are_those_of_a_plain_sum(made: ProviderRecord) -> None:
    found = score(made)
    assert [(one.from_h, one.to_h) for one in found.horizons] == list(pairwise(EDGES_H))
    for one in found.horizons:
        rows = by_the_millisecond(made, one.from_h, one.to_h)
        assert one.n == len(rows)
        if not rows:
            assert one.mae_g_per_kwh is one.persistence_bias_percent is None
            continue
        mean = fmean(actual for *_, actual in rows)
        assert one.mean_g_per_kwh == pytest.approx(mean)
        assert one.mae_g_per_kwh == pytest.approx(fmean(abs(f - a) for f, _, a in rows))
        assert one.bias_g_per_kwh == pytest.approx(fmean(f - a for f, _, a in rows), abs=1e-9)
        assert one.persistence_mae_g_per_kwh == pytest.approx(fmean(abs(p - a) for _, p, a in rows))
        assert one.persistence_bias_g_per_kwh == pytest.approx(fmean(p - a for _, p, a in rows), abs=1e-9)
        if mean > 0:
            assert one.mae_percent == pytest.approx(100 * fmean(abs(f - a) for f, _, a in rows) / mean)
            assert one.persistence_mae_percent == pytest.approx(
                100 * fmean(abs(p - a) for _, p, a in rows) / mean
            )
        else:
            assert one.mae_percent is None
    assert (found.reason is None) == any(one.n for one in found.horizons)


def test_what_is_not_scored_yet_says_why() -> None:
    made = record()
    assert score(made).reason == "not scored yet: no forecast is kept"
    made.forecasts.put(kept(100, [(100, 102, 5.0)]))
    made.forecasts.put(kept(110, [(110, 112, 5.0)]))
    assert score(made).reason == (
        "not scored yet: 5 h of forecasts kept, and the provider has told no value of its own that came, measured or estimated"
    )
    made.readings.put(100, 102, 5.0)
    assert score(made).reason == "not scored yet: 5 h of forecasts kept"  # yesterday is not known
    made.readings.put(52, 54, 7.0)
    first = score(made).horizons[0]
    assert (first.n, first.mae_g_per_kwh, first.persistence_bias_g_per_kwh) == (1, 0.0, 2.0)
    assert (score(made).forecasts, score(made).kept_h, score(made).reason) == (2, 5.0, None)


def test_of_many_points_every_fifth_forecast_is_scored() -> None:
    made = record()
    for at in range(0, 200, 2):
        made.forecasts.put(kept(at, [(at + n, at + n + 1, 1.0) for n in range(1200)]))
    for at in range(300):
        made.readings.put(at, at + 1, 1.0)
    assert score(made).horizons[0].n == 2 * len(range(198, 47, -10))


def test_the_planners_horizons_are_the_same() -> None:
    assert tuple(24 * edge for edge in BINS) == EDGES_H
