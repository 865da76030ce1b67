"""Estimates the pace of the current segment's steps from the trainer's `step` events, of which there is at most one per second.

The first steps of a process are slow (cold caches, memory allocation, choice of kernels), so the newest half of the steps decides, and
their scatter gives the uncertainty. A single step says little.
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
"""Relative sd of an estimate from a process's first step alone."""
_STEP_SD, _STEP_COUNT = 0.2, 3.0
"""Prior relative sd of a stretch's pace, and how many stretches that prior is worth."""
_MAD = 1.4826
"""Standard deviation of normal noise over its median absolute deviation."""


class Pace(NamedTuple):
    """Seconds per step at a ρ.

    Example:
        >>> Pace(rho=0.5, seconds=2.5, sd=0.1, steps=6).seconds
        2.5
    """

    rho: float
    """ρ of the newest steps."""
    seconds: float
    sd: float
    """Relative standard deviation."""
    steps: int
    """Number of steps it is measured over."""


@dataclass(slots=True)
class StepPace:
    """The pace of the current segment in this process.

    Example:
        >>> from datetime import UTC, timedelta
        >>> pace, at = StepPace(), datetime(2026, 11, 1, tzinfo=UTC)
        >>> for step, after in enumerate((9.0, 11.0, 13.0, 15.0), start=1):
        ...     pace.add(Step(at=at + timedelta(seconds=after), k=0, step=step, steps=None, loss=None, lr=1e-3, seconds=2.0, rho=0.5))
        >>> pace.estimate().seconds, pace.estimate().steps
        (2.0, 3)
    """

    rho: float = 1.0
    """ρ at which the newest of these steps ran."""
    stretches: list[tuple[int, float]] = field(default_factory=list)
    """(steps, seconds ÷ ρ), newest first. Step time is taken as proportional to ρ, so that stretches at different ρ can be combined."""
    first_only: bool = False
    """Whether only the segment's first step is known."""
    step: int = 0
    at: datetime | None = None
    """Time of the last event, if the next one tells how long the steps between took; None: something else came between."""
    began: datetime | None = None
    """When the current step began, as far as events tell; None: unknown, or no step runs."""

    def forget(self) -> None:
        """A new segment begins: forget the steps so far."""
        self.first_only, self.at, self.began = False, None, None
        self.stretches.clear()

    def interrupt(self, began: datetime | None = None) -> None:
        """Something other than steps took time, or the clock was set. began: the beginning of the next step, if known."""
        self.at, self.began = None, began

    def add(self, event: Step) -> None:
        """Add an event of the current segment."""
        if event.rho != self.rho:  # selecting tensors took time meanwhile
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

    def estimate(self) -> Pace | None:
        """The estimate; None before the first step."""
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
