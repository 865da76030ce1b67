"""Explains why a segment's realised ρ differs from its planned one."""

from collections.abc import Mapping
from typing import Any

from trainer.job.segment import SegmentRecord

MOST = 0.02
"""Realised ρ may differ this much from the planned one without a report."""


def departure(segment: SegmentRecord, order: str | None = None, skips: str | None = None) -> str | None:
    """What went wrong in a segment that has ended, in words; None: it went as planned.

    order: what decides the order of its rows, if that cannot be predicted; skips: the result of `skipped_layers`.

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
    why = segment.fault or _likely_cause(segment, realised - planned, order, skips)
    return f"realised rho {realised:.3f} is not the planned {planned:.3f}: {why}"


def skipped_layers(config: Any) -> str | None:
    """The setting by which a model drops layers at random during training; None: there is none.

    Example:
        >>> from types import SimpleNamespace
        >>> skipped_layers(SimpleNamespace(to_dict=lambda: {"dropout": 0.1, "encoder_layerdrop": 0.05}))
        'encoder_layerdrop = 0.05'
    """
    if not hasattr(config, "to_dict"):
        return None
    left: list[Mapping[str, Any]] = [config.to_dict()]
    while left:
        for name, value in left.pop().items():
            if isinstance(value, Mapping):
                left.append(value)
            elif "layerdrop" in str(name) and isinstance(value, float) and value > 0:
                return f"{name} = {value:g}"
    return None


def _likely_cause(segment: SegmentRecord, off: float, order: str | None, skips: str | None) -> str:
    full = segment.flops_full
    spread = segment.importance_flops / full - segment.importance_share
    kept = -segment.spared / full
    counted = "the counted step did other work than was profiled, in the loss or in what the model does with these batches"
    if skips is not None:
        counted = (
            f"the model leaves out layers at random ({skips}), and the step that was counted is one draw"
        )
    causes = {
        _other_batches(segment, order): spread,
        "the activation cache filled while it ran, and its steps cost less than those that were planned": kept,
        counted: off - spread - kept,
    }
    return max(causes, key=lambda cause: abs(causes[cause]))


def _other_batches(segment: SegmentRecord, order: str | None) -> str:
    if segment.passes > 1:
        return f"the loss runs the model {segment.passes:g} times per batch, one was foreseen"
    if segment.cut_from is not None:
        return f"it ended after {segment.steps} of {segment.cut_from} steps, and importance was measured for all of them"
    ratio = segment.flops_full / segment.expected_full - 1
    other = f"its batches took {abs(ratio):.0%} {'less' if ratio < 0 else 'more'} than was foreseen"
    return f"{other}, for {order} does not tell its order before" if order else other
