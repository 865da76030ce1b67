"""Grams for people who do not think in grams: a wanted quality turned into a budget, and one pool for several jobs.

Both rest on the same curve as the planner: the gain a job can still buy, piece by piece, in order of gain a gram.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from carbonsched.plan.planner import solve
from carbonsched.plan.problem import Plan, Problem
from carbonsched.plan.track import Floats, Track

_CLOSE = 1e-3


def mean_rho(problem: Problem, plan: Plan) -> float:
    """Mean ρ of a plan over the remaining steps; 0 where it stops."""
    steps = {s.k: s.steps for s in problem.segments}
    total = sum(steps.values())
    return sum(p.rho * steps[p.k] for p in plan.placed if p.k in steps) / total


def least_budget(problem: Problem, rho: float) -> tuple[float, Plan]:
    """The fewest grams whose plan trains at a mean of at least `rho`, and that plan: `objective = "min-carbon"`.

    The dual of the planner's own problem, by bisection on the budget, which `problem.budget_g` is not looked at for.
    Where even the top of the bounds stays below `rho` the budget is the one that reaches that top. The plan's reserve
    is in the budget.
    """
    track = Track(problem)
    low = track.problem.reserve_g
    high = track.roll(track.hi).spend_g * 1.01 + problem.reserve_g
    # waiting may make full speed dearer only by its switches; four times covers any of them
    best = solve(replace(problem, budget_g=4 * high, price_hint=None))
    wanted = min(rho, mean_rho(problem, best)) - 1e-6
    budget = high
    while high - low > _CLOSE * max(high, 1e-9):
        middle = 0.5 * (low + high)
        plan = solve(replace(problem, budget_g=middle))
        if mean_rho(problem, plan) >= wanted:
            high, budget, best = middle, middle, plan
        else:
            low = middle
    return budget, best


@dataclass(frozen=True, slots=True)
class Allotment:
    """One job's part of a pool."""

    budget_g: float
    """Its floor and what the common price buys it; 0 where the pool cannot pay for its floor."""
    floor_g: float


def divide(
    problems: Sequence[Problem], pool_g: float, weights: Sequence[float] | None = None
) -> tuple[tuple[Allotment, ...], float]:
    """Split a pool among jobs by one price: (a part for each, the price in weighted gain a gram).

    problems: in order of submission, their `budget_g` not looked at; the gain of a whole job is its weight (1 without
    weights), so that jobs compare. The rule against starving: floors are paid first and in order of submission, so a
    job that was let in is never pushed below its floor by a later or heavier one; what is left goes, piece by piece,
    to whoever gains most from a gram. Times are taken at ρ_min: the plan of each job refines its own afterwards.
    """
    shares = weights or [1.0] * len(problems)
    if len(shares) != len(problems) or any(w <= 0 for w in shares):
        raise ValueError("a pool needs one weight above 0 for each job")
    tracks = [Track(p) for p in problems]
    left = pool_g
    floors, parts = [], []
    gains: list[Floats] = []
    costs: list[Floats] = []
    owner: list[Floats] = []
    for i, (track, weight) in enumerate(zip(tracks, shares, strict=True)):
        lean = track.roll(track.lo)
        floor = lean.spend_g + problems[i].reserve_g
        floors.append(floor)
        admitted = floor <= left
        parts.append(floor if admitted else 0.0)
        left -= parts[-1]
        if not admitted:
            continue
        rate = track.g_per_j_per_intensity * track.horizon.between(lean.start_s, lean.end_s)
        segment, width, gain = track.pieces(track.lo, track.hi)
        gains.append(weight * gain)
        costs.append(track.marginal_j[segment] * width * rate[segment])
        owner.append(np.full(len(segment), float(i)))
    price = 0.0
    if gains and left > 0:
        gain_all, cost_all, who = np.concatenate(gains), np.concatenate(costs), np.concatenate(owner)
        order = np.argsort(-gain_all / np.maximum(cost_all, 1e-300), kind="stable")
        before = np.append(0.0, np.cumsum(cost_all[order]))[:-1]
        given = np.clip(left - before, 0.0, cost_all[order])
        for i, grams in zip(who[order].astype(int).tolist(), given.tolist(), strict=True):
            parts[i] += grams
        marginal = np.flatnonzero(given < cost_all[order] - 1e-12)
        if len(marginal):
            first = order[marginal[0]]
            price = float(gain_all[first] / max(cost_all[first], 1e-300))
    return tuple(Allotment(b, f) for b, f in zip(parts, floors, strict=True)), price
