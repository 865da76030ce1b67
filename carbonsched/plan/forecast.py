"""From what the grid feeds know to the slots the planner takes: expected intensity and a high quantile.

The provider's forecast where it reaches; beyond it, or without one, the past: the same time of the last days blended
with the mean of the same time of the week. Both are bent towards what is measured now, by a factor that fades with the
horizon. The errors of what was said before are tracked by horizon and give the high quantile; where none are known
±15% is taken. Values that cannot be (negative, not finite, above ten times the worst case) are refused.

A time-compressed replay has days of `day_s` wall seconds; everything here counts in those. `slots` reads documents,
`build` is the same on arrays of seconds from now and is what the simulator calls.
"""

import math
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime

import numpy as np
from numpy.typing import NDArray

from carbonsched.model.grid import Forecast, Reading
from carbonsched.plan.problem import Slot

Floats = NDArray[np.float64]

UNKNOWN_ERROR = 0.15
"""Relative error taken for the high quantile where none was tracked."""
_STEPS_A_DAY = 96
_FADE = 0.25
"""Share of a day after which the correction towards the present has faded to 1/e."""
_BINS = (0.0, 1 / 24, 3 / 24, 6 / 24, 12 / 24, 1.0, 2.0, 4.0)
"""Horizons, in days, that errors are kept for."""
_KEPT = 400
_ENOUGH = 20
_MOST_SLOTS = 4096


@dataclass(frozen=True, slots=True)
class ForecastErrors:
    """Relative errors actual/forecast − 1 by horizon; a value: `observe` returns a new one."""

    day_s: float = 86_400.0
    by_bin: tuple[tuple[float, ...], ...] = ((),) * len(_BINS)

    def observe(
        self, horizon_s: float, forecast_g_per_kwh: float, actual_g_per_kwh: float
    ) -> "ForecastErrors":
        """With one forecast made `horizon_s` ahead compared with what came."""
        if not forecast_g_per_kwh > 0 or not math.isfinite(actual_g_per_kwh):
            return self
        i = self._bin(horizon_s)
        kept = (*self.by_bin[i], actual_g_per_kwh / forecast_g_per_kwh - 1)[-_KEPT:]
        return replace(self, by_bin=(*self.by_bin[:i], kept, *self.by_bin[i + 1 :]))

    def high(self, horizon_s: float, quantile: float) -> float:
        """Relative error not passed with probability `quantile` at this horizon, at least 0.

        From this horizon's errors, else from the nearest shorter one that has enough, else UNKNOWN_ERROR.
        """
        return self._table(quantile)[self._bin(horizon_s)]

    def highs(self, horizon_s: Floats, quantile: float) -> Floats:
        """`high` for many horizons."""
        table = np.array(self._table(quantile))
        edges = np.array(_BINS) * self.day_s
        out: Floats = table[np.maximum(np.searchsorted(edges, horizon_s, side="right") - 1, 0)]
        return out

    def _table(self, quantile: float) -> list[float]:
        out: list[float] = []
        for errors in self.by_bin:
            if len(errors) >= _ENOUGH:
                rank = min(math.ceil(quantile * (len(errors) + 1)), len(errors)) - 1
                out.append(max(sorted(errors)[rank], 0.0))
            else:
                out.append(out[-1] if out else UNKNOWN_ERROR)
        return out

    def _bin(self, horizon_s: float) -> int:
        return max(bisect_right(_BINS, horizon_s / self.day_s) - 1, 0)


@dataclass(frozen=True, slots=True)
class Past:
    """Readings up to now: ascending start times ≤ 0 (seconds from now) and values; each holds until the next."""

    starts: Floats
    values: Floats
    day_s: float = 86_400.0

    def at(self, second: Floats) -> Floats:
        """Expected intensity at times ahead; nan where the past says nothing at all.

        Same time of the last three days, the latest counting most; with weeks of history blended with the mean of
        the same time of the week.
        """
        if not len(self.values):
            return np.full(np.shape(second), np.nan)
        days = self._back(second, self.day_s, 3)
        weeks = self._back(second, 7 * self.day_s, 4)
        weights = np.array([0.6, 0.25, 0.15])
        known = ~np.isnan(days)
        total = (known * weights).sum(axis=1)
        with np.errstate(invalid="ignore", divide="ignore"):
            daily = np.where(known, days * weights, 0.0).sum(axis=1) / total
            weekly = np.where(np.isnan(weeks), 0.0, weeks).sum(axis=1) / (~np.isnan(weeks)).sum(axis=1)
        both = np.where(np.isnan(weekly), daily, 0.65 * daily + 0.35 * weekly)
        both = np.where(np.isnan(daily), weekly, both)
        out: Floats = np.where(np.isnan(both), self.values.mean(), both)
        return out

    def _back(self, second: Floats, period_s: float, count: int) -> Floats:
        """Values (times, count) a whole number of periods before; nan where no reading is near."""
        first = np.floor(second / period_s) + 1
        asked = second[:, None] - (first[:, None] + np.arange(count)[None, :]) * period_s
        i = np.searchsorted(self.starts, asked, side="right") - 1
        before = np.clip(i, 0, len(self.starts) - 1)
        after = np.clip(i + 1, 0, len(self.starts) - 1)
        # a reading stands in for what follows it until the next one, but not across long gaps
        hold = self.day_s / 12
        old = np.where(i >= 0, asked - self.starts[before], np.inf)
        new = np.where(i + 1 < len(self.starts), self.starts[after] - asked, np.inf)
        value = np.where(old <= hold, self.values[before], self.values[after])
        return np.where(np.minimum(old, new) <= hold, value, np.nan)


