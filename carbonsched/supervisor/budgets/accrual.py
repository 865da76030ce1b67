"""Grows a budget with time: grams per hour, saved up to a day's worth."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

SAVED_H = 24.0
"""Hours of the rate that may be saved up; what comes on top lapses."""
FIRST_H = 1.0
"""Hours granted at once at the start: loading a model takes grams before an hour has passed."""


@dataclass(slots=True)
class Accrual:
    """Granted in all never passes rate × (hours since the start + the first), nor what was spent + a day's worth.

    Example:
        >>> from datetime import UTC
        >>> start = datetime(2026, 11, 1, tzinfo=UTC)
        >>> accrual = Accrual.begin(2.0, start)
        >>> accrual.grow(start + timedelta(hours=3), spent_g=0.0)
        8.0
    """

    g_per_h: float
    granted_g: float
    """In all, spent or not."""
    at: datetime
    """Time up to which it was granted."""

    @classmethod
    def begin(cls, g_per_h: float, at: datetime) -> "Accrual":
        return cls(g_per_h, g_per_h * FIRST_H, at)

    @classmethod
    def resume(cls, g_per_h: float, entry: Mapping[str, Any] | None, at: datetime) -> "Accrual":
        """Go on from the journal's last `budget_g`; begin anew where there is none."""
        if entry is None:
            return cls.begin(g_per_h, at)
        # recorded by a clock that was set back since: what accrues goes on from now
        return cls(g_per_h, float(entry["budget_g"]), min(datetime.fromisoformat(entry["at"]), at))

    def shift(self, step: timedelta) -> None:
        """The wall clock was set: no grams for hours that did not pass, and none withheld until they pass again."""
        self.at += step

    @property
    def most_g(self) -> float:
        """What may be saved up."""
        return self.g_per_h * SAVED_H

    def grow(self, now: datetime, spent_g: float) -> float:
        """Grant up to `now`; the new `granted_g`. For a clock that was set see `shift`."""
        hours = max((now - self.at).total_seconds() / 3600.0, 0.0)
        self.granted_g = min(
            self.granted_g + self.g_per_h * hours, max(self.granted_g, spent_g + self.most_g)
        )
        self.at = max(self.at, now)
        return self.granted_g
