"""Explains a plan before anything is spent: when it trains, at which ρ, for how many grams, what binds, what more would buy.

Seconds count from now, as everywhere in the planner. The supervisor turns the answer into the document
`carbonsched.model.views.Explained`, which has times of day and what comes before the first segment.
"""

from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from carbonsched.plan.guard import combine_deviations
from carbonsched.plan.planner import solve
from carbonsched.plan.problem import Plan, Problem
from carbonsched.plan.segment_arrays import SegmentArrays
from carbonsched.text import figure, grams, long_duration

_HOUR_S = 3600.0
_MOVED_S = 60.0
"""A segment that begins this much earlier or later was moved."""
_MOVES_TOLD = 3
_MORE = 0.01
"""Share of the budget that is added to see what more grams would buy."""


@dataclass(frozen=True, slots=True)
class SegmentEstimate:
    """Expected emissions of one segment.

    Example:
        >>> SegmentEstimate(k=0, start_s=0.0, end_s=600.0, rho=0.64, g=12.5, low_g=10.0, high_g=16.0).g
        12.5
    """

    k: int
    start_s: float
    """From now."""
    end_s: float
    rho: float
    g: float
    low_g: float
    high_g: float
    """Band from the grid's quantiles and the energy model's sigma, for this segment alone."""
    eur: float | None = None
    """None where no price is known."""


@dataclass(frozen=True, slots=True)
class PlanExplanation:
    """A plan with its bands and with what one more gram or hour would buy.

    Example::

        explanation = explain(problem)
        print(explanation.g, explanation.low_g, explanation.high_g, explanation.gain_per_more_g)
    """

    action: Literal["train", "wait", "stop"]
    reason: str
    start_s: float | None
    """Seconds from now to the first segment; None if nothing is trained."""
    end_s: float | None
    rho: float | None
    """Mean over the remaining steps."""
    gain: float | None
    """Share of what full fine-tuning of the remaining steps would gain, by the frontier."""
    g: float
    low_g: float
    high_g: float
    """Upper band of the sum: errors of different hours partly cancel."""
    floor_g: float
    budget_g: float
    binding: tuple[str, ...]
    gain_per_more_g: float | None
    """Gain that one more gram would buy at the margin; 0 if the budget does not bind."""
    gain_per_more_hour: float | None
    """Gain that one more hour before the deadline would buy; None without a deadline."""
    segments: tuple[SegmentEstimate, ...]
    eur: float | None = None
    """Cost of the whole; None if no price is known."""
    money: str | None = None
    """What weighing money changes compared with grams alone, in words; None if the job does not weigh it."""


def explain(problem: Problem, plan: Plan | None = None) -> PlanExplanation:
    """Explain the plan of a problem. plan: the plan of this problem if the caller has it; otherwise it is solved here."""
    plan = plan or solve(problem)
    nothing = plan.action == "stop" or not plan.segments
    expected, band = ((), (0.0, 0.0)) if nothing else _bands(problem, plan)
    gain = sum(p.gain for p in plan.segments)
    steps = {s.k: s.steps for s in problem.segments}
    done = sum(steps[p.k] for p in plan.segments)
    more_g = more_hour = None
    if not nothing:
        raised = _MORE * max(problem.budget_g, 1e-9)
        more = solve(replace(problem, budget_g=problem.budget_g + raised, price_hint=plan.price or None))
        more_g = max(_gain(more) - gain, 0.0) / raised
        if problem.deadline_s is not None:
            longer = solve(replace(problem, deadline_s=problem.deadline_s + _HOUR_S))
            more_hour = max(_gain(longer) - gain, 0.0)
    return PlanExplanation(
        action=plan.action,
        reason=plan.reason,
        start_s=None if nothing else plan.segments[0].start_s,
        end_s=None if nothing else plan.segments[-1].end_s + problem.energy.tail_s,
        rho=None if nothing else sum(p.rho * steps[p.k] for p in plan.segments) / done,
        gain=None if nothing else gain,
        g=plan.spend_g,
        low_g=band[0],
        high_g=band[1],
        floor_g=plan.floor_g,
        budget_g=problem.budget_g,
        binding=plan.binding,
        gain_per_more_g=more_g,
        gain_per_more_hour=more_hour,
        segments=expected,
        eur=_eur(plan),
        money=None if nothing or problem.eur_per_kg is None else _money(problem, plan),
    )


def _eur(plan: Plan) -> float | None:
    """Cost of all its segments; None if one of them is unknown."""
    paid = [p.eur for p in plan.segments if p.eur is not None]
    return sum(paid) if paid and len(paid) == len(plan.segments) else None


def _money(problem: Problem, plan: Plan) -> str:
    """Why money moves segments, compared with the plan by grams alone."""
    price = SegmentArrays(problem).price
    if price is None:
        return "no price is known: hours are chosen by grams alone"
    alone = solve(replace(problem, eur_per_kg=None))
    plain = {p.k: p for p in alone.segments}
    moved = [p for p in plan.segments if p.k in plain and abs(p.start_s - plain[p.k].start_s) > _MOVED_S]
    eur, before = _eur(plan), _eur(alone)
    total = ""
    if eur is not None and before is not None:
        total = (
            f"; in all {figure(eur, 'EUR')} and {grams(plan.spend_g)}, "
            f"by grams alone {figure(before, 'EUR')} and {grams(alone.spend_g)}"
        )
    if not moved:
        return f"money moves no segment{total}"
    told = []
    for p in moved[:_MOVES_TOLD]:
        was, span = plain[p.k], np.array([p.start_s, p.end_s])
        now_paid = float(price.mean_between(span[:1], span[1:])[0])
        was_paid = float(price.mean_between(np.array([was.start_s]), np.array([was.end_s]))[0])
        later = "" if p.start_s >= was.start_s else " back"
        told.append(
            f"segment {p.k + 1} by {long_duration(abs(p.start_s - was.start_s))}{later} to "
            f"{figure(now_paid, 'EUR/kWh')}, from {figure(was_paid)}"
        )
    more = f" and {len(moved) - len(told)} more" if len(moved) > len(told) else ""
    return f"money moves {'; '.join(told)}{more}{total}"


def _gain(plan: Plan) -> float:
    return sum(p.gain for p in plan.segments)


def _bands(problem: Problem, plan: Plan) -> tuple[tuple[SegmentEstimate, ...], tuple[float, float]]:
    """Each segment with its band, and the band of the sum."""
    horizon = SegmentArrays(problem).intensity
    start = np.array([p.start_s for p in plan.segments])
    end = np.array([p.end_s for p in plan.segments])
    spent = np.array([p.grams for p in plan.segments])
    mean = np.maximum(horizon.mean_between(start, end), 1e-9)
    sigma = problem.energy.sigma
    down = np.hypot(spent * (1 - horizon.mean_between(start, end, "low") / mean), spent * sigma)
    up = np.hypot(spent * (horizon.mean_between(start, end, "high") / mean - 1), spent * sigma)
    rows = zip(plan.segments, (spent - down).tolist(), (spent + up).tolist(), strict=True)
    segments = tuple(
        SegmentEstimate(
            k=p.k,
            start_s=p.start_s,
            end_s=p.end_s,
            rho=p.rho,
            g=p.grams,
            low_g=max(a, 0.0),
            high_g=b,
            eur=p.eur,
        )
        for p, a, b in rows
    )
    middle, total = 0.5 * (start + end), float(spent.sum())
    whole = (
        total - combine_deviations(down, middle, problem.day_s),
        total + combine_deviations(up, middle, problem.day_s),
    )
    return segments, (max(whole[0], 0.0), whole[1])
