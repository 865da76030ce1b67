"""Honest savings: two counterfactuals, each with its formula, its inputs and what had to be assumed.

FLOPs effect, estimated. Against full fine-tuning run at the same hours. For a finished segment k, e_k joules of its
training (the metered joules × done.seconds ÷ wall seconds; the rest is overhead that ρ does not change) would have been
e_k ÷ (c0 + (1 − c0)·ρ_k), so grams_k grows by e_k's share of them × (1 ÷ (c0 + (1 − c0)·ρ_k) − 1). c0, the share of a
step's energy that ρ does not move, is fitted from this job's own metered segments by the planner's robust line; the
range is c0 ± 2 standard deviations. Where ρ hardly varied c0 is the prior's (the forward pass, 1/3) and the range wide.

Timing effect, from the rows alone. Against the same joules, so the same ρ, at the mean intensity of the job's span:
Σ E·PUE·(mean − intensity) over rows where both are known; mean is time-weighted from the job's start to its last row,
hours in which it waited included.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from carbonsched.ledger.ledger import SegmentRecord
from carbonsched.plan.energy import EnergyFit
from carbonsched.report.parts import Effect, Savings
from carbonsched.units import J_PER_KWH, MJ_PER_J

_FLOPS_AGAINST = "full fine-tuning (ρ = 1) of the same segments at the same hours"
_FLOPS_FORMULA = (
    "Σ grams_k · busy_k · (1 / (c0 + (1 − c0)·ρ_k) − 1), ρ_k realised, c0 from the metered segments"
)
_TIMING_AGAINST = "the same joules at the mean intensity of the job's span"
_TIMING_FORMULA = "Σ energy · PUE · (mean intensity − intensity) over the rows where both are known"


@dataclass(frozen=True, slots=True)
class Charged:
    """What the rows say, as far as savings need it."""

    facility_mj: float
    """Σ energy × PUE over rows whose intensity is known."""
    grams: float
    """Of the same rows."""
    mean_g_per_kwh: float | None
    """Time-weighted over the job's span."""
    estimated: bool


@dataclass(frozen=True, slots=True)
class Spent:
    """Known energy and grams of some rows."""

    energy_j: float
    grams: float


def savings(segments: Sequence[SegmentRecord], spent: Mapping[int, Spent], charged: Charged) -> Savings:
    """`segments`: the attempts that count; `spent`: what was charged within each of them, by k."""
    return Savings(flops=flops_effect(segments, spent, charged.grams), timing=timing_effect(charged))


def timing_effect(charged: Charged) -> Effect:
    """See the module."""
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
    """See the module. `grams`: all that the job emitted, the part outside segments unchanged in the counterfactual."""
    known = [record for record in segments if record.k in spent and spent[record.k].energy_j > 0]
    if not known:
        reason = "no finished segment has known energy yet"
        return _unknown(_FLOPS_AGAINST, _FLOPS_FORMULA, reason, estimated=True)
    fit = _fitted(known, spent)
    line, model = fit.energy_line(), fit.model()
    spread = 2 * math.sqrt(max(line.covariance[2], 0.0)) / line.full
    shares = [line.c0, min(line.c0 + spread, 1.0), max(line.c0 - spread, 0.0)]
    saved, low, high = (_saved(known, spent, c0) for c0 in shares)
    return Effect(
        saved_g=saved,
        share=saved / (grams + saved) if grams + saved > 0 else None,
        baseline_g=grams + saved,
        low_g=low,
        high_g=high,
        estimated=True,
        against=_FLOPS_AGAINST,
        formula=_FLOPS_FORMULA,
        inputs={
            "c0": line.c0,
            "c0_low": shares[2],
            "c0_high": shares[1],
            "c0_from_prior": float(not model.slope_known),
        },
    )


def _busy(record: SegmentRecord) -> float:
    """Share of a segment's wall time that was importance, selection and steps."""
    wall = (record.end - record.start).total_seconds()
    return min(record.done.seconds / wall, 1.0) if wall > 0 else 1.0


def _fitted(known: Sequence[SegmentRecord], spent: Mapping[int, Spent]) -> EnergyFit:
    first = known[0]
    seconds = max(first.done.seconds / max(first.done.steps, 1), 1e-9)
    watts = spent[first.k].energy_j / max((first.end - first.start).total_seconds(), 1e-9)
    fit = EnergyFit.prior(seconds, watts)
    for record in known:
        joules = spent[record.k].energy_j * _busy(record)
        fit = fit.observe(record.done.rho_realised, record.done.steps, joules, record.done.seconds)
    return fit


def _saved(known: Sequence[SegmentRecord], spent: Mapping[int, Spent], c0: float) -> float:
    saved = 0.0
    for record in known:
        ratio = c0 + (1 - c0) * record.done.rho_realised
        if ratio > 0:
            saved += spent[record.k].grams * _busy(record) * (1 / ratio - 1)
    return saved


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
