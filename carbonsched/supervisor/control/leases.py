"""Grants leases: how long a directive holds without the daemon, and how it changes while the daemon runs.

All functions are pure: gathered inputs and the running directive in, the next directive out. `opening` serves a process that starts,
`renew` runs at every tick, `ease` lowers ρ in mid-segment, and `exhaust` is the last resort. The arithmetic and its guarantee are in
`carbonsched.plan.guard`.
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
"""A lease is renewed once less than this share of its longest term is left."""
_WORTH_STEPS = 0.02
"""A running cooldown is extended only by at least this share of the steps left."""
_WORTH_SHARE = 0.1
"""A new lease that differs by less than this share from the rest of the old one is not written."""


def allow(inputs: LeaseInputs, rho: float) -> guard.Allowance:
    """The allowance that the grams left pay for at ρ, at the worst intensity, with a stop and a tick kept in reserve.

    A guessed step cost must not end a job before its first step: if it would allow nothing, the lowest possible cost is used.
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
    """The lease that starts an allowance now."""
    return Lease(valid_until=inputs.now + timedelta(seconds=allowed.seconds), max_steps=allowed.steps)


def opening(inputs: LeaseInputs, rho_start: float) -> Directive:
    """The first directive of a process that is about to start, loading included: `rho_start`, in case its first segment gets no answer."""
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
    """Renew the running directive; None: it stays as it is. Returns a stop if one more tick could exceed the budget, and a new lease if the
    old one is half over or is now too long."""
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
    # waiting for a lease that the grams cannot pay for would only use them up
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
    """The running directive at a lower ρ, if the guard would no longer grant the current one; None: it stays as it is."""
    if running is None or running.action != "train" or running.rho is None:
        return None
    lower = guard.rest_rho(inputs.problem, running.rho)
    if lower is None:
        return None
    reason = f"rho {lower:.3f} for the rest of the segment instead of {running.rho:.3f}: what follows needs the grams"
    update: dict[str, object] = {"seq": running.seq + 1, "rho": lower, "reason": reason}
    if (
        running.setting is not None and running.setting.method == "full"
    ):  # "less than all" means a selection of tensors
        update["setting"] = Setting(method="greentrainer")
    return Decision(running.model_copy(update=update), Outcome.GO_ON)


def anneal(inputs: PlanningInputs, running: Directive | None) -> Decision | None:
    """The running directive with the cooldown begun, or with a new end of the cooldown; None: it stays as it is."""
    if running is None or running.action != "train" or inputs.open_end is None:
        return None
    steps = judge(inputs.problem, inputs.open_end)
    if steps.phase == "stable":
        return None
    begins = running.phase != "cooldown"
    end = (running.cooldown_from or 0) + (running.cooldown_steps or 0)
    # extending a cooldown by a step or two is not worth a directive; shortening it always is
    longer = max(1, round(_WORTH_STEPS * (steps.end - inputs.open_end.done)))
    if not begins and end <= steps.end < end + longer:
        return None
    directive = phased(running.model_copy(update={"seq": running.seq + 1, "reason": ""}), steps)
    return Decision(directive, Outcome.GO_ON, journal=begins)


def phased(directive: Directive, steps: StepPlan) -> Directive:
    """The directive with the phase of the learning rate added, also in its reason."""
    said = steps.reason
    reason = f"{directive.reason}; {said}" if directive.reason else said
    if steps.phase == "stable":
        return directive.model_copy(update={"phase": "stable", "reason": reason})
    cools = {"cooldown_from": steps.cooldown_from, "cooldown_steps": steps.cooldown_steps}
    return directive.model_copy(update={"phase": "cooldown", "reason": reason, **cools})


def exhaust(funds: Funds, tick_g: float, tick_s: float, now: datetime) -> Ending | None:
    """The last resort, also during loading and saving, which no lease covers: one more tick of `tick_g` grams could exceed the budget. The
    process is killed without a request to stop, since the grams for a checkpoint are gone."""
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
