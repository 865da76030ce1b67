"""Two forecasts made into one: its weights are the best there are, and need enough that has come true."""

from array import array
from datetime import UTC, datetime, timedelta

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from carbonsched.model.grid import Basis, Forecast, ForecastPoint, Kind, Source
from carbonsched.plan.forecasting.archive import ForecastArchive, KeptForecast, ProviderRecord, Series
from carbonsched.plan.forecasting.combination import (
    ALONE,
    ENOUGH,
    PairSums,
    Weights,
    combine,
    factor,
    from_sums,
    pair,
    weights,
)
from carbonsched.plan.forecasting.provider_forecast import ForecastHistory, ProviderForecast
from carbonsched.plan.forecasting.scores import HORIZONS

T0 = datetime(2026, 3, 1, tzinfo=UTC)
HOUR_MS = 3_600_000
ORIGIN = round(T0.timestamp() * 1000)
Triple = tuple[float, float, float]


def summed(rows: list[Triple], forecasts: int = ENOUGH) -> PairSums:
    sums = PairSums(forecasts)
    for row in rows:
        sums.add(*row)
    return sums


VALUES = st.floats(50, 500)


@settings(max_examples=60)
@given(st.lists(st.tuples(VALUES, VALUES, VALUES), min_size=1, max_size=20))
def test_no_other_share_would_have_erred_less(rows: list[Triple]) -> None:
    right = factor([sums := summed(rows)])
    if right is None:
        assert from_sums([sums]) == (ALONE,)
        return
    a, b, y = np.array(rows).T
    found = sums.weights(right)
    error = float(np.mean((found.first * a + found.second * b - y) ** 2))
    shares = np.linspace(0, 1, 51)[:, None]
    others = np.mean((shares * a + (1 - shares) * right * b - y) ** 2, axis=1)
    assert error <= others.min() * (1 + 1e-9) + 1e-6
    assert min(found.first, found.second) >= 0
    first, second, both = sums.squares(right)
    assert first == pytest.approx(np.mean((a - y) ** 2), abs=1e-6)
    assert second == pytest.approx(np.mean((right * b - y) ** 2), abs=1e-6)
    assert both == pytest.approx(np.mean((a - y) * (right * b - y)), abs=1e-6)


def test_where_errors_have_nothing_in_common_it_is_the_inverse_of_their_squares() -> None:
    rows = [(200 + a, 200 + b, 200.0) for a in (-10, 10) for b in (-20, 20)]
    found = from_sums([summed(rows)])[0]
    assert (found.first, found.second) == pytest.approx((0.8, 0.2))


def test_until_there_is_enough_and_where_they_mean_other_things_the_first_stands_alone() -> None:
    rows = [(210.0, 195.0, 200.0), (190.0, 215.0, 200.0)]
    assert from_sums([summed(rows, ENOUGH - 1)]) == (ALONE,)
    assert from_sums([summed(rows)])[0].second > 0
    assert from_sums([summed([(a, 3 * b, y) for a, b, y in rows])]) == (ALONE,)
    assert from_sums([PairSums()]) == (ALONE,)


def test_a_second_that_counts_by_other_factors_is_set_right_and_a_small_bias_is_left() -> None:
    rows = [(200 + a, 1.3 * (200 + b), 200.0) for a in (-10, 10) for b in (-10, 10)]
    assert factor([summed(rows)]) == pytest.approx(1 / 1.3)
    assert factor([summed([(1.5 * a, b / 1.25, y) for a, b, y in rows])]) == 1.0
    far = [PairSums(), PairSums(), summed([(a, b / 1.3, y) for a, b, y in rows])]
    assert factor([summed(rows), *far]) == pytest.approx(1 / 1.3)  # how it counts shows at the nearest
    assert factor(far) == 1.0


