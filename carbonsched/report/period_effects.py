"""Sums the savings of the jobs that ended in a period, each effect separate, and names the jobs that are left out. Pure.

A job counts completely in the period in which it ended: an effect covers a run from its submission to its end, and a part of one has none.
"""

from collections.abc import Callable, Iterable, Sequence
from datetime import datetime
from typing import Final

from carbonsched.ledger.records import JobRecord
from carbonsched.model.base import Doc
from carbonsched.report.effects import Effect, Savings

EFFECTS: Final = ("waste", "flops", "timing", "chosen", "forced", "clocks")
"""Names of `Savings`; `mean_intensity` is not the effect of a decision."""
MOST_LEFT_OUT: Final = 1_000
SUMMED: Final = (
    "Each job counts whole, in the period in which it ended, with what its own report says. The effects answer different questions and "
    "are not added up; a range is the sum of the jobs' own."
)
"""For people."""
_NOTHING: Final = 1e-9
"""Grams: a share of a nanogram is undefined."""
Find = Callable[[JobRecord], Savings | str | None]
"""The savings of a job, or why they are unknown; None: it was not scheduled."""


class SummedEffect(Doc):
    """Grams that several jobs saved against their counterfactuals, by their own reports.

    Example:
        >>> SummedEffect(saved_g=20, share=0.2, baseline_g=100, low_g=15, high_g=25, estimated=True, jobs=4).jobs
        4
    """

    saved_g: float | None
    """None: it is unknown for every job."""
    share: float | None
    """saved_g ÷ baseline_g."""
    baseline_g: float | None
    low_g: float | None
    """The sum of the jobs' own lower ends: as if all errors had the same direction."""
    high_g: float | None
    estimated: bool
    jobs: int
    """Number of jobs with a known effect."""


class LeftOut(Doc):
    """A job that is left out of all sums, or of one effect's.

    Example:
        >>> LeftOut(job="a-1", effect=None, why="is not over").job
        'a-1'
    """

    job: str
    effect: str | None
    """None: all effects."""
    why: str


class PeriodEffects(Doc):
    """The effects of the jobs that ended in a period. Never one number, as with a job.

    Example::

        for name, effect in report.effects.sums.items():
            print(name, effect.saved_g, "of", effect.jobs, "jobs")
    """

    sums: dict[str, SummedEffect]
    """By effect: waste, flops, timing, chosen, forced, clocks."""
    jobs: tuple[str, ...]
    """The jobs in the sums."""
    left_out: tuple[LeftOut, ...]
    more_left_out: int = 0
    """Number beyond the longest list of a report."""

    @property
    def reasons(self) -> dict[tuple[str, str], list[str]]:
        """(effect or `all`, reason) → the jobs that are left out for that reason; for people."""
        found: dict[tuple[str, str], list[str]] = {}
        for left in self.left_out:
            found.setdefault((left.effect or "all", left.why), []).append(left.job)
        return found


def period_effects(
    jobs: Iterable[JobRecord], span: tuple[datetime | None, datetime | None], find: Find
) -> PeriodEffects | None:
    """jobs: those with rows in the period; span: [start, end), None: open. None if there are no jobs."""
    found: dict[str, Savings] = {}
    left: list[LeftOut] = []
    every = sorted(jobs, key=lambda job: job.id)
    for job in every:
        saved = (
            _outside(job, span) or find(job) or "was not scheduled: a command that carbonsched run started"
        )
        if isinstance(saved, str):
            left.append(LeftOut(job=job.id, effect=None, why=saved))
        else:
            found[job.id] = saved
    if not every:
        return None
    sums: dict[str, SummedEffect] = {}
    for name in EFFECTS:
        told: list[Effect] = []
        for job_id, saved in found.items():
            effect: Effect | None = getattr(saved, name)
            if effect is None:
                continue  # no clock was ever locked
            if effect.saved_g is None:
                left.append(LeftOut(job=job_id, effect=name, why=effect.reason or "is not known"))
            else:
                told.append(effect)
        sums[name] = _sum(told)
    return PeriodEffects(
        sums=sums,
        jobs=tuple(found),
        left_out=tuple(left[:MOST_LEFT_OUT]),
        more_left_out=max(len(left) - MOST_LEFT_OUT, 0),
    )


def _outside(job: JobRecord, span: tuple[datetime | None, datetime | None]) -> str | None:
    """Why a job does not belong to the period."""
    start, end = span
    if not job.state.ended or job.ended_at is None:
        return "is not over"
    if start is not None and job.ended_at < start:
        return "ended before the period"
    if end is not None and job.ended_at >= end:
        return "ended after the period"
    return None


def _sum(told: Sequence[Effect]) -> SummedEffect:
    if not told:
        return SummedEffect(
            saved_g=None, share=None, baseline_g=None, low_g=None, high_g=None, estimated=False, jobs=0
        )
    saved, baseline = sum(e.saved_g or 0.0 for e in told), sum(e.baseline_g or 0.0 for e in told)
    return SummedEffect(
        saved_g=saved,
        share=saved / baseline if baseline > _NOTHING else None,
        baseline_g=baseline,
        low_g=sum(e.low_g or 0.0 for e in told),
        high_g=sum(e.high_g or 0.0 for e in told),
        estimated=any(e.estimated for e in told),
        jobs=len(told),
    )
