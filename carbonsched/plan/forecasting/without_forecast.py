"""Stands in for a missing forecast with the price of the plans before.

A feed that has just been set up knows what the grid is now and nothing of the hours to come. A plan on that alone would
spend an even share in every hour, clean or not. But the price λ of the plans before, gain per gram, says at which intensity
a gram was last worth spending: that reference is taken for the hours ahead. So ρ goes up in hours cleaner than it and down
in dirtier ones, the budget that is left holds it in check, and the reference follows slowly what is seen (dual mirror
descent, arXiv 2011.10124).
"""

import math
from dataclasses import replace

from carbonsched.plan.problem import Problem, Slot

_FOLLOW = 0.5
"""Share by which the reference follows the present, over the square root of the segments that remain."""
_FAR = 5.0
"""Factor between the two that is believed at most."""
_UNKNOWN = 2.0
"""Factor by which the hours ahead may be cleaner: what is not known must not end a job."""


def with_reference_intensity(problem: Problem, flat_price: float | None) -> Problem:
    """The problem with the reference intensity ahead. flat_price: λ were the present intensity to last.

    The price is inversely proportional to the intensity at which the marginal gram is spent, so the two prices tell the
    reference from the present. Without either the present is taken to last.
    """
    scale = 1.0
    if flat_price and problem.price_hint:
        follow = _FOLLOW / math.sqrt(len(problem.segments))
        scale = min(max((flat_price / problem.price_hint) ** (1 - follow), 1 / _FAR), _FAR)
    ahead = tuple(
        Slot(
            s.start_s,
            s.end_s,
            s.g_per_kwh * scale,
            s.high * max(scale, 1.0),
            s.g_per_kwh * min(scale, 1.0) / _UNKNOWN,
            s.eur_per_kwh,
        )
        for s in problem.slots[1:]
    )
    return replace(problem, has_forecast=True, slots=(problem.slots[0], *ahead))
