"""Provider forecasts as arrays; ForecastHistory answers with the forecast that was current at a given time.

A provider's accuracy shows only when its earlier forecasts are compared with readings. ForecastHistory keeps them as they were issued, so
that weights and errors per horizon (`blend`) are learned from forecasts made that far ahead, not from the last forecast of each hour.
"""

import math
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Self

import numpy as np
from numpy.typing import NDArray

from carbonsched.model.grid import Forecast
from carbonsched.plan.forecasting.archive import ForecastArchive, KeptForecast, ms
from carbonsched.plan.forecasting.combination import OLDEST_DAYS, ByHorizon
from carbonsched.plan.forecasting.scores import EDGES_H

Floats = NDArray[np.float64]

_ABSURD = 10.0
"""Values above this many times the worst case are implausible."""


@dataclass(frozen=True, slots=True)
class ProviderForecast:
    """One forecast: points [start, end), ascending, (n,) seconds on the time scale of the past's readings.

    Example:
        >>> hour = np.array([0.0])
        >>> forecast = ProviderForecast(hour, hour + 3600.0, np.array([250.0]), np.array([np.nan]))
        >>> float(forecast.at(np.array(1800.0))[0])
        250.0
    """

    start: Floats
    end: Floats
    value: Floats
    """g/kWh."""
    high: Floats
    """The provider's own upper value, g/kWh; nan if it gives none."""

    @classmethod
    def of(cls, now: datetime, forecast: Forecast | None, worst: float = 1000.0) -> Self:
        """A provider's document in seconds from `now`; implausible points are left out. worst: g/kWh."""
        given = forecast.points if forecast else ()
        points = sorted(
            (p for p in given if is_plausible(p.g_per_kwh, worst) and p.end > p.start), key=lambda p: p.start
        )
        return cls(
            np.array([(p.start - now).total_seconds() for p in points]),
            np.array([(p.end - now).total_seconds() for p in points]),
            np.array([p.g_per_kwh for p in points]),
            np.array([math.nan if p.high is None else p.high for p in points]),
        )

    @classmethod
    def kept(cls, now: datetime, forecast: KeptForecast, worst: float = 1000.0) -> Self:
        """As `of`, from a stored forecast."""
        runs = np.array(forecast.runs, dtype=np.int64).reshape(-1, 3)
        start = np.concatenate([first + step * np.arange(count) for first, step, count in runs.tolist()])
        length = np.repeat(runs[:, 1], runs[:, 2])
        value = np.array(forecast.values, dtype=float)
        high = (
            np.full(len(value), np.nan) if forecast.highs is None else np.array(forecast.highs, dtype=float)
        )
        keep = (value >= 0) & (value <= _ABSURD * worst)
        columns = ((start - ms(now)) / 1000, (start + length - ms(now)) / 1000, value, high)
        return cls(*(column[keep] for column in columns))

    def at(self, when: Floats, origin: Floats | None = None) -> tuple[Floats, Floats]:
        """(expected, the provider's own high) in g/kWh at `when`, any shape; nan beyond the forecast. origin: ignored, since this one
        forecast counts as known at all times."""
        if not len(self.start):
            nothing = np.full(np.shape(when), np.nan)
            return nothing, nothing
        i = np.clip(np.searchsorted(self.start, when, side="right") - 1, 0, len(self.start) - 1)
        inside = (when >= self.start[i]) & (when < self.end[i])
        return np.where(inside, self.value[i], np.nan), np.where(inside, self.high[i], np.nan)


NO_FORECAST = ProviderForecast(np.empty(0), np.empty(0), np.empty(0), np.empty(0))


@dataclass(frozen=True, slots=True)
class ForecastHistory:
    """All archived forecasts, ascending by the time they were received; at any origin the last one received holds.

    Example::

        history = ForecastHistory.of(archive, clock.now())
        value, high = history.at(when, origin)  # (n,) g/kWh for `when[i]`, as forecast at `origin[i]`
    """

    times: Floats
    """(n,) when each was received."""
    forecasts: tuple[ProviderForecast, ...]

    @classmethod
    def of(cls, archive: ForecastArchive, now: datetime, worst: float = 1000.0) -> Self:
        """The archive in seconds from `now`; worst: g/kWh, as in `ProviderForecast.of`."""
        return cls(
            np.array([row.at - ms(now) for row in archive.rows]) / 1000,
            tuple(ProviderForecast.kept(now, row, worst) for row in archive.rows),
        )

    def combined(self, other: Self, by_horizon: ByHorizon, day_s: float) -> Self:
        """Each forecast blended with the other provider's that was current when it was received."""
        first, second = np.array([(one.first, one.second) for one in by_horizon]).T
        found = []
        for at, forecast in zip(self.times.tolist(), self.forecasts, strict=True):
            i = int(np.searchsorted(other.times, at, side="right")) - 1
            if i < 0 or at - other.times[i] > OLDEST_DAYS * day_s:
                found.append(forecast)
                continue
            told, _ = other.forecasts[i].at((forecast.start + forecast.end) / 2)
            b = np.searchsorted(np.array(EDGES_H), (forecast.start - at) * 24 / day_s, side="right") - 1
            b = np.clip(b, 0, len(by_horizon) - 1)
            blended = ~np.isnan(told) & (second[b] > 0)
            value = np.where(blended, first[b] * forecast.value + second[b] * told, forecast.value)
            high = np.where(blended, np.nan, forecast.high)
            found.append(replace(forecast, value=value, high=high))
        return replace(self, forecasts=tuple(found))

    def at(self, when: Floats, origin: Floats) -> tuple[Floats, Floats]:
        """As `ProviderForecast.at`, (n,) each: for `when[i]`, by the forecast that was current at `origin[i]`."""
        value, high = np.full(len(when), np.nan), np.full(len(when), np.nan)
        which = np.searchsorted(self.times, origin, side="right") - 1
        for i in np.unique(which[which >= 0]).tolist():
            rows = which == i
            value[rows], high[rows] = self.forecasts[i].at(when[rows])
        return value, high


def is_plausible(value: float, worst: float) -> bool:
    """Whether a value is plausible: finite, not negative, not above ten times the worst case."""
    return math.isfinite(value) and 0 <= value <= _ABSURD * worst
