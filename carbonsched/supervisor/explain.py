"""Explains what the daemon would do with a job before anything is spent: `submit --explain`.

The job is planned as its first directive would be, from the same inputs, with priors for whatever was not metered yet. The supervisor's
lock is held only to gather them: planning may take seconds and must not delay a tick.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np

from carbonsched.errors import InputError
from carbonsched.ledger.ledger import spec_sha256
from carbonsched.model.job import JobSpec, Owner, SubmittedJob
from carbonsched.model.job_state import JobState
from carbonsched.model.profile import CheckResult
from carbonsched.model.views import ExpectedLoss, ExpectedSegment, Explained
from carbonsched.plan.explain import PlanExplanation
from carbonsched.plan.explain import explain as explain_plan
from carbonsched.plan.loss_curve import Prediction
from carbonsched.plan.objective import NO_LIMIT_G, BudgetRate, Objective, solve_for
from carbonsched.plan.problem import Plan, Problem, Slot
from carbonsched.plan.segment_arrays import price_curve
from carbonsched.plan.step_dial import StepPlan, as_planned, lay_out
from carbonsched.supervisor.budgets.accrual import FIRST_H, SAVED_H
from carbonsched.supervisor.budgets.division import preview_part
from carbonsched.supervisor.estimates.evaluation_cost import EvaluationCost
from carbonsched.supervisor.estimates.inputs import NO_FUNDS, RESIDENT_WAIT_S, PlanningInputs
from carbonsched.supervisor.estimates.job_cost import LOAD_S
from carbonsched.supervisor.estimates.loss_outlook import LossOutlook
from carbonsched.supervisor.job_views import eta_s
from carbonsched.supervisor.jobs.event_follower import EventFollower
from carbonsched.supervisor.jobs.job_run import JobRun
from carbonsched.supervisor.placement import boards_of
from carbonsched.supervisor.supervisor import Supervisor
from carbonsched.text import grams as show_grams
from carbonsched.text import several
from carbonsched.units import J_PER_KWH, grams

_HOUR_S = 3600.0


@dataclass(frozen=True, slots=True)
class _Budget:
    g: float | None
    text: str
    """How the budget is set, for people."""
    g_per_h: float | None = None
    """Grams per hour by which it grows."""


@dataclass(frozen=True, slots=True)
class _Queue:
    """What is ahead of the job in the queue."""

    wait_s: float = 0.0
    jobs: int = 0
    assumptions: Sequence[str] = ()


@dataclass(frozen=True, slots=True)
class _Beginning:
    """From the start of the process to its first segment: loading, and the first evaluation."""

    evaluation: EvaluationCost
    watts: float
    g_per_kwh: float
    pue: float
    eur_per_kwh: float | None = None
    """Mean price meanwhile; None: unknown."""

    @property
    def seconds(self) -> float:
        return LOAD_S + self.evaluation.before_s

    @property
    def joules(self) -> float:
        return self.seconds * self.watts

    @property
    def g(self) -> float:
        return grams(self.joules, self.g_per_kwh, self.pue)

    @property
    def loading_g(self) -> float:
        """Share of these grams that loading takes."""
        return self.g * LOAD_S / self.seconds


@dataclass(frozen=True, slots=True)
class _Case:
    """What was gathered while the lock was held."""

    inputs: PlanningInputs
    """The inputs as of the first segment."""
    start: datetime
    """When the job's process would start."""
    beginning: _Beginning
    budget: _Budget
    queue: _Queue
    assumptions: tuple[str, ...]
    run: JobRun
    losses: LossOutlook
    steps_unknown: str | None = None
    """Why even an approximate number of steps is unknown."""

    @property
    def first_segment_at(self) -> datetime:
        return self.start + timedelta(seconds=self.beginning.seconds)


