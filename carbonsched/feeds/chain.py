"""Makes one source of intensities of several feeds: polls them in order of trust and decides which value holds at a time.

The first feed that is healthy is used; the next ones are asked only while those before them fail or are stale. For a
given time the answer is, in order: a reading that covers it; the last one before it, held for at most its feed's
`max_age` and then labelled `estimated`; a fallback. Nothing that begins in the future is shown before its time, and a
value once given stays the same object until the provider revises it, so that the ledger's rows do not break at polls.
"""

import logging
import threading
from bisect import bisect_left, bisect_right, insort
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Final

from carbonsched.clock import Clock, StepWatch
from carbonsched.errors import CarbonschedError, FeedError, InputError
from carbonsched.feeds.base import Answer, Feed
from carbonsched.feeds.plausibility import plausible, quarantine, sift
from carbonsched.feeds.transport import RetryLaterError
from carbonsched.feeds.zone import Zone
from carbonsched.model.grid import Basis, FeedStatus, Forecast, GridNow, GridView, Kind, Reading

_KEEP: Final = 4096
_FIRST_BACKOFF_S: Final = 5.0
_LONGEST_BACKOFF_S: Final = 900.0
_STEP_S: Final = 60.0
"""The wall clock was set, not slewed, where it parts from the monotonic one by this much."""

log = logging.getLogger(__name__)


@dataclass(slots=True)
class _Slot:
    """What is known of one feed. Guarded by the chain's lock."""

    feed: Feed
    readings: list[Reading] = field(default_factory=list)
    """Ascending by start, none overlapping, at most `_KEEP`."""
    forecast: Forecast | None = None
    due_s: float = 0.0
    """Monotonic time of the next poll."""
    ends: datetime | None = None
    """Wall time at which what was polled last runs out; then the feed is asked ahead of its turn, once."""
    failures: int = 0
    last_success: datetime | None = None
    error: str | None = None
    waiting: Reading | None = None
    """In quarantine."""

    def before(self, start: datetime) -> Reading | None:
        """The last reading that begins before `start`."""
        i = bisect_left(self.readings, start, key=lambda r: r.start)
        return self.readings[i - 1] if i else None

    def put(self, reading: Reading) -> None:
        """Take a reading in; a revision replaces what it overlaps, an equal value changes nothing."""
        at = bisect_right(self.readings, reading.start, key=lambda r: r.start)
        lo, hi = at, at
        while lo > 0 and self.readings[lo - 1].end > reading.start:
            lo -= 1
        while hi < len(self.readings) and self.readings[hi].start < reading.end:
            hi += 1
        if hi - lo == 1 and _same(self.readings[lo], reading):
            return
        self.readings[lo:hi] = [reading]
        del self.readings[:-_KEEP]

    def known(self, at: datetime) -> Reading | None:
        """The last reading that begins at or before `at`."""
        i = bisect_right(self.readings, at, key=lambda r: r.start)
        return self.readings[i - 1] if i else None

    def covering(self, at: datetime) -> Reading | None:
        reading = self.known(at)
        return reading if reading is not None and at < reading.end else None

    def held(self, at: datetime) -> Reading | None:
        """The last reading, kept on for at most `max_age` after its end or until the next one begins."""
        i = bisect_right(self.readings, at, key=lambda r: r.start)
        if not i:
            return None
        last = self.readings[i - 1]
        end = last.end + timedelta(seconds=self.feed.max_age_s)
        if i < len(self.readings):
            end = min(end, self.readings[i].start)
        if at >= end or last.source.kind.constant:
            return None
        note = "; ".join(part for part in (last.source.note, "held: no newer value") if part)
        source = last.source.model_copy(update={"kind": Kind.ESTIMATED, "note": note})
        return last.model_copy(update={"start": last.end, "end": end, "source": source, "grid_start": None})

    def stale(self, now: datetime) -> bool:
        last = self.known(now)
        return last is None or now >= last.end + timedelta(seconds=self.feed.max_age_s)

    def healthy(self, now: datetime) -> bool:
        return self.last_success is not None and self.failures == 0 and not self.stale(now)

    @property
    def fallback(self) -> bool:
        return any(reading.source.kind is Kind.FALLBACK for reading in self.readings[-1:])


