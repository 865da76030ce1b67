"""A clock that moves only when told."""

from dataclasses import dataclass
from datetime import datetime, timedelta


@dataclass(slots=True)
class ManualClock:
    """The clock of a test: both times stand still until `advance`."""

    at: datetime
    boot_s: float = 0.0

    def now(self) -> datetime:
        return self.at

    def monotonic(self) -> float:
        return self.boot_s

    def advance(self, seconds: float) -> None:
        self.at += timedelta(seconds=seconds)
        self.boot_s += seconds