def explain(supervisor: Supervisor, spec: JobSpec, owner: Owner, checked: CheckResult) -> Explained:
    """Raises InputError if the job names a pool that does not exist."""
    with supervisor.lock:
        case = _gather(supervisor, spec, owner, checked)
        now = supervisor.clock.now()
    problem, open_end = case.inputs.problem, case.inputs.open_end
    steps = None
    if open_end is not None:
        problem, steps = lay_out(problem, open_end)
    problem, plan = solve_for(problem, case.inputs.objective)
    if steps is not None and open_end is not None:
        steps = as_planned(steps, open_end, problem, plan)
    answer = explain_plan(problem, plan)
    unknown = case.steps_unknown
    deadline = spec.carbon.deadline
    trains = plan.action != "stop"
    min_carbon = case.inputs.objective.rho_mean is not None
    buys_other = min_carbon or open_end is not None  # grams, or steps that are not laid out
    return Explained(
        name=spec.name,
        action=plan.action,
        reason=_reason(plan, steps, unknown) if trains else _explain_stop(case, plan),
        start=_at(case, answer.start_s),
        end=_at(case, answer.end_s) if _is_whole(problem, plan, checked.segments) else None,
        deadline=None if deadline is None else now + timedelta(seconds=deadline),
        rho=answer.rho,
        gain=_gain(case, problem, answer),
        **_sums(case, problem, plan, answer),
        eur=_eur(case, answer) if trains else None,
        money=answer.money,
        budget_g=case.budget.g,
        budget=case.budget.text,
        binds=answer.binding,
        gain_per_more_g=None if buys_other or case.budget.g is None else answer.gain_per_more_g,
        gain_per_more_hour=None if buys_other else answer.gain_per_more_hour,
        g_per_more_hour=_saved_per_hour(case, plan) if min_carbon and trains else None,
        **(_losses(case, problem, plan) if unknown is None else {}),
        jobs_before=case.queue.jobs,
        segments=_segments(case, answer) if unknown is None else (),
        segments_in_all=None if unknown else checked.segments or _segments_planned(problem, plan),
        steps=None if unknown else checked.steps if steps is None else steps.end,
        steps_unknown=unknown,
        estimated=True,
        assumptions=case.assumptions,
        removals=checked.removals,
    )


def _reason(plan: Plan, steps: StepPlan | None, unknown: str | None) -> str:
    if steps is None:
        return plan.reason
    return f"{plan.reason}; {steps.reason if unknown is None else _AS_MANY}"


_AS_MANY = "as many steps as that pays for, a cooldown at their end"


def _is_whole(problem: Problem, plan: Plan, segments: int | None) -> bool:
    """Whether the plan reaches the end of the job."""
    if problem.may_end_early:
        return bool(plan.segments) and plan.reach >= 1
    return len(plan.segments) >= (segments or len(problem.segments))


def _segments_planned(problem: Problem, plan: Plan) -> int:
    return len(plan.segments) if problem.may_end_early and plan.segments else len(problem.segments)


def _gain(case: _Case, problem: Problem, answer: PlanExplanation) -> float | None:
    """Expected gain; for a job of open end as a share of all steps that its owner allows."""
    end = case.inputs.open_end
    if end is None or answer.gain is None:
        return answer.gain
    if end.most is None:
        return None
    return min(answer.gain * sum(s.steps for s in problem.segments) / (end.most - end.done), 1.0)


# ---- with the lock held


def _gather(supervisor: Supervisor, spec: JobSpec, owner: Owner, checked: CheckResult) -> _Case:
    supervisor.pools.check(spec)
    now, config = supervisor.clock.now(), supervisor.pue.applied()
    job = SubmittedJob(id="", spec=spec, owner=owner, submitted_at=now, sha256=spec_sha256(spec))
    run = JobRun(
        job, Path(), EventFollower(Path()), JobState.QUEUED, "", spec.carbon.budget_g, checked=checked
    )
    boards = boards_of(spec)
    run.place(tuple(d.id for d in supervisor.meter.devices if boards or d.kind == "host"))
    estimates = supervisor.control.estimates.fresh()
    inputs, evaluation = estimates.gather(run, NO_FUNDS), estimates.costs.evaluation(run)
    if inputs is None or evaluation is None or not inputs.remaining.segments:
        raise InputError("checked", "foresees no step to train", "check the data and train.max_steps")
    queue, throughput = _find_queue(supervisor, boards), estimates.costs.throughput(run)
    g_per_kwh = estimates.grid.forecast().now_g_per_kwh
    beginning = _Beginning(evaluation, throughput.watts, g_per_kwh, config.pue)
    beginning = replace(beginning, eur_per_kwh=_price(inputs.problem, queue.wait_s, beginning.seconds))
    start_g = max(beginning.g, estimates.loading_g(run, inputs.energy))
    problem = replace(inputs.problem, reserve_g=inputs.problem.reserve_g + start_g)
    full_g = estimates.full_g(run) if spec.carbon.budget_share is not None else None
    budget = _find_budget(supervisor, run, problem, full_g)
    gain = "as measured" if inputs.remaining.known else "is linear in ρ until importance is measured"
    return _Case(
        inputs=_as_of_first_segment(inputs, queue.wait_s, beginning, budget),
        start=now + timedelta(seconds=queue.wait_s),
        beginning=beginning,
        budget=budget,
        queue=queue,
        assumptions=(
            throughput.source,
            f"loading takes {LOAD_S:.0f} s",
            evaluation.description,
            f"gain {gain}",
            _describe_forecast(supervisor),
            *queue.assumptions,
        ),
        run=run,
        losses=estimates.losses or LossOutlook(supervisor.ledger),
        steps_unknown=None if throughput.measured else _steps_unknown(inputs),
    )


