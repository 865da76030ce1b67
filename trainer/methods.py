"""One switch: which tensors a method may train, and what stands for their importance.

greentrainer   measured importance, selected anew each segment
fixed          measured once, before the first segment; a change of ρ selects again from that first measurement
random         √size × a random number, no measuring: a random choice of equal FLOPs
full           every tensor, whatever ρ says
ft-top2        the last two blocks and what lies above them, whatever ρ says
"""

import re
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from carbonsched.errors import InputError
from carbonsched.model.profile import Profile, Selection
from carbonsched.model.protocol import FrontierPoint
from trainer.patterns import CostModel
from trainer.select import Frontier, Selector

BUILT = ("greentrainer", "full", "fixed", "random", "ft-top2")
CONSTANT = ("full", "ft-top2")
FRONTIER_POINTS = 200
_BLOCK = re.compile(r"^(.*?)\.(\d+)\.")


def check_method(name: str) -> None:
    """Raises InputError for a method that this version cannot run."""
    if name not in BUILT:
        raise InputError("train.method", f"{name!r} is not built yet", f"use one of {', '.join(BUILT)}")


@dataclass(frozen=True, slots=True)
class Choice:
    """What can be selected in one segment; ρ here is the selector's cost ratio, importance batches apart."""

    floor: float
    points: tuple[FrontierPoint, ...]
    _everything: Selection
    """All that this method may train."""
    _frontier: Frontier | None = None
    """None: everything is the only choice."""

    def select(self, rho: float) -> Selection:
        """The best selection at `rho`; everything from 1 up, the cheapest below the floor."""
        if self._frontier is None:
            return self._everything
        if rho >= 1:
            return self._everything
        return self._frontier.select(max(rho, self.floor))


class Method:
    def __init__(
        self, name: str, profile: Profile, seed: int = 0, among: frozenset[str] | None = None
    ) -> None:
        """`among`: the tensors that may be trained at all; None: every one. Raises InputError: not built, none left."""
        check_method(name)
        self.name, self.profile, self.seed = name, profile, seed
        names = [t.name for t in profile.tensors if among is None or t.name in among]
        self.names = _top_blocks(names, profile) if name == "ft-top2" else names
        self.first: dict[str, float] | None = None
        """`fixed`: the importances of the first measurement."""
        self.costs = CostModel.of(profile)

    @cached_property
    def selector(self) -> Selector:
        return Selector(self.profile, self.names)

    @property
    def floor(self) -> float:
        """The cheapest selection this method makes."""
        return self.ratio(tuple(self.names)) if self.name in CONSTANT else self.selector.rho_floor

    def measures(self) -> bool:
        """Whether importance batches run before the coming segment."""
        return self.name == "greentrainer" or (self.name == "fixed" and self.first is None)

    def importance(self, k: int, measured: dict[str, float] | None) -> dict[str, float]:
        """The values segment k is selected by, from the measured ones where this method measures."""
        if self.name == "random":
            draws = np.random.default_rng((self.seed, k)).random(len(self.profile.tensors))
            return {
                t.name: t.numel**0.5 * x for t, x in zip(self.profile.tensors, draws.tolist(), strict=True)
            }
        if self.name == "fixed":
            self.first = self.first or measured
            measured = self.first
        return {t.name: (measured or {}).get(t.name, 0.0) for t in self.profile.tensors}

    def choice(self, importance: dict[str, float]) -> Choice:
        ratio = self.ratio(tuple(self.names))
        # a constant choice has no measured importance; 1 keeps a plan's gain in proportion to the steps
        everything = Selection(
            rho_planned=ratio,
            importance=sum(importance[n] for n in self.names) if self.name not in CONSTANT else 1.0,
            selected=tuple(self.names),
        )
        if self.name in CONSTANT:
            return Choice(ratio, (FrontierPoint(rho=ratio, importance=1.0),), everything)
        frontier = self.selector.frontier(importance)
        return Choice(frontier.rho_floor, frontier.points(FRONTIER_POINTS), everything, frontier)

    def ratio(self, names: tuple[str, ...]) -> float:
        """cost(S) ÷ T_full."""
        return self.costs.flops(names) / self.profile.full_flops


def _top_blocks(names: list[str], profile: Profile, count: int = 2) -> list[str]:
    """Tensors of the last `count` blocks of the stack nearest the output, and those that cost no more depth."""
    stacks: dict[str, set[int]] = {}
    for name in names:
        if found := _BLOCK.match(name):
            stacks.setdefault(found[1], set()).add(int(found[2]))
    deep = [(stack, blocks) for stack, blocks in stacks.items() if len(blocks) >= count]
    if not deep:
        raise InputError(
            "train.method", "'ft-top2' finds no stack of blocks in this model", "use greentrainer"
        )
    # an encoder's blocks lie below every decoder's: the nearest stack is the one with the shallowest tensor
    depth = {t.name: t.depth_flops for t in profile.tensors}
    nearest = min(deep, key=lambda s: min(depth[n] for n in names if n.startswith(s[0] + ".")))
    top = sorted(nearest[1])[-count:]
    inside = [n for n in names if (f := _BLOCK.match(n)) and f[1] == nearest[0] and int(f[2]) in top]
    deepest = max(depth[n] for n in inside)
    above = [n for n in names if not _BLOCK.match(n) and depth[n] <= deepest]
    return [n for n in names if n in {*inside, *above}]
