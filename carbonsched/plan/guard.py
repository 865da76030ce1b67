"""Keeps a job inside its budget, whatever the forecast does. All grams here are at stated upper values.

Three nets, each for itself enough in its own case:

cap_rho    before a segment: the largest ρ whose grams, with the floor of all later segments, still fit when intensity
           runs at the high quantile of the forecast. It protects the *end* of the job, not the budget.
allowance  what a directive may use while the daemon is away: seconds × watts_high × worst intensity, and steps, paid
           for by the budget left after the reserve. When it lapses the trainer checkpoints and stops by itself.
must_stop  on every tick while the daemon is there: stop once the next tick and the stop itself could pass the budget.

The promise: with power ≤ watts_high and intensity ≤ worst, `must_stop` on every tick means that spent_g never passes
budget_g. Where power does pass watts_high, by no more than that tick's joules; where intensity is unknown the caller
books it at worst.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from carbonsched.plan.dynamic_program import Solution
from carbonsched.plan.intensity_curve import Floats
from carbonsched.plan.problem import EnergyModel, Problem
from carbonsched.plan.segment_arrays import SegmentArrays
from carbonsched.plan.working_time import WorkingTime
from carbonsched.units import grams

ENERGY_Z = 1.645
"""Standard deviations above the predicted joules that are assumed for the next segment (95%)."""
REST_Z = 1.0
"""The same for all later segments together, which are planned again when more is known."""

_DRIFT, _FADE = 0.2, 0.3
"""Forecast errors at two times are taken as correlated by drift + (1 − drift)·exp(−days between/fade): those of neighbouring hours go
together, those of different days partly cancel, a seasonal drift does not. On four grids the error of a mean over 1, 3 and 7 days is 0.7,
0.65 and 0.55 of an hour's; this gives 0.73, 0.59 and 0.52."""
_WIDEN = (0.5, 0.8)
"""Share of the margin reserved at first, and what is added to it by the end. Early, overspending can still be saved; late it cannot, and
more work would be lost. The full margin would cost two points of the oracle's share; halved until the end, one job in twenty would not
finish."""
_OWN = 1.0
"""For the next segment the forecast's high is assumed, plus this many times high − mean. With the high alone, a last segment that may use
everything left would fail whenever the grid exceeds that quantile, one time in ten."""
_BLOCKS = 256
"""Most parts whose correlations are computed; more segments are summed in blocks."""
_MOST = 192
"""Segments told apart in mid-segment, as in the planner."""
_TIE = 1e-9
"""Relative difference below which two amounts of grams count as equal."""
_NOTCH = 0.05
"""Smallest reduction of ρ in mid-segment that is worth a new selection."""


@dataclass(frozen=True, slots=True)
class Allowance:
    """What a directive may use while the daemon is away; the lease is made from it.

    Example:
        >>> Allowance(seconds=300.0, steps=40).steps
        40
    """

    seconds: float
    """How long the directive may hold without the daemon; 0: not at all."""
    steps: int
    """Optimizer steps that may be started meanwhile."""


@dataclass(frozen=True, slots=True)
class RhoCap:
    """What the guard grants the next segment.

    Example:
        >>> RhoCap(rho=0.55, fits=True, needs_g=71.0).fits
        True
    """

    rho: float
    """Largest ρ of the next segment; its lower bound if not even that fits."""
    fits: bool
    """Whether the next segment at its lower bound leaves the high floor of the rest."""
    needs_g: float
    """High floor: all remaining segments at ρ_min, high intensity, energy with its margin."""


def reserve_g(reserve_j: float, worst_g_per_kwh: float, pue: float = 1.0) -> float:
    """Grams kept back for one checkpoint and stop at the worst intensity."""
    return grams(reserve_j, worst_g_per_kwh, pue)


