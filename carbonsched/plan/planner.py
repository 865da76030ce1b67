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
from carbonsched.plan.dynamic_program import Dynamic, Layout
from carbonsched.plan.forecasting import without_forecast as blind
from carbonsched.plan.problem import Placed, Plan, Problem
from carbonsched.plan.segment_arrays import Floats, Rolled, Track
from carbonsched.plan.working_time import Hours

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
    layout: Layout
    price: float
    bound: float
    """Upper bound on the gain where one is known, else inf."""


def solve(problem: Problem, *, detail: bool = True) -> Plan:
    """The directive for the first remaining segment and the plan behind it; without `detail` no `placed`.

    Raises ValueError where there is no segment, no slot or no allowed hour: the caller asks only about jobs that still
    run.
    """
    if problem.allowed is not None:
        hours = Hours.of(problem.allowed)
        return hours.restore(solve(hours.cut(problem), detail=detail))
    if not problem.foreseen:
        flat = solve(replace(problem, foreseen=True), detail=False)
        plan = solve(blind.imagined(problem, flat.price), detail=detail)
        return replace(plan, reason=plan.reason + blind.REASON)
    windowed = _window(problem)
    if windowed is not problem:
        plan = solve(windowed, detail=detail)
        ahead = f"; looks {_span(windowed.slots[-1].end_s)} ahead, {len(windowed.segments)} of {len(problem.segments)} segments"
        return replace(plan, reason=plan.reason + ahead)
    simple = not problem.may_pause and problem.energy.seconds_c0 >= 1.0 - 1e-12
    track = Track(problem, None if simple else _MOST)
    budget = problem.budget_g - problem.reserve_g
    if problem.segments[0].frontier[0][0] > problem.rho_max + _TIE:
        return _stop(
            f"stop: rho_max {problem.rho_max:.3f} is below the model's floor "
            f"{problem.segments[0].frontier[0][0]:.3f}; raise rho_max",
            track,
            track.roll(track.lo).spend_g,
            ("rho_max",),
        )
    lean = leanest(track)
    floor_g = lean.rolled.spend_g
    short = floor_g > budget * (1 + _TIE)
    if beyond_reach(track, lean, budget):
        return _stop(_short(floor_g, budget, problem), track, floor_g, ("budget",))
    found = _Found(lean, 0.0, math.inf) if short else _search(track, lean, budget, simple)
    layout, price = found.layout, found.price
    release = layout.release_s if problem.may_pause else None
    if layout.rolled.start_s[0] > 1e-6:
        plan = _wait(track, layout, price, floor_g, budget, found.bound)
        return plan if detail else replace(plan, placed=())
    cap = guard.cap_rho(track, budget, lean.rolled.start_s if problem.may_pause else None)
    rho = layout.rho.copy()
    capped = float(rho[0]) > cap.rho + _TIE
    if capped:
        rho[0] = cap.rho
    rolled = track.roll(rho, release)
    binds = (
        ("budget", "rho_min")
        if short
        else _binds(track, rho, rolled.spend_g, rolled.finish_s, budget, price, capped)
    )
    gain = track.gains(rho)
    bound = found.bound if math.isfinite(found.bound) else float(gain.sum())
    return Plan(
        action="train",
        rho=float(rho[0]),
        wait_s=None,
        price=price,
        reason=_why(track, float(rho[0]), rolled.spend_g, floor_g, budget, binds, cap),
        placed=_placed(track, rho, rolled) if detail else (),
        spend_g=rolled.spend_g,
        floor_g=floor_g,
        binds=binds,
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


def leanest(track: Track) -> Layout:
    """The plan with the fewest grams: ρ at its lower bound, in the cleanest hours where pauses are allowed."""
    rolled = track.roll(track.lo)
    now = Layout(track.lo, np.zeros(track.n), rolled, 0.0)
    if not track.problem.may_pause:
        return now
    waiting = Dynamic(track, rhos=1).solve(math.inf)
    return waiting if waiting.rolled.spend_g < rolled.spend_g else now


def beyond_reach(track: Track, lean: Layout, budget: float) -> bool:
    """Whether not even the spend floor fits, also if the grid turns out as clean as the forecast's low quantile.

    For a job under way all hours at their low at once: what is invested is given up last. For one that has not begun
    the low of the sum, in which the errors of different hours partly cancel.
    """
    problem, rolled = track.problem, lean.rolled
    if rolled.spend_g <= budget * (1 + _TIE):
        return False
    low = track.roll(lean.rho, lean.release_s if problem.may_pause else None, "low").grams
    least = float(low.sum()) * (1 - _SPARED * problem.done)
    if problem.done <= 0:
        cancelled = guard.together(rolled.grams - low, rolled.start_s, problem.day_s)
        least = max(least, rolled.spend_g - cancelled)
    # a guess must not end a job: before anything was metered two deviations halve the floor, the guard holds meanwhile
    least *= max(1 - 2 * problem.energy.sigma, 0.0)
    return least > budget * (1 + _TIE)


def _search(track: Track, lean: Layout, budget: float, simple: bool) -> _Found:
    """The plan that spends the budget, and its price."""
    full = track.roll(track.hi)
    deadline = float(track.latest_s[-1])
    if full.spend_g <= budget and full.finish_s <= deadline + 1e-6:
        most = float(track.gains(track.hi).sum())
        return _Found(Layout(track.hi.copy(), np.zeros(track.n), full, most), 0.0, most)
    if simple:
        layout, price = _fill(track, lean, track.hi, budget, deadline)
        return _Found(layout, price, _dual_bound(track, price, budget))
    dynamic = Dynamic(track)
    if full.spend_g <= budget:
        # only the deadline stands against full speed: grams cost nothing
        free = dynamic.solve(0.0)
        if free.rolled.spend_g <= budget:
            filled, _ = _fill(track, free, track.hi, budget, deadline)
            return _Found(filled, 0.0, free.bound)
    # what the budget would buy at the margin if times stood still is a good first price
    leap = _LEAP if track.problem.price_hint is None else _STRIDE
    guess = track.problem.price_hint or _fill(track, lean, track.hi, budget, deadline)[1] or 1.0
    best: Layout | None = None
    over: Layout | None = None
    price = guess
    low: tuple[float, float] | None = None
    high: tuple[float, float] | None = None
    for tried in range(_PRICES):
        layout = dynamic.solve(guess)
        spend = layout.rolled.spend_g
        if spend <= budget * (1 + _TIE):
            if best is None or spend > best.rolled.spend_g:
                best, price = layout, guess
            high = (guess, spend)
            if spend >= budget * (1 - _CLOSE):
                break
        else:
            over = layout
            low = (guess, spend)
        guess = _next_price(low, high, budget, leap ** (2**tried))
        if low and high and high[0] / low[0] < _NARROW:
            break
    base = best if best is not None and best.rolled.spend_g >= lean.rolled.spend_g else lean
    filled, edge = _fill(track, base, track.hi, budget, deadline)
    if over is not None:
        # the spend may leap between two prices, as when a whole night is shifted: come down from the far side too
        start = Layout(track.lo, over.release_s, over.rolled, over.bound)
        trimmed, _ = _fill(track, start, over.rho, budget, deadline)
        if (
            trimmed.rolled.spend_g <= budget
            and track.gains(trimmed.rho).sum() > track.gains(filled.rho).sum()
        ):
            filled, edge = _fill(track, trimmed, track.hi, budget, deadline)
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


def _fill(track: Track, base: Layout, top: Floats, budget: float, deadline: float) -> tuple[Layout, float]:
    """Give what `base` leaves of the budget to the segments in order of gain a gram, up to the ρ of `top`.

    The marginal segment gets a part. Returns the layout and the marginal price. Every candidate is laid out in time anew, so later segments that a
    higher ρ pushes into other hours, and the deadline, are counted.
    """
    release = base.release_s if track.problem.may_pause else None
    segment, width, gain = track.pieces(base.rho, top)
    if not len(segment):
        return base, 0.0
    rate = track.g_per_j_per_intensity * track.horizon.between(base.rolled.start_s, base.rolled.end_s)
    cost = track.marginal_j[segment] * width * rate[segment]
    with np.errstate(divide="ignore", invalid="ignore"):
        per_gram = np.where(cost > 0, gain / cost, np.inf)
    order = np.lexsort((segment, -per_gram))
    segment, width, per_gram = segment[order], width[order], per_gram[order]

    def at(count: int, part: float = 0.0) -> Floats:
        rho = base.rho + np.bincount(segment[:count], weights=width[:count], minlength=track.n)
        if part > 0:
            rho[segment[count]] += part * width[count]
        return np.minimum(rho, top)

    def fits(rho: Floats) -> bool:
        rolled = track.roll(rho, release)
        return rolled.spend_g <= budget and rolled.finish_s <= deadline + 1e-6

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
        below, above = (track.roll(at(n), release).spend_g for n in (few, few + 1))
        # the spend is straight in ρ where times stand still: one guess hits, else it is halved
        guess = (budget - below) / (above - below) * (1 - 1e-12) if above > budget > below else 0.5
        for _ in range(30):
            rho = at(few, guess)
            rolled = track.roll(rho, release)
            if rolled.spend_g <= budget and rolled.finish_s <= deadline + 1e-6:
                lo = guess
                if rolled.spend_g >= budget * (1 - _TIE):
                    break
            else:
                hi = guess
            guess = 0.5 * (lo + hi)
        rho = at(few, lo)
    return Layout(rho, base.release_s, track.roll(rho, release), base.bound), price


def _dual_bound(track: Track, price: float, budget: float) -> float:
    """max over ρ of Σ [gain − λ·grams] + λ·budget for fixed times: no plan gains more (weak duality)."""
    lean = track.roll(track.lo)
    rate = track.g_per_j_per_intensity * track.horizon.between(lean.start_s, lean.end_s)
    segment, width, gain = track.pieces(track.lo, track.hi)
    extra = np.maximum(gain - price * track.marginal_j[segment] * width * rate[segment], 0.0)
    return float(track.gains(track.lo).sum() - price * lean.spend_g + extra.sum() + price * budget)


def _binds(
    track: Track, rho: Floats, spend_g: float, finish_s: float, budget: float, price: float, capped: bool
) -> tuple[str, ...]:
    out = []
    if price > 0 and (capped or spend_g > budget * (1 - 2 * _CLOSE)):
        out.append("budget")
    if finish_s > float(track.latest_s[-1]) * (1 - 1e-3) - 1e-6:
        out.append("deadline")
    if track.hi[0] - track.lo[0] > _TIE:
        if rho[0] <= track.lo[0] + 1e-6:
            out.append("rho_min")
        elif rho[0] >= track.hi[0] - 1e-6:
            out.append("rho_max")
    if capped:
        out.append("guard")
    return tuple(out)


def _placed(track: Track, rho: Floats, rolled: Rolled) -> tuple[Placed, ...]:
    """One entry a segment; those of a group share its time, grams and gain by their steps."""
    gains = track.gains(rho)
    out: list[Placed] = []
    rows = zip(
        track.groups,
        *(column.tolist() for column in (rolled.start_s, rolled.end_s, rho, rolled.grams, gains)),
        strict=True,
    )
    for group, start, end, r, g, gain in rows:
        if len(group) == 1:
            out.append(Placed(group[0].k, start, end, r, g, gain))
            continue
        steps, before = sum(s.steps for s in group), 0
        for s in group:
            a, b = before / steps, (before + s.steps) / steps
            span = end - start
            out.append(Placed(s.k, start + a * span, start + b * span, r, g * (b - a), gain * (b - a)))
            before += s.steps
    return tuple(out)


def _stop(reason: str, track: Track, floor_g: float, binds: tuple[str, ...]) -> Plan:
    return Plan("stop", None, None, None, reason, (), 0.0, floor_g, binds)


def _short(floor_g: float, budget: float, problem: Problem) -> str:
    text = f"stop: budget below floor, needs {_g(floor_g)}, has {_g(max(budget, 0.0))}"
    if problem.may_pause:
        text += (
            ", even in the cleanest hours before the deadline"
            if problem.deadline_s
            else ", even in the cleanest hours ahead"
        )
    return text


def _wait(track: Track, layout: Layout, price: float, floor_g: float, budget: float, bound: float) -> Plan:
    start = float(layout.rolled.start_s[0])
    now, then = (
        track.horizon.now,
        float(track.horizon.between(layout.rolled.start_s[:1], layout.rolled.end_s[:1])[0]),
    )
    gain = float(track.gains(layout.rho).sum())
    return Plan(
        action="wait",
        rho=None,
        wait_s=start,
        price=price,
        reason=(
            f"wait {_span(start)} for {then:.0f} g/kWh, now {now:.0f}; {_g(budget)} left, "
            f"floor {_g(floor_g)}, plan {_g(layout.rolled.spend_g)}"
        ),
        placed=_placed(track, layout.rho, layout.rolled),
        spend_g=layout.rolled.spend_g,
        floor_g=floor_g,
        binds=("budget",),
        gap=max(0.0, (bound - gain) / bound) if math.isfinite(bound) and bound > 0 else 0.0,
    )


def _why(
    track: Track,
    rho: float,
    spend_g: float,
    floor_g: float,
    budget: float,
    binds: tuple[str, ...],
    cap: guard.Cap,
) -> str:
    text = f"rho {rho:.3f} at {track.horizon.now:.0f} g/kWh: {_g(budget)} left, floor {_g(floor_g)}, plan {_g(spend_g)}"
    if "guard" in binds:
        text += f"; guard keeps {_g(cap.needs_g)} for the rest at the forecast's high"
        if not cap.fits:
            text += ", more than is left: lowest rho"
    if floor_g > budget:
        text += "; the floor is above what is left, the forecast's low is not: lowest rho"
    if "budget" not in binds:
        text += "; the budget does not bind"
    late = track.roll(track.lo).finish_s - float(track.latest_s[-1])
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