class Chain:
    """The feeds of a box. Thread-safe: `poll_due` in one thread does the network, everything else answers from memory.

    Example::

        chain = Chain([neso, fallback], Zone(name="GB", basis=Basis.AVERAGE_DIRECT), SystemClock())
        chain.poll_due()
        reading = chain.reading_at(datetime.now(UTC))
    """

    def __init__(self, feeds: Sequence[Feed], zone: Zone, clock: Clock) -> None:
        """Raises InputError where a feed speaks another basis than the zone."""
        for i, feed in enumerate(feeds):
            if feed.basis is not zone.basis:
                hint = "one budget never mixes two: set zone.basis or drop the feed"
                if feed.basis is Basis.AVERAGE_UNSTATED:
                    hint += ", or say its basis, if you know what its provider counts"
                problem = f"{feed.name} speaks {feed.basis} but zone.basis is {zone.basis}"
                raise InputError(f"feeds[{i}]", problem, hint)
        self._zone, self._clock = zone, clock
        self._wall = StepWatch(clock, _STEP_S)
        self._slots = [_Slot(feed) for feed in feeds]
        self._lock = threading.Lock()
        self._polling = threading.Lock()

    def poll_due(self) -> None:
        """Ask the feeds whose turn it is. Never raises; returns at once where another thread is at it.

        Those that answer from this box come first: the network may keep the others for a minute.
        """
        if not self._polling.acquire(blocking=False):
            return
        try:
            self._forget_the_future()
            for slot in self._slots:
                if slot.feed.local and self._due(slot):
                    self._poll(slot)
            needed = True
            for slot in self._slots:
                if needed and not slot.feed.local and self._due(slot):
                    self._poll(slot)
                with self._lock:
                    needed = needed and not slot.healthy(self._clock.now())
        finally:
            self._polling.release()

    def _forget_the_future(self) -> None:
        """After the wall clock was set every feed is asked at once; what was known for times that it says are still to come
        was for another now, and would stand in the way of what holds."""
        step_s = self._wall.step_s()
        if not step_s:
            return
        now = self._clock.now()
        with self._lock:
            for slot in self._slots:
                slot.due_s, slot.ends = self._clock.monotonic(), None
                slot.readings = [reading for reading in slot.readings if reading.start <= now]
                if slot.forecast is not None and slot.forecast.issued_at > now:
                    slot.forecast = None

    def reading_at(self, t: datetime) -> Reading | None:
        """The intensity that was or is valid at `t`; None where no feed knows. Times to come answer None or what holds
        from now on."""
        with self._lock:
            return self._at(t)

    def next_change(self, t: datetime) -> datetime | None:
        """When the reading valid at `t` ends or is replaced; None where nothing is known to come. Always after `t`."""
        with self._lock:
            now, here = self._clock.now(), self._at(t)
            while True:
                ends = [here.end] if here is not None and here.end > t else []
                following = min([*ends, *self._next_starts(t)], default=None)
                if following is None or following > now or self._at(following) != here:
                    return following
                t = following

    def history(self, since: datetime) -> tuple[Reading, ...]:
        """What was valid from `since` until now, ascending; where feeds overlap, the more trusted one's."""
        now = self._clock.now()
        with self._lock:
            found: list[Reading] = []
            ordered = [s for s in self._slots if not s.fallback] + [s for s in self._slots if s.fallback]
            for slot in ordered:
                if slot.fallback and found:
                    break
                for reading in slot.readings:
                    if reading.end > since and reading.start <= now and not _overlaps(found, reading):
                        insort(found, reading, key=lambda r: r.start)
            return tuple(found)

    def forecast(self) -> Forecast | None:
        """The most trusted forecast that still reaches into the future, its past points dropped."""
        now = self._clock.now()
        with self._lock:
            for slot in self._slots:
                if slot.forecast is None:
                    continue
                points = tuple(point for point in slot.forecast.points if point.end > now)
                if points:
                    return slot.forecast.model_copy(update={"points": points})
        return None

    def status(self) -> tuple[FeedStatus, ...]:
        now = self._clock.now()
        with self._lock:
            found = []
            needed = True
            for slot in self._slots:
                found.append(
                    FeedStatus(
                        name=slot.feed.name,
                        state=_state(slot, now, needed=needed),
                        last_success=slot.last_success,
                        error=slot.error,
                    )
                )
                needed = needed and not slot.healthy(now)
            return tuple(found)

    def view(self, hours: float) -> GridView:
        """What `carbonsched grid` shows: now, the provider's forecast for `hours`, and the feeds."""
        now = self._clock.now()
        reading, forecast = self.reading_at(now), self.forecast()
        until = now + timedelta(hours=hours)
        points = tuple(p for p in forecast.points if p.start < until) if forecast else ()
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

    def _at(self, t: datetime) -> Reading | None:
        t = min(t, self._clock.now())
        trusted = [slot for slot in self._slots if not slot.fallback]
        for slot in trusted:
            if (reading := slot.covering(t)) is not None:
                return reading
        for slot in trusted:
            if (reading := slot.held(t)) is not None:
                return reading
        return next(
            (r for slot in self._slots if slot.fallback and (r := slot.covering(t)) is not None), None
        )

    def _next_starts(self, t: datetime) -> list[datetime]:
        found = []
        for slot in self._slots:
            i = bisect_right(slot.readings, t, key=lambda r: r.start)
            found += [reading.start for reading in slot.readings[i : i + 1]]
        return found

    def _due(self, slot: _Slot) -> bool:
        now = self._clock.now()
        with self._lock:
            if slot.failures == 0 and slot.ends is not None and now >= slot.ends:
                return True
            return self._clock.monotonic() >= slot.due_s

    def _poll(self, slot: _Slot) -> None:
        feed = slot.feed
        try:
            self._take(slot, _checked(feed.poll()))
        except CarbonschedError as e:
            self._failed(slot, str(e), e.after_s if isinstance(e, RetryLaterError) else None)
        except (Exception, SystemExit) as e:
            # a feed's mistake must not end the daemon; it is shown where every other failure is
            if slot.failures == 0:
                log.exception("feed %s", feed.name)
            self._failed(slot, f"{type(e).__name__} in the feed's program", None)

    def _failed(self, slot: _Slot, error: str, after_s: float | None) -> None:
        with self._lock:
            slot.failures += 1
            slot.error = error
            longest = max(slot.feed.every_s, _LONGEST_BACKOFF_S)
            first = min(slot.feed.every_s, _FIRST_BACKOFF_S)
            pause = min(first * 2.0 ** min(slot.failures - 1, 20), longest)
            slot.due_s = self._clock.monotonic() + max(pause, after_s or 0.0)
            if slot.failures == 1:
                log.warning("feed %s: %s", slot.feed.name, error)

    def _take(self, slot: _Slot, answer: Answer) -> None:
        now = self._clock.now()
        local = slot.feed.local  # then it is its user's own: recorded, or stated
        sifted = sift(answer.readings, None if local else now, self._zone.basis)
        if not local and sifted.believed:
            sifted = quarantine(sifted, slot.before(sifted.believed[0].start), slot.waiting)
        good, refused, slot.waiting = sifted.believed, list(sifted.refused), sifted.waiting
        if not good and slot.waiting is None:
            self._failed(slot, refused[0] if refused else "the answer holds no reading", None)
            return
        with self._lock:
            if slot.failures:
                log.info("feed %s: answers again", slot.feed.name)
            for reading in good:
                slot.put(reading)
            if answer.forecast is not None:
                points = tuple(p for p in answer.forecast.points if plausible(p))
                if len(points) < len(answer.forecast.points):
                    refused.append(
                        f"{len(answer.forecast.points) - len(points)} absurd forecast values left out"
                    )
                slot.forecast = answer.forecast.model_copy(update={"points": points})
            current = slot.covering(now)
            slot.ends = current.end if current is not None else None
            slot.failures, slot.last_success = 0, now
            slot.error = refused[0] if refused else None
            slot.due_s = self._clock.monotonic() + slot.feed.every_s


