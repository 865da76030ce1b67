"""Scores a provider's forecasts as they come true: error and bias by horizon, beside those of persistence at the same times.

A point is scored if it was entirely in the future when its forecast was received, and readings cover it and the same time of the last day
known by then. Horizons are hours of grid time. No NumPy: a daemon without jobs shows this.
"""

import math
from bisect import bisect_right
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import accumulate, pairwise
from typing import Final

from carbonsched.model.grid import ForecastScore, HorizonScore
from carbonsched.plan.forecasting.archive import ForecastArchive, KeptForecast, ProviderRecord, ReadingArchive

EDGES_H: Final = (0.0, 1.0, 3.0, 6.0, 12.0, 24.0, 48.0, 96.0)
"""Borders of the horizons, the same as those of the planner's weights."""
HORIZONS: Final = len(EDGES_H) - 1
_MOST_POINTS: Final = 100_000
"""Points scored per provider at most, a quarter of a second of CPU. Beyond that every fifth forecast is used, which covers all hours of a day."""
_STRIDE: Final = 5
_COVERED: Final = 0.999
"""Share of a point's time that readings must cover: a replay's times are rounded to the millisecond."""


class Actuals:
    """Means of the readings over any span.

    Example:
        >>> readings = ReadingArchive()
        >>> readings.put(0, 10, 100.0), readings.put(10, 20, 200.0)
        (True, True)
        >>> Actuals(readings).mean(5, 15), Actuals(readings).mean(15, 25)
        (150.0, None)
    """

    def __init__(self, readings: ReadingArchive) -> None:
        self._readings = readings
        lengths = [b - a for a, b in zip(readings.starts, readings.ends, strict=True)]
        self._covered = list(accumulate(lengths, initial=0))
        weighted = (v * s for v, s in zip(readings.values, lengths, strict=True))
        self._sums = list(accumulate(weighted, initial=0.0))
        self._means: dict[tuple[int, int], float | None] = {}

    def mean(self, start: int, end: int) -> float | None:
        """g/kWh over [start, end); None if readings do not cover it."""
        try:
            return self._means[start, end]
        except KeyError:
            (sum_a, covered_a), (sum_b, covered_b) = self._until(start), self._until(end)
        covered = covered_b - covered_a
        mean = (sum_b - sum_a) / covered if covered >= _COVERED * (end - start) else None
        self._means[start, end] = mean
        return mean

    def _until(self, at: int) -> tuple[float, int]:
        """(integral, covered time) before `at`."""
        i = bisect_right(self._readings.starts, at) - 1
        if i < 0:
            return 0.0, 0
        into = min(at, self._readings.ends[i]) - self._readings.starts[i]
        return self._sums[i] + self._readings.values[i] * into, self._covered[i] + into


@dataclass(slots=True)
class _Sums:
    """Sums over the scored points of one horizon."""

    n: int = 0
    actual: float = 0.0
    error: float = 0.0
    """Σ (forecast − reading), g/kWh."""
    absolute: float = 0.0
    persistence_error: float = 0.0
    persistence_absolute: float = 0.0

    def add(self, forecast: float, persistence: float, actual: float) -> None:
        self.n += 1
        self.actual += actual
        error = forecast - actual
        self.error += error
        self.absolute += abs(error)
        error = persistence - actual
        self.persistence_error += error
        self.persistence_absolute += abs(error)

    def score(self, from_h: float, to_h: float) -> HorizonScore:
        if not self.n:
            return HorizonScore(from_h=from_h, to_h=to_h, n=0)
        bias, mae = self.error / self.n, self.absolute / self.n
        p_bias, p_mae = self.persistence_error / self.n, self.persistence_absolute / self.n
        mean = self.actual / self.n
        percent = 100 / mean if mean > 0 else None
        return HorizonScore(
            from_h=from_h,
            to_h=to_h,
            n=self.n,
            mean_g_per_kwh=mean,
            mae_g_per_kwh=mae,
            bias_g_per_kwh=bias,
            mae_percent=None if percent is None else mae * percent,
            bias_percent=None if percent is None else bias * percent,
            persistence_mae_g_per_kwh=p_mae,
            persistence_bias_g_per_kwh=p_bias,
            persistence_mae_percent=None if percent is None else p_mae * percent,
            persistence_bias_percent=None if percent is None else p_bias * percent,
        )


def score(record: ProviderRecord) -> ForecastScore:
    """Accuracy of the provider's forecasts, as far as they have come true."""
    day_ms, actuals = record.series.day_ms, Actuals(record.readings)
    sums = [_Sums() for _ in range(HORIZONS)]
    for kept in sampled(record.forecasts.rows):
        for b, start, end, value in points_ahead(kept, day_ms):
            actual = actuals.mean(start, end)
            if actual is None:
                continue
            back = -(-(end - kept.at) // day_ms) * day_ms
            before = actuals.mean(start - back, end - back)
            if before is not None:
                sums[b].add(value, before, actual)
    return ForecastScore(
        provider=record.series.provider,
        zone=record.series.zone,
        basis=record.series.basis,
        forecasts=len(record.forecasts.rows),
        kept_h=_kept_h(record.forecasts),
        reason=None if any(one.n for one in sums) else _why_none(record),
        horizons=tuple(one.score(a, b) for one, (a, b) in zip(sums, pairwise(EDGES_H), strict=True)),
    )


def sampled(rows: list[KeptForecast]) -> list[KeptForecast]:
    """All forecasts, or every fifth if there are many; always with the last one."""
    few = sum(len(row.values) for row in rows) <= _MOST_POINTS
    return rows if few else rows[::-1][::_STRIDE][::-1]


def points_ahead(kept: KeptForecast, day_ms: int) -> Iterator[tuple[int, int, int, float]]:
    """(horizon, start, end, g/kWh) of each point that was entirely in the future when the forecast was received."""
    borders = [kept.at + edge * day_ms / 24 for edge in EDGES_H[1:]]
    b = 0
    for start, end, value in kept.points():
        if start < kept.at or value < 0:
            continue
        while start >= borders[b]:
            b += 1
            if b == HORIZONS:
                return
        yield b, start, end, value


def _kept_h(archive: ForecastArchive) -> float:
    """Grid hours from the first stored forecast to the last."""
    rows = archive.rows
    return (rows[-1].at - rows[0].at) / archive.hour_ms if rows else 0.0


def _why_none(record: ProviderRecord) -> str:
    hours = math.floor(_kept_h(record.forecasts))
    if not record.forecasts.rows:
        return "not scored yet: no forecast is kept"
    kept = f"not scored yet: {hours} h of forecasts kept"
    if not record.readings.starts:
        return f"{kept}, and the provider has told no value of its own that came, measured or estimated"
    return kept
