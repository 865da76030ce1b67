"""Decides at which ρ a job trains its next segment, or whether it waits or stops.

`decide` is pure: gathered inputs in, a Decision out; no clock, no file, no supervisor.
"""

from datetime import datetime, timedelta
from enum import StrEnum

from carbonsched.model.job_state import JobState
from carbonsched.model.protocol import VERSION, Directive
from carbonsched.model.setting import Setting
from carbonsched.plan.objective import solve_for
from carbonsched.plan.problem import Plan
from carbonsched.plan.step_dial import as_planned, lay_out
from carbonsched.supervisor.budgets.allocator import when_exhausted
from carbonsched.supervisor.control.decision import Decision, Outcome
from carbonsched.supervisor.control.leases import allow, explain_shortage, grant, phased
from carbonsched.supervisor.estimates.inputs import PlanningInputs
from carbonsched.supervisor.jobs.job_run import JobRun
from carbonsched.supervisor.jobs.process_state import Ending


class Due(StrEnum):
    """What has to be decided about a job at this tick.

    Example:
        >>> Due.PLAN.value
        'plan'
    """

    NOTHING = "nothing"
    PLAN = "plan"
    """A directive for the segment that is ready."""
    RENEW = "renew"
    """Check only whether the lease lasts."""
    EASE = "ease"
    """Check the lease; if it lasts, check whether ρ must fall or the cooldown must begin or end at another step."""


def find_due(run: JobRun, now: datetime, now_s: float) -> Due:
    """What has to be decided about a job whose process lives. now_s: monotonic time."""
    ready, directive, opens = run.progress.ready, run.directive, run.opens_at(now)
    trains = directive is not None and directive.action == "train"
    if ready is None:
        # checkpoints, importance and evaluation between segments, and after the last one, are under a lease too
        between = run.progress.loaded and run.progress.finished is None and opens is None
        return Due.RENEW if between and trains else Due.NOTHING
    if directive is None or directive.k != ready.k or run.plan is None or run.replan:
        return Due.PLAN
    waited = directive.action == "wait" and (directive.until is None or now >= directive.until)
    if run.plan.made_s < run.progress.ready_seen_s or waited or (trains and opens is not None):
        return Due.PLAN
    if not trains:
        return Due.NOTHING
    return Due.EASE if now_s - max(run.eased_s, run.plan.made_s) >= run.recheck_s else Due.RENEW


def decide(inputs: PlanningInputs) -> Decision:
    """Plan the job's remaining work, and return the directive for its next segment."""
    problem, steps = inputs.problem, None
    if inputs.open_end is not None:
        problem, steps = lay_out(problem, inputs.open_end)
    _, plan = solve_for(problem, inputs.objective)
    if steps is not None and inputs.open_end is not None:
        steps = as_planned(steps, inputs.open_end, problem, plan)
    allowed = allow(inputs.lease, plan.rho or inputs.remaining.rho_floor)
    action, reason, ending = plan.action, plan.reason, None
    if action == "train" and allowed.seconds <= 0:
        action, reason = "stop", explain_shortage(inputs.lease)
    outcome = Outcome.GO_ON
    until = None if plan.wait_s is None else inputs.now + timedelta(seconds=plan.wait_s)
    if action == "stop":
        outcome = Outcome.STOP
        ending = when_exhausted(inputs.lease.funds, inputs.lease.tick_s, inputs.now, reason)
        reason = ending.reason
    elif action == "wait":
        outcome = Outcome.WAIT_RESIDENT
        if (plan.wait_s or 0.0) > inputs.resident_s:
            outcome, ending = Outcome.WAIT_GONE, Ending(JobState.WAITING, reason, until)
    directive = Directive(
        seq=inputs.last_seq + 1,
        k=inputs.k,
        action=action,
        rho=plan.rho if action == "train" else None,
        setting=_setting(plan) if action == "train" else None,
        until=until,
        lease=grant(inputs.lease, allowed),
        price=plan.price,
        reason=reason,
        protocol=VERSION,
    )
    if steps is not None and action != "stop":
        directive = phased(directive, steps)
    return Decision(
        directive, outcome, plan=plan, ending=ending, problem=problem, recheck_s=inputs.recheck_s, steps=steps
    )


def _setting(plan: Plan) -> Setting | None:
    point = plan.point
    return None if point is None else Setting(method=point.method, gradient_share=point.share)
