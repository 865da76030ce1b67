"""Returns one value for this year and the last, for any kind of value."""

from datetime import UTC, datetime
from typing import Generic

from carbonsched.clock import Clock
from carbonsched.feeds.base import Make, V, Values
from carbonsched.model.grid import Source


class Constant(Generic[V]):
    """A figure that the user states.

    Example::

        source = Source(provider="tariff", zone="DE", kind=Kind.STATIC, fetched_at=clock.now(), note="the bill of 2025")
        price = Constant(clock, Price.of, 0.31, source).poll().readings[-1]
    """

    every_s = 3600.0
    local = True

    def __init__(
        self, clock: Clock, make: Make[V], value: float, source: Source, max_age_s: float = 7200.0
    ) -> None:
        self.name, self.zone, self.max_age_s = source.provider, source.zone, max_age_s
        self._clock, self._make, self._value, self._source = clock, make, value, source

    def poll(self) -> Values[V]:
        return Values(self.years())

    def years(self) -> tuple[V, ...]:
        """The readings of the last year and this one."""
        year = self._clock.now().year
        return tuple(self._reading(y) for y in (year - 1, year))

    def _reading(self, year: int) -> V:
        start, end = datetime(year, 1, 1, tzinfo=UTC), datetime(year + 1, 1, 1, tzinfo=UTC)
        return self._make(start, end, self._value, self._source)
