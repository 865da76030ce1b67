"""Decides the number of steps of a job of open end (`train.scheduler = "budget"`), and when its cooldown begins.

Only the end of such a job is obligatory: the cooldown, the last evaluation and saving. The guard keeps back only their grams, at
the forecast's high and the energy model's margin, and the job trains on at its full learning rate until the next check could be too
late. A running cooldown is checked again and again: unused margin lengthens it, missing grams shorten it, down to 2% of the steps.

A job that chooses among settings is laid out with the steps of its cheapest one: the planner leaves out at the end the steps that a more
expensive setting cannot pay for (`setting_search`). Its cooldown is trained in the one setting that it was computed for.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Literal, NamedTuple

import numpy as np

from carbonsched.plan import guard, reasons
from carbonsched.plan.intensity_curve import IntensityCurve, Level
from carbonsched.plan.price_search import TIE, min_grams_plan
from carbonsched.plan.problem import JobSegment, Plan, PlanPoint, Problem
from carbonsched.plan.segment_arrays import SegmentArrays
from carbonsched.plan.working_time import WorkingTime

SHORTEST = 0.02
"""Least share of all steps to which a cooldown is shortened."""
_MOST_STEPS = 10**9
_ROUNDS = 4
"""Plans with waits that are tried until their steps use the whole budget."""
_MOST = 192
"""Segments planned one by one, as in the planner."""
_MOST_AHEAD = 2_000
"""About the most segments that are laid out: more steps make them longer."""
_FITS = 0.999
"""Share of the budget that the planned steps may use, so that rounding does not make them unaffordable."""


class _Step(NamedTuple):
    """Cost of a step, without checkpoints and evaluation."""

    joules: float
    seconds: float


@dataclass(frozen=True, slots=True)
class OpenEnd:
    """The progress of a job of open end.

    Example:
        >>> OpenEnd(done=100, k=1, here=20, length=60, share=0.2).cooldown(100)
        25
    """

    done: int
    """Steps done."""
    k: int
    """The current segment, or the next."""
    here: int
    """Remaining steps of that segment."""
    length: int
    """Steps of a later segment."""
    share: float
    """Share of the cooldown in all steps."""
    most: int | None = None
    """Most steps of the whole job; None: no bound."""
    rho: float | None = None
    """ρ at which it trains now; None: not known yet."""
    cools_from: int | None = None
    """Steps before the running cooldown; None: it has not begun."""
    recheck_s: float = 1.0
    """Seconds until the next check."""
    lag_s: float = 0.0
    """Seconds by which it may be further than it has reported; 0 for a job that waits for its directive."""
    step_elapsed_s: float = 0.0
    """Elapsed seconds of the current step."""
    guess: float = 1.0
    """Factor by which the cost of a step may be overestimated before one was observed; 1: one was observed. A guess begins no cooldown."""
    save_g: float = 0.0
    """Part of the problem's reserve for a checkpoint: it is free after the last step, when the job has been saved."""

    def cooldown(self, stable: int) -> int:
        """Steps of the cooldown after this many stable ones."""
        return max(math.ceil(self.share / (1 - self.share) * stable), 1)

    def shortest(self, stable: int) -> int:
        return max(math.ceil(SHORTEST / (1 - SHORTEST) * stable), 1)


@dataclass(frozen=True, slots=True)
class StepPlan:
    """How a job of open end continues from now.

    Example:
        >>> StepPlan(phase="stable", cooldown_from=200, end=250, keeps_g=1.5).cooldown_steps
        50
    """

    phase: Literal["stable", "cooldown"]
    """Phase from the next step on; also `cooldown` if one is known to begin at `cooldown_from`."""
    cooldown_from: int
    """First step of the cooldown, from 0; estimated if `phase` is `stable`."""
    end: int
    """Steps of the whole job; estimated likewise."""
    keeps_g: float
    """Grams that the guard keeps back for the cooldown, the last evaluation and saving."""

    @property
    def cooldown_steps(self) -> int:
        return self.end - self.cooldown_from

    def ending(self, end: int, job: OpenEnd) -> "StepPlan":
        """The same with another expected end."""
        return replace(self, end=end, cooldown_from=max(end - math.ceil(job.share * end), job.done))

    @property
    def reason(self) -> str:
        """The reason, in words."""
        return reasons.steps(
            cooling=self.phase == "cooldown", begin=self.cooldown_from, end=self.end, keeps_g=self.keeps_g
        )


