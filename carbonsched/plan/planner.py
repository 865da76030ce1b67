"""Decides the next segment's directive from the remaining grams: train at ρ, wait, or stop.

A problem with allowed hours, without a forecast or with a deadline far beyond the forecast is first rewritten into one
without these. Then the price λ is found at which the plan spends the budget (`price_search`), and the guard caps ρ so that the
floor of the rest stays affordable at the forecast's high quantile. docs/planner.md describes the method and its figures.
"""

import math
from collections.abc import Callable
from dataclasses import replace

import numpy as np

from carbonsched.plan import guard, reasons
from carbonsched.plan.dynamic_program import Solution
from carbonsched.plan.forecasting.without_forecast import with_reference_intensity
from carbonsched.plan.intensity_curve import Floats
from carbonsched.plan.price_search import TIE, PricedPlan, min_grams_plan, search
from carbonsched.plan.problem import Plan, PlannedSegment, Problem
from carbonsched.plan.segment_arrays import Schedule, SegmentArrays
from carbonsched.plan.setting_arrays import SettingArrays
from carbonsched.plan.setting_search import SettingPlan, families, search_settings
from carbonsched.plan.working_time import WorkingTime

_FAR = 1.5
"""Ratio of deadline to forecast above which the plan covers only the forecast."""
_MOST = 192
"""Segments that the dynamic program plans one by one; later ones are planned in groups."""
_SPARED = 0.25
"""At a job's very end it is stopped only if its grams fall short of the rest at the forecast's lows by more than this share; at its
beginning, by any. Grids have been cleaner than their lows, and so late a stop would save little."""
_SPENT = 0.02
"""Share of the budget: a plan that leaves less of it unspent is bound by the budget."""


def solve(problem: Problem, *, detail: bool = True) -> Plan:
    """The directive for the first remaining segment and the plan behind it; without `detail` no `segments`.

    Raises ValueError if there is no segment, no slot or no allowed hour: the caller plans only jobs that still run.
    """
    restores: list[Restore] = []
    for rewrite in _REWRITINGS:
        rewritten = rewrite(problem)
        if rewritten is not None:
            problem, restore = rewritten
            restores.append(restore)
    plan = _solve(problem, detail)
    for restore in reversed(restores):
        plan = restore(plan)
    return plan


Restore = Callable[[Plan], Plan]
"""Translates the plan of a rewritten problem back to the original problem."""


def _in_working_time(problem: Problem) -> tuple[Problem, Restore] | None:
    """Cut out the hours in which the job may not run."""
    if problem.allowed is None:
        return None
    hours = WorkingTime.of(problem.allowed)
    return hours.cut(problem), hours.restore


def _with_reference(problem: Problem) -> tuple[Problem, Restore] | None:
    """Derive the intensity of the hours ahead from the price of earlier plans, if there is no forecast."""
    if problem.has_forecast:
        return None
    flat = solve(replace(problem, has_forecast=True), detail=False)
    return (
        with_reference_intensity(problem, flat.price),
        lambda plan: replace(plan, reason=reasons.without_forecast(plan.reason)),
    )


def _within_reach(problem: Problem) -> tuple[Problem, Restore] | None:
    """Cut the problem to the reach of the forecast, if a deadline is far beyond it.

    Beyond the forecast all hours are alike, so the segments that fall there at an even pace are left out, with their share of the
    budget; each later plan looks equally far.
    """
    reach = problem.slots[-1].end_s if problem.slots else 0.0
    deadline, n = problem.deadline_s, len(problem.segments)
    if not problem.may_pause or deadline is None or deadline <= _FAR * reach or n < 2 * _MOST:
        return None
    kept = max(math.ceil(n * reach / deadline), 1)
    windowed = replace(
        problem,
        segments=problem.segments[:kept],
        deadline_s=reach,
        budget_g=problem.reserve_g + (problem.budget_g - problem.reserve_g) * kept / n,
        energy=replace(problem.energy, tail_j=0.0, tail_s=0.0),
    )
    return windowed, lambda plan: replace(
        plan, reason=reasons.windowed(plan.reason, reach, kept, n), reach=kept / n
    )


_REWRITINGS = (_in_working_time, _with_reference, _within_reach)
"""In this order; `solve` restores in the opposite one."""


