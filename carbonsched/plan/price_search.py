"""Searches the price λ at which the plan spends the budget, and gives the residual to the marginal segments.

If the time of a segment does not depend on ρ and nothing may pause, the problem separates: the hull pieces of all
segments in order of gain per gram are the optimum (exact for concave frontiers). Otherwise λ is bracketed by the spend of the
dynamic program's plan, which is a step function of λ, and the cheaper side of the bracket is kept. In both cases the residual
goes to the marginal segments in order of gain per gram, with their times computed anew.
"""

import math
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from carbonsched.plan.dynamic_program import Solution, WaitOrTrain
from carbonsched.plan.intensity_curve import Floats, IntensityCurve
from carbonsched.plan.segment_arrays import CostCurves, SegmentArrays

_PRICES = 9
"""Most prices tried per re-plan; the residual closes what the bracket leaves."""
_CLOSE = 0.01
"""Share of the budget: a spend this close below the budget ends the search for λ."""
_NARROW = 1.02
"""Ratio of the bracket's prices that also ends the search: the residual is distributed anyway."""
_LEAP, _STRIDE = 1.2, 1.05
"""First factor outwards from the first price: from a guess, and from the price of the last plan."""
_HALVINGS = 30
"""Steps of the search for the marginal piece's part: 2⁻³⁰ of a piece."""
TIE = 1e-9
"""Relative difference below which two amounts count as equal."""


@dataclass(frozen=True, slots=True)
class PricedPlan:
    """A plan within the budget, the price at its margin, and a bound on any plan's gain.

    Example::

        found = search(arrays, min_grams_plan(arrays), budget_g=98.2, separable=False)
        print(found.price, found.solution.rho)
    """

    solution: Solution
    price: float
    """λ, gain per gram."""
    bound: float
    """Upper bound on the gain if one is known, else inf."""


_SHARES = (1.0, 0.5, 0.25, 0.125)
"""Shares of the price's weight, tried in this order: if the cheapest hours are so dirty that even the lowest ρ exceeds the budget in
them, money counts less, and finally not at all."""


@dataclass(frozen=True, slots=True)
class _Limits:
    budget_g: float
    deadline_s: float
    """Latest end of the last segment."""
    costs: CostCurves
    """Cost by which the pieces are ordered: the intensity, or money weighed in."""

    def allow(self, spend_g: float, finish_s: float) -> bool:
        return spend_g <= self.budget_g and finish_s <= self.deadline_s + 1e-6


def min_grams_plan(arrays: SegmentArrays) -> Solution:
    """The plan with the fewest grams: ρ at its lower bound, in the cleanest hours if pauses are allowed."""
    schedule = arrays.schedule(arrays.lo)
    at_once = Solution(arrays.lo, np.zeros(arrays.n), schedule, 0.0)
    if not arrays.problem.may_pause:
        return at_once
    waiting = WaitOrTrain(arrays, rhos=1).solve(math.inf)
    return waiting if waiting.schedule.spend_g < schedule.spend_g else at_once


def search(arrays: SegmentArrays, min_grams: Solution, budget_g: float, *, separable: bool) -> PricedPlan:
    """The plan that spends `budget_g`, and its price.

    min_grams: the plan with the fewest grams, which fits. separable: no segment's time depends on ρ and nothing may pause.
    """
    limits = _Limits(budget_g, float(arrays.latest_s[-1]), arrays.weighed(1.0))
    full = arrays.schedule(arrays.hi)
    if limits.allow(full.spend_g, full.finish_s):
        most = float(arrays.gains(arrays.hi).sum())
        at_once = Solution(arrays.hi.copy(), np.zeros(arrays.n), full, most)
        return PricedPlan(_cheapest(arrays, limits) or at_once, 0.0, most)
    if separable:
        solution, price = _fill(arrays, min_grams, arrays.hi, limits)
        return PricedPlan(solution, price, _dual_bound(arrays, price, budget_g))
    program = _program(arrays, budget_g)
    limits = replace(limits, costs=program.costs)
    if full.spend_g <= budget_g:
        # only the deadline prevents full speed: grams cost nothing
        free = program.solve(0.0)
        if free.schedule.spend_g <= budget_g:
            solution, _ = _fill(arrays, free, arrays.hi, limits)
            return PricedPlan(solution, 0.0, free.bound)
    # a good first price: the marginal gain of the budget at constant times
    hint = arrays.problem.price_hint
    guess = hint or _fill(arrays, min_grams, arrays.hi, limits)[1] or 1.0
    if not math.isfinite(guess) and arrays.weighs_money:  # with negative prices
        guess = 1.0 / max(abs(arrays.cost_g(min_grams.rho, min_grams.schedule, limits.costs)), 1e-12)
    bracket = bracket_price(program, guess, budget_g, _LEAP if hint is None else _STRIDE)
    return _pick(arrays, min_grams, bracket, limits)


