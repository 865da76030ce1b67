"""Limits how many of a process's warnings the journal takes: it is append-only, and a library may warn at every step."""

from dataclasses import dataclass
from datetime import datetime, timedelta

from carbonsched.model.protocol import Event, Warned

BURST = 20
"""Warnings of a process that are recorded one by one, however fast they come."""
EVERY = timedelta(minutes=1)
"""One more is recorded for each of these that passes, and as often the number of those that were not."""


@dataclass(slots=True)
class WarningLimit:
    """Which warnings of one process are recorded, and how many were not.

    It counts by the times of the events alone, so that the same events, read again after a restart, count alike.

    Example:
        >>> limit = WarningLimit()
        >>> warning = Warned(at="2026-11-22T10:00:00Z", message="slow")
        >>> [limit.admits(warning) for _ in range(22)].count(True), limit.unsaid
        (20, 2)
    """

    since: datetime | None = None
    """Up to when the allowance has grown; an event from before the process began adds nothing."""
    left: int = BURST
    kept_back: int = 0
    """Warnings that were not recorded one by one."""
    said: int = 0
    """How many of them are in the journal as a number."""
    said_at: datetime | None = None

    @property
    def unsaid(self) -> int:
        return max(self.kept_back - self.said, 0)

    def admits(self, event: Event) -> bool:
        """Whether the event is recorded by itself: all but a warning that comes on top of too many others."""
        if not isinstance(event, Warned):
            return True
        since = self.since or event.at
        if (grown := (event.at - since) // EVERY) > 0:
            self.left, since = min(self.left + grown, BURST), since + grown * EVERY
        self.since = since
        if self.left == 0:
            self.kept_back += 1
            return False
        self.left -= 1
        return True

    def due(self, now: datetime) -> int:
        """How many more there were, where it is time to say so; else 0."""
        soon = self.said_at is not None and abs(now - self.said_at) < EVERY
        return 0 if soon else self.unsaid

    def note_said(self, number: int, at: datetime) -> None:
        """The journal has it that there were so many more."""
        self.said, self.said_at = self.said + number, at

    def shift(self, step: timedelta) -> None:
        """The wall clock was set."""
        self.since = None if self.since is None else self.since + step
        self.said_at = None if self.said_at is None else self.said_at + step
