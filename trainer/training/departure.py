"""Says where a segment's realised ρ left its planned one, and what the likely cause is."""

from trainer.job.segment import SegmentRecord

MOST = 0.02
"""Realised ρ may be so far off the planned one before it is said."""


def departure(segment: SegmentRecord, order: str | None = None) -> str | None:
    """What is amiss with a segment that has ended, in words; None: it went as planned.

    order: what decides the order of its rows, where that cannot be foreseen.

    Example:
        >>> segment = SegmentRecord(k=0, first=0, end=1, expected_full=100.0)
        >>> segment.select(("lm_head.weight",), cost_ratio=0.6)
        >>> segment.add_step(100.0, seconds=1.0, counted=95.0, recomputed=0.0)
        >>> departure(segment)
        'realised rho 0.950 is not the planned 0.600: the counted step did other work than was profiled, in the loss or in what the model does with these batches'
    """
    planned, realised = segment.rho_planned, segment.rho_realised
    if abs(realised - planned) <= MOST:
        return segment.fault
    why = segment.fault or _likely_cause(segment, realised - planned, order)
    return f"realised rho {realised:.3f} is not the planned {planned:.3f}: {why}"


def _likely_cause(segment: SegmentRecord, off: float, order: str | None) -> str:
    full = segment.flops_full
    spread = segment.importance_flops / full - segment.importance_share
    causes = {
        _other_batches(segment, order): spread,
        "the counted step did other work than was profiled, in the loss or in what the model does with these batches": (
            off - spread
        ),
    }
    return max(causes, key=lambda cause: abs(causes[cause]))


def _other_batches(segment: SegmentRecord, order: str | None) -> str:
    if segment.cut_from is not None:
        return f"it ended after {segment.steps} of {segment.cut_from} steps, and importance was measured for all of them"
    ratio = segment.flops_full / segment.expected_full - 1
    other = f"its batches took {abs(ratio):.0%} {'less' if ratio < 0 else 'more'} than was foreseen"
    return f"{other}, for {order} does not tell its order before" if order else other
