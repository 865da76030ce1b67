"""Measures how fast and how good the selection is, beside the published dynamic program, on one profile.

The published one (arXiv 2309.13192, section 3.3) is restated here from the paper's description: FLOPs are cut down to
`T_q` units, rounding down, and best[k][t], the most importance with tensor k as the deepest selected one, is built from
all shallower k'. That is O(N²·T_q); here the loop over t is NumPy's, which flatters its time. It gets our measured costs
and depths (the paper's code takes the order of named_parameters() for that of execution), so what differs is the
algorithm alone: rounding, which lets it pass the budget, and q, k, v taken for a chain.
"""

import random
import time
from collections.abc import Callable
from typing import TypeVar

import numpy as np

from carbonsched.model.base import Doc
from carbonsched.model.profile import Profile
from trainer.selection.cost_model import CostModel
from trainer.selection.frontier import Selector

T = TypeVar("T")
RESOLUTION = 1000
REPEATS = 5


class BudgetComparison(Doc):
    """What both select at one ρ, priced by the exact cost model.

    Example::

        row = bench_select(profile, None, rhos=[0.5]).at[0]
        gained = row.ours_importance - row.published_importance
    """

    rho: float
    ours_rho: float
    filled: float
    """Planned ÷ directed ρ: how much of the budget is used; never above 1."""
    ours_importance: float
    ours_ms: float
    """From the finished frontier, including the trace-back."""
    published_rho: float | None
    """None: it selects nothing."""
    published_importance: float
    ours_there: float | None
    """What ours reaches at the ρ that the published selection really has."""
    published_ms: float


class BenchSelect(Doc):
    """What `python -m trainer bench select` prints.

    Example::

        found = bench_select(profile, None, rhos=[0.5, 0.7])
        slowest = max(row.ours_ms for row in found.at)
    """

    model: str
    full_flops: float
    tensors: int
    states: int
    exact: bool
    prepare_ms: float
    """Once per profile."""
    frontier_ms: float
    """Once per importance vector: the tables that give every ρ."""
    points_ms: float
    """All steps of the curve as a list."""
    points: int
    at: tuple[BudgetComparison, ...]


def bench_select(profile: Profile, importance: dict[str, float] | None, rhos: list[float]) -> BenchSelect:
    """Times are the minimum of a few repeats, in milliseconds. Without `importance` it is drawn as √size·|normal|."""
    model = CostModel.of(profile)
    if importance is None:
        rng = random.Random(0)  # noqa: S311
        importance = {t.name: t.numel**0.5 * abs(rng.gauss(0, 1)) for t in profile.tensors}
    prepare_ms, selector = _timed(lambda: Selector(profile))
    frontier_ms, frontier = _timed(lambda: selector.frontier(importance))
    points_ms, points = _timed(frontier.points)
    rows = []
    for rho in rhos:
        ours_ms, ours = _timed(lambda rho=rho: frontier.select(rho))  # type: ignore[misc]
        started = time.perf_counter()
        theirs = select_as_published(profile, importance, rho)
        published_ms = (time.perf_counter() - started) * 1e3
        taken = model.flops(theirs) / profile.full_flops if theirs else None
        rows.append(
            BudgetComparison(
                rho=rho,
                ours_rho=ours.rho_planned,
                filled=ours.rho_planned / rho,
                ours_importance=ours.importance,
                ours_ms=ours_ms,
                published_rho=taken,
                published_importance=sum(importance[n] for n in theirs),
                ours_there=frontier.select(taken).importance if taken is not None else None,
                published_ms=published_ms,
            )
        )
    return BenchSelect(
        model=profile.model,
        full_flops=profile.full_flops,
        tensors=len(profile.tensors),
        states=len(selector.states),
        exact=frontier.exact,
        prepare_ms=prepare_ms,
        frontier_ms=frontier_ms,
        points_ms=points_ms,
        points=len(points),
        at=tuple(rows),
    )


def select_as_published(
    profile: Profile, importance: dict[str, float], rho: float, resolution: int = RESOLUTION
) -> list[str]:
    """Names selected by the published dynamic program at `rho`; empty if it leaves nothing for the backward pass."""
    unit = (profile.full_flops - profile.forward_flops) / resolution
    limit = int((rho * profile.full_flops - profile.forward_flops) / unit)
    if limit < 0:
        return []
    depth = [int(t.depth_flops / unit) for t in profile.tensors]
    dw = [int(t.dw_flops / unit) for t in profile.tensors]
    values = np.array([importance[t.name] for t in profile.tensors])
    count = len(depth)
    best = np.full((count, limit + 1), -np.inf)
    before = np.full((count, limit + 1), -1)
    for k in range(count):
        alone = depth[k] + dw[k]
        best[k, alone:] = values[k]
        for j in range(k):
            cost = dw[k] + depth[k] - depth[j]
            if cost > limit:
                continue
            found = best[j, : limit + 1 - cost] + values[k]
            better = found > best[k, cost:]
            best[k, cost:][better] = found[better]
            before[k, cost:][better] = j
    k, left, chosen = int(np.argmax(best[:, limit])), limit, []
    if best[k, limit] == -np.inf:
        return []
    while k >= 0:
        chosen.append(profile.tensors[k].name)
        j = int(before[k, left])
        if j >= 0:
            left -= dw[k] + depth[k] - depth[j]
        k = j
    return chosen


def _timed(work: Callable[[], T]) -> tuple[float, T]:
    best = float("inf")
    for _ in range(REPEATS):
        started = time.perf_counter()
        result = work()
        best = min(best, (time.perf_counter() - started) * 1e3)
    return best, result
