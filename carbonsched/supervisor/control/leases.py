"""Grants leases: how long a directive may hold without the daemon, and what happens to it while the daemon is there.

All functions are pure: from what was gathered, and the directive that runs, to the next one. `opening` is left for a process
that starts, `renew` is asked at every tick, `ease` lowers ρ in mid-segment, and `exhaust` is the last net. The arithmetic and
the promise behind it stand in `carbonsched.plan.guard`.
"""

from datetime import datetime, timedelta

from carbonsched.model.protocol import OPENING, VERSION, Directive, Lease
from carbonsched.model.setting import Setting
from carbonsched.plan import guard
from carbonsched.plan.step_dial import StepPlan, judge
from carbonsched.supervisor.budgets.allocator import when_exhausted
from carbonsched.supervisor.control.decision import Decision, Outcome
from carbonsched.supervisor.estimates.inputs import Funds, LeaseInputs, PlanningInputs
from carbonsched.supervisor.jobs.process_state import Ending
from carbonsched.text import grams as show_grams

_RENEW_SHARE = 0.5
"""A lease of which this share of the longest is left is renewed."""
_WORTH_STEPS = 0.02
"""Share of the steps left by which a cooldown that runs is made longer at least."""
_WORTH_SHARE = 0.1
"""A fresh lease that differs less than this from what the old one still has is not written."""


def allow(inputs: LeaseInputs, rho: float) -> guard.Allowance:
    """What the grams left pay for at ρ, at the worst intensity, with a stop and a tick kept back.

    A guess of what a step takes ends no job before its first one: where nothing could be granted by it, the least that a step may take counts.
    """
    found = _allow(inputs, rho)
    if inputs.at_least is not None and (found.seconds <= 0 or found.steps < 1):
        return _allow(inputs.at_least, rho)
    return found


def _allow(inputs: LeaseInputs, rho: float) -> guard.Allowance:
    return guard.allowance(
        inputs.left_g,
        inputs.energy,
        rho,
        inputs.worst_g_per_kwh,
        pue=inputs.pue,
        reserve_j=inputs.stop_j,
        longest_s=inputs.longest_s,
        tick_s=inputs.tick_s,
    )


def grant(inputs: LeaseInputs, allowed: guard.Allowance) -> Lease:
    """The lease of an allowance that begins now."""
    return Lease(valid_until=inputs.now + timedelta(seconds=allowed.seconds), max_steps=allowed.steps)


def opening(inputs: LeaseInputs, rho_start: float) -> Directive:
    """For a process that is about to start, loading included: `rho_start`, should its first segment stay unanswered."""
    return Directive(
        seq=0,
        k=OPENING,
        action="train",
        rho=rho_start,
        lease=grant(inputs, allow(inputs, rho_start)),
        protocol=VERSION,
        reason=f"rho {rho_start:g} where nobody answers the first segment",
    )


def renew(inputs: LeaseInputs, running: Directive | None) -> Decision | None:
    """The running directive anew; None: it stays as it is.

    A stop where one more tick could pass the budget, a fresh lease where the old one is half over or too long by now.
    """
    if running is None or running.action != "train":
        return None
    fresh = allow(inputs, running.rho or 1.0)
    least = inputs.at_least or inputs
    exhausted = guard.must_stop(
        inputs.left_g,
        inputs.energy.watts_high,
        inputs.tick_s,
        least.stop_j,
        inputs.worst_g_per_kwh,
        inputs.pue,
    )
    # one that waits for a lease which no grams pay for would wait them away
    if exhausted or (inputs.waiting and fresh.steps < 1):
        ending = when_exhausted(inputs.funds, inputs.tick_s, inputs.now, explain_shortage(inputs))
        update = {
            "seq": running.seq + 1,
            "action": "stop",
            "rho": None,
            "lease": Lease(valid_until=inputs.now, max_steps=0),
            "reason": ending.reason,
        }
        return Decision(running.model_copy(update=update), Outcome.STOP, ending=ending)
    held_s = (running.lease.valid_until - inputs.now).total_seconds()
    if held_s > inputs.lease_s * _RENEW_SHARE and fresh.seconds >= held_s:
        return None
    if abs(fresh.seconds - held_s) < max(inputs.tick_s * 2, _WORTH_SHARE * held_s):
        return None
    directive = running.model_copy(update={"seq": running.seq + 1, "lease": grant(inputs, fresh)})
    return Decision(directive, Outcome.GO_ON, journal=False)


