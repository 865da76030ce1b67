"""Decides like the daemon, `mpc`, or like other schedulers: the policies that the simulator compares.

full        ρ at its upper bound until the budget ends (no GreenTrainer)
constant    the constant ρ that is expected to spend the budget, solved anew before each segment
threshold   waits above a percentile of the day ahead, in the style of Let's Wait Awhile; else constant
dual        no forecast: a price that rises if more than the even share was spent (mirror descent, arXiv 2011.10124)
mpc         `planner.solve` on the forecast, guarded
auto        the same over settings: full fine-tuning, tensors at a few ρ, or fewer steps, by the worth of each in full steps
oracle      `planner.solve` once on the real intensities

All but `full` and `oracle` are capped by the same guard, so that none of them gains by overspending.
"""

import math
from dataclasses import dataclass, replace
from typing import Final, Literal, get_args

import numpy as np

from carbonsched.model.methods.efficiency import prior_efficiency
from carbonsched.plan import guard, reasons
from carbonsched.plan.intensity_curve import Floats
from carbonsched.plan.planner import is_unaffordable, solve
from carbonsched.plan.price_search import min_grams_plan
from carbonsched.plan.problem import PlanPoint, Problem, Slot
from carbonsched.plan.segment_arrays import SegmentArrays
from carbonsched.plan.working_time import WorkingTime

Policy = Literal["mpc", "auto", "constant", "dual", "threshold", "full", "oracle"]
POLICIES: Final[tuple[Policy, ...]] = get_args(Policy)

_PERCENTILE = 40.0
"""`threshold` trains when now is among this share of the cleanest hours of the day ahead."""
_DAY_S = 86_400.0
_HALVINGS = 24
"""Steps of the search for ρ: to 2⁻²⁴ of its range."""
_RHOS = (0.5, 0.6, 0.7, 0.8)
"""Values of ρ of tensors, for `auto`."""
_RATE = 0.5
"""Step of the dual price, over the square root of the number of segments."""


@dataclass(frozen=True, slots=True)
class PolicyDecision:
    """What a policy decides before one segment.

    Example:
        >>> PolicyDecision("wait", wait_s=3600.0, reason="threshold").action
        'wait'
    """

    action: Literal["train", "wait", "stop"]
    rho: float = 0.0
    wait_s: float = 0.0
    price: float | None = None
    reason: str = ""


@dataclass(slots=True)
class PolicyMemory:
    """The state that a policy keeps between segments.

    Example:
        >>> PolicyMemory().price is None
        True
    """

    price: float | None = None
    spent_g: float = 0.0


def decide(
    policy: Policy, problem: Problem, memory: PolicyMemory, recent: tuple[Slot, ...]
) -> PolicyDecision:
    """Decide before a segment. recent: the readings of the last days as slots from now, the only data of `dual`."""
    if policy in ("mpc", "oracle", "auto"):
        asked = replace(problem, price_hint=memory.price or None)
        plan = solve(with_settings(asked) if policy == "auto" else asked, detail=False)
        memory.price = plan.price if plan.price else memory.price
        return PolicyDecision(plan.action, plan.rho or 0.0, plan.wait_s or 0.0, plan.price, plan.reason)
    if problem.allowed is not None:
        hours = WorkingTime.of(problem.allowed)
        if (opens := hours.wall_start(0.0)) > 1e-6:
            return PolicyDecision("wait", wait_s=opens, reason=f"{policy}: outside the allowed hours")
        decision = decide(policy, hours.cut(problem), memory, recent)
        return (
            replace(decision, wait_s=hours.wall_start(decision.wait_s))
            if decision.action == "wait"
            else decision
        )
    arrays = SegmentArrays(problem)
    budget = problem.budget_g - problem.reserve_g
    if policy == "full":
        return PolicyDecision(
            "train", float(arrays.hi[0]), reason="full: budget not looked at before it ends"
        )
    if policy == "threshold" and (wait := _too_dirty(arrays, problem)) > 0:
        return PolicyDecision(
            "wait", wait_s=wait, reason="threshold: now is above the percentile of the day ahead"
        )
    min_grams = min_grams_plan(arrays)
    if is_unaffordable(arrays, min_grams, budget):
        return PolicyDecision("stop", reason=reasons.below_floor(min_grams.schedule.spend_g, budget))
    rho = _dual(arrays, problem, memory, recent, budget) if policy == "dual" else _constant(arrays, budget)
    return PolicyDecision(
        "train", min(rho, guard.cap_rho(arrays, budget).rho), price=memory.price, reason=policy
    )


