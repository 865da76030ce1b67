"""Computes how many steps a budget of grams pays for on a replayed grid: energy and hours by FLOPs, intensity by the hour."""

import bisect
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import accumulate
from pathlib import Path

from carbonsched.errors import InputError
from carbonsched.feeds.trace import read_trace

MOST_STEPS = 1_000_000
"""More steps in a row are taken for a mistake in the budget."""


@dataclass(frozen=True, slots=True)
class Grid:
    """Intensity as a function of the work done, since time is proportional to FLOPs.

    Example:
        >>> clean_then_dirty = Grid(ends=(100.0,), intensity=(1.0, 3.0))
        >>> clean_then_dirty.grams([60.0, 60.0])
        160.0
    """

    ends: tuple[float, ...]
    """FLOPs at which one row of the trace ends and the next begins."""
    intensity: tuple[float, ...]
    """One more value than `ends`; in any unit, since budgets are shares."""

    def upto(self, flops: float) -> float:
        """Grams of the first so many FLOPs."""
        spent, begin = 0.0, 0.0
        for end, rate in zip((*self.ends, float("inf")), self.intensity, strict=True):
            spent += rate * (min(flops, end) - begin)
            if flops <= end:
                break
            begin = end
        return spent

    def grams(self, steps: Sequence[float]) -> float:
        """Grams of consecutive steps of these FLOPs."""
        return self.upto(sum(steps))


def constant_grid() -> Grid:
    """Constant intensity: equal grams are equal FLOPs."""
    return Grid((), (1.0,))


def read_grid(trace: Path, start: datetime, seconds_per_flop: float) -> Grid:
    """The trace from `start` on. Raises InputError if it does not contain that time."""
    found = read_trace(trace)
    if not found.times[0] <= start <= found.times[-1]:
        raise InputError(
            "championship.grid.start",
            f"lies outside {trace.name}",
            f"choose from {found.times[0]:%Y-%m-%d} to {found.times[-1]:%Y-%m-%d}",
        )
    first = bisect.bisect_right(found.times, start) - 1
    ends = [(time - start).total_seconds() / seconds_per_flop for time in found.times[first + 1 :]]
    return Grid(tuple(ends), found.g_per_kwh[first:])


def steps_within(
    budget: float, cost: Callable[[int], float], grid: Grid, joules_per_flop: float = 1.0
) -> int:
    """The most steps whose grams stay within `budget`. cost: FLOPs of step n. joules_per_flop: relative to the row that defines the budget."""
    for step, done in enumerate(accumulate(cost(n) for n in range(MOST_STEPS))):
        if grid.upto(done) * joules_per_flop > budget:
            return step
    raise InputError("championship.shares", f"pay for more than {MOST_STEPS} steps", "give less")
