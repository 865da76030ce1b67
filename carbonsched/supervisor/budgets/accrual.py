"""Grows a budget with time: grams per hour, saved up to a day's worth."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

SAVED_H = 24.0
"""Hours of the rate that can be saved up; grams beyond that lapse."""
FIRST_H = 1.0
"""Hours granted at the start: loading a model needs grams before the first hour has passed."""


@dataclass(slots=True)
class Accrual:
    """Grants grams over time. The total granted never exceeds rate × (hours since the start + FIRST_H), nor the grams spent + a day's
    worth.

    Example:
        >>> from datetime import UTC
        >>> start = datetime(2026, 11, 1, tzinfo=UTC)
        >>> accrual = Accrual.begin(2.0, start)
        >>> accrual.grow(start + timedelta(hours=3), spent_g=0.0)
        8.0
    """

    g_per_h: float
    granted_g: float
    """Grams granted so far, spent or not."""
    at: datetime
    """The time up to which grams were granted."""

    @classmethod
    def begin(cls, g_per_h: float, at: datetime) -> "Accrual":
        return cls(g_per_h, g_per_h * FIRST_H, at)

    @classmethod
    def resume(cls, g_per_h: float, entry: Mapping[str, Any] | None, at: datetime) -> "Accrual":
        """Continue from the journal's last `budget_g`; start from zero if there is none."""
        if entry is None:
            return cls.begin(g_per_h, at)
        # recorded by a clock that was set back since: accrue from now on
        return cls(g_per_h, float(entry["budget_g"]), min(datetime.fromisoformat(entry["at"]), at))

    def shift(self, step: timedelta) -> None:
        """The wall clock was set: no grams for hours that did not pass, and none withheld until they pass again."""
        self.at += step

    @property
    def most_g(self) -> float:
        """The most that can be saved up."""
        return self.g_per_h * SAVED_H

    def grow(self, now: datetime, spent_g: float) -> float:
        """Grant grams up to `now`; returns the new `granted_g`. See `shift` for a clock that was set."""
        hours = max((now - self.at).total_seconds() / 3600.0, 0.0)
        self.granted_g = min(
            self.granted_g + self.g_per_h * hours, max(self.granted_g, spent_g + self.most_g)
        )
        self.at = max(self.at, now)
        return self.granted_g