def ease(inputs: PlanningInputs, running: Directive | None) -> Decision | None:
    """The running directive at a lower ρ, where the guard would no longer grant the one it has; None: it stays as it is."""
    if running is None or running.action != "train" or running.rho is None:
        return None
    lower = guard.rest_rho(inputs.problem, running.rho)
    if lower is None:
        return None
    reason = f"rho {lower:.3f} for the rest of the segment instead of {running.rho:.3f}: what follows needs the grams"
    update: dict[str, object] = {"seq": running.seq + 1, "rho": lower, "reason": reason}
    if running.setting is not None and running.setting.method == "full":  # less than all of it is tensors
        update["setting"] = Setting(method="greentrainer")
    return Decision(running.model_copy(update=update), Outcome.GO_ON)


def anneal(inputs: PlanningInputs, running: Directive | None) -> Decision | None:
    """The running directive with the cooldown begun, or with another end of it; None: it stays as it is."""
    if running is None or running.action != "train" or inputs.open_end is None:
        return None
    steps = judge(inputs.problem, inputs.open_end)
    if steps.phase == "stable":
        return None
    begins = running.phase != "cooldown"
    end = (running.cooldown_from or 0) + (running.cooldown_steps or 0)
    # a longer cooldown is worth no directive for a step or two, a shorter one has to be told
    longer = max(1, round(_WORTH_STEPS * (steps.end - inputs.open_end.done)))
    if not begins and end <= steps.end < end + longer:
        return None
    directive = phased(running.model_copy(update={"seq": running.seq + 1, "reason": ""}), steps)
    return Decision(directive, Outcome.GO_ON, journal=begins)


def phased(directive: Directive, steps: StepPlan) -> Directive:
    """The directive with where the learning rate stands, and its reason with it in words."""
    said = steps.reason
    reason = f"{directive.reason}; {said}" if directive.reason else said
    if steps.phase == "stable":
        return directive.model_copy(update={"phase": "stable", "reason": reason})
    cools = {"cooldown_from": steps.cooldown_from, "cooldown_steps": steps.cooldown_steps}
    return directive.model_copy(update={"phase": "cooldown", "reason": reason, **cools})


def exhaust(funds: Funds, tick_g: float, tick_s: float, now: datetime) -> Ending | None:
    """The last net, also for loading and saving, which no lease covers: one more tick, `tick_g` grams, could pass the budget.

    The process is killed then, not asked: what a checkpoint takes is not there any more.
    """
    if funds.budget_g is None or funds.charged_g + tick_g <= funds.budget_g:
        return None
    reason = f"stop: the budget is spent, {show_grams(funds.charged_g)} of {show_grams(funds.budget_g)}"
    return when_exhausted(funds, tick_s, now, reason)


def explain_shortage(inputs: LeaseInputs) -> str:
    """Why no lease can be granted."""
    if inputs.waiting:
        return (
            f"stop: {show_grams(inputs.left_g)} of the budget are left, at {inputs.worst_g_per_kwh:g} g/kWh they pay for "
            "no further step"
        )
    return (
        f"stop: {show_grams(inputs.left_g)} of the budget are left, a step, a checkpoint and the stop may take "
        f"{show_grams(inputs.reserve_g)} at {inputs.worst_g_per_kwh:g} g/kWh"
    )
