"""What a job wants of its grams: the most gain for a budget, the fewest grams for a quality, or what a rate lets it have.

`pursue` turns each into the planner's own problem and answers with the plan and the problem that was really solved.
"""

import math
from dataclasses import dataclass, replace

import numpy as np

from carbonsched.plan import guard
from carbonsched.plan.allocation import least_budget, mean_rho
from carbonsched.plan.planner import solve
from carbonsched.plan.problem import Plan, PlannedSegment, Problem
from carbonsched.plan.segment_arrays import SegmentArrays

NO_LIMIT_G = 1e15
"""Budget of a job that has none: every sum with it stays finite."""
_HOUR_S = 3600.0
_RHOS = 25
_SPARE = 1.2
"""What is saved up before a job is started again over what it should need: falling short costs another start."""
_MISS = 2e-3


@dataclass(frozen=True, slots=True)
class BudgetRate:
    """A budget that grows with time."""

    g_per_h: float
    level_g: float
    """Granted and not spent yet."""
    most_g: float
    """What may be saved up."""
    again_g: float = 0.0
    """What a further start of the job takes (loading): saved too before a wait for which the process ends."""
    resident_s: float = 600.0
    """Waits up to here keep the process."""


@dataclass(frozen=True, slots=True)
class Objective:
    rho_mean: float | None = None
    """Mean ρ that the remaining steps should reach for the fewest grams; None: the most gain instead."""
    budget_rate: BudgetRate | None = None


def solve_for(problem: Problem, objective: Objective) -> tuple[Problem, Plan]:
    """The plan that serves the aim, and the problem it answers."""
    if objective.budget_rate is not None:
        return _grow(problem, objective.budget_rate)
    if objective.rho_mean is not None:
        return _lean(problem, objective.rho_mean)
    return problem, solve(problem)


def _lean(problem: Problem, rho: float) -> tuple[Problem, Plan]:
    """The dual problem: the fewest grams for a mean ρ; `problem.budget_g` is a cap."""
    free = problem.budget_g >= NO_LIMIT_G
    asked = replace(_unguarded(problem), reserve_g=0.0) if free else problem
    budget, plan = least_budget(asked, rho)
    if budget > problem.budget_g:
        plan = solve(problem)
        text = (
            f"min-carbon: mean rho {rho:.3f} would take {budget:.3g} g, the budget is the cap; {plan.reason}"
        )
        return problem, replace(plan, reason=text)
    reached = mean_rho(asked, plan)
    text = f"min-carbon: mean rho {min(reached, rho):.3f} for {budget:.3g} g; {plan.reason}"
    if reached < rho - _MISS:
        text += f"; the wanted {rho:.3f} is out of reach before the deadline"
    binding = tuple("rho_mean" if name == "budget" else name for name in plan.binding)
    return replace(asked, budget_g=budget), replace(plan, reason=text, binding=binding)


def _unguarded(problem: Problem) -> Problem:
    """Where no budget has to last to the end there is nothing to guard: expectations count, not their upper values."""
    slots = tuple(replace(slot, high=slot.g_per_kwh, low=slot.g_per_kwh) for slot in problem.slots)
    return replace(problem, slots=slots, energy=replace(problem.energy, sigma=0.0))