def _steps_unknown(inputs: PlanningInputs) -> str | None:
    """The reason for a job whose steps nobody has timed: device ratings give its spending, not the cost of a step of this model."""
    if inputs.open_end is None or inputs.open_end.most is not None:
        return None
    return (
        "nothing of the kind was trained here yet, and neither train.max_steps nor epochs bounds them: "
        "it is told once the job has begun"
    )


def _describe_forecast(supervisor: Supervisor) -> str:
    forecast = supervisor.watch.forecast()
    if forecast is None:
        return "no feed forecasts the grid: by its past days, as far as they are known"
    source = forecast.source
    return f"the grid by the forecast of {source.provider}{f' ({source.note})' if source.note else ''}"


def _find_budget(supervisor: Supervisor, run: JobRun, problem: Problem, full_g: float | None) -> _Budget:
    """problem: what the job asks of a pool; full_g: grams of full fine-tuning."""
    carbon, pools, runs = run.spec.carbon, supervisor.pools, list(supervisor.runs.values())
    pool = pools.of(run.spec)
    if pool is not None:
        part = preview_part(
            pool,
            run,
            runs,
            lambda other: problem if other is run else supervisor.control.estimates.problem_for(other),
        )
        text = f"its part of pool {pool.name}, which has {show_grams(pool.left_g(runs))} left"
        return _Budget(part, text, pools.rate(run, [*runs, run]))
    if carbon.budget_rate_g_per_h is not None:
        rate = carbon.budget_rate_g_per_h
        return _Budget(
            rate * FIRST_H, f"grows by {rate:g} g/h, up to {rate * SAVED_H:g} g are saved up", rate
        )
    if carbon.budget_share is not None and full_g is not None:
        text = f"{carbon.budget_share:g} of {show_grams(full_g)}, full fine-tuning at the mean intensity"
        return _Budget(carbon.budget_share * full_g, text)
    if carbon.budget_g is not None:
        return _Budget(carbon.budget_g, "as given")
    return _Budget(None, "none: as few grams as the wanted ρ takes")


def _find_queue(supervisor: Supervisor, boards: int) -> _Queue:
    queued = [run for run in supervisor.runs.values() if run.state is JobState.QUEUED]
    live = [run for run in supervisor.runs.values() if run.alive]
    if not queued and supervisor.placement.find_seat(live, boards)[0] is not None:
        return _Queue()
    etas = [eta for eta in (eta_s(run, supervisor.clock) for run in live) if eta is not None]
    before = len(live) + len(queued)
    if not etas or queued:
        text = f"before it {'is' if before == 1 else 'are'} {several(before, 'job')}, and when that ends is not known: planned as if now"
        return _Queue(jobs=before, assumptions=(text,))
    text = f"the box has room in {min(etas) / 60:.0f} min, by the plan of the job before"
    return _Queue(min(etas), before, (text,))


def _as_of_first_segment(
    inputs: PlanningInputs, wait_s: float, beginning: _Beginning, budget: _Budget
) -> PlanningInputs:
    """The inputs as they will be at the first segment, with the budget that loading leaves."""
    left_g = NO_LIMIT_G if budget.g is None else max(budget.g - beginning.g, 0.0)
    problem = _delay(inputs.problem, wait_s + beginning.seconds)
    objective = inputs.objective
    if budget.g_per_h is not None:
        level_g = 0.0 if budget.g is None else left_g
        rate = BudgetRate(budget.g_per_h, level_g, budget.g_per_h * SAVED_H, beginning.g, RESIDENT_WAIT_S)
        objective = Objective(budget_rate=rate)
    return replace(inputs, problem=replace(problem, budget_g=left_g), objective=objective)


def _delay(problem: Problem, seconds: float) -> Problem:
    """The same problem `seconds` later, by today's forecast."""
    if seconds <= 0:
        return problem
    slots, paid = _delay_slots(problem.slots, seconds), _delay_slots(problem.paid, seconds)
    allowed = problem.allowed
    if allowed is not None:
        allowed = tuple((a - seconds, b - seconds) for a, b in allowed if b > seconds)
    deadline = None if problem.deadline_s is None else problem.deadline_s - seconds
    return replace(problem, slots=slots, paid=paid, deadline_s=deadline, allowed=allowed)


def _delay_slots(slots: tuple[Slot, ...], seconds: float) -> tuple[Slot, ...]:
    later = tuple(
        replace(slot, start_s=slot.start_s - seconds, end_s=slot.end_s - seconds)
        for slot in slots
        if slot.end_s > seconds
    )
    return later or tuple(replace(last, start_s=0.0, end_s=last.end_s - last.start_s) for last in slots[-1:])


