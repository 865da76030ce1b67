"""Runs a job whose number of steps is open over a recorded trace, by the step dial, the planner and the guard of the daemon.

A job of several settings changes between them from segment to segment, as planned, and keeps one that is for the whole job (adapters).
The planner's knowledge is as wrong as requested: the forecast is persistence or the trace's column, and until the first segment is
metered the joules and seconds of a step are off by a factor.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np

from carbonsched.plan import guard
from carbonsched.plan.planner import solve
from carbonsched.plan.problem import EnergyModel, JobSegment, PlanPoint, Problem, Slot
from carbonsched.plan.simulation.request import SimRequest
from carbonsched.plan.simulation.run import SimRun
from carbonsched.plan.step_dial import OpenEnd, judge, lay_out

_LONGEST_WAIT_S = 4 * 3600.0
_FORECAST_S = 900.0
"""Seconds between two forecasts."""
_LOOKS = 100.0
"""Checks while the budget lasts, as in the daemon (`supervisor.estimates.inputs`)."""
_LOOK_S = 300.0
"""Longest time between two checks: longer than the daemon's minute, for a run that takes seconds; it does not improve the end."""
_PRIOR_SIGMA, _SIGMA = 0.25, 0.05
"""Relative sd of a segment's joules, before one was metered and after."""
_MOST_TURNS = 100_000


@dataclass(frozen=True, slots=True)
class OpenJob:
    """A job of open end with its real costs, and the error of their first estimate.

    Example:
        >>> OpenJob(step_j=900.0, step_s=3.0).watts
        300.0
    """

    step_j: float
    step_s: float
    length: int = 100
    """Steps of a segment."""
    share: float = 0.2
    """Share of the cooldown in all steps."""
    tail_s: float = 60.0
    """Evaluation and saving."""
    checkpoint_s: float = 5.0
    believed: float = 1.0
    """Estimated cost of a step at first ÷ its real cost."""
    noise: float = 0.03
    """Relative sd of a segment's joules."""
    most: int | None = None
    seed: int = 0
    points: tuple[PlanPoint, ...] = ()
    """Settings that a segment may train in, with the real cost of a step of each; empty: `step_j` and `step_s`, in one setting."""

    @property
    def watts(self) -> float:
        return self.step_j / self.step_s


@dataclass(frozen=True, slots=True)
class OpenEndResult:
    """The result of a job of open end.

    Example:
        >>> OpenEndResult(9.6, 10.0, 500, 100, 1.0, annealed=True, late_s=0.0, reason="done").used
        0.96
    """

    spent_g: float
    budget_g: float
    steps: int
    cooldown_steps: int
    lasted_s: float
    annealed: bool
    """Whether it reached the end of its cooldown, evaluated and saved."""
    late_s: float
    reason: str
    by_deadline: bool = False
    """Whether its deadline ended it, rather than its budget."""
    worth: float = 0.0
    """Full steps that its steps are worth; without settings the number of steps."""
    settings: tuple[str, ...] = ()
    """The settings that it trained in, in the order of their first segments."""

    @property
    def used(self) -> float:
        return self.spent_g / self.budget_g


def simulate_open_end(request: SimRequest, job: OpenJob) -> OpenEndResult:
    """Run one job; request: the trace, the start, the forecast, the budget and the deadline. Raises InputError as `SimRun.begin`."""
    return _Run(request, job).go()


