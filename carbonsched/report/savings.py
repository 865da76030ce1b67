"""Computes what a job saved against two counterfactuals, each with its formula, its inputs and its assumptions.

FLOPs effect, estimated. Against what the user would have run at the same hours: full fine-tuning, or with frozen weights or
adapters the training of all the rest, at ratio ρ'_k = FLOPs of that ÷ T_full (1 where the trainer did not tell). A finished
segment k, whose training (importance and steps, see `training`) took e_k joules and g_k grams, would have taken
e_k × (c0 + (1 − c0)·ρ'_k) ÷ (c0 + (1 − c0)·ρ_k); so g_k grows by g_k × that factor − g_k, and waiting, loading, evaluation and checkpoints stay as they were. c0, the share of
a step's energy that ρ does not move, is fitted from this job's own metered segments by the planner's robust line; the
range is c0 ± 2 standard deviations. Where ρ hardly varied c0 is the prior's (the forward pass, 1/3) and the range wide.

Timing effect, from the rows alone. Against the same joules, so the same ρ, at the mean intensity of the job's span:
Σ E·PUE·(mean − intensity) over rows where both are known; mean is time-weighted from the job's start to its last row,
hours in which it waited included.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from carbonsched.ledger.records import SegmentRecord
from carbonsched.report.parts import Effect, Savings
from carbonsched.units import J_PER_KWH, MJ_PER_J

if TYPE_CHECKING:
    from carbonsched.plan.energy_fit import EnergyFit

_FULL = 1 - 1e-6
"""From here on a ratio is that of full fine-tuning: tensors that cost nothing may be frozen."""
_FLOPS_AGAINST = "full fine-tuning (ρ = 1) of the same segments at the same hours"
_FLOPS_FORMULA = (
    "Σ training grams_k · (1 / (c0 + (1 − c0)·ρ_k) − 1), ρ_k realised, c0 from the metered segments"
)
_OWN_AGAINST = (
    "the user's own run (all that was left trainable trained) of the same segments at the same hours"
)
_OWN_FORMULA = (
    "Σ training grams_k · ((c0 + (1 − c0)·ρ'_k) / (c0 + (1 − c0)·ρ_k) − 1), ρ_k realised, ρ'_k of the user's own run, "
    "c0 from the metered segments"
)
_TIMING_AGAINST = "the same joules at the mean intensity of the job's span"
_TIMING_FORMULA = "Σ energy · PUE · (mean intensity − intensity) over the rows where both are known"


@dataclass(frozen=True, slots=True)
class Charged:
    """What the rows say, as far as savings need it.

    Example:
        >>> timing_effect(Charged(3.6e9, 100.0, 125.0, estimated=False)).saved_g  # 1 kWh at the mean would emit 125 g
        25.0
    """

    facility_mj: float
    """Σ energy × PUE over rows whose intensity is known."""
    grams: float
    """Of the same rows."""
    mean_g_per_kwh: float | None
    """Time-weighted over the job's span."""
    estimated: bool


@dataclass(frozen=True, slots=True)
class Spent:
    """Known energy and grams of some rows.

    Example:
        >>> Spent(energy_j=3.6e6, grams=120.0).grams
        120.0
    """

    energy_j: float
    grams: float


def savings(segments: Sequence[SegmentRecord], spent: Mapping[int, Spent], charged: Charged) -> Savings:
    """`segments`: the attempts that count; `spent`: what their training took, by k."""
    return Savings(flops=flops_effect(segments, spent, charged.grams), timing=timing_effect(charged))


def timing_effect(charged: Charged) -> Effect:
    """Grams that the hours chosen saved; the formula is in the module's docstring."""
    mean = charged.mean_g_per_kwh
    if mean is None or charged.facility_mj <= 0:
        reason = "no row has both energy and intensity"
        return _unknown(_TIMING_AGAINST, _TIMING_FORMULA, reason, estimated=charged.estimated)
    baseline = charged.facility_mj / MJ_PER_J / J_PER_KWH * mean
    saved = baseline - charged.grams
    return Effect(
        saved_g=saved,
        share=saved / baseline if baseline > 0 else None,
        baseline_g=baseline,
        low_g=saved,
        high_g=saved,
        estimated=charged.estimated,
        against=_TIMING_AGAINST,
        formula=_TIMING_FORMULA,
        inputs={"mean_g_per_kwh": mean},
    )


