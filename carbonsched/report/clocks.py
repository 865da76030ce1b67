"""Computes the clocks effect: the savings of a lower graphics clock, against the same FLOPs at the board's own clock.

Let the training of a segment k, whose steps ran at a locked clock, take e_k joules and g_k grams. At the board's own clock the
same steps at the same ρ_k would have taken steps_k · E(ρ_k), with E the line fitted to this job's segments at the board's own
clock; so they would have emitted g_k · steps_k · E(ρ_k) ÷ e_k. The range is two standard deviations of that line and of one
segment about it. FLOPs effect and waste effect use the clocks that really were set.
"""

from collections.abc import Mapping, Sequence
from datetime import timedelta

from carbonsched.ledger.records import SegmentRecord
from carbonsched.model.clock_changes import ClockChange, MixedClocksError, clock_during
from carbonsched.report.effects import Effect
from carbonsched.report.savings import Spent, fitted

_AGAINST = "the same segments, at the same ρ and hours, at the board's own clock"
_FORMULA = "Σ training grams_k · (steps_k · E(ρ_k) ÷ training joules_k − 1) over segments at a locked clock, E from those at the board's own"


def clocks_effect(
    segments: Sequence[SegmentRecord], spent: Mapping[int, Spent], changes: Sequence[ClockChange]
) -> Effect | None:
    """None if no clock was ever locked. `segments`: the attempts that count; `spent`: energy and grams of their training, by k."""
    if not any(change.mhz for change in changes):
        return None
    known = [record for record in segments if record.k in spent and spent[record.k].energy_j > 0]
    own = [record for record in known if clock_of(record, changes) == (None, True)]
    locked = [record for record in known if clock_of(record, changes)[0] is not None]
    if not own or not locked:
        which = "at the board's own clock" if locked else "at a locked clock throughout"
        return _effect(None, None, None, {}, f"no finished segment of known energy ran {which}")
    line = fitted(own, spent).energy_line()
    saved = low = high = baseline = 0.0
    for record in locked:
        took, rho = spent[record.k], record.done.rho_realised
        ratio = line.at(rho) * record.done.steps / took.energy_j
        spread = 2 * line.sigma_at(rho)
        saved += took.grams * (ratio - 1)
        low += took.grams * (ratio * (1 - spread) - 1)
        high += took.grams * (ratio * (1 + spread) - 1)
        baseline += took.grams * ratio
    inputs = {
        "segments": float(len(locked)),
        "lowest_mhz": float(min(change.mhz for change in changes if change.mhz)),
        "locked_g": baseline,
    }
    return _effect(saved, low, high, inputs, None, baseline)


def clock_of(record: SegmentRecord, changes: Sequence[ClockChange]) -> tuple[int | None, bool]:
    """MHz that the board was locked at while a segment's steps ran, None: its own; and whether the clock was constant."""
    done = record.done
    steps_s = max(done.seconds - done.importance_seconds - done.selection_seconds, 0.0)
    try:
        return clock_during(changes, record.end - timedelta(seconds=steps_s), record.end), True
    except MixedClocksError:
        return None, False


def _effect(
    saved: float | None,
    low: float | None,
    high: float | None,
    inputs: dict[str, float],
    reason: str | None,
    baseline: float | None = None,
) -> Effect:
    return Effect(
        saved_g=saved,
        share=saved / baseline if saved is not None and baseline else None,
        baseline_g=baseline,
        low_g=low,
        high_g=high,
        estimated=True,
        against=_AGAINST,
        formula=_FORMULA,
        inputs=inputs,
        reason=reason,
    )
