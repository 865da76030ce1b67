"""The policies the simulator compares; `mpc` is what the daemon runs, the others are what people do otherwise.

full        ρ at its upper bound until the budget ends (no GreenTrainer)
constant    the one ρ that would just spend the budget on the forecast, solved anew before each segment
threshold   waits above a percentile of the day ahead, in the style of Let's Wait Awhile; else constant
dual        no forecast: a price that rises when more than the even share was spent (mirror descent, arXiv 2011.10124)
mpc         `planner.solve` on the forecast, guarded
oracle      `planner.solve` once on what will really be

All but `full` and `oracle` are capped by the same guard, so that none of them looks good by overspending.
"""

import math
from dataclasses import dataclass, replace
from typing import Final, Literal, get_args

import numpy as np

from carbonsched.plan import guard
from carbonsched.plan.planner import beyond_reach, leanest, solve
from carbonsched.plan.problem import Problem, Slot
from carbonsched.plan.segment_arrays import Floats, Track
from carbonsched.plan.working_time import Hours

Policy = Literal["mpc", "constant", "dual", "threshold", "full", "oracle"]
POLICIES: Final[tuple[Policy, ...]] = get_args(Policy)

_PERCENTILE = 40.0
"""`threshold` trains when now is among this share of the cleanest hours of the day ahead."""
_DAY_S = 86_400.0
_RATE = 0.5
"""Step of the dual price, over the square root of the number of segments."""


@dataclass(frozen=True, slots=True)
class Step:
    """What a policy says before one segment."""

    action: Literal["train", "wait", "stop"]
    rho: float = 0.0
    wait_s: float = 0.0
    price: float | None = None
    reason: str = ""


@dataclass(slots=True)
class Memory:
    """What a policy remembers between segments."""

    price: float | None = None
    spent_g: float = 0.0


def decide(policy: Policy, problem: Problem, memory: Memory, lately: tuple[Slot, ...]) -> Step:
    """`lately`: the readings of the last days laid out as slots from now, all that `dual` may look at."""
    if policy == "mpc" or policy == "oracle":
        plan = solve(replace(problem, price_hint=memory.price or None), detail=False)
        memory.price = plan.price if plan.price else memory.price
        return Step(plan.action, plan.rho or 0.0, plan.wait_s or 0.0, plan.price, plan.reason)
    if problem.allowed is not None:
        hours = Hours.of(problem.allowed)
        if (opens := hours.begin(0.0)) > 1e-6:
            return Step("wait", wait_s=opens, reason=f"{policy}: outside the allowed hours")
        step = decide(policy, hours.cut(problem), memory, lately)
        return replace(step, wait_s=hours.begin(step.wait_s)) if step.action == "wait" else step
    track = Track(problem)
    budget = problem.budget_g - problem.reserve_g
    if policy == "full":
        return Step("train", float(track.hi[0]), reason="full: budget not looked at before it ends")
    if policy == "threshold" and (wait := _too_dirty(track, problem)) > 0:
        return Step("wait", wait_s=wait, reason="threshold: now is above the percentile of the day ahead")
    lean = leanest(track)
    if beyond_reach(track, lean, budget):
        floor_g = lean.rolled.spend_g
        return Step("stop", reason=f"stop: budget below floor, needs {floor_g:.1f} g, has {budget:.1f} g")
    rho = _dual(track, problem, memory, lately, budget) if policy == "dual" else _constant(track, budget)
    return Step("train", min(rho, guard.cap_rho(track, budget).rho), price=memory.price, reason=policy)


def _constant(track: Track, budget: float) -> float:
    """The largest ρ that, held to the end, is expected to fit the budget and the deadline."""

    def at(rho: float) -> Floats:
        out: Floats = np.clip(rho, track.lo, track.hi)
        return out

    def fits(rho: float) -> bool:
        rolled = track.roll(at(rho))
        return rolled.spend_g <= budget and rolled.finish_s <= track.latest_s[-1] + 1e-6

    lo, hi = float(track.lo.min()), float(track.hi.max())
    if fits(hi):
        return float(at(hi)[0])
    for _ in range(24):
        middle = 0.5 * (lo + hi)
        lo, hi = (middle, hi) if fits(middle) else (lo, middle)
    return float(at(lo)[0])


def _too_dirty(track: Track, problem: Problem) -> float:
    """Seconds to wait: until the day ahead is below its percentile, or the deadline leaves no choice; 0: train."""
    if not problem.may_pause or problem.deadline_s is None:
        return 0.0
    slack = float(track.latest_s[0])
    if slack <= 1e-6:
        return 0.0
    horizon = track.horizon
    ahead = [(s, v) for s, v in zip(horizon.edges[:-1], horizon.mean, strict=True) if s < _DAY_S]
    limit = float(np.percentile([v for _, v in ahead], _PERCENTILE))
    clean = next((max(float(s), 0.0) for s, v in ahead if v <= limit), 0.0)
    return min(clean, slack)


def _dual(track: Track, problem: Problem, memory: Memory, lately: tuple[Slot, ...], budget: float) -> float:
    """ρ that maximises g(ρ) − λ·grams at the present intensity; λ follows the spend."""
    share = budget / track.n
    if memory.price is None:
        # the past stands for the future: the price that would have spent the budget there
        guess = solve(replace(problem, slots=lately, may_pause=False, reserve_g=0.0, deadline_s=None))
        memory.price = guess.price or 1e-12
    elif memory.spent_g > 0:
        memory.price *= math.exp(_RATE / math.sqrt(track.n + 1) * (memory.spent_g / share - 1))
    one = track.curves[0]
    joules, lasts = track.times(0, one.hull_rho)
    grams = joules * track.g_per_j_per_intensity * track.horizon.between(np.zeros(len(lasts)), lasts)
    value = track.share[0] * one.hull_gain - memory.price * grams
    return float(one.hull_rho[int(value.argmax())])