def must_stop(
    left_g: float, watts_high: float, tick_s: float, reserve_j: float, worst: float, pue: float = 1.0
) -> bool:
    """Whether another tick could pass what is left of the budget: (watts_high·tick + reserve) at `worst` g/kWh > left.

    left_g in g, watts_high in W, tick_s in s, reserve_j in J (checkpoint and stop), worst in g/kWh.
    """
    return grams(watts_high * tick_s + reserve_j, worst, pue) > left_g


def allowance(
    left_g: float,
    energy: EnergyModel,
    rho: float,
    worst_g_per_kwh: float,
    *,
    pue: float = 1.0,
    reserve_j: float = 0.0,
    longest_s: float = 300.0,
    tick_s: float = 1.0,
) -> Allowance:
    """Seconds and steps that may run unattended on `left_g` (budget − spent), reserve and one tick kept back.

    Seconds bound by power: (left − reserve)/(watts_high·worst). Steps bound by energy: the same grams at the model's
    joules per step with 3 σ. Whichever ends first ends the lease, so an error in one is caught by the other. Where
    watts_high is unknown (0) the model's own mean power with 3 σ stands in.
    """
    watts = energy.watts_high or watts_of(energy, rho) * (1 + 3 * energy.sigma)
    usable = left_g - reserve_g(reserve_j + watts * tick_s, worst_g_per_kwh, pue)
    if usable <= 0:
        return Allowance(0.0, 0)
    per_second = grams(watts, worst_g_per_kwh, pue)
    seconds = min(longest_s, usable / per_second) if per_second > 0 else longest_s
    step_j = energy.joules(rho, 1) - energy.overhead_j
    per_step = grams(step_j * (1 + 3 * energy.sigma), worst_g_per_kwh, pue)
    step_s = energy.seconds(rho, 1) - energy.overhead_s
    # a lease ends by its seconds; twice the expected steps in them lets a faster machine go on
    by_time = math.ceil(2 * seconds / step_s) + 1 if step_s > 0 else 10**9
    steps = min(by_time, math.floor(usable / per_step)) if per_step > 0 else by_time
    return Allowance(seconds, steps)


def watts_of(energy: EnergyModel, rho: float) -> float:
    """Mean power of a training step by the model, W."""
    step_s = energy.seconds(rho, 1) - energy.overhead_s
    return (energy.joules(rho, 1) - energy.overhead_j) / step_s if step_s > 0 else 0.0


def cap_rho(arrays: SegmentArrays, budget_g: float, release_s: Floats | None = None) -> RhoCap:
    """Largest ρ for the next segment that leaves the floor of the rest at the high quantile of the forecast.

    track: the remaining work; `release_s` (n,): starts in the plan with the fewest grams, if pauses are allowed; the rest may then be done
    in those hours or at once, whichever takes less. budget_g: grams left after the reserve.
    """
    needs = _needs(arrays, release_s)
    lo, hi = float(arrays.lo[0]), float(arrays.hi[0])
    floor = needs(lo)
    if floor > budget_g:
        return RhoCap(lo, False, floor)
    if needs(hi) <= budget_g:
        return RhoCap(hi, True, floor)
    for _ in range(24):
        middle = 0.5 * (lo + hi)
        lo, hi = (middle, hi) if needs(middle) <= budget_g else (lo, middle)
    return RhoCap(float(np.float64(lo)), True, floor)


def cap_choice(
    arrays: SegmentArrays, budget_g: float, plan: Solution, release_s: Floats | None = None
) -> RhoCap:
    """The same over the points of `setting_arrays`: the plan's first point, or the most expensive one below it that leaves the rest
    affordable.

    The rest may also follow the plan, if that takes fewer grams than its points with the fewest joules, which may be so fast or so slow
    that they run in dirtier hours. If nothing fits, the point that needs the fewest grams is chosen; ties do not change the choice.
    """
    needs = _needs(arrays, release_s, plan)
    floor, chosen = needs(float(arrays.lo[0])), round(float(plan.rho[0]))
    found = {number: needs(float(number)) for number in range(chosen, round(float(arrays.lo[0])) - 1, -1)}
    for number, needed in found.items():
        if needed <= budget_g * (1 + _TIE):
            return RhoCap(float(number), True, floor)
    least = min(found.values())
    fewest = next(number for number, needed in found.items() if needed <= least * (1 + _TIE))
    return RhoCap(float(fewest), False, floor)


