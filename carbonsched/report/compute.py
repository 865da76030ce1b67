"""Counts computation and its cost: FLOPs, embodied emissions, SCI, and the EU AI Act's requirement for fine-tuning.

SCI is (energy × intensity + embodied) ÷ R, with energy including PUE and the location's intensity: the standard excludes market instruments.
"""

from collections.abc import Sequence
from typing import Final

from carbonsched.ledger.records import SegmentRecord
from carbonsched.ledger.totals import Group
from carbonsched.model.accounting import Accounting, BaseModelCompute
from carbonsched.model.base import Doc

UNKNOWN_BASE_FLOP: Final = 3.3e22
"""A third of 10²³, from which on a model counts as a general-purpose one."""
AI_ACT_SOURCE: Final = (
    "European Commission, guidelines on the scope of the obligations for providers of general-purpose AI models under the AI Act "
    "(July 2025): who modifies a model is its provider where that took more than a third of the original model's training "
    "compute, or of 10^23 FLOP where that is not known"
)


class Compute(Doc):
    """FLOPs of a job's training.

    Example:
        >>> Compute(flop=2e15, flop_of_segments=2e15, flop_full=4e15, steps=100, base_flop=None, base_source=None).above
        False
    """

    flop: float
    """Executed by all finished attempts of all segments, including repeated ones, by the trainer's count. It does not include segments that
    were cut off, evaluation, and recomputation in a backward pass."""
    flop_of_segments: float
    """The part of the attempts that count."""
    flop_full: float
    """FLOP of full fine-tuning of the same segments."""
    steps: int
    base_flop: float | None
    """Training compute of the base model; None: not stated."""
    base_source: str | None

    @property
    def threshold(self) -> float:
        """FLOP above which a fine-tuner becomes a provider."""
        return UNKNOWN_BASE_FLOP if self.base_flop is None else self.base_flop / 3

    @property
    def above(self) -> bool:
        return self.flop > self.threshold


class Embodied(Doc):
    """Embodied emissions of the hardware, in proportion to the report: board hours ÷ the life of a board × the emissions of making one.

    Example:
        >>> Embodied(board_h=10, life_h=26280, kg=150, spent_g=57.1, low_g=30, high_g=90, source="Boavizta").spent_g
        57.1
    """

    board_h: float
    """Hours in which boards were charged; the host is not included."""
    life_h: float
    kg: float
    """Of the manufacture of one board."""
    spent_g: float
    low_g: float
    high_g: float
    source: str


class Sci(Doc):
    """Grams per unit of work; None: the number of units is unknown.

    Example:
        >>> Sci(spent_g=100, operational_g=90, embodied_g=10, per_job=100, per_step=1, per_flop=1e-15, per_full_flop=5e-16).per_step
        1.0
    """

    spent_g: float
    """Energy × intensity + embodied."""
    operational_g: float
    embodied_g: float | None
    """None: not stated, and not part of the sum."""
    per_job: float | None
    per_step: float | None
    per_flop: float | None
    """Per executed FLOP."""
    per_full_flop: float | None
    """Per FLOP of full fine-tuning of the same steps."""
    per_token: float | None = None
    no_tokens: str = "the trainer does not tell how many tokens it trained on"


def compute(attempts: Sequence[SegmentRecord], base: BaseModelCompute | None) -> Compute | None:
    """attempts: all, including those without effect. None: no segment finished."""
    if not attempts:
        return None
    counted = {attempt.k: attempt.done for attempt in sorted(attempts, key=lambda a: a.attempt)}.values()
    return Compute(
        flop=sum(attempt.done.flops for attempt in attempts),
        flop_of_segments=sum(done.flops for done in counted),
        flop_full=sum(done.flops_full for done in counted),
        steps=sum(done.steps for done in counted),
        base_flop=base.flop if base else None,
        base_source=base.source if base else None,
    )


def embodied(groups: Sequence[Group], stated: Accounting) -> Embodied | None:
    """None: the config does not state the emissions of making a board."""
    if stated.embodied_kg is None or stated.embodied_life_h is None or stated.embodied_source is None:
        return None
    hours = sum(group.seconds for group in groups if group.board != "host") / 3600
    part = hours / stated.embodied_life_h * 1000
    low, high = stated.embodied_low_kg, stated.embodied_high_kg
    return Embodied(
        board_h=hours,
        life_h=stated.embodied_life_h,
        kg=stated.embodied_kg,
        spent_g=part * stated.embodied_kg,
        low_g=part * (stated.embodied_kg if low is None else low),
        high_g=part * (stated.embodied_kg if high is None else high),
        source=stated.embodied_source,
    )


def sci(location_g: float, made: Embodied | None, done: Compute | None, jobs: int) -> Sci:
    """jobs: number of jobs of the grams."""
    whole = location_g + (made.spent_g if made else 0.0)

    def per(count: float) -> float | None:
        return whole / count if count else None

    return Sci(
        spent_g=whole,
        operational_g=location_g,
        embodied_g=made.spent_g if made else None,
        per_job=per(jobs),
        per_step=per(done.steps if done else 0),
        per_flop=per(done.flop if done else 0.0),
        per_full_flop=per(done.flop_full if done else 0.0),
    )