def lay_out(problem: Problem, job: OpenEnd, *, waits: bool = True) -> tuple[Problem, StepPlan]:
    """The problem with the steps that its grams and its time are expected to pay for, and how the job continues now.

    problem: its first segment gives the frontier, the other ones are ignored. waits: also use the cleanest hours
    if the job may pause; this takes a few plans.
    """
    costs = _Costs.of(problem, job)
    point = costs.best(job)
    plan = _judge(costs, job, point)
    if plan.phase == "cooldown":
        # unused margins lengthen the cooldown: they are no reason for a more expensive setting
        points = () if point is None else (point,)
        segments = lay_out_steps(problem.segments[0], job, plan.end - job.done)
        laid = replace(problem, open_end=True, done=job.done / plan.end, points=points)
        return _with_segments(laid, segments, job), plan
    alone = costs.best(replace(job, rho=None))
    step = costs.step(problem.rho_min if alone is None and job.most is not None else None, alone)
    left = _expected(costs, problem, job, step, waits=waits)
    segments = lay_out_steps(problem.segments[0], job, left)
    end = job.done + left
    if problem.points:
        # cut where the best of them alone would end, so that it can be planned to its last step
        cheapest = _Step(min(p.joules for p in problem.points), min(p.seconds for p in problem.points))
        further = _expected(costs, problem, job, cheapest, waits=waits) - left
        if further > 0:
            behind = replace(job, k=segments[-1].k + 1, here=job.length)
            segments += lay_out_steps(problem.segments[0], behind, further)
    early = bool(problem.points)
    laid = replace(problem, open_end=True, done=job.done / max(end, 1), may_end_early=early)
    return _with_segments(laid, segments, job), plan.ending(end, job)


def as_planned(steps: StepPlan, job: OpenEnd, laid: Problem, plan: Plan) -> StepPlan:
    """The same with the number of steps of the plan, if the plan of the laid-out problem chose it."""
    if steps.phase != "stable" or not laid.may_end_early or not plan.segments:
        return steps
    sizes = {segment.k: segment.steps for segment in laid.segments}
    trained = sum(sizes[planned.k] for planned in plan.segments) / plan.reach
    return steps.ending(job.done + max(round(trained), 1), job)


def judge(problem: Problem, job: OpenEnd) -> StepPlan:
    """How the job continues now, using only the guard's margins: cheap enough for every tick."""
    costs = _Costs.of(problem, job)
    return _judge(costs, job, costs.best(job))


def _judge(costs: "_Costs", job: OpenEnd, point: PlanPoint | None) -> StepPlan:
    step = costs.step(job.rho, point)
    least = _Step(step.joules / job.guess, step.seconds / job.guess)
    affordable = _count(
        lambda steps: costs.high_g(steps, least) <= costs.left_g * (1 + TIE),
        costs.in_time(least, margin=True),
    )
    bound = job.most if job.most is not None else _MOST_STEPS + job.done
    if job.cools_from is not None:
        end = max(job.done + affordable, job.cools_from + job.shortest(job.cools_from), job.done + 1)
        end = max(min(end, bound), job.done + 1)
        return StepPlan("cooldown", job.cools_from, end, costs.high_g(end - job.done, step))
    step_s = max(step.seconds, 1e-9)
    lag = math.ceil(job.lag_s / step_s)
    # the first possible step of a cooldown that is directed at the next check, which may fall into the same step
    ahead = 1 + math.floor((min(job.step_elapsed_s, step_s) + job.lag_s + job.recheck_s) / step_s + 1e-9)
    last = bound - math.ceil(job.share * bound)  # where the bound makes it begin
    wanted = job.cooldown(job.done + ahead)
    if ahead + wanted <= affordable and job.done + ahead < last:
        return StepPlan("stable", job.done + ahead, job.done + ahead + wanted, costs.high_g(wanted, step))
    end = min(job.done + max(affordable, job.shortest(job.done)), bound)
    begin = min(job.done + lag, bound - 1)
    if end == bound and job.done < last:  # the grams do not bind: the owner's bound decides
        begin = last
    return StepPlan("cooldown", begin, max(end, begin + 1), costs.high_g(end - begin, step))


