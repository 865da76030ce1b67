"""Computes the learning rate of `train.scheduler = "budget"`: warm-up, a stable phase of any length, a cooldown to 0.

When the cooldown begins and how long it is comes from the daemon, step by step; what is held here goes into checkpoints, so a
resumed training goes on along the same curve. The cooldown falls as 1 − √(part of it that is done), which ends lower than a straight line does
(Hägele et al., "Scaling Laws and Compute-Optimal Training Beyond Fixed Training Durations", arXiv 2405.18392, section 3). Its first step is
below the full rate already, and the step behind its last one would be at 0: else a cooldown of one step would anneal nothing.
"""

import math
from dataclasses import asdict, dataclass, replace
from typing import Any, Self

from trainer.job.directives import Granted
from trainer.job.segment import Schedule


@dataclass(slots=True)
class BudgetSchedule:
    """How far a training has come in a schedule whose end is decided while it runs. Steps are counted from 0.

    Example:
        >>> schedule = BudgetSchedule(warmup=0, bound=1000)
        >>> schedule.obey(Granted(rho=1.0, seq=1, phase="cooldown", cooldown_steps=4), step=10)
        True
        >>> [round(schedule.factor(step), 2) for step in range(9, 14)], schedule.end
        ([1.0, 0.55, 0.37, 0.23, 0.11], 14)
    """

    warmup: int
    bound: int
    """Most steps of the job."""
    bounded: bool = False
    """Whether the job's owner gave it."""
    begin: int | None = None
    """First step of the cooldown, known before where the bound decides; None: not known yet."""
    end: int | None = None
    """Steps of the whole job."""
    anchor: int = 0
    """Step at which the cooldown's end was set last."""
    progress: float = 0.0
    """Part of the cooldown that was done before it."""

    @classmethod
    def of(cls, warmup: int, share: float, schedule: Schedule) -> Self:
        """share: of all steps, those of the cooldown. Where nobody ends it before, it begins in time for the owner's bound."""
        bound = schedule.most_steps
        if bound is None:
            return cls(warmup, schedule.steps)
        begin = bound - max(math.ceil(share * bound), 1)
        return cls(warmup, bound, True, begin, bound, begin)

    @property
    def steps(self) -> int:
        """Of the whole job, as far as decided."""
        return self.bound if self.end is None else self.end

    def is_cooling(self, step: int) -> bool:
        """Whether step `step` belongs to the cooldown."""
        return self.begin is not None and step >= self.begin

    def is_over(self, step: int) -> bool:
        """Whether all steps are done after `step` of them."""
        return step >= self.steps

    def cools_from(self, step: int) -> int | None:
        """First step of the cooldown, if it has begun by step `step`."""
        return self.begin if self.is_cooling(step) else None

    def segment_end(self, step: int) -> dict[str, Any]:
        """What the end of a segment after `step` steps says of it."""
        return {"phase": "cooldown" if self.is_cooling(step - 1) else "stable", "last": self.is_over(step)}

    def factor(self, step: int) -> float:
        """The learning rate of step `step` ÷ the job's."""
        warm = min(step / self.warmup, 1.0) if self.warmup else 1.0
        return warm * (1 - math.sqrt(self._done(step))) if self.is_cooling(step) else warm

    def obey(self, granted: Granted, step: int) -> bool:
        """Take in what a directive says after `step` steps; whether the end of the job is another one now.

        A cooldown that has begun is never undone: its end alone may move, and the rate goes on from where it is.
        """
        if granted.phase != "cooldown" or granted.cooldown_steps is None:
            return False
        cooling = self.is_cooling(step)
        if cooling and self.is_over(step):
            return False  # its rate is at 0: what came later would train nothing
        begin = granted.cooldown_from
        if begin is None:
            begin = self.begin if cooling and self.begin is not None else step
        end = max(
            min(begin + granted.cooldown_steps, self.bound), step + 1
        )  # a step that was granted is taken
        if cooling:
            if end == self.end:
                return False
            self.progress, self.anchor = self._done(step - 1), step
        elif (begin, end) == (self.begin, self.end):
            return False
        else:
            self.begin, self.anchor, self.progress = begin, begin, 0.0
        self.end = end
        return True

    def narrow(self, schedule: Schedule, step: int) -> Schedule:
        """`schedule` as far as it is known after `step` steps."""
        if self.is_cooling(step):
            return replace(schedule, steps=self.steps, is_open=False, keeps_remainder=True)
        most = self.bound if self.bounded else None
        return replace(schedule, steps=self.bound, is_open=True, keeps_remainder=True, most_steps=most)

    def dump(self) -> dict[str, Any]:
        """As JSON, for a checkpoint."""
        return asdict(self)

    def load(self, saved: dict[str, Any] | None) -> None:
        """Go on from what `dump` gave; None: a checkpoint without it."""
        for name, value in (saved or {}).items():
            setattr(self, name, value)

    def _done(self, step: int) -> float:
        """Part of the cooldown that is done with step `step`."""
        if step >= self.steps:
            return 1.0
        ahead = self.steps - self.anchor + 1
        return self.progress + (1 - self.progress) * max(step - self.anchor + 1, 0) / ahead
