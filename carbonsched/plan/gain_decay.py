"""Estimates what a later segment is worth against the next one, from the frontiers seen so far.

A frontier's right end is the loss that one full update was predicted to save. Over a fine-tuning it falls, about
geometrically, so that grams spent early buy more. The model: ln(gain of segment k) = a + b·k/n + noise, n segments in all.
b is the Theil–Sen slope (a first frontier taken before the optimizer's moments have settled may be twice too high, and
must not count for more than one), shrunk to 0 by how little of the job the observations span: a normal prior of _PRIOR_SD
on the fall over the whole job, against the noise of a single frontier. With one frontier, or with noise alone, the answer
is 1: no discount.
"""

import itertools
import math
from collections.abc import Sequence

import numpy as np

_PRIOR_SD = 0.7
"""Prior sd of b: a factor e over the job."""
_NOISE = 0.3
"""Relative sd of one frontier's gain before many are known: an importance pass sees one batch."""
_NOISE_COUNT = 4.0
"""Weight of that prior, in frontiers."""
_LAST = 100
"""Frontiers whose pairs are compared."""
_MOST = 2.5
"""Larger |b| is implausible: a factor of twelve over the job."""


def decay(gains: Sequence[tuple[int, float]], segments: int) -> float:
    """Factor from one segment's worth to the next one's, `Problem.decay`.

    gains: (k, importance at the right end of the frontier) of the segments that were measured, unnormalised; values that
    are not above 0 are left out. segments: n of the whole job.
    """
    known = [(k / segments, math.log(g)) for k, g in gains if g > 0 and math.isfinite(g)]
    if segments < 2 or len(known) < 2:
        return 1.0
    at, log = np.array(known).T
    slopes = [(v - u) / (y - x) for (x, u), (y, v) in itertools.combinations(known[-_LAST:], 2) if y != x]
    if not slopes:
        return 1.0
    slope = float(np.median(slopes))
    rest = log - slope * at
    spread = 1.4826 * float(np.median(np.abs(rest - np.median(rest))))
    free = max(len(known) - 2, 0)
    noise2 = (_NOISE_COUNT * _NOISE**2 + free * spread**2) / (_NOISE_COUNT + free)
    span = float(((at - at.mean()) ** 2).sum())
    slope *= span / (span + noise2 / _PRIOR_SD**2)
    return math.exp(max(-_MOST, min(_MOST, slope)) / segments)
