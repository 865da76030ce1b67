"""Limits how many of a process's events become rows: the journal is append-only, and a library may warn at every step.

Events that the protocol expects are always recorded: each segment's end once, one evaluation per segment and three around them. Warnings,
and any further events, draw on an allowance per kind.
"""

from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Final

from carbonsched.model.protocol import MOST_SEGMENTS, Evaluated, Event, SegmentDone, Warned

BURST = 20
"""Unexpected events of a kind that are recorded at any rate."""
EVERY = timedelta(minutes=1)
"""One more is recorded per such interval, and the number of those that were not is recorded as often."""
_EVALUATIONS: Final = 3
"""Evaluations beside the one per segment: before, after and test."""
KINDS: Final = {"warning": "warnings", "evaluated": "evaluations", "segment_done": "ends of segments"}
"""The events that become rows → what they are called if many were not recorded."""


@dataclass(slots=True)
class Allowance:
    """Counts the events of one kind that were recorded, and those that were not. Only the events' own times matter, so replaying them after
    a restart gives the same counts.

    Example:
        >>> allowance = Allowance()
        >>> taken = [allowance.take(datetime(2026, 11, 22, 10)) for _ in range(22)]
        >>> taken.count(True), allowance.unsaid
        (20, 2)
    """

    since: datetime | None = None
    """The time up to which the allowance has grown; events before the process began add nothing."""
    left: int = BURST
    kept_back: int = 0
    """Events that were not recorded."""
    said: int = 0
    """How many of these the journal has already counted."""
    said_at: datetime | None = None

    @property
    def unsaid(self) -> int:
        return max(self.kept_back - self.said, 0)

    def take(self, at: datetime) -> bool:
        since = self.since or at
        if (grown := (at - since) // EVERY) > 0:
            self.left, since = min(self.left + grown, BURST), since + grown * EVERY
        self.since = since
        if self.left == 0:
            self.kept_back += 1
            return False
        self.left -= 1
        return True

    def due(self, now: datetime) -> int:
        """How many more were not recorded, if it is time to journal that; else 0."""
        soon = self.said_at is not None and abs(now - self.said_at) < EVERY
        return 0 if soon else self.unsaid

    def note_said(self, number: int, at: datetime) -> None:
        """The journal now has this many more."""
        self.said, self.said_at = self.said + number, at

    def shift(self, step: timedelta) -> None:
        """The wall clock was set."""
        self.since = None if self.since is None else self.since + step
        self.said_at = None if self.said_at is None else self.said_at + step


@dataclass(slots=True)
class EventLimit:
    """Decides which events of one process are recorded.

    Example:
        >>> limit = EventLimit()
        >>> warning = Warned(at="2026-11-22T10:00:00Z", message="slow")
        >>> [limit.admits(warning, segments=4) for _ in range(22)].count(True), limit.due(warning.at)
        (20, {'warning': 2})
    """

    allowances: dict[str, Allowance] = field(default_factory=dict)
    """For the kinds seen so far; empty for a job that never had a process."""
    since: datetime | None = None
    """When the process began."""
    ended: set[int] = field(default_factory=set)
    """Segments whose end was recorded as expected."""
    evaluations: int = _EVALUATIONS
    """Expected evaluations that have not come yet."""

    @classmethod
    def of_process(cls, since: datetime) -> "EventLimit":
        return cls(since=since)

    def admits(self, event: Event, segments: int | None) -> bool:
        """Whether to record the event. segments: of the job, as its trainer announced; None: it has not yet."""
        match event:
            case SegmentDone() if event.k not in self.ended and event.k < (segments or MOST_SEGMENTS):
                self.ended.add(event.k)
                self.evaluations += 1
                return True
            case Evaluated() if self.evaluations > 0:
                self.evaluations -= 1
                return True
            case Warned() | Evaluated() | SegmentDone():
                return self._allowance(event.event).take(event.at)
        return True

    def due(self, now: datetime) -> dict[str, int]:
        """Kind → how many more were not recorded, if it is time to journal that."""
        return {kind: more for kind, each in self.allowances.items() if (more := each.due(now))}

    def unsaid(self) -> dict[str, int]:
        """Kind → how many were not recorded and not yet journalled."""
        return {kind: each.unsaid for kind, each in self.allowances.items() if each.unsaid}

    def note_said(self, more: dict[str, int], at: datetime) -> None:
        """The journal now has this many more."""
        for kind, number in more.items():
            if kind in KINDS:
                self._allowance(kind).note_said(number, at)

    def shift(self, step: timedelta) -> None:
        """The wall clock was set."""
        self.since = None if self.since is None else self.since + step
        for each in self.allowances.values():
            each.shift(step)

    def _allowance(self, kind: str) -> Allowance:
        return self.allowances.setdefault(kind, Allowance(self.since))
