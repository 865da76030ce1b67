"""Plans a segment on the shapes of the batches that will come, where the profile is of one shape alone."""

from collections.abc import Sequence

from carbonsched.model.profile import Selection
from trainer.data.upcoming_batches import Batches
from trainer.methods.auto import Auto
from trainer.methods.method import SelectionCurve
from trainer.methods.prepare import Prepared
from trainer.methods.tokens import Tokens
from trainer.profiling.flop_counter import Shape
from trainer.profiling.shaped_costs import SharePrices

_TRIES = 8
"""Selections that are tried until one fits the batches to come."""
_STEP = 0.001
"""A ρ is lowered by this much at least from one to the next."""
_ROUNDING = 1e-9


class UpcomingCosts:
    """What the coming batches of a segment cost.

    Example::

        upcoming = UpcomingCosts(batches, prepared, drawn=False)
        full = upcoming.look_ahead(0, 100)
        selection, off = upcoming.select(curve, 0.6)
    """

    def __init__(self, batches: Batches, prepared: Prepared, *, drawn: bool) -> None:
        """drawn: whether the cost of each step is drawn, so that no selection tells it."""
        self.batches, self._drawn = batches, drawn
        self._method, self._full, self._costs = prepared.method, prepared.full, prepared.costs
        self._shapes: list[Shape] = []

    def look_ahead(self, first: int, end: int) -> float:
        """T_full of steps [first, end), all ranks; from now on selections are for these."""
        profile = self._method.profile
        labelled = None if profile.labelled is None else profile.labelled * profile.batch
        nominal = Shape(profile.batch, profile.seq, profile.target_seq, labelled)
        self._shapes, each = self.batches.shapes_ahead(nominal, first, end)
        for method in (self._method, self._method.tokens if isinstance(self._method, Auto) else None):
            if isinstance(method, Tokens):
                method.prices = SharePrices(self._costs, self._full, self._shapes)
        return self.batches.ranks.sum([self._full.total(self._shapes) * each])[0]

    def flops(self, names: Sequence[str], shapes: Sequence[Shape]) -> float:
        """What the cost model makes of a step on batches of these shapes; 0 where its cost is drawn."""
        return 0.0 if self._drawn else sum(self._costs.flops(names, shape, self._full) for shape in shapes)

    def select(self, curve: SelectionCurve, left: float) -> tuple[Selection, float]:
        """The best selection of at most `left`, and by how much its ratio on the batches to come is off that in the profile."""
        found = curve.select(left)
        if self._drawn or not self._shapes:
            return found, 0.0
        off = self._off(found)
        if left >= self._method.ceiling - _ROUNDING:
            return found, off
        limit = left - off
        for _ in range(_TRIES):
            found = curve.select(max(limit, curve.floor))
            off = self._off(found)
            over = found.rho_planned + off - left
            if over <= _ROUNDING or limit <= curve.floor:
                break
            limit = min(limit, found.rho_planned) - max(over, _STEP)
        return found, off

    def _off(self, found: Selection) -> float:
        if found.gradient_share is not None:  # priced on these batches
            return 0.0
        names = found.selected
        return self._costs.ratio(names, self._shapes, self._full) - self._method.ratio(names)