def _checked(answer: object) -> Answer:
    """What a feed answered, which may be another's program. Raises FeedError where it is no answer."""
    if not isinstance(answer, Answer):
        raise FeedError(f"the feed's program answers {type(answer).__name__}, not an Answer")
    try:
        readings = tuple(Reading.model_validate(reading.model_dump()) for reading in answer.readings)
        forecast = answer.forecast
        if forecast is not None:
            forecast = Forecast.model_validate(forecast.model_dump())
    except (AttributeError, TypeError, ValueError, OverflowError) as e:
        said = " ".join(str(e).split())[:160]
        raise FeedError(f"the feed's program answers what is no Reading or Forecast: {said}") from e
    return Answer(readings, forecast)


def _same(a: Reading, b: Reading) -> bool:
    """Whether the provider says the same as before; when it was fetched does not matter."""
    sa, sb = a.source, b.source
    return (a.start, a.end, a.g_per_kwh, sa.kind, sa.note) == (b.start, b.end, b.g_per_kwh, sb.kind, sb.note)


def _overlaps(ascending: list[Reading], reading: Reading) -> bool:
    i = bisect_right(ascending, reading.start, key=lambda r: r.start)
    before = i > 0 and ascending[i - 1].end > reading.start
    return before or (i < len(ascending) and ascending[i].start < reading.end)


def _state(slot: _Slot, now: datetime, *, needed: bool) -> str:
    if slot.failures:
        return "failing"
    if not needed:
        return "standby"
    if slot.last_success is None:
        return "untried"
    return "stale" if slot.stale(now) else "ok"
