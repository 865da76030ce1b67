"""The planner of DESIGN 4: from the grams that are left to ρ for the next segment, wait, or stop.

Where the time of a segment does not depend on ρ and nothing may pause, the problem separates: the hull pieces of all
segments in order of gain a gram are the optimum (exact for concave frontiers). Else λ is bracketed by the expected
spend of the dynamic program's plan, a step function of λ, and the cheaper side of the bracket is kept. Either way the
residual goes to the marginal segments in order of gain a gram, with their times laid out anew. The guard then caps ρ
so that the floor of the rest stays affordable at the forecast's high quantile.
"""

import math
from dataclasses import dataclass, replace

import numpy as np

from carbonsched.plan import guard
from carbonsched.plan.dynamic_program import Solution, WaitOrTrain
from carbonsched.plan.forecasting import without_forecast
from carbonsched.plan.intensity_curve import Floats
from carbonsched.plan.problem import Plan, PlannedSegment, Problem
from carbonsched.plan.segment_arrays import Schedule, SegmentArrays
from carbonsched.plan.working_time import WorkingTime

_PRICES = 9
"""Prices tried a re-plan at most; the residual closes what the bracket leaves."""
_CLOSE = 0.01
"""A spend this close below the budget ends the search for λ."""
_NARROW = 1.02
"""A bracket this narrow ends it too: the residual is handed out anyway."""
_LEAP, _STRIDE = 1.2, 1.05
"""First factor outwards from the first price, a guess or the last plan's."""
_FAR = 1.5
"""A deadline this many times the forecast's reach away makes the horizon roll."""
_MOST = 192
"""Segments the dynamic program tells apart; later ones are planned in groups."""
_SPARED = 0.25
"""At a job's very end its grams may fall short of the rest at the forecast's lows by this share before it is stopped, at its
beginning by none: grids have been cleaner than their lows, and a stop so late would save little."""
_TIE = 1e-9


@dataclass(frozen=True, slots=True)
class _Found:
    solution: Solution
    price: float
    bound: float
    """Upper bound on the gain where one is known, else inf."""


def solve(problem: Problem, *, detail: bool = True) -> Plan:
    """The directive for the first remaining segment and the plan behind it; without `detail` no `segments`.

    Raises ValueError where there is no segment, no slot or no allowed hour: the caller asks only about jobs that still
    run.
    """
    if problem.allowed is not None:
        hours = WorkingTime.of(problem.allowed)
        return hours.restore(solve(hours.cut(problem), detail=detail))
    if not problem.has_forecast:
        flat = solve(replace(problem, has_forecast=True), detail=False)
        plan = solve(without_forecast.with_reference_intensity(problem, flat.price), detail=detail)
        return replace(plan, reason=plan.reason + without_forecast.REASON)
    windowed = _window(problem)
    if windowed is not problem:
        plan = solve(windowed, detail=detail)
        ahead = f"; looks {_span(windowed.slots[-1].end_s)} ahead, {len(windowed.segments)} of {len(problem.segments)} segments"
        return replace(plan, reason=plan.reason + ahead)
    simple = not problem.may_pause and problem.energy.seconds_c0 >= 1.0 - 1e-12
    arrays = SegmentArrays(problem, None if simple else _MOST)
    budget = problem.budget_g - problem.reserve_g
    if problem.segments[0].frontier[0][0] > problem.rho_max + _TIE:
        return _stop(
            f"stop: rho_max {problem.rho_max:.3f} is below the model's floor "
            f"{problem.segments[0].frontier[0][0]:.3f}; raise rho_max",
            arrays,
            arrays.schedule(arrays.lo).spend_g,
            ("rho_max",),
        )
    min_grams = min_grams_plan(arrays)
    floor_g = min_grams.schedule.spend_g
    short = floor_g > budget * (1 + _TIE)
    if is_unaffordable(arrays, min_grams, budget):
        return _stop(_short(floor_g, budget, problem), arrays, floor_g, ("budget",))
    found = _Found(min_grams, 0.0, math.inf) if short else _search(arrays, min_grams, budget, simple)
    solution, price = found.solution, found.price
    release = solution.release_s if problem.may_pause else None
    if solution.schedule.start_s[0] > 1e-6:
        plan = _wait(arrays, solution, price, floor_g, budget, found.bound)
        return plan if detail else replace(plan, segments=())
    cap = guard.cap_rho(arrays, budget, min_grams.schedule.start_s if problem.may_pause else None)
    rho = solution.rho.copy()
    capped = float(rho[0]) > cap.rho + _TIE
    if capped:
        rho[0] = cap.rho
    schedule = arrays.schedule(rho, release)
    binding = (
        ("budget", "rho_min")
        if short
        else _binding_limits(arrays, rho, schedule.spend_g, schedule.finish_s, budget, price, capped)
    )
    gain = arrays.gains(rho)
    bound = found.bound if math.isfinite(found.bound) else float(gain.sum())
    return Plan(
        action="train",
        rho=float(rho[0]),
        wait_s=None,
        price=price,
        reason=_why(arrays, float(rho[0]), schedule.spend_g, floor_g, budget, binding, cap),
        segments=_planned_segments(arrays, rho, schedule) if detail else (),
        spend_g=schedule.spend_g,
        floor_g=floor_g,
        binding=binding,
        gap=max(0.0, (bound - float(gain.sum())) / bound) if bound > 0 else 0.0,
    )


