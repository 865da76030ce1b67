"""Forecasts the grid from now on: the planner's time slots, and the intensity beyond them."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta

from carbonsched.config import Config
from carbonsched.model.energy import BudgetAccount
from carbonsched.model.grid import Kind, Reading
from carbonsched.plan.forecasting import slots as forecasting
from carbonsched.plan.forecasting.archive import ms
from carbonsched.plan.problem import Slot
from carbonsched.supervisor.grid_watch import GridWatch
from carbonsched.supervisor.supply_watch import Expected, SupplyWatch

_DAY_S = 86_400.0
_TOUCH_S = 1e-3
_HISTORY_DAYS = 29
"""Four weeks of history, enough to train the blend of persistence and hour-of-week mean."""


@dataclass(frozen=True, slots=True)
class GridForecast:
    """The grid from one moment on.

    Example:
        >>> slots = (Slot(0.0, 1800.0, 100.0, 120.0), Slot(1800.0, 3600.0, 300.0, 330.0))
        >>> forecast = GridForecast(slots, 86_400.0, True, (), 100.0)
        >>> forecast.mean_g_per_kwh
        200.0
    """

    slots: tuple[Slot, ...]
    day_s: float
    """Wall seconds of a grid day; fewer in a time-compressed replay."""
    has_forecast: bool
    """False: the slots only repeat what holds now."""
    beyond_g_per_kwh: tuple[float, ...]
    """Intensity after the last slot, as equally likely values; empty: the mean of the slots."""
    now_g_per_kwh: float
    """The current reading; the configured worst case if there is none."""

    @property
    def mean_g_per_kwh(self) -> float:
        """Mean intensity of the slots."""
        span_s = sum(slot.end_s - slot.start_s for slot in self.slots)
        return sum(slot.g_per_kwh * (slot.end_s - slot.start_s) for slot in self.slots) / span_s


@dataclass(frozen=True, slots=True)
class GridOutlook:
    """Builds forecasts from readings, the provider's forecast, and how accurate that was before.

    Example::

        outlook = GridOutlook(GridWatch(chain, clock), lambda: config)
        outlook.forecast().slots[0].g_per_kwh  # now
    """

    watch: GridWatch
    config: Callable[[], Config]
    supply: SupplyWatch | None = None

    def forecast(self) -> GridForecast:
        """The grid from now on. If budgets count the site's own supply, the slots are mixed with it for as long as its current reading
        holds. The guard's high quantile is always that of the grid alone."""
        found, supply = self._grid(), self._supply()
        if supply is None:
            return found
        holds_s = (supply.until - self.watch.clock.now()).total_seconds()
        return replace(
            found,
            slots=tuple(piece for slot in found.slots for piece in _mixed(slot, supply, holds_s)),
            now_g_per_kwh=supply.mixed(found.now_g_per_kwh),
        )

    def _supply(self) -> Expected | None:
        on_site = self.config().budget_account is BudgetAccount.ON_SITE
        return self.supply.expected() if on_site and self.supply is not None else None

    def _grid(self) -> GridForecast:
        self.watch.poll_archive()
        chain, config = self.watch.chain, self.config()
        now, day_s = self.watch.clock.now(), self.watch.day_s()
        reading, used = chain.reading_at(now), self.watch.used()
        provider, record = used.forecast, used.record
        history = self._history(now - timedelta(seconds=_HISTORY_DAYS * day_s), reading)
        slots = forecasting.slots(
            now,
            config.plan.horizon * day_s / _DAY_S,
            reading,
            provider,
            history,
            day_s=day_s,
            quantile=config.plan.quantile,
            worst=config.zone.worst_g_per_kwh,
            archive=record.forecasts if record is not None else None,
            told_by=record.series if record is not None else None,
            beside=None if used.second is None else (used.second.forecasts, used.weights),
        )
        return GridForecast(
            slots=slots,
            day_s=day_s,
            has_forecast=forecasting.has_forecast(now, provider, history, day_s),
            beyond_g_per_kwh=forecasting.beyond_history(slots, history, day_s),
            now_g_per_kwh=reading.g_per_kwh if reading else config.zone.worst_g_per_kwh,
        )

    def _history(self, since: datetime, reading: Reading | None) -> tuple[Reading, ...]:
        """Readings since `since`; for the time before this daemon's chain remembers, the forecasts that the current provider gave then."""
        history = self.watch.chain.history(since)
        record = self.watch.record_of(reading.source) if reading is not None else None
        if reading is None or record is None:
            return history
        source = reading.source.model_copy(update={"kind": Kind.ACTUAL, "note": ""})
        first, told = ms(history[0].start if history else reading.start), record.readings
        before = (
            Reading.model_construct(start=_time(start), end=_time(end), g_per_kwh=value, source=source)
            for start, end, value in zip(told.starts, told.ends, told.values, strict=True)
            if ms(since) < end <= first
        )
        return (*before, *history)


def _mixed(slot: Slot, supply: Expected, holds_s: float) -> Iterator[Slot]:
    """Mix the supply into a slot; the slot is split where the supply's reading ends."""
    if holds_s <= max(slot.start_s, 0.0) + _TOUCH_S:
        yield slot
        return
    g_per_kwh = supply.mixed(slot.g_per_kwh)
    low = None if slot.low is None else min(supply.mixed(slot.low), g_per_kwh)
    held = replace(slot, g_per_kwh=g_per_kwh, high=max(slot.high, g_per_kwh), low=low)
    if holds_s >= slot.end_s - _TOUCH_S:
        yield held
        return
    yield replace(held, end_s=holds_s)
    yield replace(slot, start_s=holds_s)


def _time(at: int) -> datetime:
    return datetime.fromtimestamp(at / 1000, UTC)
