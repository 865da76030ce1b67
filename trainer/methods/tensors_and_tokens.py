"""Implements greentrainer+tokens: ρ decides which tensors train and through how many of each row's last tokens gradient flows.

Both cut the same step, so many pairs (S, τ) cost the same. Which one is taken follows from what a step of each is worth
(carbonsched/model/methods/efficiency.py, measured): the efficiency of S at all tokens, times that of τ with every tensor. S is the selector's best for its own
cost over whole rows; the pair's cost is that of the batches that really come.
"""

from dataclasses import dataclass

from carbonsched.model.methods.efficiency import prior_efficiency
from carbonsched.model.profile import Selection
from carbonsched.model.protocol import FrontierPoint
from trainer.methods.method import Method, SelectionCurve
from trainer.methods.tokens import Tokens
from trainer.selection.cached_frontier import CacheSaving

_SHARES = 9
"""Shares of tokens that each selection is tried with."""
_SELECTIONS = 24
"""Selections that are tried, spread evenly over their ρ at all tokens."""
_HALVINGS = 10
_ROUNDING = 1e-9


@dataclass(frozen=True, slots=True)
class _Pair:
    names: tuple[str, ...]
    share: float
    rho: float
    """Cost ÷ T_full over the coming batches."""
    worth: float
    """Full steps that one step is worth."""


class TensorsAndTokens(Tokens):
    """Chooses tensors and the share of tokens whose steps are worth most within ρ.

    Example::

        method = build_method("greentrainer+tokens", profile)
        method.prices = prices
        selection = method.curve(importance).select(0.3)
        assert selection.gradient_share < 1
    """

    @property
    def floor(self) -> float:
        # two parts save some of attention's scores: fewer tokens do not always cost less
        return min(self._known.ratio((self._cheapest,), share) for share in self._shares)

    @property
    def measured_share(self) -> float:
        # tensors are left out only where fewer tokens cannot be had: at the least share, unless it is fixed
        return self.fixed_share or 0.0

    @property
    def measured_ratio(self) -> float:
        return self._ratio(self.measured_share)

    def curve(self, importance: dict[str, float], saving: CacheSaving | None = None) -> SelectionCurve:
        selections = self._selections(importance)
        best: list[_Pair] = []
        for pair in sorted(
            (self._pair(names, rho, share) for names, rho in selections.items() for share in self._shares),
            key=lambda pair: (pair.rho, -pair.worth),
        ):
            if not best or pair.worth > best[-1].worth:
                best.append(pair)

        def select(rho: float) -> Selection:
            """The most valuable pair that fits, with as many more tokens as fit."""
            fits = [pair for pair in best if pair.rho <= rho + _ROUNDING] or best[:1]
            chosen = max(
                (self._filled(pair, selections[pair.names], rho) for pair in fits), key=lambda p: p.worth
            )
            return Selection(
                rho_planned=chosen.rho,
                importance=chosen.worth,
                selected=chosen.names,
                gradient_share=chosen.share,
            )

        points = tuple(FrontierPoint(rho=pair.rho, importance=pair.worth) for pair in best)
        return SelectionCurve(best[0].rho, points, select)

    @property
    def _shares(self) -> list[float]:
        return [self.fixed_share] if self.fixed_share else [k / (_SHARES - 1) for k in range(_SHARES)]

    @property
    def _cheapest(self) -> str:
        """In two parts it may differ from the cheapest selection on whole rows."""
        return self._known.cheapest(self.names, self.fixed_share or 0.0)

    def _selections(self, importance: dict[str, float]) -> dict[tuple[str, ...], float]:
        """Names of the tensors → their ρ at all tokens: the best selection at each of some ρ, the cheapest, and all tensors."""
        whole = Method.curve(self, importance)
        step = (self.ceiling - whole.floor) / (_SELECTIONS - 1)
        found = [whole.select(whole.floor + k * step) for k in range(_SELECTIONS - 1)]
        least = (self._cheapest,)
        return {least: self.ratio(least)} | {
            s.selected: s.rho_planned for s in (*found, self.everything(0.0))
        }

    def _pair(self, names: tuple[str, ...], rho: float, share: float) -> _Pair:
        worth = prior_efficiency(
            "greentrainer", rho, floor=self.selector.rho_floor, share=self._known.realised(share)
        ).median
        return _Pair(names, share, self._known.ratio(names, share), worth)

    def _filled(self, pair: _Pair, whole: float, rho: float) -> _Pair:
        if self.fixed_share or pair.rho > rho:
            return pair
        low, high = pair.share, min(pair.share + 1 / (_SHARES - 1), 1.0)
        for _ in range(_HALVINGS):
            middle = (low + high) / 2
            fits = self._known.ratio(pair.names, middle) <= rho + _ROUNDING
            low, high = (middle, high) if fits else (low, middle)
        return self._pair(pair.names, whole, low) if low > pair.share else pair
