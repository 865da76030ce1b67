"""Implements tokens and lora+tokens: every tensor, or every adapter, trains, and ρ decides through how many of each row's last tokens gradient flows.

Its cost is that of the batches that really come (`prices`), for what can be left out depends on where their answers begin. What it gains is
not measured before a segment: a step at τ is taken to be worth carbonsched/model/methods/efficiency.py's share of a full one, which rises with τ
and was read off runs of one model.
"""

import numpy as np

from carbonsched.model.methods.efficiency import prior_efficiency
from carbonsched.model.profile import Selection
from carbonsched.model.protocol import FrontierPoint
from trainer.methods.method import Method, SelectionCurve
from trainer.profiling.shaped_costs import SharePrices
from trainer.selection.cached_frontier import CacheSaving

_POINTS = 17
"""Shares that the curve is told at."""
_HALVINGS = 12
"""A share is found to a part in so many powers of two: less than a token of most batches."""
_ROUNDING = 1e-9


class Tokens(Method):
    """Trains all of its tensors or adapters, on the last tokens of each row.

    Example::

        method = build_method("tokens", profile)
        method.prices = prices
        selection = method.curve({}).select(0.6)
        assert selection.gradient_share < 1
    """

    plans_with_cache = False  # rows are cut, blocks are not
    prices: SharePrices | None = None
    """Of the coming segment; to be set before its curve is asked for."""
    fixed_share: float | None = None
    """τ, where it is not ρ that decides."""

    @property
    def floor(self) -> float:
        return self._ratio(self.fixed_share or 0.0)

    def curve(self, importance: dict[str, float], saving: CacheSaving | None = None) -> SelectionCurve:
        shares = [self.fixed_share] if self.fixed_share else np.linspace(0, 1, _POINTS).tolist()
        points: dict[float, FrontierPoint] = {}
        for share in shares:
            found = self._selection(share)
            points[round(found.rho_planned, 6)] = FrontierPoint(
                rho=found.rho_planned, importance=found.importance
            )
        # where several shares cost the same the last is told, and the worth of a step rises with its cost
        rising = sorted(points.values(), key=lambda point: point.rho)
        return SelectionCurve(rising[0].rho, tuple(rising), self._select)

    def _select(self, rho: float) -> Selection:
        """At the largest share whose cost fits; at the least there is where none does."""
        if self.fixed_share:
            return self._selection(self.fixed_share)
        if self._ratio(1.0) <= rho + _ROUNDING:
            return self._selection(1.0)
        low, high = 0.0, 1.0
        for _ in range(_HALVINGS):
            middle = (low + high) / 2
            low, high = (middle, high) if self._ratio(middle) <= rho + _ROUNDING else (low, middle)
        return self._selection(low)

    def _selection(self, share: float) -> Selection:
        rho = self._ratio(share)
        gain = prior_efficiency(self.name, rho, share=self._known.realised(share)).median
        return Selection(rho_planned=rho, importance=gain, selected=tuple(self.names), gradient_share=share)

    def _ratio(self, share: float) -> float:
        return self._known.ratio(tuple(self.names), share)

    @property
    def _known(self) -> SharePrices:
        if self.prices is None:
            raise RuntimeError("prices of the coming batches come first")
        return self.prices