def _cheapest(arrays: SegmentArrays, limits: _Limits) -> Solution | None:
    """Full speed in the hours with the lowest cost, if money is weighed and the budget allows it; None: at once.

    Unused grams have no price, so without money nothing would be worth a wait.
    """
    if not arrays.weighs_money or not arrays.problem.may_pause:
        return None
    for share in _SHARES:
        found = WaitOrTrain(arrays, costs=arrays.weighed(share), top=True).solve(math.inf)
        if limits.allow(found.schedule.spend_g, found.schedule.finish_s):
            return found
    return None


def _program(arrays: SegmentArrays, budget_g: float) -> WaitOrTrain:
    """The dynamic program with the largest share of the price that leaves a plan within the budget."""
    for share in _SHARES if arrays.weighs_money else ():
        program = WaitOrTrain(arrays, costs=arrays.weighed(share))
        if program.solve(math.inf).schedule.spend_g <= budget_g:
            return program
    return WaitOrTrain(arrays)


@dataclass(slots=True)
class Bracket:
    """The plans on both sides of the budget.

    Example:
        >>> Bracket(price=0.002).within is None
        True
    """

    price: float
    """λ of `within`."""
    within: Solution | None = None
    """The plan that spends most of the budget; None: no price tried stays within it."""
    over: Solution | None = None
    """The last plan that exceeds the budget."""


def bracket_price(program: WaitOrTrain, guess: float, budget_g: float, leap: float) -> Bracket:
    """Solve for prices around the one that spends the budget, from `guess` outwards by factors of `leap`, then inwards."""
    found = Bracket(guess)
    low: tuple[float, float] | None = None
    high: tuple[float, float] | None = None
    for tried in range(_PRICES):
        solution = program.solve(guess)
        spend = solution.schedule.spend_g
        if spend <= budget_g * (1 + TIE):
            if found.within is None or spend > found.within.schedule.spend_g:
                found.within, found.price = solution, guess
            high = (guess, spend)
            if spend >= budget_g * (1 - _CLOSE):
                break
        else:
            found.over = solution
            low = (guess, spend)
        guess = _next_price(low, high, budget_g, leap ** (2**tried))
        if low and high and high[0] / low[0] < _NARROW:
            break
    return found


def _next_price(
    low: tuple[float, float] | None, high: tuple[float, float] | None, budget: float, leap: float
) -> float:
    """The next λ to try, from the most expensive plan above and the cheapest price below the budget, (λ, spend) each.

    A secant in log λ kept well inside the bracket, since the spend is a step function of λ; outwards the steps grow.
    """
    if low is None or high is None:
        return low[0] * leap if low else (high[0] / leap if high else 1.0)
    share = (low[1] - budget) / max(low[1] - high[1], 1e-300)
    return float(low[0] * (high[0] / low[0]) ** min(max(share, 0.15), 0.85))


def _pick(arrays: SegmentArrays, min_grams: Solution, bracket: Bracket, limits: _Limits) -> PricedPlan:
    """The better of the bracket's two sides, each with the residual distributed."""
    within, over = bracket.within, bracket.over
    base = min_grams
    if within is not None and within.schedule.spend_g >= min_grams.schedule.spend_g:
        base = within
    filled, edge = _fill(arrays, base, arrays.hi, limits)
    if over is not None:
        # the spend may jump between two prices, as when a whole night is shifted: also start from the far side
        start = Solution(arrays.lo, over.release_s, over.schedule, over.bound)
        trimmed, _ = _fill(arrays, start, over.rho, limits)
        better = _worth(arrays, trimmed, bracket.price, limits) > _worth(
            arrays, filled, bracket.price, limits
        )
        if trimmed.schedule.spend_g <= limits.budget_g and better:
            filled, edge = _fill(arrays, trimmed, arrays.hi, limits)
    known = within is not None and not arrays.weighs_money  # gain given up for money is not a gap
    bound = math.inf if within is None or not known else within.bound + bracket.price * limits.budget_g
    priced = base is within or (arrays.weighs_money and not math.isfinite(edge))
    return PricedPlan(filled, bracket.price if priced else edge, bound)


def _worth(arrays: SegmentArrays, solution: Solution, price: float, limits: _Limits) -> float:
    """The gain of a plan within the budget, less the value of its money at λ = `price`."""
    gain = float(arrays.gains(solution.rho).sum())
    if not arrays.weighs_money:
        return gain
    schedule, rho = solution.schedule, solution.rho
    cost, grams = (arrays.cost_g(rho, schedule, costs) for costs in (limits.costs, arrays.weighed(0.0)))
    return gain - price * (cost - grams)


