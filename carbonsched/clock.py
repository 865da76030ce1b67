"""The clock protocol, so that tests can set the time: wall time for records, monotonic time for durations."""

import time
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Protocol

LEAST_SLEEP_S = 1.0


class Clock(Protocol):
    """What tells the time; a test gives one that it moves itself.

    Example::

        def age_s(clock: Clock, since: datetime) -> float:
            return (clock.now() - since).total_seconds()
    """

    def now(self) -> datetime:
        """Wall time, timezone-aware UTC."""

    def monotonic(self) -> float:
        """Seconds on a clock that never steps back, counting through suspend (CLOCK_BOOTTIME)."""

    def awake(self) -> float:
        """Seconds on a clock that never steps back and stands still in suspend (CLOCK_MONOTONIC)."""


class SystemClock:
    """The clock of the box.

    Example:
        >>> SystemClock().now().tzinfo
        datetime.timezone.utc
    """

    def now(self) -> datetime:
        return datetime.now(UTC)

    def monotonic(self) -> float:
        return time.clock_gettime(time.CLOCK_BOOTTIME)

    def awake(self) -> float:
        return time.monotonic()


@dataclass(slots=True)
class StepWatch:
    """Tells when the wall clock was set: but for that, wall and monotonic time pass alike.

    Example:
        >>> watch = StepWatch(SystemClock(), least_s=1.0)
        >>> watch.step_s()  # nobody set the clock meanwhile
        0.0
    """

    clock: Clock
    least_s: float
    """Between two calls they may part by less than this: NTP slews."""
    _offset: float = field(init=False)

    def __post_init__(self) -> None:
        self._offset = self._wall_minus_monotonic()

    def step_s(self) -> float:
        """Seconds by which the wall clock was set forward (above 0) or back since the last call; 0.0: it was not."""
        before, self._offset = self._offset, self._wall_minus_monotonic()
        step = self._offset - before
        return step if abs(step) >= self.least_s else 0.0

    def _wall_minus_monotonic(self) -> float:
        return self.clock.now().timestamp() - self.clock.monotonic()


@dataclass(slots=True)
class SleepWatch:
    """Tells when the box was suspended: but for that, its two clocks pass alike.

    Example:
        >>> watch = SleepWatch(SystemClock())
        >>> watch.slept_s()  # it is awake
        0.0
    """

    clock: Clock
    _offset: float = field(init=False)

    def __post_init__(self) -> None:
        self._offset = self.clock.monotonic() - self.clock.awake()

    def slept_s(self) -> float:
        """Seconds of suspend since the last call; less than one is not told from the time between two looks at a clock."""
        before, self._offset = self._offset, self.clock.monotonic() - self.clock.awake()
        slept = self._offset - before
        return slept if slept >= LEAST_SLEEP_S else 0.0
