"""Tests whether two variants differ: a paired bootstrap over the test rows, with the smallest difference it could detect.

Rows are drawn with replacement, the same ones for both (Koehn, EMNLP 2004); the statistic is the difference of their NLL per target token,
averaged over the seeds that both have. Seeds differ in data order and dropout. They are averaged and their spread is printed separately:
with three seeds a second level of resampling would be a guess.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from trainer.bench.result import HeldOutResult

DRAWS = 10_000
_POWER = 1.959964 + 0.841621
"""In standard errors: a difference this large is found at 5% in 80% of such experiments."""


@dataclass(frozen=True, slots=True)
class Difference:
    """NLL per token of the first minus that of the second: below 0 the first is better.

    Example:
        >>> Difference(mean=-0.05, low=-0.08, high=-0.02, detectable=0.03).significant
        True
    """

    mean: float
    low: float
    high: float
    """95% interval."""
    detectable: float
    """Smallest true difference that would be found with 80% power."""
    p: float = 1.0
    """Two-sided probability that the draw of rows alone gives such a difference."""

    @property
    def significant(self) -> bool:
        return self.low > 0 or self.high < 0

    def not_worse(self, margin: float) -> bool:
        """Non-inferiority: the upper end of the interval is below `margin`."""
        return self.high < margin


def holm(values: Sequence[float]) -> list[float]:
    """p-values corrected for multiple comparisons (Holm 1979): all those below .05 hold together at 5%.

    Example:
        >>> holm([0.01, 0.04, 0.03])
        [0.03, 0.06, 0.06]
    """
    order = sorted(range(len(values)), key=values.__getitem__)
    corrected, most = [0.0] * len(values), 0.0
    for rank, at in enumerate(order):
        most = max(most, min((len(values) - rank) * values[at], 1.0))
        corrected[at] = most
    return corrected


def difference(
    first: Sequence[HeldOutResult], second: Sequence[HeldOutResult], draws: int = DRAWS, seed: int = 0
) -> Difference:
    """The difference of runs paired by position (same seed), all on the same rows.

    draws: bootstrap samples. Raises ValueError for unpaired runs or rows.
    """
    if len(first) != len(second) or not first:
        raise ValueError(f"{len(first)} runs cannot be paired with {len(second)}")
    tokens = np.array(first[0].row_tokens, dtype=float)
    if any(run.row_tokens != first[0].row_tokens for run in (*first, *second)):
        raise ValueError("the runs were not evaluated on the same rows")
    gap = np.mean([np.subtract(a.row_nll, b.row_nll) for a, b in zip(first, second, strict=True)], axis=0)
    rows = np.random.default_rng(seed).integers(len(tokens), size=(draws, len(tokens)))
    drawn = gap[rows].sum(axis=1) / tokens[rows].sum(axis=1)
    low, high = np.quantile(drawn, [0.025, 0.975])
    # share of draws on the other side of 0; no such draw is no proof that there is none
    beyond = min(int((drawn <= 0).sum()), int((drawn >= 0).sum()))
    return Difference(
        mean=float(gap.sum() / tokens.sum()),
        low=float(low),
        high=float(high),
        detectable=float(_POWER * drawn.std(ddof=1)),
        p=min(2 * (beyond + 1) / (draws + 1), 1.0),
    )
