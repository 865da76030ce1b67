"""A clock that moves only when told."""

from dataclasses import dataclass
from datetime import datetime, timedelta


@dataclass(slots=True)
class ManualClock:
    """The clock of a test: both times stand still until `advance`."""

    at: datetime
    boot_s: float = 0.0
    asleep_s: float = 0.0
    """Of that, in suspend."""

    def now(self) -> datetime:
        return self.at

    def monotonic(self) -> float:
        return self.boot_s

    def awake(self) -> float:
        return self.boot_s - self.asleep_s

    def suspend(self, seconds: float) -> None:
        """The box sleeps: wall and boot time pass, nothing runs."""
        self.advance(seconds)
        self.asleep_s += seconds

    def advance(self, seconds: float) -> None:
        self.at += timedelta(seconds=seconds)
        self.boot_s += seconds
