"""Makes one source of values of several feeds: polls them in order of trust and decides which value holds at a time.

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
from typing import Final, Generic

from carbonsched.clock import Clock, StepWatch
from carbonsched.errors import CarbonschedError, FeedError
from carbonsched.feeds.base import SETTLES, V, ValueFeed, Values
from carbonsched.feeds.plausibility import Gates, quarantine, sift
from carbonsched.feeds.transport import RetryLaterError
from carbonsched.model.grid import HELD, FeedStatus, Kind

_KEEP: Final = 4096
_FIRST_BACKOFF_S: Final = 5.0
_LONGEST_BACKOFF_S: Final = 900.0
_STEP_S: Final = 60.0
"""The wall clock was set, not slewed, where it parts from the monotonic one by this much."""
_LEAST_PAUSE_S: Final = 5.0
"""Of a feed over the network."""

log = logging.getLogger(__name__)


def _pause_s(feed: ValueFeed[V]) -> float:
    """Between two polls; a provider is spared an `every` of next to nothing."""
    return feed.every_s if feed.local else max(feed.every_s, _LEAST_PAUSE_S)


@dataclass(slots=True)
class Slot(Generic[V]):
    """What is known of one feed. Guarded by the chain's lock.

    Example::

        slot.put(reading)
        reading = slot.covering(clock.now())
    """

    feed: ValueFeed[V]
    readings: list[V] = field(default_factory=list)
    """Ascending by start, none overlapping, at most `_KEEP`."""
    due_s: float = 0.0
    """Monotonic time of the next poll."""
    ends: datetime | None = None
    """Wall time at which what was polled last runs out; then the feed is asked ahead of its turn, once."""
    failures: int = 0
    last_success: datetime | None = None
    error: str | None = None
    waiting: V | None = None
    """In quarantine."""

    def before(self, start: datetime) -> V | None:
        """The last reading that begins before `start`."""
        i = bisect_left(self.readings, start, key=lambda r: r.start)
        return self.readings[i - 1] if i else None

    def put(self, reading: V) -> None:
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

    def known(self, at: datetime) -> V | None:
        """The last reading that begins at or before `at`."""
        i = bisect_right(self.readings, at, key=lambda r: r.start)
        return self.readings[i - 1] if i else None

    def covering(self, at: datetime) -> V | None:
        reading = self.known(at)
        return reading if reading is not None and at < reading.end else None

    def held(self, at: datetime) -> V | None:
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
        note = "; ".join(part for part in (last.source.note, HELD) if part)
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


class ValueChain(Generic[V]):
    """The feeds of one kind of value. Thread-safe: `poll_due` in one thread does the network, everything else answers from memory.

    Example::

        prices = ValueChain([energy_charts, tariff], SystemClock(), price_gates())
        prices.poll_due()
        price = prices.reading_at(datetime.now(UTC))
    """

    def __init__(
        self, feeds: Sequence[ValueFeed[V]], clock: Clock, gates: Gates[V], called: str = "feed"
    ) -> None:
        """called: what the log calls one of them; feeds of two kinds may share a name."""
        self._called = called
        self._clock, self._gates = clock, gates
        self._wall = StepWatch(clock, _STEP_S)
        self._slots = [Slot(feed) for feed in feeds]
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
                if not slot.feed.local and self._due(slot) and (needed or self._wanted_beside(slot)):
                    self._poll(slot)
                with self._lock:
                    needed = needed and not slot.healthy(self._clock.now())
        finally:
            self._polling.release()

    def _wanted_beside(self, slot: Slot[V]) -> bool:
        """Whether a feed is asked although one before it is healthy. If so it is counted as asked."""
        return False

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
            self._forget_forecasts(now)

    def _forget_forecasts(self, now: datetime) -> None:
        """What was forecast after `now`, by a clock that was set back since: the lock is held."""

    def reading_at(self, t: datetime) -> V | None:
        """The value that was or is valid at `t`; None where no feed knows. Times to come answer None or what holds
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

    def history(self, since: datetime) -> tuple[V, ...]:
        """What was valid from `since` until now, ascending; where feeds overlap, the more trusted one's."""
        now = self._clock.now()
        with self._lock:
            found: list[V] = []
            ordered = [s for s in self._slots if not s.fallback] + [s for s in self._slots if s.fallback]
            for slot in ordered:
                if slot.fallback and found:
                    break
                for reading in slot.readings:
                    if reading.end > since and reading.start <= now and not _overlaps(found, reading):
                        insort(found, reading, key=lambda r: r.start)
            return tuple(found)

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

    @property
    def settles(self) -> dict[str, timedelta]:
        """Feed, the most trusted first → how old its values may be and still be revised."""
        return {slot.feed.name: getattr(slot.feed, "settles", SETTLES) for slot in self._slots}

    def ahead(self, until: datetime) -> tuple[V, ...]:
        """What the most trusted feed that says anything of it says of the time from now until `until`: published prices."""
        now = self._clock.now()
        with self._lock:
            for slot in self._slots:
                found = tuple(r for r in slot.readings if r.end > now and r.start < until)
                if found:
                    return found
        return ()

    def _at(self, t: datetime) -> V | None:
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

    def _due(self, slot: Slot[V]) -> bool:
        now = self._clock.now()
        with self._lock:
            if slot.failures == 0 and slot.ends is not None and now >= slot.ends:
                return True
            return self._clock.monotonic() >= slot.due_s

    def _poll(self, slot: Slot[V]) -> None:
        feed = slot.feed
        try:
            self._take(slot, self._checked(feed.poll()))
        except CarbonschedError as e:
            self._failed(slot, str(e), e.after_s if isinstance(e, RetryLaterError) else None)
        except (Exception, SystemExit) as e:
            # a feed's mistake must not end the daemon; it is shown where every other failure is
            if slot.failures == 0:
                log.exception("%s %s", self._called, feed.name)
            self._failed(slot, f"{type(e).__name__} in the feed's program", None)

    def _failed(self, slot: Slot[V], error: str, after_s: float | None) -> None:
        with self._lock:
            slot.failures += 1
            slot.error = error
            every_s = _pause_s(slot.feed)
            longest = max(every_s, _LONGEST_BACKOFF_S)
            first = min(every_s, _FIRST_BACKOFF_S)
            pause = min(first * 2.0 ** min(slot.failures - 1, 20), longest)
            slot.due_s = self._clock.monotonic() + max(pause, after_s or 0.0)
            if slot.failures == 1:
                log.warning("%s %s: %s", self._called, slot.feed.name, error)

    def _take(self, slot: Slot[V], answer: Values[V]) -> None:
        now = self._clock.now()
        local = slot.feed.local  # then it is its user's own: recorded, or stated
        sifted = sift(answer.readings, None if local else now, self._gates)
        if not local and sifted.believed:
            sifted = quarantine(sifted, slot.before(sifted.believed[0].start), slot.waiting, self._gates)
        good, refused, slot.waiting = sifted.believed, list(sifted.refused), sifted.waiting
        if not good and slot.waiting is None:
            self._failed(slot, refused[0] if refused else "the answer holds no reading", None)
            return
        with self._lock:
            if slot.failures:
                log.info("%s %s: answers again", self._called, slot.feed.name)
            for reading in good:
                slot.put(reading)
            refused += self._keep_forecast(slot, answer)
            current = slot.covering(now)
            slot.ends = current.end if current is not None else None
            slot.failures, slot.last_success = 0, now
            slot.error = refused[0] if refused else None
            slot.due_s = self._clock.monotonic() + _pause_s(slot.feed)

    def _keep_forecast(self, slot: Slot[V], answer: Values[V]) -> list[str]:
        """Take in what else was answered; returns what of it is refused. The lock is held."""
        return []

    def _checked(self, answer: object) -> Values[V]:
        """What a feed answered, which may be another's program. Raises FeedError where it is no answer."""
        if not isinstance(answer, Values):
            raise FeedError(f"the feed's program answers {type(answer).__name__}, not Values")
        return Values(checked_readings(answer.readings))


