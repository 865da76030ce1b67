"""StepParts is parts.json: seconds of the parts of all steps of a run, which trainer/training/step_clock.py times."""

from carbonsched.model.base import Doc


class StepParts(Doc):
    """Seconds of the parts of all steps; what is left of a run's seconds is data and bookkeeping.

    Example:
        >>> parts = StepParts(steps=10, forward_s=3.0, backward_s=6.0, update_s=0.5)
        >>> parts.forward_s + parts.backward_s
        9.0
    """

    steps: int = 0
    """Of the optimizer."""
    forward_no_grad_s: float = 0.0
    """Forward passes without gradients, and the parts of others that run so."""
    forward_s: float = 0.0
    backward_s: float = 0.0
    clipping_s: float = 0.0
    update_s: float = 0.0

    def add(self, other: "StepParts") -> "StepParts":
        return StepParts(
            **{name: getattr(self, name) + getattr(other, name) for name in StepParts.model_fields}
        )