class _Run:
    def __init__(self, request: SimRequest, job: OpenJob) -> None:
        self.job, self.run = job, SimRun.begin(request)
        self.random = np.random.default_rng(job.seed)
        self.high_w = 1.15 * max([job.watts, *(p.joules / p.seconds for p in job.points)])
        self.done, self.metered = 0, 0
        self.cools_from: int | None = None
        self.end: int | None = None
        self.point: PlanPoint | None = None
        self.worth, self.settings = 0.0, dict[str, None]()
        self._made = -math.inf
        self._slots: tuple[Slot, ...] = ()

    def go(self) -> OpenEndResult:
        reason = next(self._turns(), "done")
        run, job = self.run, self.job
        annealed = reason == "done"
        if annealed:
            annealed = self._spend(job.tail_s, job.watts)
            reason = "done" if annealed else "stopped in the last evaluation"
        began = self.cools_from if self.cools_from is not None else self.done
        return OpenEndResult(
            spent_g=run.spent_g,
            budget_g=run.request.budget_g,
            steps=self.done,
            cooldown_steps=max(self.done - began, 0),
            lasted_s=run.t - run.grid.t0,
            annealed=annealed,
            late_s=0.0 if run.deadline is None else max(run.t - run.deadline, 0.0),
            reason=reason,
            worth=self.worth,
            settings=tuple(self.settings),
            by_deadline=run.deadline is not None and run.t > run.deadline - 0.05 * (run.t - run.grid.t0),
        )

    def _turns(self) -> Iterator[str]:
        """Train until the end; yields the reason of an earlier stop."""
        job = self.job
        for _ in range(_MOST_TURNS):
            here = job.length - self.done % job.length
            if self.end is not None and self.done >= self.end:
                return
            if here == job.length or self.run.waiting:
                problem = self._problem()
                laid, steps = lay_out(problem, self._state(problem, here, lag_s=0.0))
                plan = solve(laid, detail=False)
                self._take(plan.point)
                if plan.action == "stop":
                    yield plan.reason
                if plan.action == "wait":
                    self.run.pause(self.run.t + min(max(plan.wait_s or 0.0, 1.0), _LONGEST_WAIT_S))
                    continue
            else:
                problem = self._problem()
                steps = judge(problem, self._state(problem, here, lag_s=2.0))
            if steps.phase == "cooldown":
                self.cools_from, self.end = steps.cooldown_from, steps.end
            recheck_s = self._recheck_s(problem)
            count = max(min(math.floor(recheck_s / self.step_s), here, (self.end or 10**9) - self.done), 1)
            if not self._train(count):
                yield "stop: the next tick could pass the budget"

    @property
    def step_s(self) -> float:
        return self.job.step_s if self.point is None else self.point.seconds

    @property
    def watts(self) -> float:
        return self.job.watts if self.point is None else self.point.joules / self.point.seconds

    def _take(self, planned: PlanPoint | None) -> None:
        """Train in the setting of a plan from now on, at its real cost."""
        if planned is not None:
            self.point = next(p for p in self.job.points if p.name == planned.name)
            self.settings.setdefault(self.point.name)

    def _offered(self) -> tuple[PlanPoint, ...]:
        """The settings that the next segment may train in."""
        if not self.done or self.point is None:
            return self.job.points
        if self.point.whole_job:
            return (self.point,)
        return tuple(p for p in self.job.points if not p.whole_job)

    def _train(self, count: int) -> bool:
        job = self.job
        factor = math.exp(self.random.normal(0.0, job.noise)) if job.noise else 1.0
        if not self._spend(count * self.step_s, self.watts * min(factor, self.high_w / self.watts)):
            return False
        self.done += count
        self.worth += count * (1.0 if self.point is None else self.point.worth)
        self.run.waiting = False
        if self.done % job.length == 0 or self.done == self.end:
            self.metered += 1
            return self._spend(job.checkpoint_s, job.watts)
        return True

    def _spend(self, lasts: float, watts: float) -> bool:
        """Use this power for this long, or for a part of it if the guard stops the job: then return False."""
        run, tick_s = self.run, self.run.request.tick_s
        limit = run.request.budget_g - self._reserve_g(saving=watts < self.job.watts)
        grams = run.grid.grams_between(watts * lasts, run.t, run.t + lasts)
        if run.spent_g + grams > limit:
            part = max(limit - run.spent_g, 0.0) / max(grams, 1e-12)
            lasts = min(math.ceil(part * lasts / tick_s) * tick_s, lasts)
            grams = run.grid.grams_between(watts * lasts, run.t, run.t + lasts)
            run.spent_g, run.t = run.spent_g + grams, run.t + lasts
            return False
        run.spent_g, run.t = run.spent_g + grams, run.t + lasts
        return True

    def _reserve_g(self, *, saving: bool = False) -> float:
        job, run = self.job, self.run
        seconds = run.request.tick_s + job.step_s + (0.0 if saving else job.checkpoint_s)
        return guard.reserve_g(self.high_w * seconds, run.worst_g_per_kwh, run.request.pue)

    def _problem(self) -> Problem:
        run, job = self.run, self.job
        if run.t - self._made >= _FORECAST_S or not self._slots:
            self._slots, self._made = run.slots_ahead(run.request.forecast), run.t
        passed = run.t - self._made
        slots = tuple(
            replace(s, start_s=s.start_s - passed, end_s=s.end_s - passed)
            for s in self._slots
            if s.end_s > passed
        )
        wrong = job.believed if not self.metered else math.exp(self.random.normal(0.0, 0.02))
        energy = EnergyModel(
            joules_full=job.step_j * wrong,
            joules_c0=1.0,
            seconds_full=job.step_s * wrong,
            seconds_c0=1.0,
            overhead_j=job.checkpoint_s * job.watts,
            overhead_s=job.checkpoint_s,
            tail_j=job.tail_s * job.watts,
            tail_s=job.tail_s,
            sigma=_SIGMA if self.metered else _PRIOR_SIGMA,
            watts_high=self.high_w,
            slope_known=True,
        )
        asked = run.problem(slots, 0)
        points = tuple(
            replace(p, joules=p.joules * wrong, seconds=p.seconds * wrong) for p in self._offered()
        )
        lowest = min((p.rho for p in points), default=1.0)
        line = ((lowest, 0.0), (1.0, 1.0)) if lowest < 1 else ((1.0, 1.0),)
        first = JobSegment(self.done // job.length, job.length, line)
        return replace(
            asked,
            segments=(first,),
            energy=energy,
            rho_min=lowest,
            rho_max=1.0,
            points=points,
            reserve_g=self._reserve_g(),
            decay=1.0,
        )

    def _state(self, problem: Problem, here: int, lag_s: float) -> OpenEnd:
        job = self.job
        return OpenEnd(
            done=self.done,
            k=self.done // job.length,
            here=here,
            length=job.length,
            share=job.share,
            most=job.most,
            rho=1.0 if not job.points else None if self.point is None else self.point.rho,
            cools_from=self.cools_from,
            recheck_s=self._recheck_s(problem),
            lag_s=lag_s,
        )

    def _recheck_s(self, problem: Problem) -> float:
        per_s = problem.grams(self.watts, problem.slots[0].g_per_kwh)
        return min(max(max(problem.budget_g, 0.0) / per_s / _LOOKS, 2 * self.run.request.tick_s), _LOOK_S)
