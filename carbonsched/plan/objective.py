"""Plans for a job's objective: the most gain for a budget, the fewest grams for a mean ρ, or a growing budget.

`solve_for` rewrites each as the planner's own problem and returns the plan and the problem that was solved.
"""

import math
from dataclasses import dataclass, replace

import numpy as np

from carbonsched.plan import guard, reasons
from carbonsched.plan.allocation import least_budget, mean_rho
from carbonsched.plan.planner import solve
from carbonsched.plan.problem import Plan, PlannedSegment, Problem
from carbonsched.plan.segment_arrays import SegmentArrays

NO_LIMIT_G = 1e15
"""Budget of a job without one: every sum with it stays finite."""
_HOUR_S = 3600.0
_RHOS = 25
"""Values of ρ that are compared for the most gain per gram."""
_HALVINGS = 24
"""Steps of a search for ρ: to 2⁻²⁴ of its range."""
_SPARE = 1.2
"""Grams saved before a job is started again ÷ its expected need: too few cost another start."""
_MISS = 2e-3
"""Mean ρ by which a plan may stay below the required one, since the search for the least budget ends within 0.1%."""


@dataclass(frozen=True, slots=True)
class BudgetRate:
    """A budget that grows with time.

    Example:
        >>> BudgetRate(g_per_h=100.0, level_g=50.0, most_g=2400.0).resident_s
        600.0
    """

    g_per_h: float
    level_g: float
    """Granted and unspent grams."""
    most_g: float
    """Most grams that may be saved up."""
    again_g: float = 0.0
    """Grams of another start of the job (loading): also saved before a wait for which the process ends."""
    resident_s: float = 600.0
    """The process is kept for waits up to this length."""


@dataclass(frozen=True, slots=True)
class Objective:
    """The objective of a job; by default the most gain for its budget.

    Example::

        problem, plan = solve_for(problem, Objective(rho_mean=0.7))  # the fewest grams for a mean ρ of 0.7
    """

    rho_mean: float | None = None
    """Mean ρ that the remaining steps should reach for the fewest grams; None: the most gain instead."""
    budget_rate: BudgetRate | None = None


def solve_for(problem: Problem, objective: Objective) -> tuple[Problem, Plan]:
    """The plan for the objective, and the problem that it solves."""
    if objective.budget_rate is not None or objective.rho_mean is not None:
        problem = replace(problem, points=())  # both need a ρ, not a setting
    if objective.budget_rate is not None:
        return _solve_with_rate(problem, objective.budget_rate)
    if objective.rho_mean is not None:
        return _solve_min_carbon(problem, objective.rho_mean)
    return problem, solve(problem)


def _solve_min_carbon(problem: Problem, rho: float) -> tuple[Problem, Plan]:
    """The dual problem: the fewest grams for a mean ρ; `problem.budget_g` is an upper limit."""
    unlimited = problem.budget_g >= NO_LIMIT_G
    free = replace(_without_margins(problem), reserve_g=0.0) if unlimited else problem
    budget, plan = least_budget(free, rho)
    if budget > problem.budget_g:
        plan = solve(problem)
        return problem, replace(plan, reason=reasons.min_carbon_above_cap(rho, budget, plan.reason))
    reached = mean_rho(free, plan)
    wanted = rho if reached < rho - _MISS else None
    reason = reasons.min_carbon(min(reached, rho), budget, plan.reason, wanted=wanted)
    binding = tuple("rho_mean" if name == "budget" else name for name in plan.binding)
    return replace(free, budget_g=budget), replace(plan, reason=reason, binding=binding)


def _without_margins(problem: Problem) -> Problem:
    """Without a budget that must last to the end nothing is guarded: expectations count, not their upper values."""
    slots = tuple(replace(slot, high=slot.g_per_kwh, low=slot.g_per_kwh) for slot in problem.slots)
    return replace(problem, slots=slots, energy=replace(problem.energy, sigma=0.0))


def _solve_with_rate(problem: Problem, rate: BudgetRate) -> tuple[Problem, Plan]:
    """Plan with the grams that will have been granted by the end of the forecast; begin a segment only when its grams are there.

    Without a deadline more grams always follow, so the throughput is maximised: as many segments as the grams of the horizon pay for
    at the ρ with the most gain per gram. With a deadline: the share of the segments that an even pace requires.
    """
    reachable = _cut_to_reach(problem, rate)
    # more accrues for the rest; the need of the next segment is computed below, at its upper values
    plan = solve(_without_margins(reachable))
    if plan.action == "wait":
        return reachable, plan
    arrays = SegmentArrays(reachable)
    lowest = float(arrays.lo[0])
    least = _needed_g(arrays, lowest)
    if least > rate.most_g:
        reason = reasons.rate_too_low(least, rate.g_per_h, rate.most_g)
        return reachable, replace(plan, action="stop", rho=None, wait_s=None, reason=reason, segments=())
    rho = _largest_rho(arrays, lowest, plan.rho or lowest, rate.most_g)
    needs = _needed_g(arrays, rho)
    if needs > rate.level_g:
        return reachable, _wait_for_grams(plan, rho, needs, rate)
    if plan.action == "stop":  # the horizon's grams would not suffice, but the saved grams do
        plan = replace(plan, action="train", reason=reasons.saved_up(rho, rate.level_g))
    return reachable, replace(plan, rho=rho, reason=reasons.accruing(plan.reason, rate.level_g, rate.g_per_h))