def _window(problem: Problem) -> Problem:
    """The problem cut to what the forecast reaches, where a deadline lies far beyond it.

    Past the forecast nothing tells one hour from another, so the segments that fall there at an even pace are left
    out, with their share of the budget; each later re-plan looks as far again.
    """
    reach, deadline, n = (
        problem.slots[-1].end_s if problem.slots else 0.0,
        problem.deadline_s,
        len(problem.segments),
    )
    if not problem.may_pause or deadline is None or deadline <= _FAR * reach or n < 2 * _MOST:
        return problem
    share = reach / deadline
    kept = max(math.ceil(n * share), 1)
    return replace(
        problem,
        segments=problem.segments[:kept],
        deadline_s=reach,
        budget_g=problem.reserve_g + (problem.budget_g - problem.reserve_g) * kept / n,
        energy=replace(problem.energy, tail_j=0.0, tail_s=0.0),
    )


def min_grams_plan(arrays: SegmentArrays) -> Solution:
    """The plan with the fewest grams: ρ at its lower bound, in the cleanest hours where pauses are allowed."""
    schedule = arrays.schedule(arrays.lo)
    now = Solution(arrays.lo, np.zeros(arrays.n), schedule, 0.0)
    if not arrays.problem.may_pause:
        return now
    waiting = WaitOrTrain(arrays, rhos=1).solve(math.inf)
    return waiting if waiting.schedule.spend_g < schedule.spend_g else now


def is_unaffordable(arrays: SegmentArrays, min_grams: Solution, budget: float) -> bool:
    """Whether not even the spend floor fits, also if the grid turns out as clean as the forecast's low quantile.

    For a job under way all hours at their low at once: what is invested is given up last. For one that has not begun
    the low of the sum, in which the errors of different hours partly cancel.
    """
    problem, schedule = arrays.problem, min_grams.schedule
    if schedule.spend_g <= budget * (1 + _TIE):
        return False
    low = arrays.schedule(min_grams.rho, min_grams.release_s if problem.may_pause else None, "low").grams
    least = float(low.sum()) * (1 - _SPARED * problem.done)
    if problem.done <= 0:
        cancelled = guard.combine_deviations(schedule.grams - low, schedule.start_s, problem.day_s)
        least = max(least, schedule.spend_g - cancelled)
    # a guess must not end a job: before anything was metered two deviations halve the floor, the guard holds meanwhile
    least *= max(1 - 2 * problem.energy.sigma, 0.0)
    return least > budget * (1 + _TIE)