def _solve(problem: Problem, detail: bool) -> Plan:
    """Plan a problem without allowed hours, with a forecast, and within its reach."""
    if problem.points:
        return _solve_settings(problem, detail)
    separable = not problem.may_pause and problem.energy.seconds_c0 >= 1.0 - 1e-12
    arrays = SegmentArrays(problem, None if separable else _MOST)
    left_g = problem.budget_g - problem.reserve_g
    rho_floor = problem.segments[0].frontier[0][0]
    if rho_floor > problem.rho_max + TIE:
        reason = reasons.rho_max_below_floor(problem.rho_max, rho_floor)
        return _stop(reason, arrays.schedule(arrays.lo).spend_g, "rho_max")
    min_grams = min_grams_plan(arrays)
    floor_g = min_grams.schedule.spend_g
    if is_unaffordable(arrays, min_grams, left_g):
        deadline = bool(problem.deadline_s)
        reason = reasons.below_floor(floor_g, left_g, may_pause=problem.may_pause, deadline=deadline)
        return _stop(reason, floor_g, "budget")
    if floor_g > left_g * (1 + TIE):
        found = PricedPlan(min_grams, 0.0, math.inf)
    else:
        found = search(arrays, min_grams, left_g, separable=separable)
    if found.solution.schedule.start_s[0] > 1e-6:
        return _wait(arrays, found, floor_g, left_g, detail)
    return _train(arrays, found, min_grams, left_g, detail)


def _solve_settings(problem: Problem, detail: bool) -> Plan:
    """Plan a job that may train in one of several settings: the best plan of settings that may be mixed, and of each that it must keep."""
    left_g = problem.budget_g - problem.reserve_g
    cases = []
    for points in families(problem.points):
        arrays = SettingArrays(replace(problem, points=points), points)
        cases.append((arrays, search_settings(arrays, left_g)))
    alone = sorted((a for _, found in cases if found is not None for a in found.alone), key=lambda a: -a[1])

    def rank(case: tuple[SettingArrays, SettingPlan | None]) -> tuple[float, float]:
        arrays, found = case
        if found is None:
            return -1.0, 0.0
        gain = float(arrays.gains(found.solution.rho).sum())
        return round(gain, 12), -found.solution.schedule.spend_g

    plans = []
    for arrays, found in sorted(cases, key=rank, reverse=True):
        best = None if found is None else replace(found, alone=tuple(alone))
        plan = _solve_family(arrays, best, left_g, detail)
        if plan.action != "stop":
            return plan
        plans.append(plan)
    return min(plans, key=lambda plan: plan.floor_g)  # the cheapest shows best what is missing


def _solve_family(arrays: SettingArrays, found: SettingPlan | None, left_g: float, detail: bool) -> Plan:
    """The plan of settings that may be mixed. found: the best of them that fits."""
    problem = arrays.problem
    min_grams = min_grams_plan(arrays)
    floor_g = min_grams.schedule.spend_g
    # a plan that fits is affordable, even if the setting with the fewest joules is so slow that it ends in more expensive hours
    if found is None and is_unaffordable(arrays, min_grams, left_g):
        deadline = bool(problem.deadline_s)
        reason = reasons.below_floor(floor_g, left_g, may_pause=problem.may_pause, deadline=deadline)
        return _stop(reason, floor_g, "budget")
    if found is None:  # too expensive by the expectation, or late: as cheap, or as fast, as possible
        lowest = (
            min_grams
            if floor_g > left_g
            else Solution(arrays.fastest, np.zeros(arrays.n), arrays.schedule(arrays.fastest), 0.0)
        )
        found = SettingPlan(lowest, 0.0, math.inf)
    if problem.open_end and arrays.point(found.solution.rho[0]) is None:
        found = SettingPlan(_cheapest_first(arrays), 0.0, math.inf)
    if arrays.point(found.solution.rho[0]) is None:
        return _stop(reasons.no_more_steps(left_g), floor_g, "budget")
    if found.solution.schedule.start_s[0] > 1e-6:
        plan = _wait(arrays, found, floor_g, left_g, detail)
        return replace(plan, reason=f"{plan.reason}; then {_settings(arrays, found, found.solution.rho)}")
    return _train_setting(arrays, found, min_grams, left_g, detail)


def _cheapest_first(arrays: SettingArrays) -> Solution:
    """The next segment at the lowest cost, and nothing after it: a job of open end need not pay for whole segments."""
    rho = np.zeros(arrays.n)
    rho[0] = next(float(i) for i, point in enumerate(arrays.choices) if point is not None)
    return Solution(rho, np.zeros(arrays.n), arrays.schedule(rho), 0.0)


