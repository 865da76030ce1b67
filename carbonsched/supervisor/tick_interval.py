"""Measures the real time between ticks: the grams reserved until the next tick follow it, not the config."""

import logging
import math
from collections.abc import Callable
from dataclasses import dataclass

from carbonsched.clock import Clock

log = logging.getLogger(__name__)

LATE = 2.0
"""A tick is late if the interval exceeds the configured one by this factor, and by `LEAST_S`."""
LEAST_S = 1.0
MOST_S = 60.0
"""The reserve grows no further than the longest interval that the config allows."""
HALF_LIFE_S = 300.0
"""Time in which the effect of a late tick on the reserve is halved."""
SAID_AGAIN_S = 60.0


@dataclass(slots=True)
class TickInterval:
    """The time between two ticks, configured and measured.

    Example:
        >>> from carbonsched.clock import SystemClock
        >>> interval = TickInterval(SystemClock(), lambda: 1.0)
        >>> interval.note()
        >>> interval.tick_s
        1.0
    """

    clock: Clock
    configured_s: Callable[[], float]
    late: int = 0
    """Number of late ticks."""
    last_s: float | None = None
    """Seconds between the last two ticks without suspend; None before the second tick."""
    _at: float | None = None
    """Time awake at the last tick."""
    _worst_s: float = 0.0
    _worst_at: float = 0.0
    _said_at: float = -math.inf

    @property
    def tick_s(self) -> float:
        """Seconds that may pass until the next tick, by the worst recent interval: for the guard's reserve."""
        configured = self.configured_s()
        passed = self.clock.awake() - self._worst_at
        held = min(self._worst_s, MOST_S) * 0.5 ** (passed / HALF_LIFE_S)
        return held if held > LATE * configured else configured

    def note(self) -> None:
        """A tick begins."""
        now, configured = self.clock.awake(), self.configured_s()
        before, self._at = self._at, now
        if before is None:
            return
        self.last_s = gap = now - before
        if gap <= max(LATE * configured, configured + LEAST_S):
            return
        self.late += 1
        if gap >= self.tick_s:
            self._worst_s, self._worst_at = gap, now
        if now - self._said_at >= SAID_AGAIN_S:
            self._said_at = now
            text = "a tick came %.1f s after the one before, power.tick_s is %g: jobs are kept %.1f s of their power away from their budgets for now"
            log.warning(text, gap, configured, self.tick_s)
