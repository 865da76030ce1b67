"""When a job's board was locked at which clock, by the journal: one entry `clocks` at each change."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import pairwise
from typing import Any, Final

MOSTLY: Final = 0.95
"""Of a stretch of time: what held so long of it is its clock."""


@dataclass(frozen=True, slots=True)
class ClockChange:
    """From `at` on.

    Example:
        >>> ClockChange(datetime(2026, 11, 1), mhz=1125).mhz
        1125
    """

    at: datetime
    mhz: int | None
    """None: the board's own clock."""


def changes_of(notes: Iterable[Mapping[str, Any]]) -> list[ClockChange]:
    """Of a job's journal entries of kind `clocks`, oldest first."""
    return [ClockChange(datetime.fromisoformat(note["at"]), note["mhz"]) for note in notes]


class MixedClocksError(Exception):
    """The clock was changed in the middle.

    Example:
        >>> issubclass(MixedClocksError, Exception)
        True
    """


def clock_during(changes: Sequence[ClockChange], start: datetime, end: datetime) -> int | None:
    """The clock of a stretch of time; None: the board's own. Raises MixedClocksError where none held for nearly all of it."""
    first = ClockChange(datetime.min.replace(tzinfo=start.tzinfo), None)
    last = ClockChange(datetime.max.replace(tzinfo=start.tzinfo), None)
    seconds: dict[int | None, float] = {}
    for one, following in pairwise((first, *changes, last)):
        held = (min(following.at, end) - max(one.at, start)).total_seconds()
        seconds[one.mhz] = seconds.get(one.mhz, 0.0) + max(held, 0.0)
    mhz = max(seconds, key=lambda each: seconds[each])
    if seconds[mhz] < MOSTLY * (end - start).total_seconds():
        raise MixedClocksError
    return mhz