@dataclass(frozen=True, slots=True)
class _Pieces:
    """Hull pieces above a base plan, (m,) each, in descending order of gain per gram."""

    base: Floats
    """(n,) ρ that the pieces are added to."""
    top: Floats
    """(n,) largest ρ of each segment."""
    segment: NDArray[np.intp]
    width: Floats
    """In ρ."""
    per_gram: Floats
    """Gain per gram."""

    def rho(self, count: int, part: float = 0.0) -> Floats:
        """(n,) ρ with the first `count` pieces, and `part` of the next one."""
        rho = self.base + np.bincount(
            self.segment[:count], weights=self.width[:count], minlength=len(self.base)
        )
        if part > 0:
            rho[self.segment[count]] += part * self.width[count]
        return np.minimum(rho, self.top)


def _order_pieces(arrays: SegmentArrays, base: Solution, top: Floats, curve: IntensityCurve) -> _Pieces:
    segment, width, gain = arrays.hull_pieces(base.rho, top)
    rate = arrays.g_per_j_per_intensity * curve.mean_between(base.schedule.start_s, base.schedule.end_s)
    cost = arrays.marginal_j[segment] * width * rate[segment]
    with np.errstate(divide="ignore", invalid="ignore"):
        per_gram = np.where(cost > 0, gain / cost, np.inf)
    order = np.lexsort((segment, -per_gram))
    return _Pieces(base.rho, top, segment[order], width[order], per_gram[order])


def _fill(arrays: SegmentArrays, base: Solution, top: Floats, limits: _Limits) -> tuple[Solution, float]:
    """Give the rest of the budget after `base` to the segments in order of gain per gram, up to the ρ of `top`, (n,).

    The marginal piece is given partly. Returns the plan and the marginal price, 0 if all pieces fit. Every candidate's
    times are computed anew, so the deadline and later segments that a higher ρ moves into other hours are taken into account.
    """
    release = base.release_s if arrays.problem.may_pause else None
    pieces = _order_pieces(arrays, base, top, limits.costs.training)
    many = len(pieces.segment)
    if not many:
        return base, 0.0

    def fits(count: int) -> bool:
        schedule = arrays.schedule(pieces.rho(count), release)
        return limits.allow(schedule.spend_g, schedule.finish_s)

    few = many if fits(many) else 0
    while many - few > 1:
        middle = (few + many) // 2
        few, many = (middle, many) if fits(middle) else (few, middle)
    rho, price = pieces.rho(few), 0.0
    if few < len(pieces.segment):
        price = float(pieces.per_gram[few])
        rho = pieces.rho(few, _marginal_part(arrays, pieces, few, release, limits))
    return Solution(rho, base.release_s, arrays.schedule(rho, release), base.bound), price


def _marginal_part(
    arrays: SegmentArrays, pieces: _Pieces, count: int, release: Floats | None, limits: _Limits
) -> float:
    """The largest part of piece `count`, 0 to 1, that fits after the pieces before it."""
    budget, low, high = limits.budget_g, 0.0, 1.0
    below, above = (arrays.schedule(pieces.rho(n), release).spend_g for n in (count, count + 1))
    # at constant times the spend is linear in ρ: one guess hits, else the interval is halved
    part = (budget - below) / (above - below) * (1 - 1e-12) if above > budget > below else 0.5
    for _ in range(_HALVINGS):
        schedule = arrays.schedule(pieces.rho(count, part), release)
        if limits.allow(schedule.spend_g, schedule.finish_s):
            low = part
            if schedule.spend_g >= budget * (1 - TIE):
                break
        else:
            high = part
        part = 0.5 * (low + high)
    return low


def _dual_bound(arrays: SegmentArrays, price: float, budget: float) -> float:
    """max over ρ of Σ [gain − λ·grams] + λ·budget for fixed times: an upper bound of every plan's gain (weak duality); inf if money is weighed."""
    if arrays.weighs_money:
        return math.inf
    lowest = arrays.schedule(arrays.lo)
    rate = arrays.g_per_j_per_intensity * arrays.intensity.mean_between(lowest.start_s, lowest.end_s)
    segment, width, gain = arrays.hull_pieces(arrays.lo, arrays.hi)
    extra = np.maximum(gain - price * arrays.marginal_j[segment] * width * rate[segment], 0.0)
    return float(arrays.gains(arrays.lo).sum() - price * lowest.spend_g + extra.sum() + price * budget)