def _expected(costs: "_Costs", problem: Problem, job: OpenEnd, step: _Step, *, waits: bool) -> int:
    """Further steps that the grams and the time should pay for, at the cost of `step`; at least the shortest cooldown."""
    in_time = costs.in_time(step)
    left = _count(lambda steps: costs.mean_g(steps, step) <= costs.left_g * _FITS, in_time)
    if waits and problem.may_pause and left > 0:
        left = _with_waits(problem, job, left, step, in_time)
    return max(min(left, (job.most or _MOST_STEPS) - job.done), job.shortest(job.done))


def _with_waits(problem: Problem, job: OpenEnd, steps: int, step: _Step, in_time: int) -> int:
    """Steps that the budget pays for in the cleanest hours before the deadline."""
    budget = (problem.budget_g - problem.reserve_g) * _FITS
    bound = (job.most or _MOST_STEPS) - job.done
    best = steps
    energy = replace(
        problem.energy, joules_full=step.joules, joules_c0=1.0, seconds_full=step.seconds, seconds_c0=1.0
    )
    for _ in range(_ROUNDS):
        segments = lay_out_steps(problem.segments[0], job, steps)
        asked = replace(problem, energy=energy, rho_max=problem.rho_min, allowed=None)
        asked = _with_segments(asked, segments, job)
        if problem.allowed is not None:
            asked = WorkingTime.of(problem.allowed).cut(replace(asked, allowed=problem.allowed))
        spend = min_grams_plan(SegmentArrays(asked, _MOST)).schedule.spend_g
        if spend <= budget:
            best = max(best, steps)
        again = max(min(math.floor(steps * budget / max(spend, 1e-12)), in_time, bound), 1)
        if abs(again - steps) <= 0.005 * steps:
            break
        steps = again
    return best


