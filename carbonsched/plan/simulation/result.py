"""Defines the output documents of one simulation."""

from carbonsched.model.base import Doc, UtcTime
from carbonsched.plan.simulation.policies import Policy
from carbonsched.plan.simulation.request import ForecastKind


class SimSegment(Doc):
    """One segment as it ran.

    Example::

        [segment.rho for segment in simulate(request).segments]
    """

    k: int
    start: UtcTime
    end: UtcTime
    rho: float
    spent_g: float
    done: float = 1.0
    """Share of the segment's steps that ran: below 1 only if the budget ended it."""


class SimResult(Doc):
    """What `carbonsched simulate --json` prints.

    Example::

        result = simulate(request)
        print(result.spent_g, result.gain, result.oracle_gain)
    """

    policy: Policy
    forecast: ForecastKind
    spent_g: float
    budget_g: float
    floor_g: float
    """All segments at the lowest ρ, back to back from the start, at the real intensity."""
    full_g: float
    """The same at the highest ρ."""
    flops_ratio: float
    """Σ ρ over all segments, with 0 for those that did not run."""
    gain: float
    """Share of full fine-tuning's gain by the frontier given; for linear gain the FLOPs ratio."""
    oracle_gain: float | None
    """Gain of the plan with perfect knowledge: exact for fixed slots and concave gain, else within `oracle_gap`."""
    oracle_gap: float | None
    """Duality gap of the oracle's plan as a share of its bound."""
    finished: bool
    finished_at: UtcTime | None
    """None: not all segments ran."""
    missed_deadline_s: float = 0.0
    waits: int = 0
    reason: str
    """Why it ended, and the reason of the last plan."""
    flops_effect_g: float
    """Saved by fewer FLOPs: full fine-tuning in the same hours, less the spent grams."""
    timing_effect_g: float
    """Saved by the choice of hours: the same energy at the mean intensity from start to end or deadline, less the spent
    grams. Negative: the hours were dirtier than the mean."""
    at_once_effect_g: float | None = None
    """Saved by the choice of hours against running at once: the same segments at the same ρ, begun at the start and run without
    pause, less the spent grams."""
    segments: tuple[SimSegment, ...]