def checked_readings(readings: Sequence[V]) -> tuple[V, ...]:
    """Readings of a feed, which may be another's program. Raises FeedError where they are none."""
    try:
        return tuple(type(reading).model_validate(reading.model_dump()) for reading in readings)
    except (AttributeError, TypeError, ValueError, OverflowError) as e:
        raise no_reading(e) from e


def no_reading(error: Exception) -> FeedError:
    """Why what a feed's program answers is not taken."""
    said = " ".join(str(error).split())[:160]
    return FeedError(f"the feed's program answers what is no Reading or Forecast: {said}")


def _same(a: V, b: V) -> bool:
    """Whether the provider says the same as before; when it was fetched does not matter."""
    sa, sb = a.source, b.source
    return (a.start, a.end, a.value, sa.kind, sa.note) == (b.start, b.end, b.value, sb.kind, sb.note)


def _overlaps(ascending: list[V], reading: V) -> bool:
    i = bisect_right(ascending, reading.start, key=lambda r: r.start)
    before = i > 0 and ascending[i - 1].end > reading.start
    return before or (i < len(ascending) and ascending[i].start < reading.end)


def _state(slot: Slot[V], now: datetime, *, needed: bool) -> str:
    if slot.failures:
        return "failing"
    if not needed:
        return "standby"
    if slot.last_success is None:
        return "untried"
    return "stale" if slot.stale(now) else "ok"