def lay_out_steps(first: JobSegment, job: OpenEnd, left: int) -> tuple[JobSegment, ...]:
    """The segments of this many further steps. first: the current one, or the next."""
    here = min(max(job.here, 1), left)
    length = max(job.length, -(-(left - here) // _MOST_AHEAD))
    whole, rest = divmod(left - here, length)
    sizes = [here, *([length] * whole), *([rest] if rest else [])]
    return tuple(replace(first, k=job.k + i, steps=size) for i, size in enumerate(sizes))


def _with_segments(problem: Problem, segments: tuple[JobSegment, ...], job: OpenEnd) -> Problem:
    """The problem of these segments. A segment longer than the job's represents several, each with its checkpoint."""
    energy = problem.energy
    if max(segment.steps for segment in segments) > job.length:
        stand_for = sum(segment.steps for segment in segments) / job.length / len(segments)
        overhead_j, overhead_s = energy.overhead_j * stand_for, energy.overhead_s * stand_for
        energy = replace(energy, overhead_j=overhead_j, overhead_s=overhead_s)
    return replace(problem, segments=segments, energy=energy)


def _count(fits: Callable[[int], bool], most: int) -> int:
    """The largest number of steps up to `most` that fits."""
    if most <= 0 or not fits(1):
        return 0
    low, high = 1, 2
    while high < most and fits(high):
        low, high = high, 2 * high
    high = min(high, most + 1)
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if fits(middle) else (low, middle)
    return low


@dataclass(frozen=True, slots=True)
class _Costs:
    """Cost of steps from now on, without pauses."""

    problem: Problem
    """In working time."""
    curve: IntensityCurve
    length: int
    """Steps of a segment."""
    step_elapsed_s: float = 0.0
    """Elapsed, and paid, seconds of the first of the steps."""
    save_g: float = 0.0

    @classmethod
    def of(cls, problem: Problem, job: OpenEnd) -> "_Costs":
        if problem.allowed is not None:
            problem = WorkingTime.of(problem.allowed).cut(problem)
        curve = IntensityCurve(problem.slots, problem.beyond_g_per_kwh, problem.slots[-1].end_s)
        return cls(problem, curve, job.length, job.step_elapsed_s, job.save_g)

    @property
    def left_g(self) -> float:
        return self.problem.budget_g - self.problem.reserve_g

    def step(self, rho: float | None, point: PlanPoint | None = None) -> _Step:
        """Cost of a step in a setting, or at ρ; None: at the largest ρ of the job's method."""
        if point is not None:
            return _Step(point.joules, point.seconds)
        if rho is None:
            top = self.problem.segments[0].frontier[-1][0]
            rho = max(min(self.problem.rho_max, top), self.problem.rho_min)
        energy = self.problem.energy
        return _Step(energy.joules(rho, 1) - energy.overhead_j, energy.seconds(rho, 1) - energy.overhead_s)

    def best(self, job: OpenEnd) -> PlanPoint | None:
        """The setting in which it trains, else the one with the most gain alone; None for a job without a choice."""
        points = self.problem.points
        if not points:
            return None
        if job.rho is not None:
            rho = job.rho
            return min(points, key=lambda p: (abs(p.rho - rho), -p.worth, -p.joules))
        bound = (job.most or _MOST_STEPS) - job.done

        def brings(point: PlanPoint) -> tuple[float, float]:
            step = self.step(None, point)
            in_time, usable = self.in_time(step), self.left_g * _FITS
            steps = _count(lambda n: self.mean_g(n, step) <= usable, in_time)
            # including the fraction of a step that is left over: near the end it must not decide
            spare = usable - self.mean_g(steps, step)
            each = max(self.mean_g(steps + 1, step) - self.mean_g(steps, step), 1e-12)
            part = min(max(spare / each, 0.0), 1.0) if steps < in_time else 0.0
            return min(steps + part, bound) * point.worth, -point.joules

        return max(points, key=brings)

    def in_time(self, step: _Step, *, margin: bool = False) -> int:
        """Steps that fit before the deadline."""
        deadline, energy = self.problem.deadline_s, self.problem.energy
        if deadline is None:
            return _MOST_STEPS
        slower = 1 + guard.ENERGY_Z * energy.sigma if margin else 1.0
        each = step.seconds + energy.overhead_s / self.length
        return max(math.floor((deadline / slower - energy.tail_s) / max(each, 1e-9)), 0)

    def mean_g(self, steps: int, step: _Step) -> float:
        """Expected grams, including the end of the job."""
        return self._grams(steps, step, "mean")

    def high_g(self, steps: int, step: _Step) -> float:
        """Grams at the forecast's high and with the energy's margin, and enough for a lease of the last step."""
        problem = self.problem
        needs = self._grams(steps, step, "high") * (1 + guard.ENERGY_Z * problem.energy.sigma)
        lease = problem.grams(step.joules * (1 + 3 * problem.energy.sigma), problem.worst_g_per_kwh)
        before = self._grams(max(steps - 1, 0), step, "high", tail=False) * (
            1 + guard.ENERGY_Z * problem.energy.sigma
        )
        return max(needs - self.save_g, before + lease)

    def _grams(self, steps: int, step: _Step, level: Level, *, tail: bool = True) -> float:
        energy = self.problem.energy
        # a checkpoint at the end of each segment, and at the beginning of the cooldown
        ends = steps // self.length + 1
        paid = min(self.step_elapsed_s / step.seconds, 1.0) if steps and step.seconds > 0 else 0.0
        joules = (steps - paid) * step.joules + ends * energy.overhead_j
        seconds = (steps - paid) * step.seconds + ends * energy.overhead_s
        if tail:
            joules, seconds = joules + energy.tail_j, seconds + energy.tail_s
        mean = float(self.curve.mean_between(np.array([0.0]), np.array([seconds]), level)[0])
        return self.problem.grams(joules, mean)
