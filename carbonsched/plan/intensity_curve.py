"""Holds the grid's intensity over time as its integral, so that segments may straddle slots at no extra cost."""

from typing import Literal

import numpy as np
from numpy.typing import NDArray

from carbonsched.plan.problem import Slot

Floats = NDArray[np.float64]
Level = Literal["mean", "high", "low"]
"""The intensity to use: the expected one or a quantile."""

_GOLDEN = 0.6180339887498949
"""(√5 − 1)/2: its multiples modulo 1 spread evenly, so that clean and dirty values alternate."""


class IntensityCurve:
    """Intensity over time. All times are seconds from now, arrays of any shape.

    After the last slot come the values of `beyond`, each for an equal part of the time up to `until_s`. After `until_s`, or without
    `beyond`, the mean of all slots applies; the quantiles in proportion. A year has clean and dirty hours whatever its mean: with a
    constant mean, every hour dirtier than it would look worth saving for.

    Raises ValueError for slots that are not ascending or have gaps.

    Example:
        >>> curve = IntensityCurve((Slot(0.0, 3600.0, 100.0, 120.0), Slot(3600.0, 7200.0, 300.0, 400.0)))
        >>> float(curve.mean_between(np.array(1800.0), np.array(5400.0)))
        200.0
    """

    def __init__(self, slots: tuple[Slot, ...], beyond: tuple[float, ...] = (), until_s: float = 0.0) -> None:
        if not slots:
            raise ValueError("a plan needs at least one slot of intensity")
        table = np.array(
            [
                (s.start_s, s.end_s, s.g_per_kwh, s.high, s.g_per_kwh if s.low is None else s.low)
                for s in slots
            ]
        )
        table[0, 0] = min(table[0, 0], 0.0)
        self.end_s = float(table[-1, 1])
        """End of the forecast."""
        if beyond and until_s > self.end_s + 1.0:
            table = np.concatenate((table, _scattered(table, beyond, until_s)))
        lengths = table[:, 1] - table[:, 0]
        if lengths.min() <= 0 or np.abs(table[1:, 0] - table[:-1, 1]).max(initial=0.0) > 1e-3:
            raise ValueError("slots must be ascending and without holes")
        self.edges: Floats = np.append(table[:, 0], table[-1, 1])
        self.mean: Floats = table[:, 2]
        levels = {
            "mean": self.mean,
            "high": np.maximum(table[:, 3], self.mean),
            "low": np.minimum(table[:, 4], self.mean),
        }
        self._sums = {name: np.append(0.0, np.cumsum(lengths * g)) for name, g in levels.items()}
        span = float(lengths.sum())
        self._beyond = {name: float(total[-1]) / span for name, total in self._sums.items()}

    @property
    def now(self) -> float:
        """g/kWh at second 0."""
        return float(self.mean[int(np.searchsorted(self.edges, 0.0, side="right")) - 1])

    def integral(self, at_s: Floats, level: Level = "mean") -> Floats:
        """∫ intensity from the first slot's start to `at_s`, g/kWh·s; any shape."""
        known, rate = self._sums[level], self._beyond[level]
        total: Floats = np.interp(at_s, self.edges, known) + rate * np.maximum(at_s - self.edges[-1], 0.0)
        return total

    def mean_between(self, start_s: Floats, end_s: Floats, level: Level = "mean") -> Floats:
        """Mean g/kWh over [start_s, end_s); an empty interval is widened to a second."""
        end = np.maximum(end_s, start_s + 1e-3)
        return (self.integral(end, level) - self.integral(start_s, level)) / (end - start_s)


def _scattered(table: Floats, beyond: tuple[float, ...], until_s: float) -> Floats:
    """Additional slots after those of `table`, one per value, alternately clean and dirty."""
    order = np.argsort(np.arange(len(beyond)) * _GOLDEN % 1.0)
    value = np.array(beyond)[order]
    edges = np.linspace(table[-1, 1], until_s, len(beyond) + 1)
    spans = table[:, 1] - table[:, 0]
    high, low = (float((spans * table[:, c]).sum() / max((spans * table[:, 2]).sum(), 1e-9)) for c in (3, 4))
    return np.column_stack((edges[:-1], edges[1:], value, value * max(high, 1.0), value * min(low, 1.0)))