def flops_effect(segments: Sequence[SegmentRecord], spent: Mapping[int, Spent], grams: float) -> Effect:
    """Grams that fewer FLOPs saved; the formula is in the module's docstring. `grams`: all that the job emitted, the part outside segments unchanged in the counterfactual."""
    known = [record for record in segments if record.k in spent and spent[record.k].energy_j > 0]
    if not known:
        reason = "no finished segment has known energy yet"
        return _unknown(_FLOPS_AGAINST, _FLOPS_FORMULA, reason, estimated=True)
    fit = _fitted(known, spent)
    line, model = fit.energy_line(), fit.model()
    spread = 2 * math.sqrt(max(line.covariance[2], 0.0)) / line.full
    shares = [line.c0, min(line.c0 + spread, 1.0), max(line.c0 - spread, 0.0)]
    saved, low, high = (_saved(known, spent, c0) for c0 in shares)
    own = min(map(_own_ratio, known))
    own_run = own < _FULL
    return Effect(
        saved_g=saved,
        share=saved / (grams + saved) if grams + saved > 0 else None,
        baseline_g=grams + saved,
        low_g=low,
        high_g=high,
        estimated=True,
        against=_OWN_AGAINST if own_run else _FLOPS_AGAINST,
        formula=_OWN_FORMULA if own_run else _FLOPS_FORMULA,
        inputs={
            **({"rho_own_run": own} if own_run else {}),
            "c0": line.c0,
            "c0_low": shares[2],
            "c0_high": shares[1],
            "c0_from_prior": float(not model.slope_known),
        },
    )


def training(segment: SegmentRecord, total: Spent, stepped: Spent | None) -> Spent:
    """What importance, selection and steps of a segment took: of `total` charged to it, `stepped` while steps ran.

    The importance pass and the selection before the first step are added by their seconds at the steps' power. Where
    no row fell into the steps (a segment shorter than a tick) the total is shared by time.
    """
    done = segment.done
    before_s = done.importance_seconds + done.selection_seconds
    if stepped is not None and stepped.energy_j > 0 and done.seconds > before_s:
        factor = min(done.seconds / (done.seconds - before_s), total.energy_j / stepped.energy_j)
        return Spent(stepped.energy_j * factor, stepped.grams * factor)
    wall = (segment.end - segment.start).total_seconds()
    busy = min(done.seconds / wall, 1.0) if wall > 0 else 1.0
    return Spent(total.energy_j * busy, total.grams * busy)


def _fitted(known: Sequence[SegmentRecord], spent: Mapping[int, Spent]) -> "EnergyFit":
    first = known[0]
    seconds = max(first.done.seconds / max(first.done.steps, 1), 1e-9)
    watts = spent[first.k].energy_j / max(first.done.seconds, 1e-9)
    # NumPy comes with it: 13 MB that a daemon without jobs need not hold
    from carbonsched.plan.energy_fit import EnergyFit

    fit = EnergyFit.prior(seconds, watts)
    for record in known:
        done = record.done
        fit = fit.observe(done.rho_realised, done.steps, spent[record.k].energy_j, done.seconds)
    return fit


def _saved(known: Sequence[SegmentRecord], spent: Mapping[int, Spent], c0: float) -> float:
    saved = 0.0
    for record in known:
        ratio = c0 + (1 - c0) * record.done.rho_realised
        if ratio > 0:
            own = c0 + (1 - c0) * _own_ratio(record)
            saved += spent[record.k].grams * (own / ratio - 1)
    return saved


def _own_ratio(record: SegmentRecord) -> float:
    done = record.done
    ratio = 1.0 if done.flops_own is None or not done.flops_full else done.flops_own / done.flops_full
    return ratio if ratio < _FULL else 1.0


def _unknown(against: str, formula: str, reason: str, *, estimated: bool) -> Effect:
    return Effect(
        saved_g=None,
        share=None,
        baseline_g=None,
        low_g=None,
        high_g=None,
        estimated=estimated,
        against=against,
        formula=formula,
        reason=reason,
    )