def _train_setting(
    arrays: SettingArrays, found: SettingPlan, min_grams: Solution, left_g: float, detail: bool
) -> Plan:
    """Train now, in the setting of the plan found, or in the most expensive one that the guard grants."""
    problem, solution = arrays.problem, found.solution
    release = solution.release_s if problem.may_pause else None
    cap = guard.cap_choice(
        arrays, left_g, solution, min_grams.schedule.start_s if problem.may_pause else None
    )
    if problem.open_end:  # nothing after it is obligatory
        cap = replace(cap, rho=float(solution.rho[0]), fits=True)
    rho = solution.rho.copy()
    capped = rho[0] > cap.rho
    rho[0] = cap.rho
    point = arrays.point(cap.rho)
    if point is None:
        return _stop(reasons.no_more_steps(left_g), min_grams.schedule.spend_g, "guard")
    schedule = arrays.schedule(rho, release)
    if capped and schedule.spend_g > left_g * (
        1 + TIE
    ):  # moved into dirtier hours, the rest no longer is as planned
        rest = np.append(rho[:1], arrays.lo[1:])
        least = arrays.schedule(rest, release)
        if least.spend_g < schedule.spend_g:
            rho, schedule = rest, least
    binding = _binding_limits(arrays, rho, schedule, left_g, found.price, bool(capped))
    return Plan(
        action="train",
        rho=point.rho,
        wait_s=None,
        price=found.price,
        reason=reasons.train_setting(
            settings=_settings(arrays, found, rho),
            now_g_per_kwh=arrays.intensity.now,
            left_g=left_g,
            floor_g=min_grams.schedule.spend_g,
            spend_g=schedule.spend_g,
            guarded=bool(capped),
        ),
        segments=_planned_segments(arrays, rho, schedule) if detail else (),
        spend_g=schedule.spend_g,
        floor_g=min_grams.schedule.spend_g,
        binding=tuple(name for name in binding if not name.startswith("rho")),
        point=point,
    )


def _settings(arrays: SettingArrays, found: SettingPlan, rho: Floats) -> str:
    """The settings of the plan and its reason, in words."""
    steps: dict[str, int] = {}
    for group, number in zip(arrays.groups, rho.tolist(), strict=True):
        point = arrays.point(number)
        name = point.name if point is not None else ""
        steps[name] = steps.get(name, 0) + sum(s.steps for s in group)
    left_out = steps.pop("", 0)
    gain = float(arrays.gains(rho).sum())
    if arrays.problem.open_end:
        return reasons.open_settings(steps, gain, found.alone)
    return reasons.settings(steps, left_out, gain, found.alone)


def _stop(reason: str, floor_g: float, limit: str) -> Plan:
    return Plan("stop", None, None, None, reason, (), 0.0, floor_g, (limit,))


def _wait(arrays: SegmentArrays, found: PricedPlan, floor_g: float, left_g: float, detail: bool) -> Plan:
    solution = found.solution
    schedule = solution.schedule
    start = float(schedule.start_s[0])
    return Plan(
        action="wait",
        rho=None,
        wait_s=start,
        price=found.price,
        reason=reasons.wait(
            wait_s=start,
            then_g_per_kwh=float(arrays.intensity.mean_between(schedule.start_s[:1], schedule.end_s[:1])[0]),
            now_g_per_kwh=arrays.intensity.now,
            left_g=left_g,
            floor_g=floor_g,
            spend_g=schedule.spend_g,
            then_eur_per_kwh=_price(arrays, schedule),
            now_eur_per_kwh=_price(arrays),
        ),
        segments=_planned_segments(arrays, solution.rho, schedule) if detail else (),
        spend_g=schedule.spend_g,
        floor_g=floor_g,
        binding=("price",) if arrays.weighs_money and found.price == 0 else ("budget",),
        gap=_gap(found.bound, float(arrays.gains(solution.rho).sum())),
    )


def _train(
    arrays: SegmentArrays, found: PricedPlan, min_grams: Solution, left_g: float, detail: bool
) -> Plan:
    """Train now, at the ρ of the plan found, or at the guard's ρ if that is lower."""
    may_pause, floor_g = arrays.problem.may_pause, min_grams.schedule.spend_g
    cap = guard.cap_rho(arrays, left_g, min_grams.schedule.start_s if may_pause else None)
    if arrays.problem.open_end:
        cap = replace(cap, rho=float(arrays.hi[0]), fits=True)
    rho = found.solution.rho.copy()
    capped = float(rho[0]) > cap.rho + TIE
    if capped:
        rho[0] = cap.rho
    schedule = arrays.schedule(rho, found.solution.release_s if may_pause else None)
    if floor_g > left_g * (1 + TIE):
        binding: tuple[str, ...] = ("budget", "rho_min")
    else:
        binding = _binding_limits(arrays, rho, schedule, left_g, found.price, capped)
    return Plan(
        action="train",
        rho=float(rho[0]),
        wait_s=None,
        price=found.price,
        reason=reasons.train(
            rho=float(rho[0]),
            now_g_per_kwh=arrays.intensity.now,
            left_g=left_g,
            floor_g=floor_g,
            spend_g=schedule.spend_g,
            binding=binding,
            rest_g=cap.needs_g,
            rest_fits=cap.fits,
            late_s=arrays.schedule(arrays.lo).finish_s - float(arrays.latest_s[-1]),
            now_eur_per_kwh=_price(arrays),
        ),
        segments=_planned_segments(arrays, rho, schedule) if detail else (),
        spend_g=schedule.spend_g,
        floor_g=floor_g,
        binding=binding,
        gap=_gap(found.bound, float(arrays.gains(rho).sum())),
    )