def _grow(problem: Problem, budget_rate: BudgetRate) -> tuple[Problem, Plan]:
    """Plan with what will have been granted by the end of the forecast; begin a segment only when it is there.

    Without a deadline there is always more to come, so the question is the pace: as many segments as the grams of the
    horizon pay for at the ρ that gains most a gram. With one, the share of the segments that an even pace has due.
    """
    paced = _paced(problem, budget_rate)
    # more accrues for the rest; what the next segment needs is looked at below, at its upper values
    plan = solve(_unguarded(paced))
    if plan.action == "wait":
        return paced, plan
    arrays = SegmentArrays(paced)
    lowest, wanted = float(arrays.lo[0]), plan.rho or float(arrays.lo[0])
    least = _own(arrays, lowest)
    if least > budget_rate.most_g:
        text = (
            f"stop: a segment needs {least:.3g} g at the lowest rho, at {budget_rate.g_per_h:.3g} g/h no more than "
            f"{budget_rate.most_g:.3g} g are saved up; shorten train.segment or raise the rate"
        )
        return paced, replace(plan, action="stop", rho=None, wait_s=None, reason=text, segments=())
    rho, low = wanted, lowest
    if _own(arrays, rho) > budget_rate.most_g:
        for _ in range(24):
            middle = 0.5 * (low + rho)
            low, rho = (middle, rho) if _own(arrays, middle) <= budget_rate.most_g else (low, middle)
        rho = low
    needs = _own(arrays, rho)
    if needs <= budget_rate.level_g:
        if plan.action == "stop":  # the horizon's grams would not do for it, what is saved up does
            plan = replace(
                plan, action="train", reason=f"rho {rho:.3f}: {budget_rate.level_g:.3g} g are saved up"
            )
        text = f"{plan.reason}; {budget_rate.level_g:.3g} g are there, the rest accrues at {budget_rate.g_per_h:.3g} g/h"
        return paced, replace(plan, rho=rho, reason=text)
    wait_s = (needs - budget_rate.level_g) / budget_rate.g_per_h * _HOUR_S
    if wait_s > budget_rate.resident_s:
        needs = min(_SPARE * (needs + budget_rate.again_g) + budget_rate.again_g, budget_rate.most_g)
        wait_s = (needs - budget_rate.level_g) / budget_rate.g_per_h * _HOUR_S
    text = (
        f"wait {_span(wait_s)} for {needs:.3g} g at {budget_rate.g_per_h:.3g} g/h, "
        f"{max(budget_rate.level_g, 0.0):.3g} g are there; then rho {rho:.3f}"
    )
    later = tuple(_shift(segment, wait_s) for segment in plan.segments)
    return paced, replace(plan, action="wait", rho=None, wait_s=wait_s, reason=text, segments=later)


def _paced(problem: Problem, budget_rate: BudgetRate) -> Problem:
    reach, deadline, n = problem.slots[-1].end_s, problem.deadline_s, len(problem.segments)
    ahead_s = reach if deadline is None else min(max(deadline, 1.0), reach)
    budget = max(budget_rate.level_g, 0.0) + budget_rate.g_per_h * ahead_s / _HOUR_S
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
    """Segments that the grams and the time of the horizon pay for, at the ρ that gains most a gram."""
    arrays = SegmentArrays(replace(problem, segments=problem.segments[:1], gaps=(), allowed=None))
    rho = np.linspace(arrays.lo[0], arrays.hi[0], _RHOS)
    joules, seconds = arrays.times(0, rho)
    best = int(np.argmax(arrays.curves[0].at(rho) / np.maximum(joules, 1e-9)))
    mean = float(arrays.intensity.between(np.array([0.0]), np.array([reach_s]))[0])
    rate = arrays.g_per_j_per_intensity * mean
    many = min(budget_g / max(float(joules[best]) * rate, 1e-12), float(len(problem.segments)))
    # rounded up, so that what is left over is not spent on the next segment each time one looks
    whole = math.ceil(many) if math.ceil(many) * float(joules[0]) * rate <= budget_g else math.floor(many)
    by_time = math.floor(reach_s / max(float(seconds[best]), 1e-6))
    return min(max(min(whole, by_time), 1), len(problem.segments))


def _own(arrays: SegmentArrays, rho: float) -> float:
    """Grams to have before the next segment begins at ρ: its own at upper values, and the reserve."""
    joules, seconds = (float(column[0]) for column in arrays.times(0, np.array([rho])))
    high = arrays.intensity.between(np.array([0.0]), np.array([seconds]), "high")
    upper = joules * (1 + guard.ENERGY_Z * arrays.problem.energy.sigma)
    return upper * arrays.g_per_j_per_intensity * float(high[0]) + arrays.problem.reserve_g


def _shift(segment: PlannedSegment, by_s: float) -> PlannedSegment:
    return replace(segment, start_s=segment.start_s + by_s, end_s=segment.end_s + by_s)


def _span(seconds: float) -> str:
    return f"{seconds / 3600:.1f} h" if seconds >= 3600 else f"{max(seconds / 60, 1):.0f} min"
