"""A price for grams and one for time, by which settings are chosen if both a budget and a deadline bind.

Each segment takes the setting with the highest value after its cost: gain − λ·grams − μ·seconds. With the intensities of the segments'
hours in a plan, no plan in these hours gains more than Σ max(…) + λ·budget + μ·time, at any prices. The prices with the lowest bound are
the dual optimum, and give the value of a gram and of a second. Without a deadline, or if there is time enough, time costs nothing.
"""

import math
from dataclasses import dataclass
from typing import NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

from carbonsched.plan.intensity_curve import Floats
from carbonsched.plan.segment_arrays import Schedule
from carbonsched.plan.setting_arrays import SettingArrays

_HALVINGS = 20
"""Steps of the search for the price of grams: to 2⁻²⁰ of the highest."""
_ROUNDS, _GOLDEN = 20, (math.sqrt(5) - 1) / 2
"""Cuts of the search for the price of time, each to this part of the range."""
_FITS = 1e-9
"""Relative difference below which two amounts count as equal."""


class Prices(NamedTuple):
    """The value of a gram and of a second, in gain.

    Example:
        >>> Prices(per_g=0.01, per_s=0.0).per_s
        0.0
    """

    per_g: float
    per_s: float
    """Above 0 if the deadline prevents a better plan."""


@dataclass(frozen=True, slots=True)
class TwoPrices:
    """The choices of each segment: n segments, m choices each.

    Example:
        >>> gains, grams = np.array([[0.0, 0.5, 0.8]]), np.array([[0.0, 5.0, 10.0]])
        >>> market = TwoPrices(gains, grams, grams * 6, budget_g=5.0, time_s=math.inf)
        >>> market.takes(market.choices(market.clear()))
        (5.0, 30.0)
    """

    gains: Floats
    """(n, m)."""
    grams: Floats
    """(n, m)."""
    seconds: Floats
    """(n, m)."""
    budget_g: float
    time_s: float
    """Time available to all segments; inf: no deadline."""

    @classmethod
    def of(cls, arrays: SettingArrays, placed: Schedule, budget_g: float) -> Self:
        """With the intensities of the segments' hours in `placed`."""
        every = np.arange(len(arrays.choices), dtype=np.float64)
        gains = np.stack([arrays.gain_of(k, every) for k in range(arrays.n)])
        joules, seconds = (
            np.stack(part) for part in zip(*(arrays.cost(k, every) for k in range(arrays.n)), strict=True)
        )
        mean = arrays.intensity.mean_between(placed.start_s, placed.end_s)
        energy = arrays.problem.energy
        tail = arrays.intensity.mean_between(placed.end_s[-1:], placed.end_s[-1:] + energy.tail_s)
        left_g = budget_g - energy.tail_j * arrays.g_per_j_per_intensity * float(tail[0])
        grams = joules * arrays.g_per_j_per_intensity * mean[:, None]
        return cls(gains, grams, seconds, left_g, float(arrays.latest_s[-1]))

    def choices(self, prices: Prices) -> NDArray[np.intp]:
        """(n,) number of each segment's choice; of equal ones the first."""
        return np.asarray(self._worth(prices).argmax(axis=1))

    def takes(self, numbers: NDArray[np.intp]) -> tuple[float, float]:
        """(grams, seconds) of all segments."""
        rows = np.arange(len(numbers))
        return float(self.grams[rows, numbers].sum()), float(self.seconds[rows, numbers].sum())

    def bound(self, prices: Prices) -> float:
        """Upper bound on the gain of any plan in these hours, at any prices; the lowest at those of `clear`."""
        time = 0.0 if prices.per_s <= 0 else prices.per_s * self.time_s
        return float(self._worth(prices).max(axis=1).sum()) + prices.per_g * self.budget_g + time

    def clear(self) -> Prices:
        """The prices with the lowest bound. It is convex in both, so one is searched for the best value of the other."""
        if math.isinf(self.time_s):
            return self._gram_price(0.0)
        low, high = 0.0, self._dearest(self.seconds, self.time_s)
        found = {at: self._gram_price(at) for at in (low, high)}
        cuts = (high - _GOLDEN * (high - low), low + _GOLDEN * (high - low))
        for _ in range(_ROUNDS):
            for at in cuts:
                found.setdefault(at, self._gram_price(at))
            left, right = cuts
            if self.bound(found[left]) <= self.bound(found[right]):
                high = right
                cuts = (high - _GOLDEN * (high - low), left)
            else:
                low = left
                cuts = (right, low + _GOLDEN * (high - low))
        return min(found.values(), key=self.bound)

    def _gram_price(self, per_s: float) -> Prices:
        """The best price for grams at a price for time: the lowest at which the choices fit the budget."""

        def fits(per_g: float) -> bool:
            taken, _ = self.takes(self.choices(Prices(per_g, per_s)))
            return taken <= self.budget_g * (1 + _FITS)

        if fits(0.0):
            return Prices(0.0, per_s)
        low, high = 0.0, self._dearest(self.grams, self.budget_g)
        for _ in range(_HALVINGS):
            middle = 0.5 * (low + high)
            low, high = (low, middle) if fits(middle) else (middle, high)
        return Prices(high, per_s)

    def _dearest(self, amounts: Floats, limit: float) -> float:
        """An upper bound of the optimal price: at it, the amount left after the least use would be worth more than the gain of all."""
        spare = max(limit - float(amounts.min(axis=1).sum()), 1e-3 * max(limit, 1e-9))
        return max(float(self.gains.max(axis=1).sum()) / spare, 1e-12)

    def _worth(self, prices: Prices) -> Floats:
        return np.asarray(self.gains - prices.per_g * self.grams - prices.per_s * self.seconds)