def _largest_rho(arrays: SegmentArrays, lowest: float, wanted: float, most_g: float) -> float:
    """The largest ρ up to `wanted` at which the next segment needs no more than can be saved up."""
    if _needed_g(arrays, wanted) <= most_g:
        return wanted
    low, high = lowest, wanted
    for _ in range(_HALVINGS):
        middle = 0.5 * (low + high)
        low, high = (middle, high) if _needed_g(arrays, middle) <= most_g else (low, middle)
    return low


def _wait_for_grams(plan: Plan, rho: float, needs_g: float, rate: BudgetRate) -> Plan:
    wait_s = (needs_g - rate.level_g) / rate.g_per_h * _HOUR_S
    if wait_s > rate.resident_s:
        needs_g = min(_SPARE * (needs_g + rate.again_g) + rate.again_g, rate.most_g)
        wait_s = (needs_g - rate.level_g) / rate.g_per_h * _HOUR_S
    segments = tuple(_shift(segment, wait_s) for segment in plan.segments)
    reason = reasons.wait_for_grams(wait_s, needs_g, rate.g_per_h, rate.level_g, rho)
    return replace(plan, action="wait", rho=None, wait_s=wait_s, reason=reason, segments=segments)


def _shift(segment: PlannedSegment, by_s: float) -> PlannedSegment:
    return replace(segment, start_s=segment.start_s + by_s, end_s=segment.end_s + by_s)


def _cut_to_reach(problem: Problem, rate: BudgetRate) -> Problem:
    """The segments for the grams granted by the end of the forecast, or by the deadline."""
    reach, deadline, n = problem.slots[-1].end_s, problem.deadline_s, len(problem.segments)
    ahead_s = reach if deadline is None else min(max(deadline, 1.0), reach)
    budget = max(rate.level_g, 0.0) + rate.g_per_h * ahead_s / _HOUR_S
    if deadline is None:
        kept = _affordable(problem, budget - problem.reserve_g, reach)
    else:
        kept = max(int(np.ceil(n * ahead_s / max(deadline, 1.0))), 1)
    if kept >= n:
        return replace(problem, budget_g=budget)
    return replace(
        problem,
        segments=problem.segments[:kept],
        budget_g=budget,
        deadline_s=None if deadline is None else ahead_s,
        energy=replace(problem.energy, tail_j=0.0, tail_s=0.0),
    )


def _affordable(problem: Problem, budget_g: float, reach_s: float) -> int:
    """Segments that the grams and the time of the horizon pay for, at the ρ with the most gain per gram."""
    arrays = SegmentArrays(replace(problem, segments=problem.segments[:1], gaps=(), allowed=None))
    rho = np.linspace(arrays.lo[0], arrays.hi[0], _RHOS)
    joules, seconds = arrays.cost(0, rho)
    best = int(np.argmax(arrays.curves[0].at(rho) / np.maximum(joules, 1e-9)))
    mean = float(arrays.intensity.mean_between(np.array([0.0]), np.array([reach_s]))[0])
    rate = arrays.g_per_j_per_intensity * mean
    many = min(budget_g / max(float(joules[best]) * rate, 1e-12), float(len(problem.segments)))
    # rounded up, so that the remainder is not spent on the next segment at each new plan
    whole = math.ceil(many) if math.ceil(many) * float(joules[0]) * rate <= budget_g else math.floor(many)
    by_time = math.floor(reach_s / max(float(seconds[best]), 1e-6))
    return min(max(min(whole, by_time), 1), len(problem.segments))


def _needed_g(arrays: SegmentArrays, rho: float) -> float:
    """Grams required before the next segment begins at ρ: its own at upper values, and the reserve."""
    joules, seconds = (float(column[0]) for column in arrays.cost(0, np.array([rho])))
    high = arrays.intensity.mean_between(np.array([0.0]), np.array([seconds]), "high")
    upper = joules * (1 + guard.ENERGY_Z * arrays.problem.energy.sigma)
    return upper * arrays.g_per_j_per_intensity * float(high[0]) + arrays.problem.reserve_g
