"""Fits the learning rate to how a segment trains: `lr` is full fine-tuning's, and each method's best rate is a multiple of it.

The multiples stand in carbonsched/model/methods/traits.py. A scheduler's rate is multiplied for the optimizer's step alone and put back behind it, so
that schedulers, checkpoints and what other callbacks do to it stay as they are. After a change the rate climbs over some steps, and falls at once: too high
a rate does harm, too low a one costs little.
"""

from dataclasses import dataclass, field
from typing import Any

from carbonsched.model.methods.traits import METHODS, MethodTraits
from carbonsched.model.setting import Setting

RAMP_STEPS = 10
"""Optimizer steps over which the rate rises after a change during the job."""


def multiplier(
    own: MethodTraits, rho: float, setting: Setting | None = None, share: float | None = None
) -> float:
    """Best rate ÷ full's, of a method at ρ, or of the setting that a directive names. share: τ of the selection; None: every token.

    Where tensors and tokens both are chosen it is that of tokens, the lower one: what both together want was not measured. Adapters keep
    theirs at every share of tokens.

    Example:
        >>> multiplier(METHODS["greentrainer"], 0.5), multiplier(METHODS["full"], 1.0), multiplier(METHODS["tokens"], 0.5, share=0.25)
        (4.0, 1.0, 0.6)
    """
    traits = own
    if setting is not None:
        traits = METHODS.get(setting.method, own)
        share = setting.gradient_share if share is None else share
    if traits.trains_adapters:
        return traits.lr_factor(rho)
    if share is not None and share < 1:
        return METHODS["tokens"].lr_factor(share)
    return 1.0 if traits.splits_rows else traits.lr_factor(rho)


def scales_with_full(optimizer: Any) -> bool:
    """Whether the multiples hold: they were measured with AdamW, whose step is as long as its rate."""
    return "adam" in type(getattr(optimizer, "optimizer", optimizer)).__name__.lower()


@dataclass(slots=True)
class LearningRate:
    """The factor applied to the optimizer's rates.

    Example:
        >>> rate = LearningRate(on=True)
        >>> rate.aim(1.0)
        >>> rate.aim(4.0)  # the setting changed
        >>> round(rate.advance(), 3), [rate.advance() for _ in range(9)][-1]
        (1.149, 4.0)
    """

    on: bool
    """False: the rate is the user's own choice."""
    factor: float | None = None
    """The last step's factor; None before the first."""
    target: float = 1.0
    _climb: float = 1.0
    """Growth of the factor per step."""
    _kept: list[float] = field(default_factory=list)

    def aim(self, target: float) -> None:
        """Set the factor to reach from the next step on."""
        if not self.on or (target == self.target and self.factor is not None):
            return
        self.target = target
        if self.factor is None or target <= self.factor:
            self.factor = target
        self._climb = (target / self.factor) ** (1 / RAMP_STEPS)

    def advance(self) -> float:
        """Advance by one step, and return its factor."""
        factor = 1.0 if self.factor is None else self.factor * self._climb
        # behind the last step of a climb only rounding is left
        close = self._climb == 1.0 or factor * self._climb**0.5 >= self.target
        self.factor = self.target if self.factor is not None and close else factor
        return self.factor

    def raise_for_step(self, optimizer: Any) -> None:
        """Call before the optimizer's step."""
        if not self.on:
            return
        factor = self.advance()
        self._kept = [group["lr"] for group in optimizer.param_groups]
        for group in optimizer.param_groups:
            group["lr"] = group["lr"] * factor

    def put_back(self, optimizer: Any) -> None:
        """Call after it."""
        for group, rate in zip(optimizer.param_groups, self._kept, strict=False):
            group["lr"] = rate
        self._kept = []

    @property
    def applied(self) -> float:
        """The factor that was applied to the scheduler's rate in the last step."""
        return self.factor if self.on and self.factor is not None else 1.0

    def dump(self) -> tuple[float | None, float, float]:
        return self.factor, self.target, self._climb

    def restore(self, saved: tuple[float | None, float, float] | None) -> None:
        """Restore from a checkpoint; None: it is older than this feature."""
        if saved is not None:
            self.factor, self.target, self._climb = saved
