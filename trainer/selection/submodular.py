"""Finds good selections where importances of one block add up as under a root: diminishing returns inside a block.

F(S) = Σ over blocks b of (Σ_{i ∈ S ∩ b} I_i⁺)^p, 0 < p < 1, S within a FLOPs ratio. Tensors of one block can stand in for each
other, so the second one adds less than the first, and the less the smaller p is; nothing is lost between blocks. F is submodular, the exact selector takes sums:
so at a selection S the sum that bounds F from below everywhere and meets it at S (its marginal gains along an order that
begins with S) is maximised exactly, which can only raise F; again from there until nothing is gained (minorise, maximise;
Iyer, Jegelka, Bilmes, ICML 2013). Starts are the best selections by I and by I^p, those that follow from one tensor per block
(the best, or the best by its cost, which reaches deepest), and the last one found at a lower ρ.

A local optimum, therefore; never worse than any of its starts, never over the budget, and non-decreasing in ρ. Values are given
in the unit of importance: F, scaled so that all tensors together are worth their sum.
"""

import math
from collections.abc import Iterable, Mapping

import numpy as np

from carbonsched.model.profile import Selection
from carbonsched.model.protocol import FrontierPoint
from trainer.selection.frontier import Selector

GRID = 13
"""Ratios between the floor and 1 that the curve is worked out at."""
ROUNDS = 4
"""Times that a selection is improved at most."""


class SubmodularFrontier:
    """As trainer.selection.frontier.Frontier, of F. What it answers depends on its arguments alone, not on what was asked before.

    Example::

        curve = SubmodularFrontier(Selector(profile), importance, blocks={"h.0.wq": "h.0"}, power=0.25)
        selection = curve.select(rho=0.6)
    """

    def __init__(
        self,
        selector: Selector,
        importance: Mapping[str, float],
        blocks: Mapping[str, str],
        power: float = 0.5,
    ) -> None:
        """blocks: to which block each tensor belongs; one that is not there is a block by itself. power: p."""
        names = [selector.model.names[i] for i in selector.candidates]
        self._selector = selector
        self._gain = {name: max(importance[name], 0.0) for name in names}
        self._block = {name: blocks.get(name, name) for name in names}
        self._power, self._scale = power, 1.0
        self._scale = math.fsum(self._gain.values()) / (self.value(names) or 1.0)
        cost = {name: selector.model.dw[i] + 1 for name, i in zip(names, selector.candidates, strict=True)}
        self._starts = [
            selector.frontier(self._gain),
            selector.frontier({name: gain**power for name, gain in self._gain.items()}),
            selector.frontier(self._bound(self._one_each(self._gain))),
            selector.frontier(
                self._bound(self._one_each({n: g**power / cost[n] for n, g in self._gain.items()}))
            ),
        ]
        self.rho_floor = selector.rho_floor
        self._kept: list[Selection] = []
        for rho in np.linspace(self.rho_floor, 1.0, GRID).tolist():
            self._kept.append(self.select(max(rho, self.rho_floor)))

    def value(self, selected: Iterable[str]) -> float:
        """F, scaled."""
        sums: dict[str, float] = {}
        for name in selected:
            sums[self._block[name]] = sums.get(self._block[name], 0.0) + self._gain[name]
        return self._scale * math.fsum(s**self._power for s in sums.values())

    def select(self, rho: float) -> Selection:
        """The best selection found with cost ≤ ρ·T_full. Raises InputError below the floor."""
        found = [self._with_value(start.select(rho)) for start in self._starts]
        found += [kept for kept in self._kept if kept.rho_planned <= rho]
        best = max(found, key=_rank)
        for _ in range(ROUNDS):
            bound = self._selector.frontier(self._bound(set(best.selected)))
            better = self._with_value(bound.select(rho))
            if _rank(better) <= _rank(best):
                break
            best = better
        return best

    def points(self, limit: int | None = None) -> tuple[FrontierPoint, ...]:
        """The curve's steps at GRID ratios, ascending (`limit` is for likeness): reachable there, perhaps for less."""
        points: list[FrontierPoint] = []
        for kept in sorted(self._kept, key=lambda s: (s.rho_planned, -s.importance)):
            if not points or kept.importance > points[-1].importance:
                points.append(FrontierPoint(rho=kept.rho_planned, importance=kept.importance))
        return tuple(points)

    def _with_value(self, selection: Selection) -> Selection:
        return selection.model_copy(update={"importance": self.value(selection.selected)})

    def _one_each(self, score: Mapping[str, float]) -> set[str]:
        """Of each block the tensor with the greatest score."""
        best: dict[str, str] = {}
        for name in self._gain:
            block = self._block[name]
            if block not in best or score[name] > score[best[block]]:
                best[block] = name
        return set(best.values())

    def _bound(self, selected: set[str]) -> dict[str, float]:
        """Marginal gains in each block, what is selected first, the greater first."""
        order = sorted(self._gain, key=lambda n: (n not in selected, -self._gain[n]))
        sums: dict[str, float] = {}
        gains: dict[str, float] = {}
        for name in order:
            before = sums.get(self._block[name], 0.0)
            after = sums[self._block[name]] = before + self._gain[name]
            gains[name] = after**self._power - before**self._power
        return gains


def _rank(selection: Selection) -> tuple[float, float]:
    return selection.importance, -selection.rho_planned
