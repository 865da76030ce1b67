"""What a provider has said of the hours to come: one forecast, or all that were issued, each known from its time on.

How far a provider may be trusted is seen only where what it said before is held against what came. `Heard` has the
forecasts as they were issued, so that weights and errors by horizon (`blend`) are learned from what was really said that
far ahead, not from the last word on each hour.
"""

import math
from dataclasses import dataclass
from datetime import datetime

import numpy as np
from numpy.typing import NDArray

from carbonsched.model.grid import Forecast
from carbonsched.plan.forecasting.archive import Issues

Floats = NDArray[np.float64]

_ABSURD = 10.0
"""Times the worst case beyond which a value is not believed."""


@dataclass(frozen=True, slots=True)
class Said:
    """One forecast: points [start, end), ascending, seconds on the same scale as the past's."""

    start: Floats
    end: Floats
    value: Floats
    high: Floats
    """The provider's own upper value, nan where it gives none."""

    def at(self, when: Floats, origin: Floats | None = None) -> tuple[Floats, Floats]:
        """(expected, the provider's own high), nan where the forecast does not reach; any shape. Known at all times."""
        if not len(self.start):
            nothing = np.full(np.shape(when), np.nan)
            return nothing, nothing
        i = np.clip(np.searchsorted(self.start, when, side="right") - 1, 0, len(self.start) - 1)
        inside = (when >= self.start[i]) & (when < self.end[i])
        return np.where(inside, self.value[i], np.nan), np.where(inside, self.high[i], np.nan)


NOTHING_SAID = Said(np.empty(0), np.empty(0), np.empty(0), np.empty(0))


@dataclass(frozen=True, slots=True)
class Heard:
    """All forecasts (`issues`) by the time they were heard, ascending: at any origin the last one heard by then holds."""

    times: Floats
    said: tuple[Said, ...]

    def at(self, when: Floats, origin: Floats) -> tuple[Floats, Floats]:
        """As `Said.at`, (n,) each: what was said of `when[i]` by `origin[i]`."""
        value, high = np.full(len(when), np.nan), np.full(len(when), np.nan)
        which = np.searchsorted(self.times, origin, side="right") - 1
        for i in np.unique(which[which >= 0]).tolist():
            rows = which == i
            value[rows], high[rows] = self.said[i].at(when[rows])
        return value, high


def heard(issues: Issues, now: datetime, worst: float = 1000.0) -> Heard:
    """What was kept, in seconds from `now`."""
    return Heard(
        np.array([(at - now).total_seconds() for at, _ in issues.rows]),
        tuple(said(now, forecast, worst) for _, forecast in issues.rows),
    )


def said(now: datetime, forecast: Forecast | None, worst: float = 1000.0) -> Said:
    """A provider's document in seconds from `now`; points that cannot be are left out."""
    points = sorted(
        (p for p in (forecast.points if forecast else ()) if sane(p.g_per_kwh, worst) and p.end > p.start),
        key=lambda p: p.start,
    )
    return Said(
        np.array([(p.start - now).total_seconds() for p in points]),
        np.array([(p.end - now).total_seconds() for p in points]),
        np.array([p.g_per_kwh for p in points]),
        np.array([math.nan if p.high is None else p.high for p in points]),
    )


def sane(value: float, worst: float) -> bool:
    """Whether a value may be believed: finite, not negative, not above ten times the worst case."""
    return math.isfinite(value) and 0 <= value <= _ABSURD * worst
