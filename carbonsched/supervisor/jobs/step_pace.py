"""Tells how fast the steps of the segment under way go, from the trainer's `step` events, which come once a second at most.

The first steps of a process are slow: caches are cold, memory is asked for, kernels are chosen. So the newest half of the steps decides,
and how far their paces lie apart tells how much is known; a single step tells little.
"""

import math
from dataclasses import dataclass, field
from datetime import datetime
from statistics import median
from typing import NamedTuple

from carbonsched.model.protocol import Step

_MOST = 64
"""Stretches of steps that are kept, newest first."""
_FIRST_SD = 0.5
"""Relative sd of what a process's first step alone tells."""
_STEP_SD, _STEP_COUNT = 0.2, 3.0
"""Relative sd of a stretch's pace before several have shown it, and how many such stretches that is worth."""
_MAD = 1.4826
"""Standard deviation of normal noise over its median absolute deviation."""


class Pace(NamedTuple):
    """Seconds that a step takes at a ρ.

    Example:
        >>> Pace(rho=0.5, seconds=2.5, sd=0.1, steps=6).seconds
        2.5
    """

    rho: float
    """Of the newest steps."""
    seconds: float
    sd: float
    """Relative."""
    steps: int
    """That it was seen over."""


@dataclass(slots=True)
class StepPace:
    """The pace of the segment under way, of this process.

    Example:
        >>> from datetime import UTC, timedelta
        >>> pace, at = StepPace(), datetime(2026, 11, 1, tzinfo=UTC)
        >>> for step, after in enumerate((9.0, 11.0, 13.0, 15.0), start=1):
        ...     pace.add(Step(at=at + timedelta(seconds=after), k=0, step=step, steps=None, loss=None, lr=1e-3, seconds=2.0, rho=0.5))
        >>> pace.tell().seconds, pace.tell().steps
        (2.0, 3)
    """

    rho: float = 1.0
    """At which the newest of these steps were taken."""
    stretches: list[tuple[int, float]] = field(default_factory=list)
    """(steps, seconds ÷ ρ), newest first: what a step takes is taken as proportional to ρ, so that a change of it loses nothing."""
    first_only: bool = False
    """Whether nothing is known but the segment's first step."""
    step: int = 0
    at: datetime | None = None
    """Of the last event, where the next one tells how long the steps between took; None: something else came between."""
    began: datetime | None = None
    """When the step under way began, as far as heard; None: not known, or there is none."""

    def forget(self) -> None:
        """Another segment begins."""
        self.first_only, self.at, self.began = False, None, None
        self.stretches.clear()

    def interrupt(self, began: datetime | None = None) -> None:
        """Something other than steps took time, or the clock was set. began: the next step's begin, where that is known."""
        self.at, self.began = None, began

    def add(self, event: Step) -> None:
        """Take in an event of the segment under way."""
        if event.rho != self.rho:  # a selection was made and settled meanwhile
            self.rho, self.at = event.rho, None
        rho = max(event.rho, 0.01)
        if self.at is not None and event.step > self.step and event.at > self.at:
            if self.first_only:
                self.stretches.clear()
            self.first_only = False
            seconds = (event.at - self.at).total_seconds()
            self.stretches.insert(0, (event.step - self.step, seconds / rho))
            del self.stretches[_MOST:]
        elif not self.stretches and event.seconds > 0:
            self.stretches.insert(0, (1, event.seconds / rho))
            self.first_only = True
        self.step, self.at, self.began = event.step, event.at, event.at

    def tell(self) -> Pace | None:
        """None before the first step."""
        if not self.stretches:
            return None
        seen = sum(steps for steps, _ in self.stretches)
        if self.first_only:
            return Pace(self.rho, self.stretches[0][1] * self.rho, _FIRST_SD, 1)
        count, newest = 0, 0
        while 2 * newest < seen:
            newest += self.stretches[count][0]
            count += 1
        half = self.stretches[:count]
        pace = sum(seconds for _, seconds in half) / newest
        spread = _MAD * median(abs(seconds / steps / pace - 1) for steps, seconds in half)
        noise = (_STEP_COUNT * _STEP_SD**2 + count * spread**2) / (_STEP_COUNT + count)
        return Pace(self.rho, pace * self.rho, math.sqrt(noise / count), seen)
