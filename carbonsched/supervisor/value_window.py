"""Caches what a chain of feeds says about the stretch of one tick, for all devices, which are read one right after the other."""

from bisect import bisect_right
from collections.abc import Sequence
from datetime import datetime
from typing import Final, Generic

from carbonsched.feeds.base import V
from carbonsched.feeds.value_chain import ValueChain

_MOST_CHANGES: Final = 10_000


class ValueWindow(Generic[V]):
    """The values of a chain from one time to another.

    Example::

        window = ValueWindow(chain, start, end)
        reading = window.reading_at(start)
    """

    def __init__(self, chain: ValueChain[V], start: datetime, end: datetime) -> None:
        self._chain = chain
        self.changes: Sequence[datetime] = sorted(changes(chain, start, end))
        self._found: dict[int, V | None] = {}

    def inside(self, start: datetime, end: datetime) -> set[datetime]:
        """Times inside (start, end) at which the value changes."""
        return {at for at in self.changes if start < at < end}

    def reading_at(self, at: datetime) -> V | None:
        """The value at a time of the window; None if no feed knows."""
        n = bisect_right(self.changes, at)
        if n not in self._found:
            self._found[n] = self._chain.reading_at(at)
        return self._found[n]


def changes(chain: ValueChain[V], start: datetime, end: datetime) -> set[datetime]:
    """Times inside (start, end) at which the chain's known value changes."""
    found: set[datetime] = set()
    at: datetime | None = start
    while at is not None and len(found) < _MOST_CHANGES:
        at = chain.next_change(at)
        if at is None or at >= end:
            break
        found.add(at)
    return found
