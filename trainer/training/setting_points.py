"""Tells the daemon which settings a segment can train in, and what each should gain before the job's own losses are weighed."""

from collections.abc import Sequence

from carbonsched.model.methods.efficiency import prior_efficiency, prior_fall
from carbonsched.model.setting import Setting, SettingPoint
from trainer.job.segment import SegmentRecord

_Z = 1.645
"""Standard deviations of a band that contains nine of ten."""


def offer(
    settings: Sequence[tuple[Setting, float]],
    floor: float,
    segment: SegmentRecord,
    loss: float | None,
    all_linear: bool = True,
) -> tuple[SettingPoint, ...]:
    """The points of a segment's `segment_ready`. floor: of ρ; loss: the newest one known, None: none; all_linear: where adapters go."""
    steps = segment.end - segment.step
    points = []
    for setting, rho in settings:
        worth = prior_efficiency(
            setting.method, rho, floor=floor, share=setting.gradient_share, all_linear=all_linear
        )
        fall = prior_fall(loss, segment.step, steps * worth.median)
        spread = _Z * (fall.sd**2 + worth.sd**2) ** 0.5
        points.append(
            SettingPoint(
                setting=setting,
                rho=rho + segment.importance_share,
                gain=fall.nats,
                low=fall.nats * max(1 - spread, 0.0),
                high=fall.nats * (1 + spread),
            )
        )
    return tuple(points)