def _price(problem: Problem, wait_s: float, lasts_s: float) -> float | None:
    """Mean EUR/kWh over `seconds` after a wait; None if unknown."""
    price = price_curve(problem)
    if price is None:
        return None
    return float(price.mean_between(np.array(wait_s), np.array(wait_s + lasts_s)))


# ---- the answer


def _at(case: _Case, seconds: float | None) -> datetime | None:
    return None if seconds is None else case.first_segment_at + timedelta(seconds=seconds)


def _sums(case: _Case, problem: Problem, plan: Plan, answer: PlanExplanation) -> dict[str, float]:
    """Grams and joules of the whole job; the plan covers only what follows loading and the first evaluation."""
    beginning = case.beginning
    trains = plan.action != "stop"
    first_g = beginning.g if trains else 0.0
    whole = _is_whole(problem, plan, len(problem.segments))
    tail_j = problem.energy.tail_j if whole else 0.0
    planned_j = sum(p.joules for p in plan.segments)
    after_j = min(beginning.evaluation.after_s * beginning.watts, tail_j)
    evaluation_j = len(plan.segments) * beginning.evaluation.segment_s * beginning.watts + after_j
    evaluation_g = answer.g * evaluation_j / planned_j if planned_j > 0 else 0.0
    return {
        "g": answer.g + first_g,
        "low_g": answer.low_g + first_g,
        "high_g": answer.high_g + first_g,
        "loading_g": beginning.loading_g if trains else 0.0,
        "evaluation_g": first_g - beginning.loading_g + evaluation_g if planned_j > 0 else 0.0,
        "floor_g": answer.floor_g + beginning.g,
        "energy_j": planned_j + beginning.joules if trains else 0.0,
    }


def _losses(case: _Case, problem: Problem, plan: Plan) -> dict[str, Any]:
    """The loss at which the job should end with its budget, and with half of it if that still pays for training."""
    curve = case.losses.curve(case.run)
    first = case.losses.forecast(case.run, problem, plan, curve)
    if first is None:
        return {}
    found = [_expected_loss(case, plan, case.budget.g, first.end)]
    if case.budget.g is not None and case.inputs.rate is None:
        half_g = case.budget.g / 2
        less = replace(problem, budget_g=max(half_g - case.beginning.g, 0.0))
        if case.inputs.open_end is not None:
            less, _ = lay_out(less, case.inputs.open_end)
        shorter = solve_for(less, case.inputs.objective)[1]
        then = case.losses.forecast(case.run, less, shorter, curve)
        if then is not None:
            found.append(_expected_loss(case, shorter, half_g, then.end))
    return {"losses": tuple(found), "loss_relative": first.relative, "loss_basis": first.basis}


def _expected_loss(case: _Case, plan: Plan, budget_g: float | None, end: Prediction) -> ExpectedLoss:
    spend_g = plan.spend_g + case.beginning.g
    return ExpectedLoss(budget_g=budget_g, g=spend_g, loss=end.loss, low=end.low, high=end.high)


def _eur(case: _Case, answer: PlanExplanation) -> float | None:
    """Cost with loading and the first evaluation, at the prices of those hours."""
    price = case.beginning.eur_per_kwh
    if answer.eur is None or price is None:
        return None
    return answer.eur + case.beginning.joules / J_PER_KWH * case.beginning.pue * price


def _segments(case: _Case, answer: PlanExplanation) -> tuple[ExpectedSegment, ...]:
    first = case.first_segment_at
    return tuple(
        ExpectedSegment(
            k=s.k,
            start=first + timedelta(seconds=s.start_s),
            end=first + timedelta(seconds=s.end_s),
            rho=s.rho,
            g=s.g,
            low_g=s.low_g,
            high_g=s.high_g,
            eur=s.eur,
        )
        for s in answer.segments
    )


def _explain_stop(case: _Case, plan: Plan) -> str:
    """Why the job cannot be afforded, in grams of the whole job; the plan covers only what follows the first evaluation."""
    if case.budget.g is None or case.inputs.rate is not None:
        return plan.reason
    needs_g = plan.floor_g + case.beginning.g + case.inputs.problem.reserve_g
    return (
        f"stop: budget below floor, needs {show_grams(needs_g)} with loading, evaluation and what is kept for a stop, "
        f"has {show_grams(case.budget.g)}"
    )


def _saved_per_hour(case: _Case, plan: Plan) -> float | None:
    """Grams that a deadline one hour later would save."""
    problem = case.inputs.problem
    if problem.deadline_s is None:
        return None
    _, longer = solve_for(replace(problem, deadline_s=problem.deadline_s + _HOUR_S), case.inputs.objective)
    return max(plan.spend_g - longer.spend_g, 0.0)
