"""Puts prices into the planner's slots: published ones, and beyond them the mean of the same hours in past days."""

import math
from bisect import bisect_left, bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import pairwise

from carbonsched.plan.problem import Slot

DAYS = 7
"""Past days whose same hours give the expected price."""
_COVERED = 0.999
"""Share of a slot for which a price has to be published."""
_TOUCH_S = 1e-3

Stretch = tuple[float, float, float]
"""(start_s, end_s, EUR/kWh), seconds from now."""


def with_prices(
    slots: Sequence[Slot], published: Sequence[Stretch], past: Sequence[Stretch], day_s: float
) -> tuple[Slot, ...]:
    """The slots with the price of a kWh in each, None if unknown: split where a published price changes, and by the hour beyond. published:
    from now on, ascending; past: ascending, up to now."""
    edges = {edge for start, end, _ in published for edge in (start, end)}
    if past and slots:
        known_s, hour_s = (published or past)[-1][1], day_s / 24
        ahead = max(math.ceil((slots[-1].end_s - known_s) / hour_s), 0)
        edges.update(known_s + i * hour_s for i in range(ahead))
    cuts = sorted(edges)
    return tuple(
        replace(piece, eur_per_kwh=_price(piece, published, past, day_s))
        for slot in slots
        for piece in _pieces(slot, cuts)
    )


def _pieces(slot: Slot, edges: Sequence[float]) -> Iterator[Slot]:
    first = bisect_right(edges, max(slot.start_s, 0.0) + _TOUCH_S)
    inside = edges[first : bisect_left(edges, slot.end_s - _TOUCH_S)]
    if not inside:
        yield slot
        return
    for start, end in pairwise([slot.start_s, *inside, slot.end_s]):
        yield replace(slot, start_s=start, end_s=end)


def _price(slot: Slot, published: Sequence[Stretch], past: Sequence[Stretch], day_s: float) -> float | None:
    start, end = max(slot.start_s, 0.0), slot.end_s
    known, mean = _mean(published, start, end)
    if known >= _COVERED * (end - start) > 0:
        return mean
    middle = 0.5 * (start + end)
    first_day = int(middle // day_s) + 1
    ago = [(first_day + day) * day_s for day in range(DAYS)]
    then = [_mean(past, start - s, end - s) for s in ago]
    found = [eur for covered, eur in then if covered > 0]
    if found:
        return sum(found) / len(found)
    return mean if known > 0 else None


def _mean(stretches: Sequence[Stretch], start: float, end: float) -> tuple[float, float]:
    """(known seconds of [start, end), their time-weighted mean)."""
    known = paid = 0.0
    first = max(bisect_right(stretches, start, key=lambda one: one[0]) - 1, 0)
    for i in range(first, len(stretches)):
        begins, ends, eur = stretches[i]
        if begins >= end:
            break
        covered = max(min(ends, end) - max(begins, start), 0.0)
        known, paid = known + covered, paid + covered * eur
    return known, paid / known if known > 0 else 0.0
