"""What the daemon would do with a job, told before anything is spent: `submit --explain`.

The job is planned as its first directive would be, with priors in place of what nobody has metered yet. The lock is
held to look at the box, not to plan: an explanation may take seconds and must not hold up a tick.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

from carbonsched.errors import InputError
from carbonsched.ledger.ledger import spec_sha256
from carbonsched.model.job import JobSpec, Owner, SubmittedJob
from carbonsched.model.job_state import JobState
from carbonsched.model.profile import CheckResult
from carbonsched.model.views import ExpectedSegment, Explained
from carbonsched.plan.problem import EnergyModel, Plan, Problem
from carbonsched.supervisor.budgets.accrual import FIRST_H, SAVED_H
from carbonsched.supervisor.estimates.evaluation_cost import EvaluationCost, evaluation
from carbonsched.supervisor.estimates.job_cost import LOAD_S
from carbonsched.supervisor.estimates.remaining_work import RemainingWork, remaining_work
from carbonsched.supervisor.estimates.throughput import estimate_throughput
from carbonsched.supervisor.job_views import eta_s
from carbonsched.supervisor.jobs.event_follower import EventFollower
from carbonsched.supervisor.jobs.job_run import JobRun
from carbonsched.units import grams

if TYPE_CHECKING:
    from carbonsched.plan.objective import Objective
    from carbonsched.supervisor.supervisor import Supervisor

_HOUR_S = 3600.0


@dataclass(frozen=True, slots=True)
class _Case:
    """What was found out with the lock held."""

    problem: Problem
    aim: "Objective"
    now: datetime
    """When the job's process would start."""
    looks: EvaluationCost
    first_s: float
    """From there to the first segment: loading, and the first look at held-out rows."""
    watts: float
    loading_g: float
    """Of these seconds but for the look."""
    first_g: float
    """Of all of them."""
    budget_g: float | None
    budget: str
    before: int
    assumptions: tuple[str, ...]


def explain(supervisor: "Supervisor", spec: JobSpec, owner: Owner, checked: CheckResult) -> Explained:
    """Raises InputError for a pool that is not there."""
    from carbonsched.plan.explain import explain as tell
    from carbonsched.plan.objective import solve_for

    with supervisor.lock:
        case = _case(supervisor, spec, owner, checked)
    asked, plan = solve_for(case.problem, case.aim)
    told = tell(asked, plan)
    first = case.now + timedelta(seconds=case.first_s)

    def at(seconds: float | None) -> datetime | None:
        return None if seconds is None else first + timedelta(seconds=seconds)

    lean = case.aim.rho_mean is not None
    limited = case.budget_g is not None
    runs = plan.action != "stop"
    first_g = case.first_g if runs else 0.0
    planned_j, looked_j = _joules(asked, plan), _looked_j(case, asked, plan)
    deadline = spec.carbon.deadline
    return Explained(
        name=spec.name,
        action=plan.action,
        reason=plan.reason if runs else _stopped(case, plan),
        start=at(told.start_s),
        end=at(told.end_s) if len(told.segments) >= checked.segments else None,
        deadline=None if deadline is None else supervisor.clock.now() + timedelta(seconds=deadline),
        rho=told.rho,
        gain=told.gain,
        g=told.g + first_g,
        low_g=told.low_g + first_g,
        high_g=told.high_g + first_g,
        loading_g=case.loading_g if runs else 0.0,
        evaluation_g=first_g - case.loading_g + told.g * looked_j / planned_j if planned_j > 0 else 0.0,
        floor_g=told.floor_g + case.first_g,
        budget_g=case.budget_g,
        budget=case.budget,
        energy_j=planned_j + case.first_s * case.watts if runs else 0.0,
        binds=told.binding,
        gain_per_more_g=told.gain_per_more_g if limited and not lean else None,
        gain_per_more_hour=None if lean else told.gain_per_more_hour,
        g_per_more_hour=_saved(case, plan) if lean and runs else None,
        jobs_before=case.before,
        segments=tuple(
            ExpectedSegment(
                k=s.k,
                start=first + timedelta(seconds=s.start_s),
                end=first + timedelta(seconds=s.end_s),
                rho=s.rho,
                g=s.g,
                low_g=s.low_g,
                high_g=s.high_g,
            )
            for s in told.segments
        ),
        segments_in_all=checked.segments,
        estimated=True,
        assumptions=case.assumptions,
    )


