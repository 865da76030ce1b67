"""Time, injected: wall time for records, monotonic time for durations."""

import time
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Protocol


class Clock(Protocol):
    def now(self) -> datetime:
        """Wall time, timezone-aware UTC."""

    def monotonic(self) -> float:
        """Seconds on a clock that never steps back, counting through suspend (CLOCK_BOOTTIME)."""


class SystemClock:
    def now(self) -> datetime:
        return datetime.now(UTC)

    def monotonic(self) -> float:
        return time.clock_gettime(time.CLOCK_BOOTTIME)


@dataclass(slots=True)
class ManualClock:
    """A clock that moves only when told: the double used by tests and simulations."""

    at: datetime
    boot_s: float = 0.0

    def now(self) -> datetime:
        return self.at

    def monotonic(self) -> float:
        return self.boot_s

    def advance(self, seconds: float) -> None:
        self.at += timedelta(seconds=seconds)
        self.boot_s += seconds
