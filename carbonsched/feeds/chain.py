"""Combines several feeds into one source of intensities, with a forecast if a provider makes one.

`value_chain` polls the feeds and decides which value holds; this file adds what only intensities have: a basis, and forecasts.
"""

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Final

from carbonsched.clock import Clock
from carbonsched.errors import FeedError, InputError
from carbonsched.feeds.base import Answer, Feed, Values
from carbonsched.feeds.plausibility import intensity_gates, plausible
from carbonsched.feeds.value_chain import Slot, ValueChain, checked_readings, no_reading
from carbonsched.feeds.zone import Zone
from carbonsched.model.grid import Basis, Forecast, GridNow, GridView, Reading

_BESIDE_S: Final = 3600.0
"""Seconds between two polls of a feed for its forecast alone."""
_SILENT_S: Final = 86_400.0
"""The same for a feed that answered without a forecast."""


def check_basis(feed: Feed, zone: Zone, where: str) -> None:
    """Raise InputError if a feed has another basis than the zone. where: the path of its table in the config."""
    if feed.basis is zone.basis:
        return
    hint = "one budget never mixes two: set zone.basis or drop the feed"
    if feed.basis is Basis.AVERAGE_UNSTATED:
        hint += f', or add basis = "{zone.basis}" to the feed, if you know that its values are that'
    raise InputError(where, f"{feed.name} speaks {feed.basis} but zone.basis is {zone.basis}", hint)


class Chain(ValueChain[Reading]):
    """The intensity feeds of a box. Thread-safe, as every ValueChain.

    Example::

        chain = Chain([neso, fallback], Zone(name="GB", basis=Basis.AVERAGE_DIRECT), SystemClock())
        chain.poll_due()
        reading = chain.reading_at(datetime.now(UTC))
    """

    def __init__(self, feeds: Sequence[Feed], zone: Zone, clock: Clock) -> None:
        """Raises InputError if a feed has another basis than the zone."""
        for i, feed in enumerate(feeds):
            check_basis(feed, zone, f"feeds[{i}]")
        super().__init__(feeds, clock, intensity_gates(zone.basis))
        self._zone = zone
        self.place = frozenset({zone.name, *(feed.zone for feed in feeds)})
        """Names of the box's one place in the config and its feeds: `GB` and the region `13`."""
        self.forecasts_wanted = 1
        """Number of feeds that are asked for a forecast, if those before them have none or forecasts are blended: once an hour each."""
        self._beside_s: dict[str, float] = {}
        """Feed → monotonic time from which it may be polled beside a healthy one again."""
        self._forecasts: dict[str, Forecast] = {}
        """By the feed's name. Guarded by the lock."""

    def forecast(self) -> Forecast | None:
        """The most trusted forecast that still extends into the future, without its past points."""
        return next(iter(self.forecasts()), None)

    def forecasts(self) -> tuple[Forecast, ...]:
        """Each feed's forecast that still extends into the future, in order of trust, without past points."""
        now, found = self._clock.now(), []
        with self._lock:
            for slot in self._slots:
                forecast = self._forecasts.get(slot.feed.name)
                points = tuple(point for point in forecast.points if point.end > now) if forecast else ()
                if forecast is not None and points:
                    found.append(forecast.model_copy(update={"points": points}))
        return tuple(found)

    def _wanted_beside(self, slot: Slot[Reading]) -> bool:
        if self.forecasts_wanted < 2:
            return False
        name, now_s = slot.feed.name, self._clock.monotonic()
        if now_s < self._beside_s.get(name, now_s):
            return False
        before = self._slots[: self._slots.index(slot)]
        if sum(map(self._looks_ahead, before)) >= self.forecasts_wanted:
            return False
        silent = slot.last_success is not None and name not in self._forecasts
        self._beside_s[name] = now_s + (_SILENT_S if silent else _BESIDE_S)
        return True

    def _looks_ahead(self, slot: Slot[Reading]) -> bool:
        forecast = self._forecasts.get(slot.feed.name)
        return forecast is not None and any(point.end > self._clock.now() for point in forecast.points[-1:])

    def readings_since(self, since: datetime) -> tuple[tuple[Reading, ...], ...]:
        """What each feed has reported for the time from `since` on, whether or not it was the value that held."""
        with self._lock:
            return tuple(tuple(r for r in slot.readings if r.end > since) for slot in self._slots)

    def view(self, hours: float) -> GridView:
        """What `carbonsched grid` shows: now, the provider's forecast for `hours` (0: none), and the feeds."""
        now = self._clock.now()
        reading, forecast = self.reading_at(now), self.forecast()
        until = now + timedelta(hours=hours)
        points = tuple(p for p in forecast.points if p.start < until) if forecast and hours else ()
        return GridView(now=self._now(reading), forecast=points, feeds=self.status())

    def _now(self, reading: Reading | None) -> GridNow:
        if reading is None:
            errors = [f"{s.name}: {s.error or s.state}" for s in self.status()]
            reason = f"no feed knows the intensity now ({'; '.join(errors)})"
            return GridNow(
                g_per_kwh=None,
                kind=None,
                provider=None,
                zone=self._zone.name,
                basis=self._zone.basis,
                start=None,
                end=None,
                fetched_at=None,
                reason=reason,
            )
        source = reading.source
        return GridNow(
            g_per_kwh=reading.g_per_kwh,
            kind=source.kind,
            provider=source.provider,
            zone=source.zone,
            basis=source.basis,
            start=reading.start,
            end=reading.end,
            fetched_at=source.fetched_at,
            grid_start=reading.grid_start,
            time_compression=source.time_compression,
            note=source.note,
        )

    def _forget_forecasts(self, now: datetime) -> None:
        for name, forecast in list(self._forecasts.items()):
            if forecast.issued_at > now:
                del self._forecasts[name]

    def _keep_forecast(self, slot: Slot[Reading], answer: Values[Reading]) -> list[str]:
        if not isinstance(answer, Answer) or answer.forecast is None:
            return []
        told = answer.forecast.points
        points = tuple(point for point in told if plausible(point))
        self._forecasts[slot.feed.name] = answer.forecast.model_copy(update={"points": points})
        left_out = len(told) - len(points)
        return [f"{left_out} absurd forecast values left out"] if left_out else []

    def _checked(self, answer: object) -> Answer:
        if not isinstance(answer, Answer):
            raise FeedError(f"the feed's program answers {type(answer).__name__}, not an Answer")
        readings, forecast = checked_readings(answer.readings), answer.forecast
        if forecast is not None:
            try:
                forecast = Forecast.model_validate(forecast.model_dump())
            except (AttributeError, TypeError, ValueError, OverflowError) as e:
                raise no_reading(e) from e
        return Answer(readings, forecast)