def _case(supervisor: "Supervisor", spec: JobSpec, owner: Owner, checked: CheckResult) -> _Case:
    supervisor.allowances.pools.check(spec)
    now = supervisor.clock.now()
    job = SubmittedJob(id="", spec=spec, owner=owner, submitted_at=now, sha256=spec_sha256(spec))
    run = JobRun(
        job, Path(), EventFollower(Path()), JobState.QUEUED, "", spec.carbon.budget_g, checked=checked
    )
    throughput = estimate_throughput(supervisor.ledger, supervisor.meter.devices, spec)
    rest = remaining_work(run)
    if rest is None or not rest.segments:
        raise InputError("checked", "foresees no step to train", "check the data and train.max_steps")
    looks = run.looks = evaluation(supervisor.ledger, supervisor.meter.devices, spec, checked, throughput)
    energy = supervisor.steering.energy(run, supervisor.steering.foreseen(run, throughput))
    wait_s, before, waits = _queue(supervisor)
    start = now + timedelta(seconds=wait_s)
    first_s = LOAD_S + looks.before_s
    reading = supervisor.chain.reading_at(now)
    g_per_kwh = reading.g_per_kwh if reading else supervisor.config.zone.worst_g_per_kwh
    first_g = grams(first_s * throughput.watts, g_per_kwh, supervisor.config.pue)
    budget_g, words, growth_rate = _budget(supervisor, run, rest, energy, first_g)
    left_g = None if budget_g is None else max(budget_g - first_g, 0.0)
    idle = supervisor.outlook.idle_w.values()
    problem = supervisor.steering.problem(run, rest, energy, 0.0, sum(idle))
    problem = _after(problem, wait_s + first_s)
    return _Case(
        problem=replace(problem, budget_g=_no_limit() if left_g is None else left_g),
        aim=_aim(rest, growth_rate, left_g, first_g),
        now=start,
        looks=looks,
        first_s=first_s,
        watts=throughput.watts,
        loading_g=first_g * LOAD_S / first_s,
        first_g=first_g,
        budget_g=budget_g,
        budget=words,
        before=before,
        assumptions=(
            throughput.source,
            f"loading takes {LOAD_S:.0f} s",
            looks.words,
            "gain is linear in ρ until importance is measured" if not rest.known else "gain as measured",
            *waits,
        ),
    )


def _budget(
    supervisor: "Supervisor", run: JobRun, rest: RemainingWork, energy: EnergyModel, loading_g: float
) -> tuple[float | None, str, float | None]:
    """(grams, how they are set, grams an hour by which they grow)."""
    carbon, pools = run.spec.carbon, supervisor.allowances.pools
    runs = list(supervisor.runs.values())
    pool = pools.of(run.spec)
    if pool is not None:

        def ask(other: JobRun) -> Problem | None:
            if other is not run:
                return supervisor.outlook.question(other)
            asked = supervisor.steering.problem(run, rest, energy, 0.0, 0.0)
            start_g = max(loading_g, supervisor.outlook.loading_g(run, energy))
            return replace(asked, reserve_g=asked.reserve_g + start_g)

        part, _ = pools.preview(pool, run, runs, ask)
        words = f"its part of pool {pool.name}, which has {pool.left_g(runs):.4g} g left"
        return part, words, pools.growth(run, [*runs, run])
    if carbon.budget_rate_g_per_h is not None:
        rate = carbon.budget_rate_g_per_h
        return rate * FIRST_H, f"grows by {rate:g} g/h, up to {rate * SAVED_H:g} g are saved up", rate
    if carbon.budget_share is not None:
        full_g = supervisor.steering.full_grams(rest, energy)
        words = f"{carbon.budget_share:g} of {full_g:.4g} g, full fine-tuning at the mean intensity"
        return carbon.budget_share * full_g, words, None
    if carbon.budget_g is not None:
        return carbon.budget_g, "as given", None
    return None, "none: as few grams as the wanted ρ takes", None