def _needs(
    arrays: SegmentArrays, release_s: Floats | None, plan: Solution | None = None
) -> Callable[[float], float]:
    """Grams needed for the next segment at a ρ, at upper values, and for the floor of the rest, or for the rest as planned."""
    sigma = arrays.problem.energy.sigma
    pauses = release_s is not None
    plans: list[tuple[Floats, Floats | None]] = [(arrays.lo, None)]
    if release_s is not None:
        plans.append((arrays.lo, np.append(0.0, release_s[1:])))
    if plan is not None:
        plans.append((plan.rho, np.append(0.0, plan.release_s[1:]) if pauses else None))
    margins = [_margin(arrays, rho, release) for rho, release in plans]

    def beginning(rest: Floats, first: float) -> Floats:
        rho = rest.copy()
        rho[0] = first
        return rho

    def needs(first: float) -> float:
        # the next segment runs now in either case; only the rest may choose its hours
        rho = beginning(arrays.lo, first)
        high, mean = (float(arrays.schedule(rho, None, level).grams[0]) for level in ("high", "mean"))
        own = high + _OWN * (high - mean)
        rests = [
            float(arrays.schedule(beginning(rest, first), release).grams[1:].sum()) + margin
            for (rest, release), margin in zip(plans, margins, strict=True)
        ]
        return own * (1 + ENERGY_Z * sigma) + min(rests) * (1 + REST_Z * sigma)

    return needs


def _margin(arrays: SegmentArrays, rho: Floats, release_s: Floats | None) -> float:
    """Grams by which all but the next segment may exceed their expectation, at the high quantile."""
    high, mean = arrays.schedule(rho, release_s, "high"), arrays.schedule(rho, release_s)
    middle = 0.5 * (mean.start_s + mean.end_s)
    margin = combine_deviations((high.grams - mean.grams)[1:], middle[1:], arrays.problem.day_s)
    return margin * (_WIDEN[0] + _WIDEN[1] * arrays.problem.done)


def combine_deviations(deviations: Floats, at_s: Floats, day_s: float) -> float:
    """The deviation of a sum at the quantile, from those of its parts (n,) at times `at_s` (n,)."""
    if not len(deviations):
        return 0.0
    cuts = np.unique(
        np.linspace(0, len(deviations), min(len(deviations), _BLOCKS), endpoint=False).astype(int)
    )
    parts, times = np.add.reduceat(deviations, cuts), at_s[cuts] / day_s
    alike = _DRIFT + (1 - _DRIFT) * np.exp(-np.abs(times[:, None] - times[None, :]) / _FADE)
    return math.sqrt(max(float(parts @ alike @ parts), 0.0))


def rest_rho(problem: Problem, rho: float) -> float | None:
    """A lower ρ for the rest of the current segment, or None: go on as directed.

    problem: as of now, its first segment with the steps that are left of it; rho: as directed. ρ is only ever lowered, and only if the
    guard would no longer grant it: so much was spent, or the grid became so dirty, that the rest at `rho` and the floor of all later
    segments at the forecast's high exceed what is left. This saves a job that would otherwise be stopped when its grams are gone.
    Reductions of less than _NOTCH wait for the next segment, since each costs a selection. If not even the lowest ρ fits it is used all the
    same, and `must_stop` decides.
    """
    if problem.allowed is not None:
        problem = WorkingTime.of(problem.allowed).cut(problem)
    arrays = SegmentArrays(problem, _MOST)
    cap = cap_rho(arrays, problem.budget_g - problem.reserve_g)
    return cap.rho if cap.rho < rho - _NOTCH else None
