"""Computes a job's savings by avoided waste and FLOPs, against two counterfactuals, each with its formula, its inputs and its assumptions.

FLOPs effect, estimated. Against the user's own run at the same hours: full fine-tuning, or with frozen weights or
adapters the training of all the others, at ratio ρ'_k = FLOPs of that ÷ T_full (1 if the trainer did not report it). A finished
segment k, whose training (importance and steps, see `training`) took e_k joules and g_k grams, would have taken
e_k × (c0 + (1 − c0)·ρ'_k) ÷ (c0 + (1 − c0)·ρ_k); so g_k grows by g_k × that factor − g_k, and waiting, loading, evaluation and checkpoints do
not change. c0, the share of a step's energy that does not depend on ρ, is fitted from this job's own metered segments by the planner's robust
line; the range is c0 ± 2 standard deviations. If ρ hardly varied, c0 is the prior's (the forward pass, 1/3) and the range wide.

Waste effect, estimated. Against a stock Trainer on the same rows at the same hours, with everything trained as in the FLOPs effect's
counterfactual, so that one effect begins where the other ends: a stock step would have had w_k = stock ÷ T_full times the FLOPs. Energy depends
on FLOPs by the same line, so the constant part (c0) does not count as saved: training grams_k × (1 − c0)·ρ'_k·(w_k − 1) ÷ (c0 + (1 − c0)·ρ_k). The
range is that of c0, and ± 2 standard deviations of the random orders whose mean the stock FLOPs are.

For the effects of the hours see `carbonsched.report.timing`.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from carbonsched.ledger.records import SegmentRecord
from carbonsched.model.methods.traits import METHODS, MethodTraits
from carbonsched.report.effects import Effect, Quality, Savings
from carbonsched.report.losses import Validation
from carbonsched.report.timing import TimingEffects

if TYPE_CHECKING:
    from carbonsched.plan.energy_fit import EnergyFit

_NEAR = 1e-6
"""A ratio this near to 1 counts as full fine-tuning: tensors without cost may be frozen. Adapters can cost more."""
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
_WASTE_AGAINST = (
    "a stock Trainer on the same rows at the same hours: batches in random order, each padded to its longest row, logits for "
    "every token, the same precision, everything trained"
)
_WASTE_FORMULA = (
    "Σ training grams_k · (1 − c0)·ρ'_k·(stock_k / T_full_k − 1) / (c0 + (1 − c0)·ρ_k), ρ'_k of the user's own run (1: full "
    "fine-tuning), stock_k counted"
)


@dataclass(frozen=True, slots=True)
class Spent:
    """Known energy and grams of some rows.

    Example:
        >>> Spent(energy_j=3.6e6, grams=120.0).grams
        120.0
    """

    energy_j: float
    grams: float


def savings(
    segments: Sequence[SegmentRecord],
    spent: Mapping[int, Spent],
    grams: float,
    timing: TimingEffects,
    method: str,
    validation: Sequence[Validation],
) -> Savings:
    """`segments`: the attempts that count; `spent`: cost of their training, by k; `grams`: all emissions of the job; `method`: the job's."""
    told = as_own_run(segments, METHODS.get(method))
    flops = flops_effect(told, spent, grams)
    return Savings(
        waste=waste_effect(told, spent, grams + (flops.saved_g or 0.0)),
        flops=flops,
        quality=quality(segments, validation),
        timing=timing.timing,
        chosen=timing.chosen,
        forced=timing.forced,
        mean_intensity=timing.mean_intensity,
    )


def as_own_run(
    segments: Sequence[SegmentRecord], traits: MethodTraits | None
) -> tuple[SegmentRecord, ...] | str:
    """The segments, each with the FLOPs of its user's own run; or why these are unknown.

    Adapters are the user's choice, not the selector's: if ρ selects neither among them nor among tokens, the run is the user's own.
    """
    if traits is None or not traits.trains_adapters:
        return tuple(segments)
    if traits.constant_rho:
        return tuple(replace(s, done=s.done.model_copy(update={"flops_own": s.done.flops})) for s in segments)
    if any(s.done.flops_own is None for s in segments):
        return "the trainer did not tell what training all the adapters takes"
    return tuple(segments)


def quality(segments: Sequence[SegmentRecord], validation: Sequence[Validation]) -> Quality:
    """Beside the FLOPs effect: held-out loss, and the number of full steps with the same FLOPs."""
    losses = {found.when: found.loss for found in validation}
    first = next((found.loss for found in validation if found.when == "before"), None)
    steps, full = sum(s.done.steps for s in segments), sum(s.done.flops_full for s in segments)
    flops = sum(s.done.flops for s in segments)
    return Quality(
        loss_before=first,
        loss_after=losses.get("after"),
        steps=steps,
        same_flops_steps=flops / full * steps if full else None,
    )


def flops_effect(segments: Sequence[SegmentRecord] | str, spent: Mapping[int, Spent], grams: float) -> Effect:
    """Grams saved by fewer FLOPs; the formula is in the module's docstring.

    segments: or why the effect is unknown; grams: all emissions of the job, whose part outside segments is the same in the counterfactual."""
    if isinstance(segments, str):
        return Effect.unknown(_OWN_AGAINST, _OWN_FORMULA, segments, estimated=True)
    known = [record for record in segments if record.k in spent and spent[record.k].energy_j > 0]
    if not known:
        reason = "no finished segment has known energy yet"
        return Effect.unknown(_FLOPS_AGAINST, _FLOPS_FORMULA, reason, estimated=True)
    shares = _fixed_shares(known, spent)
    saved, low, high = (_saved(known, spent, c0) for c0 in (shares.c0, shares.high, shares.low))
    own = min(map(_own_ratio, known))
    own_run = not all(_is_full(_own_ratio(record)) for record in known)
    return Effect(
        saved_g=saved,
        share=saved / (grams + saved) if grams + saved > 0 else None,
        baseline_g=grams + saved,
        low_g=min(low, high),  # more FLOPs than the other run: the ends are swapped
        high_g=max(low, high),
        estimated=True,
        against=_OWN_AGAINST if own_run else _FLOPS_AGAINST,
        formula=_OWN_FORMULA if own_run else _FLOPS_FORMULA,
        inputs={**({"rho_own_run": own} if own_run else {}), **shares.inputs()},
    )