def _price(arrays: SegmentArrays, schedule: Schedule | None = None) -> float | None:
    """EUR/kWh now, or of a schedule's first segment, if the job weighs money; else None."""
    if not arrays.weighs_money or arrays.price is None:
        return None
    if schedule is None:
        return arrays.price.now
    return float(arrays.price.mean_between(schedule.start_s[:1], schedule.end_s[:1])[0])


def _gap(bound: float, gain: float) -> float:
    """Duality gap as a share of the bound; 0 if no bound is known."""
    return max(0.0, (bound - gain) / bound) if math.isfinite(bound) and bound > 0 else 0.0


def is_unaffordable(arrays: SegmentArrays, min_grams: Solution, budget: float) -> bool:
    """Whether the spend floor does not fit, even if the grid turns out as clean as the forecast's low quantile.

    For a running job all hours are assumed at their low at once, since its work should be abandoned last. For one that has not begun
    the low of the sum is used, in which the errors of different hours partly cancel.
    """
    problem, schedule = arrays.problem, min_grams.schedule
    if schedule.spend_g <= budget * (1 + TIE):
        return False
    low = arrays.schedule(min_grams.rho, min_grams.release_s if problem.may_pause else None, "low").grams
    least = float(low.sum()) * (1 - _SPARED * problem.done)
    if problem.done <= 0:
        cancelled = guard.combine_deviations(schedule.grams - low, schedule.start_s, problem.day_s)
        least = max(least, schedule.spend_g - cancelled)
    # a guess must not end a job: before anything is metered two deviations halve the floor; the guard holds meanwhile
    least *= max(1 - 2 * problem.energy.sigma, 0.0)
    return least > budget * (1 + TIE)


def _binding_limits(
    arrays: SegmentArrays, rho: Floats, schedule: Schedule, budget_g: float, price: float, capped: bool
) -> tuple[str, ...]:
    """The limits that keep ρ from being higher, as `Plan.binding` names them."""
    out = []
    uses_up = price > 0 or arrays.problem.open_end
    if uses_up and (capped or schedule.spend_g > budget_g * (1 - _SPENT)):
        out.append("budget")
    if schedule.finish_s > float(arrays.latest_s[-1]) * (1 - 1e-3) - 1e-6:
        out.append("deadline")
    if arrays.hi[0] - arrays.lo[0] > TIE:
        if rho[0] <= arrays.lo[0] + 1e-6:
            out.append("rho_min")
        elif rho[0] >= arrays.hi[0] - 1e-6:
            out.append("rho_max")
    if capped:
        out.append("guard")
    return tuple(out)


def _planned_segments(arrays: SegmentArrays, rho: Floats, schedule: Schedule) -> tuple[PlannedSegment, ...]:
    """One entry per segment; those of a group share its time, grams and gain by their steps."""
    gains, eur, joules = arrays.gains(rho), arrays.eur(rho, schedule), arrays.drawn_j(rho, schedule)
    out: list[PlannedSegment] = []
    rows = zip(
        arrays.groups,
        *(column.tolist() for column in (schedule.start_s, schedule.end_s, rho, schedule.grams, gains)),
        [None] * arrays.n if eur is None else eur.tolist(),
        joules.tolist(),
        strict=True,
    )
    for group, start, end, r, g, gain, cost, energy_j in rows:
        point = None
        if isinstance(arrays, SettingArrays):
            point = arrays.point(r)
            if point is None:  # left out
                continue
            r = point.rho
        if len(group) == 1:
            out.append(PlannedSegment(group[0].k, start, end, r, g, gain, cost, energy_j, point))
            continue
        steps, before = sum(s.steps for s in group), 0
        for s in group:
            a, b = before / steps, (before + s.steps) / steps
            span = end - start
            part = b - a
            paid = None if cost is None else cost * part
            begins, ends = start + a * span, start + b * span
            out.append(
                PlannedSegment(s.k, begins, ends, r, g * part, gain * part, paid, energy_j * part, point)
            )
            before += s.steps
    return tuple(out)