def _aim(rest: RemainingWork, rate: float | None, left_g: float | None, loading_g: float) -> "Objective":
    from carbonsched.plan.objective import BudgetRate, Objective
    from carbonsched.supervisor.control.leases import RESIDENT_WAIT_S

    if rate is None:
        return Objective(rho_mean=rest.rho_due)
    return Objective(budget_rate=BudgetRate(rate, left_g or 0.0, rate * SAVED_H, loading_g, RESIDENT_WAIT_S))


def _no_limit() -> float:
    from carbonsched.plan.objective import NO_LIMIT_G

    return NO_LIMIT_G


def _queue(supervisor: "Supervisor") -> tuple[float, int, Sequence[str]]:
    """(seconds until the box has room, jobs before this one, what is assumed of them)."""
    queued = [run for run in supervisor.runs.values() if run.state is JobState.QUEUED]
    live = [run for run in supervisor.runs.values() if run.alive_from is not None]
    if not queued and supervisor.free_devices() is not None:
        return 0.0, 0, ()
    etas = [eta for eta in (eta_s(run, supervisor.clock) for run in live) if eta is not None]
    before = len(live) + len(queued)
    if not etas or queued:
        return (
            0.0,
            before,
            (f"{before} jobs are before it and when they end is not known: planned as if now",),
        )
    return (
        min(etas),
        before,
        (f"the box has room in {min(etas) / 60:.0f} min, by the plan of the job before",),
    )


def _after(problem: Problem, seconds: float) -> Problem:
    """The same problem asked `seconds` later, by the forecast of now."""
    if seconds <= 0:
        return problem
    last = problem.slots[-1]
    slots = tuple(
        replace(slot, start_s=slot.start_s - seconds, end_s=slot.end_s - seconds)
        for slot in problem.slots
        if slot.end_s > seconds
    ) or (replace(last, start_s=0.0, end_s=last.end_s - last.start_s),)
    allowed = problem.allowed
    if allowed is not None:
        allowed = tuple((a - seconds, b - seconds) for a, b in allowed if b > seconds)
    deadline = None if problem.deadline_s is None else problem.deadline_s - seconds
    return replace(problem, slots=slots, deadline_s=deadline, allowed=allowed)


def _joules(problem: Problem, plan: Plan) -> float:
    steps = {segment.k: segment.steps for segment in problem.segments}
    return sum(problem.energy.joules(p.rho, steps[p.k]) for p in plan.segments) + (
        problem.energy.tail_j if plan.segments else 0.0
    )


def _looked_j(case: _Case, problem: Problem, plan: Plan) -> float:
    """Of these, what is spent on held-out rows."""
    after_j = min(case.looks.after_s * case.watts, problem.energy.tail_j) if plan.segments else 0.0
    return len(plan.segments) * case.looks.segment_s * case.watts + after_j


def _stopped(case: _Case, plan: Plan) -> str:
    """Why it cannot be afforded, in grams of the whole job: the plan knows only what comes after the first look."""
    if case.budget_g is None or case.aim.budget_rate is not None:
        return plan.reason
    needs_g = plan.floor_g + case.first_g + case.problem.reserve_g
    return (
        f"stop: budget below floor, needs {needs_g:.3g} g with loading, evaluation and what is kept for a stop, "
        f"has {case.budget_g:.3g} g"
    )


def _saved(case: _Case, plan: Plan) -> float | None:
    """Grams that one more hour before the deadline would save."""
    from carbonsched.plan.objective import solve_for

    if case.problem.deadline_s is None:
        return None
    _, longer = solve_for(replace(case.problem, deadline_s=case.problem.deadline_s + _HOUR_S), case.aim)
    return max(plan.spend_g - longer.spend_g, 0.0)
