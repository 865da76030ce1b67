"""Held-out losses of a job: the evaluated ones, and the planner's predictions of the final one."""

from typing import Any

from carbonsched.model.base import Doc, UtcTime


class Validation(Doc):
    """One evaluation on held-out rows.

    Example:
        >>> Validation(at="2026-11-22T10:00:00Z", when="after", step=120, loss=2.41, samples=64, tokens=900).metrics
        {}
    """

    at: UtcTime
    when: str
    step: int
    loss: float
    samples: int
    tokens: int
    metrics: dict[str, Any] = {}


class ForetoldLoss(Doc):
    """A predicted held-out loss of a job's end, and the actual one. Estimated.

    Example:
        >>> ForetoldLoss(at="2026-11-22T10:00:00Z", k=0, loss=2.87, low=2.85, high=2.89, basis="its own losses", seen=2.88).seen
        2.88
    """

    at: UtcTime
    k: int
    """Segment before which it was predicted."""
    loss: float
    low: float
    """Nine of ten jobs should end in this band."""
    high: float
    basis: str
    seen: float | None
    """Actual held-out loss after the last step; None: not evaluated (yet)."""


class ForetoldLosses(Doc):
    """The first and the last prediction.

    Example::

        off = report.foretold.first.loss - report.foretold.first.seen
    """

    first: ForetoldLoss
    last: ForetoldLoss

    @property
    def words(self) -> str:
        """For people: the predictions, the actual loss, and whether it is in the band."""
        told = "; ".join(
            f"before segment {one.k + 1} {one.loss:.3f}, likely {one.low:.3f} to {one.high:.3f}"
            for one in ((self.first,) if self.first.k == self.last.k else (self.first, self.last))
        )
        seen = self.first.seen
        if seen is None:
            came = "What it came to was not evaluated"
        else:
            outside = not self.first.low <= seen <= self.first.high
            came = f"It came to {seen:.3f}{', outside of what was told first' if outside else ''}"
        return f"Expected loss at the end, nats a token: {told}. {came}. Estimated, from {self.last.basis}."
