"""Chooses among real settings: the plan with the most full-equivalent steps for the grams and before the deadline.

Every setting alone is tried as well as all of them together: at once for as many segments as fit, and with the waits that the dynamic
program finds under a price for grams, with the deadline as a hard bound. The best of these is improved segment by segment, so by its own
estimate no plan is worse than any single setting, with fewer steps or with pauses. No segment is a mixture of two settings. A setting that
a job must keep (adapters) is planned for all of its segments or for none.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np

from carbonsched.plan.dynamic_program import Solution, WaitOrTrain
from carbonsched.plan.intensity_curve import Floats
from carbonsched.plan.price_search import TIE, PricedPlan, bracket_price
from carbonsched.plan.problem import PlanPoint
from carbonsched.plan.segment_arrays import Schedule
from carbonsched.plan.setting_arrays import SettingArrays
from carbonsched.plan.setting_beam import best_by_beam
from carbonsched.plan.two_prices import TwoPrices

_LEAP, _STRIDE = 1.3, 1.05
"""First factor outwards from the first price: from a guess, and from the price of the previous plan."""
_NODES, _FEW = 672, 32
"""Nodes of the time grid for up to this many segments; for more, half of it."""
_HOURS = 2
"""Number of plans whose hours are used to mix settings, if the job may pause; without pauses one."""
_MOST_MIXED = 48
"""Most points that a plan mixes, and most clocks tried alone, so that a job with more does not delay the other jobs."""
_TRIES = 600
"""Changes of one segment that are tried, in order of gain per gram."""


@dataclass(frozen=True, slots=True)
class SettingPlan(PricedPlan):
    """A plan over settings, and the gain of each setting alone.

    Example::

        found = search_settings(arrays, budget_g=98.2)
        found.alone[0]  # ("full", 0.75)
    """

    alone: tuple[tuple[str, float], ...] = ()
    """(setting, gain of the best plan with it alone), in descending order; only those that fit."""


def search_settings(arrays: SettingArrays, budget_g: float) -> SettingPlan | None:
    """The best plan within the budget and before the deadline; None if none fits. Its points must be one of `families`."""
    points = [p for p in arrays.choices if p is not None]
    found: list[tuple[Solution, float]] = []
    alone: dict[str, float] = {}
    mixed = _spread(undominated(points))
    single = [[p] for p in points if p.clocks is None or p in mixed]
    for mine in single + ([mixed] if len(mixed) > 1 else []):
        fitting = list(_plans(arrays, mine, budget_g))
        found += fitting
        if len(mine) == 1 and fitting:
            alone[mine[0].name] = max(_gain(arrays, solution) for solution, _ in fitting)
    found += _by_both_prices(arrays, mixed, found, budget_g)
    if not found:
        return None
    best, price = max(found, key=lambda f: (round(_gain(arrays, f[0]), 12), -f[0].schedule.spend_g))
    top = arrays.schedule(arrays.best)
    if _fits(arrays, arrays.best, None, budget_g) and _gain(arrays, best) >= float(
        arrays.gains(arrays.best).sum()
    ) * (1 - TIE):
        best, price = Solution(arrays.best, np.zeros(arrays.n), top, 0.0), 0.0
    else:
        best = _improve(arrays, best, budget_g)
    ranked = tuple(sorted(alone.items(), key=lambda item: -item[1]))
    return SettingPlan(best, price, math.inf, ranked)


def _by_both_prices(
    arrays: SettingArrays, points: list[PlanPoint], found: list[tuple[Solution, float]], budget_g: float
) -> list[tuple[Solution, float]]:
    """The best mixtures of points by a price for grams and one for time, in the hours of the best plans so far."""
    hours: list[tuple[Schedule, Floats]] = []
    for solution, _ in sorted(found, key=lambda f: -_gain(arrays, f[0])):
        if len(hours) < _HOURS and not any(np.allclose(solution.release_s, seen) for _, seen in hours):
            hours.append((solution.schedule, solution.release_s))
    if not hours:
        hours.append((arrays.schedule(arrays.fastest), np.zeros(arrays.n)))
    sub, mixed = SettingArrays(arrays.problem, points), []
    number = np.array([float(arrays.choices.index(choice)) for choice in sub.choices])
    for schedule, release_s in hours:
        prices = TwoPrices.of(sub, schedule, budget_g).clear()
        made = best_by_beam(sub, prices, budget_g, release_s)
        if made is not None:
            rho = number[np.rint(made.rho).astype(int)]
            mixed.append((replace(made, rho=rho), prices.per_g))
    return mixed


def undominated(points: Sequence[PlanPoint]) -> list[PlanPoint]:
    """The points that no other one dominates: worth at least as much for no more joules and no more seconds.

    Example:
        >>> full, slower = PlanPoint("full", 1.0, 4.0, 1.0, 1.0), PlanPoint("full", 1.0, 3.0, 1.2, 1.0, clocks=1200)
        >>> worse = PlanPoint("greentrainer", 0.9, 3.6, 1.3, 0.9)
        >>> [p.name for p in undominated([full, slower, worse])]
        ['full', 'full, 1200 MHz']
    """

    def beats(one: PlanPoint, other: PlanPoint) -> bool:
        return one.joules <= other.joules and one.seconds <= other.seconds and one.worth >= other.worth

    return [
        point
        for i, point in enumerate(points)
        if not any(
            beats(other, point) and (j < i or not beats(point, other))
            for j, other in enumerate(points)
            if j != i
        )
    ]


def _spread(points: list[PlanPoint]) -> list[PlanPoint]:
    """At most `_MOST_MIXED` of the points, in order of joules, evenly from the first to the last."""
    if len(points) <= _MOST_MIXED:
        return points
    return [points[round(i * (len(points) - 1) / (_MOST_MIXED - 1))] for i in range(_MOST_MIXED)]


def families(points: Sequence[PlanPoint]) -> list[tuple[PlanPoint, ...]]:
    """The points grouped by what a plan may mix: all that a job can change between, and each that it must keep alone.

    Example:
        >>> full, lora = PlanPoint("full", 1.0, 4.0, 1.0, 1.0), PlanPoint("lora", 0.7, 3.0, 1.0, 1.0, whole_job=True)
        >>> [[p.name for p in family] for family in families([full, lora])]
        [['full'], ['lora at rho 0.70']]
    """
    mixed = tuple(p for p in points if not p.whole_job)
    methods = sorted({(p.method, p.share) for p in points if p.whole_job}, key=str)
    alone = [tuple(p for p in points if p.whole_job and (p.method, p.share) == which) for which in methods]
    return [mixed, *alone] if mixed else alone


def _gain(arrays: SettingArrays, solution: Solution) -> float:
    return float(arrays.gains(solution.rho).sum())


def _plans(
    arrays: SettingArrays, points: list[PlanPoint], budget_g: float
) -> Iterator[tuple[Solution, float]]:
    """Plans of some of the points that fit, each with its price."""
    sub = SettingArrays(arrays.problem, points)
    number = np.array([float(arrays.choices.index(choice)) for choice in sub.choices])
    if len(points) == 1 and (run := _at_once(arrays, float(number[-1]), budget_g)) is not None:
        yield run, 0.0
    if not arrays.problem.may_pause and len(points) == 1:
        return  # without waits there is no other choice
    most = sub.schedule(sub.best).spend_g
    hint = arrays.problem.price_hint
    guess = hint or max(float(sub.gains(sub.best).sum()), 1e-9) / max(most, 1e-12)
    program = WaitOrTrain(sub, rhos=len(sub.choices), nodes=_NODES if sub.n <= _FEW else _NODES // 2)
    if len(points) == 1:
        # in the cleanest hours for all, or by the mean value of hours; how much of it the budget pays for is then decided
        solutions: list[Solution | None] = [_all_of(arrays, points[0]), program.solve(guess)]
        price = guess
    else:
        bracket = bracket_price(program, guess, budget_g, _LEAP if hint is None else _STRIDE)
        solutions, price = [bracket.within, bracket.over, program.solve(0.0)], bracket.price
    for solution in solutions:
        if solution is None:
            continue
        made = _settled(arrays, number[np.rint(solution.rho).astype(int)], solution.release_s)
        if _fits(arrays, made.rho, made.release_s, budget_g):
            yield made, price
        elif (less := _thinned(arrays, made, budget_g)) is not None:
            yield less, price


def _all_of(arrays: SettingArrays, point: PlanPoint) -> Solution:
    """Every segment at one point, in the hours with the fewest grams; numbered as if segments may be left out."""
    whole = SettingArrays(replace(arrays.problem, may_end_early=False), [point])
    found = WaitOrTrain(whole, rhos=1, nodes=_NODES if whole.n <= _FEW else _NODES // 2).solve(math.inf)
    return replace(found, rho=found.rho + float(arrays.problem.may_end_early))


def _thinned(arrays: SettingArrays, plan: Solution, budget_g: float) -> Solution | None:
    """A plan that exceeds the budget, without the segments with the highest cost for their gain; None if none may be left out.

    Hours of the same cost are all taken or none, at any price, so what the budget really pays for lies between two prices.
    """
    if not arrays.problem.may_end_early:
        return None
    gain, schedule = arrays.gains(plan.rho), plan.schedule
    order = np.argsort(schedule.grams / np.maximum(gain, 1e-12), kind="stable")
    release = schedule.start_s if arrays.problem.may_pause else np.zeros(arrays.n)

    def keep(count: int) -> Solution:
        rho = np.zeros(arrays.n)
        kept = order[:count]
        rho[kept] = plan.rho[kept]
        return _settled(arrays, rho, release)

    few, many = 0, int((gain > 0).sum())
    while many - few > 1:
        middle = (few + many) // 2
        made = keep(middle)
        few, many = (middle, many) if _fits(arrays, made.rho, made.release_s, budget_g) else (few, middle)
    return keep(few) if few else None


def _at_once(arrays: SettingArrays, number: float, budget_g: float) -> Solution | None:
    """One setting from now on without a wait, for as many segments as fit; all of them, or None, if none may be left out."""
    fewest = 1 if arrays.problem.may_end_early else arrays.n
    many, none = arrays.n, fewest - 1

    def choice(count: int) -> Floats:
        rho = np.zeros(arrays.n)
        rho[:count] = number
        return rho

    while many > none and not _fits(arrays, choice(many), None, budget_g):
        many = many - 1 if many - none < 4 else (many + none) // 2
    if many <= none:
        return None
    while many < arrays.n and _fits(arrays, choice(many + 1), None, budget_g):
        many += 1
    rho = choice(many)
    return Solution(rho, np.zeros(arrays.n), arrays.schedule(rho), 0.0)


def _fits(arrays: SettingArrays, rho: Floats, release_s: Floats | None, budget_g: float) -> bool:
    schedule = arrays.schedule(rho, release_s if arrays.problem.may_pause else None)
    end_s = float(arrays.latest_s[-1])
    return schedule.spend_g <= budget_g * (1 + TIE) and schedule.finish_s <= end_s + 1e-6


def _settled(arrays: SettingArrays, rho: Floats, release_s: Floats) -> Solution:
    """A plan with the left-out segments moved to its end: the order makes no difference, except that the next segment is trained first."""
    trained = np.array([arrays.point(number) is not None for number in rho])
    if not trained.all() and trained.any():
        order = np.argsort(~trained, kind="stable")
        alike = len(set(arrays.kinds)) == 1
        if alike:
            rho, release_s = rho[order], np.where(trained[order], release_s[order], 0.0)
        elif not trained[0]:
            first = int(np.argmax(trained))
            rho, release_s = rho.copy(), release_s.copy()
            rho[0], release_s[0] = rho[first], release_s[first]
    release = release_s if arrays.problem.may_pause else None
    return Solution(rho, release_s, arrays.schedule(rho, release), 0.0)


def _improve(arrays: SettingArrays, plan: Solution, budget_g: float) -> Solution:
    """Single segments changed to settings that gain more, in order of gain per gram, while all fits."""
    rho, release = plan.rho.copy(), plan.release_s
    gains, joules = arrays.gains(rho), arrays.joules(rho)
    mean = arrays.intensity.mean_between(plan.schedule.start_s, plan.schedule.end_s)
    tries = []
    for number in range(len(arrays.choices)):
        each = np.full(arrays.n, float(number))
        more, cost = arrays.gains(each) - gains, (arrays.joules(each) - joules) * mean
        tries += [
            (-float(g) / max(float(c), 1e-12), k, number)
            for k, (g, c) in enumerate(zip(more, cost, strict=True))
            if g > TIE
        ]
    for _, k, number in sorted(tries)[:_TRIES]:
        before = rho[k]
        if float(arrays.gain_of(k, np.array([float(number)]))[0]) <= float(
            arrays.gain_of(k, np.array([before]))[0]
        ):
            continue
        rho[k] = number
        if not _fits(arrays, rho, release, budget_g):
            rho[k] = before
    return _settled(arrays, rho, release)
