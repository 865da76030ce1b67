"""The savings, each effect separate: grams against one counterfactual, with the facts that must be read beside them."""

from typing import Self

from carbonsched.model.base import Doc


class Effect(Doc):
    """Grams saved against one counterfactual, positive if fewer were emitted than in the counterfactual.

    Example:
        >>> effect = Effect(saved_g=20, share=0.2, baseline_g=100, low_g=15, high_g=25, estimated=True,
        ...     against="full fine-tuning", formula="Σ …")
        >>> effect.saved_g / effect.baseline_g == effect.share
        True
    """

    saved_g: float | None
    share: float | None
    """saved_g ÷ baseline_g."""
    baseline_g: float | None
    low_g: float | None
    """saved_g at the ends of the range of the estimates; equal to it if nothing was estimated."""
    high_g: float | None
    estimated: bool
    against: str
    formula: str
    inputs: dict[str, float] = {}
    """The input numbers beside the rows themselves."""
    reason: str | None = None
    """Why saved_g is null."""

    @classmethod
    def unknown(cls, against: str, formula: str, reason: str, *, estimated: bool) -> Self:
        """An unknown effect with its reason."""
        return cls(
            saved_g=None,
            share=None,
            baseline_g=None,
            low_g=None,
            high_g=None,
            estimated=estimated,
            against=against,
            formula=formula,
            reason=reason,
        )


class Quality(Doc):
    """Required beside a FLOPs effect: the loss that was reached, and the alternative without selection.

    Example:
        >>> Quality(loss_before=5.0, loss_after=2.9, steps=100, same_flops_steps=60.4).alternative.partition(":")[0]
        'against the alternative of full fine-tuning for 60 of the 100 steps, which takes the same FLOPs'
    """

    loss_before: float | None
    """Held out, nats per target token; None: not evaluated."""
    loss_after: float | None
    steps: int
    """Steps of the finished segments."""
    same_flops_steps: float | None
    """Steps of full fine-tuning that take as many FLOPs; None: no FLOPs are known."""

    @property
    def held_out(self) -> str:
        """For people."""
        if self.loss_before is None and self.loss_after is None:
            return "held-out loss not evaluated"
        before, after = (
            "not evaluated" if x is None else f"{x:.4f}" for x in (self.loss_before, self.loss_after)
        )
        return f"held-out loss {before} before, {after} after"

    @property
    def alternative(self) -> str:
        """For people."""
        if self.same_flops_steps is None:
            return "the alternative of fewer full steps is not known"
        return (
            f"against the alternative of full fine-tuning for {self.same_flops_steps:.0f} of the {self.steps} steps, which takes the "
            "same FLOPs: what its loss would be was not measured here, and where it is as low nothing was saved"
        )


class Savings(Doc):
    """Never one number: the savings by avoided waste, fewer FLOPs and the hours, each separate (docs/reports.md).

    Example::

        savings = report.savings
        print(savings.flops.saved_g, "by fewer FLOPs;", savings.timing.saved_g, "by its hours")
    """

    waste: Effect
    """Of avoided padding and of logits without a loss."""
    flops: Effect
    quality: Quality
    """To be read with `flops`."""
    timing: Effect
    """Against running at once: chosen and forced waits together."""
    chosen: Effect
    """The part of the waits that the planner chose."""
    forced: Effect
    """The part of the queue, pauses by the owner, and outages."""
    mean_intensity: Effect
    """No effect of a decision: against the mean of a period with hours in which the job would never have run."""
    clocks: Effect | None = None
    """Savings by lower graphics clocks; None: none was ever locked."""
