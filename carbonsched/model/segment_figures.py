"""The figures of a finished segment, written once: for `show`, for reports and for model cards.

What the trainer reported of the segment (ρ, FLOPs, loss) and what the ledger charged to it (joules, grams) meet here. The
ledger stands above the documents, so its records come in as protocols.
"""

from datetime import datetime
from typing import Any, Protocol, Self

from carbonsched.model.base import Doc, UtcTime
from carbonsched.model.protocol import SegmentDone, Waste
from carbonsched.model.setting import Setting


class FinishedSegment(Protocol):
    """One attempt at a segment, as the ledger keeps it (`carbonsched.ledger.SegmentRecord`).

    Example::

        def seconds(segment: FinishedSegment) -> float:
            return (segment.end - segment.start).total_seconds()
    """

    @property
    def start(self) -> datetime: ...
    @property
    def end(self) -> datetime: ...
    @property
    def done(self) -> SegmentDone: ...
    @property
    def price(self) -> float | None: ...
    @property
    def reason(self) -> str: ...


class Charged(Protocol):
    """What was charged to it (`carbonsched.ledger.Totals`): known joules and grams, gCO2e per kWh, watts.

    Example::

        def kwh(charged: Charged) -> float:
            return charged.energy_j / J_PER_KWH
    """

    @property
    def energy_j(self) -> float: ...
    @property
    def grams(self) -> float: ...
    @property
    def g_per_kwh(self) -> float | None: ...
    @property
    def power_w(self) -> float | None: ...


class SegmentFigures(Doc):
    """A finished segment: how it was directed, planned and realised, and what it took.

    Example::

        sums = ledger.segment_totals(job_id)
        figures = [SegmentFigures.of(segment, sums[segment.k]) for segment in ledger.segments(job_id)]
    """

    k: int
    start: UtcTime
    end: UtcTime
    setting: Setting | None = None
    """That it was directed to train in; None: as the job's own method trains at ρ."""
    rho_directed: float
    rho_planned: float
    rho_realised: float
    flops: float
    flops_full: float
    flops_own: float | None = None
    """Of the same steps as their user would have run them, frozen weights frozen; None: not known."""
    rho_own: float | None = None
    """`flops` ÷ `flops_own`."""
    waste: Waste | None = None
    """What a stock Trainer would have computed beyond `flops_full`; None: not known."""
    waste_unknown: str | None = None
    """Why not."""
    steps: int
    loss: float | None
    energy_j: float
    """Everything charged to the segment, interrupted attempts included."""
    spent_g: float
    g_per_kwh: float | None
    """Energy-weighted mean over the segment."""
    power_w: float | None
    price: float | None
    """λ, importance per gram."""
    reason: str
    """The planner's, in words."""
    selected: tuple[str, ...]
    departure: str | None = None
    """What did not go as planned, in words."""

    @classmethod
    def of(cls, segment: FinishedSegment, charged: Charged, **more: Any) -> Self:
        """The document of a segment; `more`: the fields that a document built on this one adds."""
        done = segment.done
        return cls(
            k=done.k,
            start=segment.start,
            end=segment.end,
            setting=done.setting,
            rho_directed=done.rho_directed,
            rho_planned=done.rho_planned,
            rho_realised=done.rho_realised,
            flops=done.flops,
            flops_full=done.flops_full,
            flops_own=done.flops_own,
            rho_own=done.rho_own,
            waste=done.waste,
            waste_unknown=done.waste_unknown,
            steps=done.steps,
            loss=done.loss,
            energy_j=charged.energy_j,
            spent_g=charged.grams,
            g_per_kwh=charged.g_per_kwh,
            power_w=charged.power_w,
            price=segment.price,
            reason=segment.reason,
            selected=done.selected,
            departure=done.departure,
            **more,
        )
