"""Makes the planner's slots from readings and forecasts: expected intensity, a high and a low quantile.

`slots` reads documents, for the daemon; `build` does the same with arrays, for the simulator. Both take the expectation from `blend`, which
learns its weights and errors from the given history. Implausible values (negative, not finite, above ten times the worst case) are refused,
as is a forecast that ended before now.
"""

import math
from collections.abc import Sequence
from datetime import datetime

import numpy as np

from carbonsched.model.grid import Forecast, Reading
from carbonsched.plan.forecasting.archive import CAME, ForecastArchive, Series
from carbonsched.plan.forecasting.blend import Blend, ReadingHistory
from carbonsched.plan.forecasting.combination import ByHorizon
from carbonsched.plan.forecasting.provider_forecast import (
    NO_FORECAST,
    Floats,
    ForecastHistory,
    ProviderForecast,
    is_plausible,
)
from carbonsched.plan.problem import Slot

_STEPS_PER_DAY = 96
"""Slots per day, a quarter of an hour each, unless the data suggest another length."""
_MOST_SLOTS = 4096
"""Regular slots at most: six weeks of quarters of an hour."""
_LEVELS = 16
"""Number of equally likely values that stand for the hours beyond the horizon."""
_SEASON_DAYS = 60.0
"""Days of history that count as much as the forecast for the time beyond it."""


def slots(
    now: datetime,
    horizon_s: float,
    current: Reading | None,
    forecast: Forecast | None,
    history: Sequence[Reading],
    day_s: float = 86_400.0,
    quantile: float = 0.95,
    worst: float = 1000.0,
    archive: ForecastArchive | None = None,
    told_by: Series | None = None,
    beside: tuple[ForecastArchive, ByHorizon] | None = None,
) -> tuple[Slot, ...]:
    """Slots from `now` to `now + horizon_s`, without holes; the first one is what holds now.

    current: the reading that holds now; None: the forecast's or the past's value, with a high. history: readings in
    any order, four weeks are used where there are as many. day_s: wall seconds of a grid day, less than 86,400 in a
    time-compressed replay. worst, g/kWh: what is taken where
    nothing at all is known; no high passes it unless the expected value does. archive: what the provider forecast before;
    None: its weights stay plain, its errors ±15%. told_by: whose readings alone these are held against; None: all.
    beside: the forecasts of the provider that it is blended with, and with which weights.
    """

    def may_tell(reading: Reading) -> bool:
        source = reading.source
        return told_by is None or (source.kind in CAME and Series.of(source) == told_by)

    rows = {
        (r.start - now).total_seconds(): (r.g_per_kwh, may_tell(r))
        for r in history
        if is_plausible(r.g_per_kwh, worst)
    }
    here = ends = step = None
    if current is not None:
        ends = (current.end - now).total_seconds()
        step = (current.end - current.start).total_seconds()
        if is_plausible(current.g_per_kwh, worst):
            here = current.g_per_kwh
            rows[min((current.start - now).total_seconds(), 0.0)] = here, may_tell(current)
    starts = sorted(s for s in rows if s <= 0)
    values, tells = np.array([rows[s][0] for s in starts]), np.array([rows[s][1] for s in starts], dtype=bool)
    past = ReadingHistory(np.array(starts), values, day_s, tells)
    provider = ProviderForecast.of(now, forecast, worst)
    edges = raster(horizon_s, ends, step, provider, day_s)
    known: ForecastHistory | ProviderForecast = NO_FORECAST
    if archive is not None:
        known = ForecastHistory.of(archive, now, worst)
        if beside is not None:
            known = known.combined(ForecastHistory.of(beside[0], now, worst), beside[1], day_s)
    blend = Blend.learn(past, known)
    return build(edges, 0.0, here, past, provider, blend, quantile, worst)


def has_forecast(
    now: datetime, forecast: Forecast | None, history: Sequence[Reading], day_s: float = 86_400.0
) -> bool:
    """Whether anything is known of the hours ahead: a provider's forecast, or a day of history."""
    if forecast is not None and any(p.end > now for p in forecast.points):
        return True
    return any((now - r.start).total_seconds() >= day_s for r in history)


def build(
    edges: Floats,
    now: float,
    here: float | None,
    past: ReadingHistory,
    provider: ProviderForecast,
    blend: Blend,
    quantile: float,
    worst: float,
) -> tuple[Slot, ...]:
    """The slots between `edges` (seconds from now, ascending, the first 0).

    now: on the time scale of `past` and `provider`. here: what is measured now, g/kWh.
    """
    middle = 0.5 * (edges[:-1] + edges[1:])
    value, has_provider = blend.expect(now, middle, past, provider)
    _, own = provider.at(now + middle)
    value = np.where(np.isnan(value), worst if here is None else here, value)
    high, low = value.copy(), value.copy()
    for rows, kind in (
        (has_provider, blend.errors_with_provider),
        (~has_provider, blend.errors_without_provider),
    ):
        if rows.any():
            high[rows] *= 1 + kind.highs(middle[rows], quantile)
            low[rows] *= 1 + kind.lows(middle[rows], quantile)
    high = np.maximum(value, np.minimum(np.fmax(high, own), np.maximum(worst, value)))
    if here is not None:
        value[0] = high[0] = low[0] = here
    columns = (edges[:-1], edges[1:], value, high, np.maximum(low, 0.0))
    return tuple(map(Slot, *(column.tolist() for column in columns)))


def beyond_history(
    slots: Sequence[Slot], history: Sequence[Reading], day_s: float = 86_400.0
) -> tuple[float, ...]:
    """`beyond` from readings; empty if they cover less than a day."""
    if len(history) < 2:
        return ()
    days = (max(r.end for r in history) - min(r.start for r in history)).total_seconds() / day_s
    return beyond(slots, np.array([r.g_per_kwh for r in history]), days) if days >= 1 else ()


def beyond(slots: Sequence[Slot], past: Floats, days: float) -> tuple[float, ...]:
    """g/kWh after the last slot as equally likely values: the history's spread (n,), shifted to the forecast's level. The shift shrinks
    with the `days` known: a fortnight says little about another season, a year says much."""
    span = sum(slot.end_s - slot.start_s for slot in slots)
    mean = sum((slot.end_s - slot.start_s) * slot.g_per_kwh for slot in slots) / span
    belief = days / (days + _SEASON_DAYS)
    level = belief + (1 - belief) * mean / max(float(past.mean()), 1e-9)
    values = np.quantile(past, (np.arange(_LEVELS) + 0.5) / _LEVELS) * level
    return tuple(values.tolist())


def raster(
    horizon_s: float, current_end: float | None, step: float | None, provider: ProviderForecast, day_s: float
) -> Floats:
    """Slot borders from 0 to the horizon: those of the reading and of the forecast's points, then a regular raster."""
    step_s = day_s / _STEPS_PER_DAY
    if step is not None:
        step_s = min(max(step, step_s), day_s / 24)
    reach = max([0.0, current_end or 0.0, *provider.end.tolist()])
    more = min(max(0, math.ceil((horizon_s - reach) / step_s)), _MOST_SLOTS)
    border = np.concatenate(
        ([0.0, current_end or 0.0], provider.start, provider.end, reach + step_s * np.arange(more))
    )
    border = np.unique(border[(border >= 0) & (border < horizon_s - 1e-6)])
    kept = border[np.append(True, np.diff(border) > 1e-6)]
    return np.append(kept, max(horizon_s, 1e-3))
