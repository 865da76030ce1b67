"""Puts prices into the planner's slots: as they are published, and beyond that as the same hours cost in the past days."""

from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import pairwise

from carbonsched.plan.problem import Slot

DAYS = 7
"""Of the past, whose same hours say what is expected."""
_COVERED = 0.999
"""Share of a slot of which the price has to be published."""
_TOUCH_S = 1e-3

Stretch = tuple[float, float, float]
"""(start_s, end_s, EUR/kWh), seconds from now."""


def with_prices(
    slots: Sequence[Slot], published: Sequence[Stretch], past: Sequence[Stretch], day_s: float, *, cut: bool
) -> tuple[Slot, ...]:
    """The slots with what a kWh costs in each; None where nothing tells.

    published: from now on, ascending; past: ascending, up to now. cut: at each change of a published price, for a job that
    chooses its hours by it; else a slot has the mean of its prices.
    """
    edges = sorted({edge for start, end, _ in published for edge in (start, end)}) if cut else []
    return tuple(
        replace(piece, eur_per_kwh=_price(piece, published, past, day_s))
        for slot in slots
        for piece in _pieces(slot, edges)
    )


def _pieces(slot: Slot, edges: Sequence[float]) -> Iterator[Slot]:
    inside = [edge for edge in edges if slot.start_s + _TOUCH_S < edge < slot.end_s - _TOUCH_S]
    if not inside:
        yield slot
        return
    for start, end in pairwise([slot.start_s, *inside, slot.end_s]):
        yield replace(slot, start_s=start, end_s=end)


def _price(slot: Slot, published: Sequence[Stretch], past: Sequence[Stretch], day_s: float) -> float | None:
    start, end = max(slot.start_s, 0.0), slot.end_s
    known = paid = 0.0
    first = max(bisect_right(published, start, key=lambda one: one[0]) - 1, 0)
    for begins, ends, eur in published[first:]:
        if begins >= end:
            break
        covered = max(min(ends, end) - max(begins, start), 0.0)
        known, paid = known + covered, paid + covered * eur
    if known >= _COVERED * (end - start) > 0:
        return paid / known
    middle = 0.5 * (start + end)
    first_day = int(middle // day_s) + 1
    then = [_at(past, middle - (first_day + day) * day_s) for day in range(DAYS)]
    found = [eur for eur in then if eur is not None]
    if found:
        return sum(found) / len(found)
    return paid / known if known > 0 else None


def _at(past: Sequence[Stretch], at_s: float) -> float | None:
    i = bisect_right(past, at_s, key=lambda one: one[0]) - 1
    return past[i][2] if i >= 0 and at_s < past[i][1] else None
