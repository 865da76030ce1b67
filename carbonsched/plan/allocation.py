"""Turns a wanted mean ρ into a budget, and divides one pool of grams among several jobs.

Both rest on the same curve as the planner: the gain a job can still buy, piece by piece, in order of gain per gram.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from carbonsched.plan.intensity_curve import Floats
from carbonsched.plan.planner import solve
from carbonsched.plan.problem import Plan, Problem
from carbonsched.plan.segment_arrays import SegmentArrays

_CLOSE = 1e-3
"""The search ends once its bracket is this share of the budget wide."""
_TRIES = 24
"""Most budgets tried."""
_EDGE = 0.1
"""Share of the bracket that a secant step keeps away from its ends."""
_ALIKE = 0.01
"""Pieces whose gain per gram is within this share of the marginal one's are served equally."""


def mean_rho(problem: Problem, plan: Plan) -> float:
    """Mean ρ of a plan over the remaining steps; 0 if it stops."""
    steps = {s.k: s.steps for s in problem.segments}
    total = sum(steps.values())
    return sum(p.rho * steps[p.k] for p in plan.segments if p.k in steps) / total


def least_budget(problem: Problem, rho: float) -> tuple[float, Plan]:
    """The fewest grams whose plan trains at a mean of at least `rho`, and that plan: `objective = "min-carbon"`.

    This is the dual of the planner's own problem, solved by a bracketed search over the budget; `problem.budget_g` is ignored. If even the
    highest ρ stays below `rho`, the budget is the one for the highest ρ. The budget includes the plan's reserve.
    """
    arrays = SegmentArrays(problem)
    low = problem.reserve_g
    # with waits, full speed can cost more only by the switches; four times covers any of them
    best = solve(
        replace(problem, budget_g=4 * arrays.schedule(arrays.hi).spend_g * 1.01 + low + 1e-9, price_hint=None)
    )
    wanted = min(rho, mean_rho(problem, best)) - 1e-6
    budget = high = max(best.spend_g, arrays.schedule(arrays.hi).spend_g) * 1.01 + low
    below, above = 0.0, mean_rho(problem, best)
    hint: float | None = None
    width = high - low
    for turn in range(_TRIES):
        # ρ rises with the budget, steeply at the floor: a secant kept well inside the bracket,
        # and a bisection where two of them did not halve it, as beside a step
        share = (wanted - below) / max(above - below, 1e-12)
        if turn % 3 == 2:
            share, width = 0.5 if high - low > width / 2 else share, high - low
        tried = low + (high - low) * min(max(share, _EDGE), 1 - _EDGE)
        plan = solve(replace(problem, budget_g=tried, price_hint=hint))
        hint, reached = plan.price or hint, mean_rho(problem, plan)
        if reached >= wanted:
            high, above, budget, best = tried, reached, tried, plan
        else:
            low, below = tried, reached
        if high - low <= _CLOSE * high:
            break
    return budget, best


@dataclass(frozen=True, slots=True)
class Allotment:
    """One job's part of a pool.

    Example:
        >>> Allotment(budget_g=40.0, floor_g=31.2).budget_g
        40.0
    """

    budget_g: float
    """Its floor, what the common price buys it, and its share of the surplus; less than its floor if the pool cannot pay for it."""
    floor_g: float


def divide(
    problems: Sequence[Problem],
    pool_g: float,
    weights: Sequence[float] | None = None,
    begun: Sequence[bool] | None = None,
) -> tuple[tuple[Allotment, ...], float | None]:
    """Split a pool among jobs by one price; returns (each job's part, the price in weighted gain per gram).

    The price is what one more gram would buy: 0 if all admitted jobs have what full speed takes, None if none was admitted. problems: in
    order of submission; their `budget_g` is ignored. The gain of a whole job is its weight (1 without weights) and that of its remainder
    its share of the steps, so that jobs compare. Times are taken at ρ_min; each job's own plan refines them.

    No job starves: floors are paid first, those of jobs that have `begun` before the others', each in order of submission, so a later or
    heavier job never pushes an admitted one below its floor. The rest goes, piece by piece, to whoever gains most from a gram; equal gains
    are served equally, so equal jobs of equal weight get equal parts. If not even the floors fit, a running job gets what is left of them,
    and a job that has not begun gets nothing and stays in the queue. What no plan can use is shared by weight.
    """
    shares = weights or [1.0] * len(problems)
    if len(shares) != len(problems) or any(w <= 0 for w in shares):
        raise ValueError("a pool needs one weight above 0 for each job")
    under_way = begun or [False] * len(problems)
    all_arrays = [SegmentArrays(p) for p in problems]
    lowest = [arrays.schedule(arrays.lo) for arrays in all_arrays]
    floors = [min_grams.spend_g + p.reserve_g for min_grams, p in zip(lowest, problems, strict=True)]
    parts = [0.0] * len(problems)
    left = max(pool_g, 0.0)
    for i in sorted(range(len(problems)), key=lambda i: not under_way[i]):
        parts[i] = floors[i] if floors[i] <= left else left * under_way[i]
        left -= parts[i]
    pieces: list[tuple[Floats, Floats, Floats]] = []
    for i, (arrays, min_grams) in enumerate(zip(all_arrays, lowest, strict=True)):
        if parts[i] < floors[i]:
            continue
        rate = arrays.g_per_j_per_intensity * arrays.intensity.mean_between(
            min_grams.start_s, min_grams.end_s
        )
        segment, width, gain = arrays.hull_pieces(arrays.lo, arrays.hi)
        cost = arrays.marginal_j[segment] * width * rate[segment]
        left_of_it = 1.0 - problems[i].done
        pieces.append((shares[i] * left_of_it * gain, cost, np.full(len(segment), float(i))))
    let_in = [i for i, (part, floor) in enumerate(zip(parts, floors, strict=True)) if part >= floor]
    price = 0.0 if let_in else None
    if pieces:
        gain, cost, who = (np.concatenate(column) for column in zip(*pieces, strict=True))
        given, price = _serve(gain / np.maximum(cost, 1e-300), cost, left)
        for i, grams in zip(who.astype(int).tolist(), given.tolist(), strict=True):
            parts[i] += grams
        # what full speed for all does not need is their margin: the meter may show more than expected
        spare, weight = left - float(given.sum()), sum(shares[i] for i in let_in)
        for i in let_in:
            parts[i] += max(spare, 0.0) * shares[i] / weight
    return tuple(Allotment(b, f) for b, f in zip(parts, floors, strict=True)), price


def _serve(worth: Floats, cost: Floats, left_g: float) -> tuple[Floats, float]:
    """(grams for each piece, the price), served in order of gain per gram; pieces about as good as the marginal one share its grams."""
    order = np.argsort(-worth, kind="stable")
    reach = np.cumsum(cost[order])
    if not len(reach) or reach[-1] <= left_g:
        return cost.copy(), 0.0
    marginal = float(worth[order[int(np.searchsorted(reach, left_g, side="right"))]])
    better = worth > marginal * (1 + _ALIKE)
    alike = ~better & (worth >= marginal * (1 - _ALIKE))
    rest = (left_g - float(cost[better].sum())) / float(cost[alike].sum())
    return np.where(better, cost, np.where(alike, cost * min(rest, 1.0), 0.0)), marginal