def _search(arrays: SegmentArrays, min_grams: Solution, budget: float, simple: bool) -> _Found:
    """The plan that spends the budget, and its price."""
    full = arrays.schedule(arrays.hi)
    deadline = float(arrays.latest_s[-1])
    if full.spend_g <= budget and full.finish_s <= deadline + 1e-6:
        most = float(arrays.gains(arrays.hi).sum())
        return _Found(Solution(arrays.hi.copy(), np.zeros(arrays.n), full, most), 0.0, most)
    if simple:
        solution, price = _fill(arrays, min_grams, arrays.hi, budget, deadline)
        return _Found(solution, price, _dual_bound(arrays, price, budget))
    program = WaitOrTrain(arrays)
    if full.spend_g <= budget:
        # only the deadline stands against full speed: grams cost nothing
        free = program.solve(0.0)
        if free.schedule.spend_g <= budget:
            filled, _ = _fill(arrays, free, arrays.hi, budget, deadline)
            return _Found(filled, 0.0, free.bound)
    # what the budget would buy at the margin if times stood still is a good first price
    leap = _LEAP if arrays.problem.price_hint is None else _STRIDE
    guess = arrays.problem.price_hint or _fill(arrays, min_grams, arrays.hi, budget, deadline)[1] or 1.0
    best: Solution | None = None
    over: Solution | None = None
    price = guess
    low: tuple[float, float] | None = None
    high: tuple[float, float] | None = None
    for tried in range(_PRICES):
        solution = program.solve(guess)
        spend = solution.schedule.spend_g
        if spend <= budget * (1 + _TIE):
            if best is None or spend > best.schedule.spend_g:
                best, price = solution, guess
            high = (guess, spend)
            if spend >= budget * (1 - _CLOSE):
                break
        else:
            over = solution
            low = (guess, spend)
        guess = _next_price(low, high, budget, leap ** (2**tried))
        if low and high and high[0] / low[0] < _NARROW:
            break
    base = best if best is not None and best.schedule.spend_g >= min_grams.schedule.spend_g else min_grams
    filled, edge = _fill(arrays, base, arrays.hi, budget, deadline)
    if over is not None:
        # the spend may leap between two prices, as when a whole night is shifted: come down from the far side too
        start = Solution(arrays.lo, over.release_s, over.schedule, over.bound)
        trimmed, _ = _fill(arrays, start, over.rho, budget, deadline)
        if (
            trimmed.schedule.spend_g <= budget
            and arrays.gains(trimmed.rho).sum() > arrays.gains(filled.rho).sum()
        ):
            filled, edge = _fill(arrays, trimmed, arrays.hi, budget, deadline)
    bound = best.bound + price * budget if best is not None else math.inf
    return _Found(filled, price if base is best else edge, bound)


def _next_price(
    low: tuple[float, float] | None, high: tuple[float, float] | None, budget: float, leap: float
) -> float:
    """The next λ to try, from the dearest plan above and the cheapest price below the budget, (λ, spend) each.

    A secant in log λ kept well inside the bracket, for the spend is a step function of λ; outwards ever wider steps.
    """
    if low is None or high is None:
        return low[0] * leap if low else (high[0] / leap if high else 1.0)
    share = (low[1] - budget) / max(low[1] - high[1], 1e-300)
    return float(low[0] * (high[0] / low[0]) ** min(max(share, 0.15), 0.85))


