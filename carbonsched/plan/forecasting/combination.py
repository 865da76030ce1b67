"""Combines two providers' forecasts into one, with weights per horizon learned from their errors at the same times.

If the second provider uses other emission factors than the first (whose readings count), it is first scaled by one factor for all horizons.
The factor is estimated at the nearest horizons, and applied only if it is a tenth or more away from 1. The weights then minimise the
squared error (Bates and Granger 1969): inverse mean squared errors if the errors are uncorrelated, and never below 0. Until both have
enough scores at a horizon, the more trusted one is used alone there. `python -m benchmarks.forecasts` measures the benefit. No NumPy.
"""

from array import array
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from carbonsched.model.grid import Forecast, ForecastPoint
from carbonsched.plan.forecasting.archive import KeptForecast, ProviderRecord, ReadingArchive, ms
from carbonsched.plan.forecasting.scores import EDGES_H, HORIZONS, Actuals, points_ahead, sampled

ENOUGH: Final = 100
"""Scores needed at a horizon before forecasts are combined there: four days at one per hour."""
OLDEST_DAYS: Final = 1.0
"""A second forecast that was received this long before the first is ignored."""
_LEAST_BIAS: Final = 0.1
"""A smaller bias may come from the weather of four weeks."""
_NEAR: Final = 2
"""Horizons used to estimate the factor, up to three hours: there a bias comes from emission factors, not from the weather."""
_MOST_FACTOR: Final = 2.0
"""Providers that differ by more do not mean the same quantity."""


@dataclass(frozen=True, slots=True)
class Weights:
    """combined = first × forecast of the more trusted provider + second × forecast of the other.

    Example:
        >>> Weights(0.5, 0.5).share, ALONE.share
        (0.5, 1.0)
    """

    first: float
    second: float
    learned: bool = True
    """False: too little is known of both."""

    @property
    def share(self) -> float:
        """Weight of the more trusted provider."""
        return self.first / (self.first + self.second)


ALONE: Final = Weights(1.0, 0.0, learned=False)
ByHorizon = tuple[Weights, ...]
"""One for each horizon of the scores."""


@dataclass(slots=True)
class PairSums:
    """Sums of products of first, second and actual value, over the points of one horizon that both providers forecast and that came true.

    Example:
        >>> sums = PairSums(forecasts=100)
        >>> for actual in (100.0, 200.0): sums.add(actual + 10, actual - 20, actual)
        >>> weights = sums.weights(1.0)
        >>> round(weights.first, 2), round(weights.second, 2)
        (0.67, 0.33)
    """

    forecasts: int = 0
    n: int = 0
    a: float = 0.0
    b: float = 0.0
    y: float = 0.0
    aa: float = 0.0
    bb: float = 0.0
    ab: float = 0.0
    ay: float = 0.0
    by: float = 0.0
    yy: float = 0.0

    def add(self, a: float, b: float, y: float) -> None:
        """Add one point: the first's, the second's, the actual value."""
        self.n += 1
        self.a += a
        self.b += b
        self.y += y
        self.aa += a * a
        self.bb += b * b
        self.ab += a * b
        self.ay += a * y
        self.by += b * y
        self.yy += y * y

    def squares(self, factor: float) -> tuple[float, float, float]:
        """Mean squared errors of the first, and of the second times its factor, and the mean product of both errors."""
        first = (self.aa - 2 * self.ay + self.yy) / self.n
        second = (factor * factor * self.bb - 2 * factor * self.by + self.yy) / self.n
        both = (factor * self.ab - self.ay - factor * self.by + self.yy) / self.n
        return max(first, 0.0), max(second, 0.0), both

    def weights(self, factor: float) -> Weights:
        """Weights that minimise the squared error; the first provider alone if too little is known."""
        if self.forecasts < ENOUGH:
            return ALONE
        first, second, both = self.squares(factor)
        spread = first + second - 2 * both
        share = min(max((second - both) / spread, 0.0), 1.0) if spread > 1e-9 * second else 1.0
        return Weights(share, (1 - share) * factor)