def waste_effect(
    segments: Sequence[SegmentRecord] | str, spent: Mapping[int, Spent], without_g: float
) -> Effect:
    """Grams saved by avoided waste; the formula is in the module's docstring.

    without_g: emissions of the run that the FLOPs effect compares with."""
    reason = _waste_unknown(segments, spent)
    if isinstance(segments, str) or reason:
        return Effect.unknown(_WASTE_AGAINST, _WASTE_FORMULA, reason, estimated=True)
    known = [record for record in segments if record.k in spent and spent[record.k].energy_j > 0]
    shares = _fixed_shares(known, spent)
    parts = ("stock_flops", "padding_flops", "head_flops")
    sums = {name: sum(getattr(r.done.waste, name) for r in known) for name in parts}

    def grams(c0: float, name: str) -> list[float]:
        """By segment: emissions of this many FLOPs of full fine-tuning in addition to those of its own run."""
        return [
            spent[r.k].grams
            * (1 - c0)
            * _own_ratio(r)
            * getattr(r.done.waste, name)
            / r.done.flops_full
            / (c0 + (1 - c0) * r.done.rho_realised)
            for r in known
            if r.done.flops_full and c0 + (1 - c0) * r.done.rho_realised > 0
        ]

    def saved(c0: float, name: str) -> float:
        return sum(grams(c0, name))

    def both(c0: float) -> float:
        return saved(c0, "padding_flops") + saved(c0, "head_flops")

    noise = 2 * math.hypot(*grams(shares.c0, "spread_flops"))
    ends = both(shares.high), both(shares.low)
    found, stock = both(shares.c0), without_g + both(shares.c0)
    return Effect(
        saved_g=found,
        share=found / stock if stock > 0 else None,
        baseline_g=stock,
        low_g=min(ends) - noise,
        high_g=max(ends) + noise,
        estimated=True,
        against=_WASTE_AGAINST,
        formula=_WASTE_FORMULA,
        inputs={
            **sums,
            "flops_full": sum(r.done.flops_full for r in known),
            "padding_g": saved(shares.c0, "padding_flops"),
            "head_g": saved(shares.c0, "head_flops"),
            "orders_drawn": float(max(r.done.waste.orders for r in known if r.done.waste)),
            **shares.inputs(),
        },
    )


def _waste_unknown(segments: Sequence[SegmentRecord] | str, spent: Mapping[int, Spent]) -> str:
    """Why the waste effect is unknown; empty: it is known."""
    if isinstance(segments, str):
        return segments
    known = [record for record in segments if record.k in spent and spent[record.k].energy_j > 0]
    for record in known:
        if record.done.waste is None:
            return (
                f"segment {record.k + 1}: {record.done.waste_unknown or 'its trainer did not tell its waste'}"
            )
    return "" if known else "no finished segment has known energy yet"


def training(segment: SegmentRecord, total: Spent, stepped: Spent | None) -> Spent:
    """Cost of importance, selection and steps of a segment: of `total` charged to it, `stepped` while steps ran.

    The importance pass and the selection before the first step are added by their seconds at the steps' power. If
    no row falls into the steps (a segment shorter than a tick) the total is split by time.
    """
    done = segment.done
    before_s = done.importance_seconds + done.selection_seconds
    if stepped is not None and stepped.energy_j > 0 and done.seconds > before_s:
        factor = min(done.seconds / (done.seconds - before_s), total.energy_j / stepped.energy_j)
        return Spent(stepped.energy_j * factor, stepped.grams * factor)
    wall = (segment.end - segment.start).total_seconds()
    busy = min(done.seconds / wall, 1.0) if wall > 0 else 1.0
    return Spent(total.energy_j * busy, total.grams * busy)


@dataclass(frozen=True, slots=True)
class _FixedShares:
    """c0, the share of a step's energy that does not depend on ρ, and ± 2 standard deviations of it."""

    c0: float
    low: float
    high: float
    from_prior: bool

    def inputs(self) -> dict[str, float]:
        return {
            "c0": self.c0,
            "c0_low": self.low,
            "c0_high": self.high,
            "c0_from_prior": float(self.from_prior),
        }


def _fixed_shares(known: Sequence[SegmentRecord], spent: Mapping[int, Spent]) -> _FixedShares:
    fit = fitted(known, spent)
    line = fit.energy_line()
    spread = 2 * math.sqrt(max(line.covariance[2], 0.0)) / line.full
    low, high = max(line.c0 - spread, 0.0), min(line.c0 + spread, 1.0)
    return _FixedShares(line.c0, low, high, not fit.model().slope_known)


def fitted(known: Sequence[SegmentRecord], spent: Mapping[int, Spent]) -> "EnergyFit":
    """Joules and seconds of steps by ρ, from these segments, at least one."""
    first = known[0]
    seconds = max(first.done.seconds / max(first.done.steps, 1), 1e-9)
    watts = spent[first.k].energy_j / max(first.done.seconds, 1e-9)
    # this imports NumPy: 13 MB that a daemon without jobs need not hold
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
    return 1.0 if _is_full(ratio) else ratio


def _is_full(ratio: float) -> bool:
    return math.isclose(ratio, 1.0, abs_tol=_NEAR)
