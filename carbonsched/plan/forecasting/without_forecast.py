"""Replaces a missing forecast by the price of earlier plans.

With a new feed the current intensity is known, but nothing of the hours ahead. A plan on that alone would spend an even share in every
hour, clean or dirty. The price λ of the earlier plans (gain per gram), however, tells at which intensity a gram was last worth spending,
and that reference is used for the hours ahead. So ρ rises in cleaner hours and falls in dirtier ones, the remaining budget limits it, and
the reference slowly follows the readings (dual mirror descent, arXiv 2011.10124).
"""

import math
from dataclasses import replace

from carbonsched.plan.problem import Problem, Slot

_FOLLOW = 0.5
"""Rate at which the reference follows the present, over the square root of the remaining segments."""
_FAR = 5.0
"""Largest plausible factor between the two."""
_UNKNOWN = 2.0
"""Factor by which the hours ahead may be cleaner: missing knowledge must not end a job."""


def with_reference_intensity(problem: Problem, flat_price: float | None) -> Problem:
    """The problem with the reference intensity ahead. flat_price: λ if the present intensity were to last. The price is inversely
    proportional to the intensity at which the marginal gram is spent, so the two prices give the reference from the present. Without
    either, the present intensity is assumed to last."""
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