def _fill(
    arrays: SegmentArrays, base: Solution, top: Floats, budget: float, deadline: float
) -> tuple[Solution, float]:
    """Give what `base` leaves of the budget to the segments in order of gain a gram, up to the ρ of `top`.

    The marginal segment gets a part. Returns the layout and the marginal price. Every candidate is laid out in time anew, so later segments that a
    higher ρ pushes into other hours, and the deadline, are counted.
    """
    release = base.release_s if arrays.problem.may_pause else None
    segment, width, gain = arrays.pieces(base.rho, top)
    if not len(segment):
        return base, 0.0
    rate = arrays.g_per_j_per_intensity * arrays.intensity.between(base.schedule.start_s, base.schedule.end_s)
    cost = arrays.marginal_j[segment] * width * rate[segment]
    with np.errstate(divide="ignore", invalid="ignore"):
        per_gram = np.where(cost > 0, gain / cost, np.inf)
    order = np.lexsort((segment, -per_gram))
    segment, width, per_gram = segment[order], width[order], per_gram[order]

    def at(count: int, part: float = 0.0) -> Floats:
        rho = base.rho + np.bincount(segment[:count], weights=width[:count], minlength=arrays.n)
        if part > 0:
            rho[segment[count]] += part * width[count]
        return np.minimum(rho, top)

    def fits(rho: Floats) -> bool:
        schedule = arrays.schedule(rho, release)
        return schedule.spend_g <= budget and schedule.finish_s <= deadline + 1e-6

    few, many = 0, len(segment)
    if fits(at(many)):
        few = many
    while many - few > 1:
        middle = (few + many) // 2
        few, many = (middle, many) if fits(at(middle)) else (few, middle)
    rho = at(few)
    price = 0.0
    if few < len(segment):
        price = float(per_gram[few])
        lo, hi = 0.0, 1.0
        below, above = (arrays.schedule(at(n), release).spend_g for n in (few, few + 1))
        # the spend is straight in ρ where times stand still: one guess hits, else it is halved
        guess = (budget - below) / (above - below) * (1 - 1e-12) if above > budget > below else 0.5
        for _ in range(30):
            rho = at(few, guess)
            schedule = arrays.schedule(rho, release)
            if schedule.spend_g <= budget and schedule.finish_s <= deadline + 1e-6:
                lo = guess
                if schedule.spend_g >= budget * (1 - _TIE):
                    break
            else:
                hi = guess
            guess = 0.5 * (lo + hi)
        rho = at(few, lo)
    return Solution(rho, base.release_s, arrays.schedule(rho, release), base.bound), price


def _dual_bound(arrays: SegmentArrays, price: float, budget: float) -> float:
    """max over ρ of Σ [gain − λ·grams] + λ·budget for fixed times: no plan gains more (weak duality)."""
    min_grams = arrays.schedule(arrays.lo)
    rate = arrays.g_per_j_per_intensity * arrays.intensity.between(min_grams.start_s, min_grams.end_s)
    segment, width, gain = arrays.pieces(arrays.lo, arrays.hi)
    extra = np.maximum(gain - price * arrays.marginal_j[segment] * width * rate[segment], 0.0)
    return float(arrays.gains(arrays.lo).sum() - price * min_grams.spend_g + extra.sum() + price * budget)


def _binding_limits(
    arrays: SegmentArrays,
    rho: Floats,
    spend_g: float,
    finish_s: float,
    budget: float,
    price: float,
    capped: bool,
) -> tuple[str, ...]:
    out = []
    if price > 0 and (capped or spend_g > budget * (1 - 2 * _CLOSE)):
        out.append("budget")
    if finish_s > float(arrays.latest_s[-1]) * (1 - 1e-3) - 1e-6:
        out.append("deadline")
    if arrays.hi[0] - arrays.lo[0] > _TIE:
        if rho[0] <= arrays.lo[0] + 1e-6:
            out.append("rho_min")
        elif rho[0] >= arrays.hi[0] - 1e-6:
            out.append("rho_max")
    if capped:
        out.append("guard")
    return tuple(out)


