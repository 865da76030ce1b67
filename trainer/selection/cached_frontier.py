"""Finds the best selection that counts on a filled activation cache, which makes some selections cheaper.

A selection that trains nothing beneath the cache spends the forward FLOPs of the kept blocks less, whatever else is in it;
one that reaches deeper pays the whole forward pass. So the best selection is the better of two: of one among the tensors
above, its forward pass cheaper by a constant, and of one among all tensors at the plain cost. (Groups of operators alone
do not tell the two apart: a block's norm and the last matrix beneath it run the same ones.) Both are exact, hence so is
the better of them.
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Protocol

from carbonsched.model.profile import Profile, Selection
from carbonsched.model.protocol import FrontierPoint

_ROUNDED = 1e-12
"""Two curves may differ by so much, relatively, where their importances are the same sum."""


@dataclass(frozen=True, slots=True)
class CacheSaving:
    """What the activation cache takes off the cost of a selection.

    Example:
        >>> saving = CacheSaving(beneath=frozenset({"h.0"}), ratio=0.1)
        >>> saving.ratio_of(["h.1"]), saving.ratio_of(["h.0", "h.1"])
        (0.1, 0.0)
    """

    beneath: frozenset[str]
    """Tensors that have to stay frozen for it."""
    ratio: float
    """FLOPs saved ÷ T_full, over the steps ahead; batches with a row that is not kept save nothing."""

    def ratio_of(self, names: Iterable[str]) -> float:
        """What a selection of `names` saves ÷ T_full."""
        return 0.0 if self.beneath.intersection(names) else self.ratio

    def apply_to(self, profile: Profile) -> Profile:
        """`profile` as it is for selections that save; rounded against the saving, so that costs stay whole FLOPs."""
        saved = math.floor(self.ratio * profile.full_flops)
        return profile.model_copy(update={"forward_flops": max(profile.forward_flops - saved, 0)})


class Curve(Protocol):
    """trainer.selection.frontier.Frontier, or what is asked like it.

    Example::

        def cheapest(curve: Curve) -> Selection:
            return curve.select(curve.rho_floor)
    """

    @property
    def rho_floor(self) -> float: ...

    def select(self, rho: float) -> Selection: ...

    def points(self, limit: int | None = None) -> tuple[FrontierPoint, ...]: ...


class BestOf:
    """The better of two curves at every ρ; of two as good the cheaper selection.

    Example::

        cheaper = Selector(saving.apply_to(profile), above).frontier(importance)
        curve = BestOf(cheaper, Selector(profile).frontier(importance))
    """

    def __init__(self, one: Curve, other: Curve) -> None:
        self._curves = sorted((one, other), key=lambda curve: curve.rho_floor)

    @property
    def rho_floor(self) -> float:
        return self._curves[0].rho_floor

    def select(self, rho: float) -> Selection:
        """Raises InputError below the floor."""
        first, second = self._curves
        found = [first.select(rho)]
        if rho >= second.rho_floor:
            found.append(second.select(rho))
        return max(found, key=lambda s: (s.importance, -s.rho_planned))

    def points(self, limit: int | None = None) -> tuple[FrontierPoint, ...]:
        """Steps of the curve, ascending; `limit` holds for each of the two."""
        every = [point for curve in self._curves for point in curve.points(limit)]
        kept: list[FrontierPoint] = []
        for point in sorted(every, key=lambda p: (p.rho, -p.importance)):
            if not kept or point.importance > kept[-1].importance + _ROUNDED * abs(kept[-1].importance):
                kept.append(point)
        return tuple(kept)