def record(name: str, bias: float, every: int = 1, hours: int = 160) -> ProviderRecord:
    """Hourly forecasts of a day, for intervals of `every` hours; the first tells what came, too."""
    made = ProviderRecord.of(Series(name, "X", Basis.AVERAGE_DIRECT))
    rng = np.random.default_rng(every)
    for h in range(hours):
        at = ORIGIN + h * HOUR_MS
        made.readings.put(at, at + HOUR_MS, real(h))
        told = [
            np.mean([real(h + k + j) for j in range(every)]) + bias + rng.normal(0, 20)
            for k in range(0, 24, every)
        ]
        made.forecasts.put(
            KeptForecast(at - 60_000, at, array("q", [at, every * HOUR_MS, len(told)]), array("f", told))
        )
    return made


def real(h: float) -> float:
    return 300 + 80 * float(np.sin(2 * np.pi * h / 24))


def test_of_two_providers_of_other_resolutions_the_same_times_are_compared() -> None:
    first, second = record("a", 0.0), record("b", 0.0, every=3)
    sums = pair(first, second)
    assert [one.n > 0 for one in sums] == [True] * 5 + [False] * 2
    assert sums[0].forecasts == sums[0].n == 160
    found = weights(first, second)
    assert all(0.3 < one.share < 1 for one in found[:5])
    assert found[5:] == (ALONE, ALONE)
    assert weights(first, record("brief", 0.0, hours=ENOUGH - 30)) == (ALONE,) * HORIZONS


def forecast(name: str, points: list[tuple[float, float, float]]) -> Forecast:
    source = Source(provider=name, zone="X", basis=Basis.AVERAGE_DIRECT, kind=Kind.FORECAST, fetched_at=T0)
    told = tuple(
        ForecastPoint(
            start=T0 + timedelta(hours=a), end=T0 + timedelta(hours=b), g_per_kwh=v, low=v - 1, high=v + 1
        )
        for a, b, v in points
    )
    return Forecast(issued_at=T0, source=source, points=told)


BY_HORIZON = (Weights(0.5, 0.5), Weights(0.8, 0.2), ALONE, ALONE, Weights(0.0, 1.1), ALONE, ALONE)


def test_a_blended_forecast_says_what_it_is_made_of_and_reaches_as_far_as_the_first() -> None:
    first = forecast("neso", [(h, h + 1, 100.0) for h in range(14)])
    second = forecast("wattnet", [(h / 4, (h + 1) / 4, 200.0 + h % 4) for h in range(52)])
    found = combine(T0, first, second, BY_HORIZON)
    values = [point.g_per_kwh for point in found.points]
    assert values == pytest.approx([150.75, 120.3, 120.3, *[100.0] * 9, 1.1 * 201.5, 100.0])
    assert (found.points[0].high, found.points[5].high) == (None, 101.0)
    assert found.source.provider == "neso + wattnet"
    assert found.source.note == "blended, 0 to 80% neso and the rest wattnet, by horizon"
    assert combine(T0, first, forecast("wattnet", [(40, 41, 5.0)]), BY_HORIZON) is first


def test_the_planner_learns_from_the_past_as_it_would_have_been_blended() -> None:
    first, second = record("a", 5.0, hours=30), record("b", -5.0, hours=30)
    when = T0 + timedelta(hours=40)
    old, other = (ForecastHistory.of(one.forecasts, when) for one in (first, second))
    blended = old.combined(other, BY_HORIZON, 86_400.0)
    for i in (0, 17, 29):
        kept, beside = first.forecasts.rows[i], second.forecasts.rows[i]
        at = datetime.fromtimestamp(kept.at / 1000, UTC)
        hours = [((start - ORIGIN) / HOUR_MS, (end - ORIGIN) / HOUR_MS, v) for start, end, v in kept.points()]
        others = [
            ((start - ORIGIN) / HOUR_MS, (end - ORIGIN) / HOUR_MS, v) for start, end, v in beside.points()
        ]
        asked = combine(at, forecast("a", hours), forecast("b", others), BY_HORIZON)
        expected = ProviderForecast.of(when, asked)
        assert blended.forecasts[i].value == pytest.approx(expected.value, abs=0.01)
    alone = old.combined(ForecastHistory.of(ForecastArchive(), when), BY_HORIZON, 86_400.0)
    assert all(a is b for a, b in zip(alone.forecasts, old.forecasts, strict=True))