@dataclass(frozen=True, slots=True)
class Said:
    """A provider's forecast: points [start, end) in seconds from now, ascending; `high` nan where it gives none."""

    start: Floats
    end: Floats
    value: Floats
    high: Floats

    def at(self, second: Floats) -> tuple[Floats, Floats]:
        """(expected, the provider's own high), nan where the forecast does not reach."""
        if not len(self.start):
            nothing = np.full(np.shape(second), np.nan)
            return nothing, nothing
        i = np.clip(np.searchsorted(self.start, second, side="right") - 1, 0, len(self.start) - 1)
        inside = (second >= self.start[i]) & (second < self.end[i])
        return np.where(inside, self.value[i], np.nan), np.where(inside, self.high[i], np.nan)


NOTHING_SAID = Said(np.empty(0), np.empty(0), np.empty(0), np.empty(0))


def slots(
    now: datetime,
    horizon_s: float,
    current: Reading | None,
    forecast: Forecast | None,
    history: Sequence[Reading],
    day_s: float = 86_400.0,
    quantile: float = 0.95,
    errors: ForecastErrors | None = None,
    worst: float = 1000.0,
) -> tuple[Slot, ...]:
    """Slots from `now` to `now + horizon_s`, without holes; the first one is what holds now.

    current: the reading that holds now; None: the forecast's or the past's value, with a high. history: readings in
    any order. worst, g/kWh: what is taken where nothing at all is known; no high passes it unless the expected value
    does.
    """
    rows = {(r.start - now).total_seconds(): r.g_per_kwh for r in history if _sane(r.g_per_kwh, worst)}
    here = None
    ends = step = None
    if current is not None:
        ends = (current.end - now).total_seconds()
        step = (current.end - current.start).total_seconds()
        if _sane(current.g_per_kwh, worst):
            here = current.g_per_kwh
            rows[min((current.start - now).total_seconds(), 0.0)] = here
    starts = sorted(s for s in rows if s <= 0)
    past = Past(np.array(starts), np.array([rows[s] for s in starts]), day_s)
    points = sorted(
        (p for p in (forecast.points if forecast else ()) if _sane(p.g_per_kwh, worst) and p.end > p.start),
        key=lambda p: p.start,
    )
    said = Said(
        np.array([(p.start - now).total_seconds() for p in points]),
        np.array([(p.end - now).total_seconds() for p in points]),
        np.array([p.g_per_kwh for p in points]),
        np.array([math.nan if p.high is None else p.high for p in points]),
    )
    edges = raster(horizon_s, ends, step, said, day_s)
    return build(edges, here, past, said, quantile, errors or ForecastErrors(day_s), worst)


def build(
    edges: Floats,
    here: float | None,
    past: Past,
    said: Said,
    quantile: float,
    errors: ForecastErrors,
    worst: float,
) -> tuple[Slot, ...]:
    """The slots between `edges` (seconds from now, ascending, the first 0); `here` is what is measured now."""
    middle = 0.5 * (edges[:-1] + edges[1:])
    value, own = expect(np.append(0.0, middle), here, past, said)
    value, own = value[1:], own[1:]
    value = np.where(np.isnan(value), worst if here is None else here, value)
    high = np.fmax(value * (1 + errors.highs(middle, quantile)), own)
    high = np.maximum(value, np.minimum(high, np.maximum(worst, value)))
    if here is not None:
        value[0] = high[0] = here
    return tuple(map(Slot, edges[:-1].tolist(), edges[1:].tolist(), value.tolist(), high.tolist()))


def expect(second: Floats, here: float | None, past: Past, said: Said) -> tuple[Floats, Floats]:
    """(expected g/kWh, the provider's own high) at seconds from now, the first of them 0."""
    given, own = said.at(second)
    value = given
    missing = np.isnan(given)
    if missing.any():
        value = np.where(missing, past.at(second), given)
    if here is None or here <= 0:
        return value, own
    # the provider and the past are each bent by their own miss at present
    now_said, now_past = given[0], past.at(second[:1])[0]
    base = np.where(missing, now_past, now_past if math.isnan(now_said) else now_said)
    with np.errstate(invalid="ignore", divide="ignore"):
        ratio = np.clip(here / base, 0.5, 2.0)
    ratio = np.where(np.isfinite(ratio) & (base > 0), ratio, 1.0)
    bend = np.exp(np.log(ratio) * np.exp(-second / (_FADE * past.day_s)))
    return value * bend, own * bend


def raster(
    horizon_s: float, current_end: float | None, step: float | None, said: Said, day_s: float
) -> Floats:
    """Slot borders from 0 to the horizon: the reading's and the forecast points' own, then a regular raster."""
    pace = day_s / _STEPS_A_DAY
    if step is not None:
        pace = min(max(step, pace), day_s / 24)
    reach = max([0.0, current_end or 0.0, *said.end.tolist()])
    more = min(max(0, math.ceil((horizon_s - reach) / pace)), _MOST_SLOTS)
    border = np.concatenate(([0.0, current_end or 0.0], said.start, said.end, reach + pace * np.arange(more)))
    border = np.unique(border[(border >= 0) & (border < horizon_s - 1e-6)])
    kept = border[np.append(True, np.diff(border) > 1e-6)]
    return np.append(kept, max(horizon_s, 1e-3))


def _sane(value: float, worst: float) -> bool:
    return math.isfinite(value) and 0 <= value <= 10 * worst