def _planned_segments(arrays: SegmentArrays, rho: Floats, schedule: Schedule) -> tuple[PlannedSegment, ...]:
    """One entry a segment; those of a group share its time, grams and gain by their steps."""
    gains = arrays.gains(rho)
    out: list[PlannedSegment] = []
    rows = zip(
        arrays.groups,
        *(column.tolist() for column in (schedule.start_s, schedule.end_s, rho, schedule.grams, gains)),
        strict=True,
    )
    for group, start, end, r, g, gain in rows:
        if len(group) == 1:
            out.append(PlannedSegment(group[0].k, start, end, r, g, gain))
            continue
        steps, before = sum(s.steps for s in group), 0
        for s in group:
            a, b = before / steps, (before + s.steps) / steps
            span = end - start
            out.append(
                PlannedSegment(s.k, start + a * span, start + b * span, r, g * (b - a), gain * (b - a))
            )
            before += s.steps
    return tuple(out)


def _stop(reason: str, arrays: SegmentArrays, floor_g: float, binding: tuple[str, ...]) -> Plan:
    return Plan("stop", None, None, None, reason, (), 0.0, floor_g, binding)


def _short(floor_g: float, budget: float, problem: Problem) -> str:
    text = f"stop: budget below floor, needs {_g(floor_g)}, has {_g(max(budget, 0.0))}"
    if problem.may_pause:
        text += (
            ", even in the cleanest hours before the deadline"
            if problem.deadline_s
            else ", even in the cleanest hours ahead"
        )
    return text


def _wait(
    arrays: SegmentArrays, solution: Solution, price: float, floor_g: float, budget: float, bound: float
) -> Plan:
    start = float(solution.schedule.start_s[0])
    now, then = (
        arrays.intensity.now,
        float(arrays.intensity.between(solution.schedule.start_s[:1], solution.schedule.end_s[:1])[0]),
    )
    gain = float(arrays.gains(solution.rho).sum())
    return Plan(
        action="wait",
        rho=None,
        wait_s=start,
        price=price,
        reason=(
            f"wait {_span(start)} for {then:.0f} g/kWh, now {now:.0f}; {_g(budget)} left, "
            f"floor {_g(floor_g)}, plan {_g(solution.schedule.spend_g)}"
        ),
        segments=_planned_segments(arrays, solution.rho, solution.schedule),
        spend_g=solution.schedule.spend_g,
        floor_g=floor_g,
        binding=("budget",),
        gap=max(0.0, (bound - gain) / bound) if math.isfinite(bound) and bound > 0 else 0.0,
    )


def _why(
    arrays: SegmentArrays,
    rho: float,
    spend_g: float,
    floor_g: float,
    budget: float,
    binding: tuple[str, ...],
    cap: guard.RhoCap,
) -> str:
    text = f"rho {rho:.3f} at {arrays.intensity.now:.0f} g/kWh: {_g(budget)} left, floor {_g(floor_g)}, plan {_g(spend_g)}"
    if "guard" in binding:
        text += f"; guard keeps {_g(cap.needs_g)} for the rest at the forecast's high"
        if not cap.fits:
            text += ", more than is left: lowest rho"
    if floor_g > budget:
        text += "; the floor is above what is left, the forecast's low is not: lowest rho"
    if "budget" not in binding:
        text += "; the budget does not bind"
    late = arrays.schedule(arrays.lo).finish_s - float(arrays.latest_s[-1])
    if late > 1e-6:
        text += f"; the deadline is missed by {_span(late)} even at the lowest rho"
    return text


def _g(value: float) -> str:
    """Grams with three figures that count, so that small jobs read as well as large ones."""
    if abs(value) >= 1000:
        return f"{value:.0f} g"
    if abs(value) >= 1 or value == 0:
        return f"{value:.1f} g"
    return f"{value:.3g} g"


def _span(seconds: float) -> str:
    if seconds >= 3600:
        return f"{seconds / 3600:.1f} h"
    if seconds >= 60:
        return f"{seconds / 60:.0f} min"
    return f"{seconds:.0f} s"
