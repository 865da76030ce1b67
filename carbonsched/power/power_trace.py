"""Integrates power readings between two samples of a device, by the trapezoid rule. Pure.

A reading holds for `HOLD_S` at most: of a longer gap between two of them only so much counts as sampled, whatever is integrated over it.
Times are of the clock that stands still in suspend: nothing was drawn there that a reading could tell of.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import pairwise
from typing import Final

HOLD_S: Final = 10.0
"""Seconds that a power reading is taken to hold; of a longer gap only so much counts as sampled."""


@dataclass(frozen=True, slots=True)
class PowerReading:
    """What a device drew at one instant.

    Example:
        >>> PowerReading(at_s=12.1, watts=250.0).watts
        250.0
    """

    at_s: float
    """On the clock that stands still in suspend."""
    watts: float


@dataclass(frozen=True, slots=True)
class PowerTrace:
    """Two readings or more in order of time: from one sample of a device to the next.

    Example:
        >>> trace = PowerTrace((PowerReading(0.0, 100.0), PowerReading(0.9, 100.0), PowerReading(1.0, 300.0)))
        >>> round(trace.mean_w, 1)
        110.0
    """

    readings: tuple[PowerReading, ...]

    @property
    def span_s(self) -> float:
        return self.readings[-1].at_s - self.readings[0].at_s

    @property
    def mean_w(self) -> float:
        return sum(_joules(a, b) for a, b in pairwise(self.readings)) / self.span_s

    @property
    def coverage(self) -> float:
        """Share of the time covered by readings."""
        held = sum(min(b.at_s - a.at_s, HOLD_S) for a, b in pairwise(self.readings))
        return min(held / self.span_s, 1.0)

    def profile(self, start: datetime, end: datetime) -> tuple[tuple[datetime, float], ...]:
        """(time, joules since `start`) of every reading, its span laid onto the wall time from `start` to `end`."""
        first, scale = self.readings[0].at_s, (end - start).total_seconds() / self.span_s
        found, joules = [(start, 0.0)], 0.0
        for a, b in pairwise(self.readings):
            joules += _joules(a, b)
            found.append((start + timedelta(seconds=(b.at_s - first) * scale), joules))
        found[-1] = (end, joules)
        return tuple(found)


def trace(first: PowerReading, between: Sequence[PowerReading], last: PowerReading) -> PowerTrace | None:
    """From one sample to the next, by what was read between them; None where no time passed."""
    if first.at_s >= last.at_s:
        return None
    inside = [reading for reading in between if first.at_s < reading.at_s < last.at_s]
    return PowerTrace((first, *sorted(inside, key=lambda reading: reading.at_s), last))


def _joules(a: PowerReading, b: PowerReading) -> float:
    return (a.watts + b.watts) / 2 * (b.at_s - a.at_s)
