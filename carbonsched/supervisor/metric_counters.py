"""Counts, in memory, the daemon's own figures for `/metrics`: energy and grams since it began, and durations of its work.

The ledger keeps the permanent figures; monitoring systems expect counters to restart at 0 with the process.
"""

import time
from bisect import bisect_left
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Final

from carbonsched.model.energy import Interval
from carbonsched.units import MJ_PER_J

BOUNDS_S: Final = (0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0)


@dataclass(slots=True)
class Histogram:
    """A histogram of durations.

    Example:
        >>> ticks = Histogram()
        >>> ticks.observe(0.02)
        >>> ticks.cumulative()[3:5], ticks.count
        ([('0.03', 1), ('0.1', 1)], 1)
    """

    sum_s: float = 0.0
    count: int = 0
    counts: list[int] = field(default_factory=lambda: [0] * (len(BOUNDS_S) + 1))

    def observe(self, seconds: float) -> None:
        self.counts[bisect_left(BOUNDS_S, seconds)] += 1
        self.sum_s += seconds
        self.count += 1

    @contextmanager
    def timed(self) -> Iterator[None]:
        """Time the work of a `with` block, also if it fails."""
        began = time.monotonic()
        try:
            yield
        finally:
            self.observe(time.monotonic() - began)

    def cumulative(self) -> list[tuple[str, int]]:
        """(upper bound, how many took no longer); the last counts all."""
        found, so_far = [], 0
        for bound, count in zip((*map(str, BOUNDS_S), "+Inf"), self.counts, strict=True):
            so_far += count
            found.append((bound, so_far))
        return found


@dataclass(slots=True)
class MetricCounters:
    """Energy metered since the daemon began, by account (job, idle, unknown), and durations of ticks.

    Example:
        >>> counters = MetricCounters()
        >>> with counters.ticks.timed():
        ...     counters.add([])
        >>> counters.ticks.count, counters.energy_j
        (1, {})
    """

    ticks: Histogram = field(default_factory=Histogram)
    """Includes the wait for the lock."""
    energy_j: dict[tuple[str, str], float] = field(default_factory=dict)
    """(account, device) → known joules."""
    grams: dict[tuple[str, str], float] = field(default_factory=dict)
    unknown_s: dict[tuple[str, str], float] = field(default_factory=dict)
    """Seconds of unknown energy or intensity."""

    def add(self, pieces: Iterable[Interval]) -> None:
        for piece in pieces:
            key = piece.account.value, piece.delta.device
            if piece.delta.energy_mj is not None:
                self.energy_j[key] = self.energy_j.get(key, 0.0) + piece.delta.energy_mj / MJ_PER_J
            if piece.grams is not None:
                self.grams[key] = self.grams.get(key, 0.0) + piece.grams
            else:
                span_s = (piece.delta.end - piece.delta.start).total_seconds()
                self.unknown_s[key] = self.unknown_s.get(key, 0.0) + span_s