def factor(sums: Sequence[PairSums]) -> float | None:
    """Factor that scales the second over all horizons; None if it does not mean the same quantity."""
    near = [one for one in sums[:_NEAR] if one.forecasts >= ENOUGH] or sums
    b, y = sum(one.b for one in near), sum(one.y for one in near)
    if min(b, y) <= 0 or not 1 / _MOST_FACTOR <= y / b <= _MOST_FACTOR:
        return None
    return y / b if abs(y / b - 1) >= _LEAST_BIAS else 1.0


def pair(first: ProviderRecord, second: ProviderRecord) -> tuple[PairSums, ...]:
    """By horizon: what both forecast for the same times, compared with the first provider's readings."""
    actuals, rows = Actuals(first.readings), second.forecasts.rows
    day_ms = first.series.day_ms
    sums = tuple(PairSums() for _ in range(HORIZONS))
    for kept in sampled(first.forecasts.rows):
        i = bisect_right(rows, kept.at, key=lambda row: row.at) - 1
        if i < 0 or kept.at - rows[i].at > OLDEST_DAYS * day_ms:
            continue
        others, seen = means(rows[i]), -1
        for b, start, end, value in points_ahead(kept, day_ms):
            actual = actuals.mean(start, end)
            other = None if actual is None else others.mean(start, end)
            if actual is None or other is None:
                continue
            sums[b].add(value, other, actual)
            if b != seen:
                sums[b].forecasts += 1
                seen = b
    return sums


def weights(first: ProviderRecord, second: ProviderRecord) -> ByHorizon:
    """By horizon, from the records of both."""
    return from_sums(pair(first, second))


def from_sums(sums: Sequence[PairSums]) -> ByHorizon:
    """By horizon; the first alone everywhere if the two do not mean the same quantity."""
    right = factor(sums)
    return tuple(ALONE if right is None else one.weights(right) for one in sums)


def means(kept: KeptForecast) -> Actuals:
    """Means of a forecast over any span."""
    spans = list(kept.spans())
    starts, ends = (array("q", column) for column in zip(*spans, strict=True))
    return Actuals(ReadingArchive(starts, ends, array("d", kept.values)))


def combine(now: datetime, first: Forecast, second: Forecast, by_horizon: ByHorizon) -> Forecast:
    """The first's points, each combined with the second where that reaches; the first itself if it reaches nowhere."""
    day_ms = round(86_400_000 / first.source.time_compression)
    others = means(KeptForecast.of(now, second))
    points, used = [], []
    for point in first.points:
        value, at = point.g_per_kwh, by_horizon[horizon(ms(point.start) - ms(now), day_ms)]
        other = others.mean(ms(point.start), ms(point.end)) if at.second else None
        if other is None:
            points.append(point)
            continue
        used.append(at.share)
        value = at.first * value + at.second * other
        points.append(ForecastPoint(start=point.start, end=point.end, g_per_kwh=value))
    if not used:
        return first
    source = first.source.model_copy(
        update={
            "provider": f"{first.source.provider} + {second.source.provider}",
            "note": "; ".join(part for part in (_note(first, second, used), first.source.note) if part),
            "body_sha256": None,
        }
    )
    return first.model_copy(update={"points": tuple(points), "source": source})


def _note(first: Forecast, second: Forecast, shares: Sequence[float]) -> str:
    low, high = round(100 * min(shares)), round(100 * max(shares))
    span = f"{low}%" if low == high else f"{low} to {high}%"
    return f"blended, {span} {first.source.provider} and the rest {second.source.provider}, by horizon"


def horizon(ahead_ms: int, day_ms: int) -> int:
    """Index of the horizon that far ahead; the nearest one for times in the past or beyond all.

    Example:
        >>> horizon(3_600_000, 86_400_000), horizon(-5, 86_400_000), horizon(10**10, 86_400_000)
        (1, 0, 6)
    """
    return min(max(bisect_right(EDGES_H, ahead_ms * 24 / day_ms) - 1, 0), HORIZONS - 1)