def with_settings(problem: Problem) -> Problem:
    """The problem of a job of method auto of open end, before its losses refine the worth of its settings."""
    energy, low, high = problem.energy, problem.rho_min, problem.rho_max
    rhos = sorted({rho for rho in (*_RHOS, low, high) if low <= rho <= high})
    points = tuple(
        PlanPoint(
            "full" if rho >= 1.0 else "greentrainer",
            rho,
            energy.joules(rho, 1) - energy.overhead_j,
            energy.seconds(rho, 1) - energy.overhead_s,
            full_steps(problem, rho),
        )
        for rho in rhos
    )
    return replace(problem, points=points, may_end_early=True)


def full_steps(problem: Problem, rho: float) -> float:
    """Full steps that a step at ρ is worth, as measured."""
    return prior_efficiency("greentrainer", rho, floor=problem.rho_min).median


def _constant(arrays: SegmentArrays, budget: float) -> float:
    """The largest ρ that, kept to the end, is expected to fit the budget and the deadline."""

    def at(rho: float) -> Floats:
        out: Floats = np.clip(rho, arrays.lo, arrays.hi)
        return out

    def fits(rho: float) -> bool:
        schedule = arrays.schedule(at(rho))
        return schedule.spend_g <= budget and schedule.finish_s <= arrays.latest_s[-1] + 1e-6

    lo, hi = float(arrays.lo.min()), float(arrays.hi.max())
    if fits(hi):
        return float(at(hi)[0])
    for _ in range(_HALVINGS):
        middle = 0.5 * (lo + hi)
        lo, hi = (middle, hi) if fits(middle) else (lo, middle)
    return float(at(lo)[0])


def _too_dirty(arrays: SegmentArrays, problem: Problem) -> float:
    """Seconds to wait: until the day ahead is below its percentile, or the deadline leaves no choice; 0: train."""
    if not problem.may_pause or problem.deadline_s is None:
        return 0.0
    slack = float(arrays.latest_s[0])
    if slack <= 1e-6:
        return 0.0
    horizon = arrays.intensity
    ahead = [(s, v) for s, v in zip(horizon.edges[:-1], horizon.mean, strict=True) if s < _DAY_S]
    limit = float(np.percentile([v for _, v in ahead], _PERCENTILE))
    clean = next((max(float(s), 0.0) for s, v in ahead if v <= limit), 0.0)
    return min(clean, slack)


def _dual(
    arrays: SegmentArrays, problem: Problem, memory: PolicyMemory, recent: tuple[Slot, ...], budget: float
) -> float:
    """ρ that maximises g(ρ) − λ·grams at the present intensity; λ follows the spend."""
    share = budget / arrays.n
    if memory.price is None:
        # the past represents the future: the price that would have spent the budget there
        guess = solve(replace(problem, slots=recent, may_pause=False, reserve_g=0.0, deadline_s=None))
        memory.price = guess.price or 1e-12
    elif memory.spent_g > 0:
        memory.price *= math.exp(_RATE / math.sqrt(arrays.n + 1) * (memory.spent_g / share - 1))
    one = arrays.curves[0]
    joules, lasts = arrays.cost(0, one.hull_rho)
    grams = joules * arrays.g_per_j_per_intensity * arrays.intensity.mean_between(np.zeros(len(lasts)), lasts)
    value = arrays.share[0] * one.hull_gain - memory.price * grams
    return float(one.hull_rho[int(value.argmax())])
