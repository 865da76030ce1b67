"""One switch: which tensors a method may train, and what stands for their importance.

greentrainer   measured importance, selected anew each segment
fixed          measured once, before the first segment; a change of ρ selects again from that first measurement
random         √size × a random number, no measuring: a random choice of equal FLOPs
full           every tensor, whatever ρ says
ft-top2        the last two blocks and what lies above them, whatever ρ says
lora           low-rank adapters of the query and value projections, whatever ρ says
prefix         keys and values of made-up tokens before each row, whatever ρ says
greentrainer+lora   the adapters of `lora`, chosen among like tensors by measured importance
dropbp         every tensor; residual branches' backward passes are dropped at random at the rate that ρ asks for
"""

import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from carbonsched.errors import InputError
from carbonsched.model.job import TrainPart
from carbonsched.model.profile import Profile, Selection
from carbonsched.model.protocol import FrontierPoint
from trainer.importance.objectives import TrainingHistory, draw_importance, objective_of
from trainer.methods.dropbp import Branches
from trainer.selection.cached_frontier import BestOf, CacheSaving
from trainer.selection.cost_model import CostModel
from trainer.selection.frontier import Frontier, Selector
from trainer.selection.submodular import SubmodularFrontier

BUILT = (
    "greentrainer",
    "full",
    "fixed",
    "random",
    "ft-top2",
    "lora",
    "prefix",
    "greentrainer+lora",
    "dropbp",
)
CONSTANT = ("full", "ft-top2", "lora", "prefix")
FRONTIER_POINTS = 200
LINEAR_POINTS = 21
_BLOCK = re.compile(r"^(.*?)\.(\d+)\.")


def check_method(name: str) -> None:
    """Raises InputError for a method that there is not."""
    if name not in BUILT:
        raise InputError("train.method", f"{name!r} is not known", f"use one of {', '.join(BUILT)}")


def check_train(train: TrainPart) -> None:
    """Raises InputError where the method does not go with another setting."""
    method = train.method
    if method == "prefix" and train.gradient_checkpointing:
        raise InputError(
            "train.gradient_checkpointing",
            "a prefix travels in the cache, which checkpointing switches off",
            "set it to false, or use method lora",
        )
    if method == "dropbp" and train.compile:
        raise InputError(
            "train.compile", "each step drops other branches: every one would be compiled", "set it to false"
        )


@dataclass(frozen=True, slots=True)
class Choice:
    """What can be selected in one segment; ρ here is the selector's cost ratio, importance batches apart."""

    floor: float
    points: tuple[FrontierPoint, ...]
    select: Callable[[float], Selection]
    """The best selection at a ρ; everything from what that costs up, the cheapest below the floor."""
    saving: CacheSaving | None = None
    """What selections were made cheaper by, those that train nothing beneath."""

    def saved(self, names: tuple[str, ...]) -> float:
        """Of a selection's ρ: what it counts on the cache to save ÷ T_full."""
        return 0.0 if self.saving is None else self.saving.ratio_of(names)


class Method:
    def __init__(
        self,
        name: str,
        profile: Profile,
        seed: int = 0,
        among: frozenset[str] | None = None,
        branches: Branches | None = None,
        importance: str = "reach",
    ) -> None:
        """`among`: the tensors that may be trained at all; None: every one. branches: of `dropbp`.

        Raises InputError: not known, none left.
        """
        check_method(name)
        self.name, self.profile, self.seed, self.branches = name, profile, seed, branches
        self.objective, self.history = objective_of(importance), TrainingHistory()
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
        if self.branches is not None:
            return self.branches.floor
        return self.ceiling if self.name in CONSTANT else self.selector.rho_floor

    @property
    def ceiling(self) -> float:
        """Everything that this method may train."""
        return self.ratio(tuple(self.names))

    def measures(self) -> bool:
        """Whether importance batches run before the coming segment."""
        if self.objective.estimator is None:
            return False
        return self.name.startswith("greentrainer") or (self.name == "fixed" and self.first is None)

    def importance(self, k: int, measured: dict[str, float] | None) -> dict[str, float]:
        """The values segment k is selected by, from the measured ones where this method measures."""
        if self.name == "random" or self.objective.estimator is None:
            # chosen once, `fixed` stays with the first draw
            k = 0 if self.name == "fixed" else k
            return draw_importance({t.name: t.numel for t in self.profile.tensors}, self.seed, k)
        if self.name == "fixed":
            self.first = self.first or measured
            measured = self.first
        return {t.name: (measured or {}).get(t.name, 0.0) for t in self.profile.tensors}

    def choice(self, importance: dict[str, float], saving: CacheSaving | None = None) -> Choice:
        """saving: what the cache will spare the segment; `dropbp`, whose rate has another floor, does not count on it."""
        saving = None if self.branches is not None else saving
        ceiling = self.ratio(tuple(self.names), saving)
        # what is not measured has no importance; 1 keeps a plan's gain in proportion to the steps
        measured = self.name not in CONSTANT and self.branches is None
        everything = Selection(
            rho_planned=ceiling,
            importance=sum(importance[n] for n in self.names) if measured else 1.0,
            selected=tuple(self.names),
        )
        if self.branches is not None:
            return _linear(self.branches.floor, everything)
        if self.name in CONSTANT:
            points = (FrontierPoint(rho=ceiling, importance=1.0),)
            return Choice(ceiling, points, lambda rho: everything, saving)
        frontier: Frontier | SubmodularFrontier | BestOf = self._curve(self.selector, importance)
        if isinstance(frontier, SubmodularFrontier):
            everything = everything.model_copy(update={"importance": frontier.value(self.names)})
        above = [] if saving is None else [n for n in self.names if n not in saving.beneath]
        if saving is not None and above:
            cheaper = self._curve(Selector(saving.apply_to(self.profile), above), importance)
            frontier = BestOf(cheaper, frontier)
        floor = frontier.rho_floor

        def select(rho: float) -> Selection:
            return everything if rho >= ceiling else frontier.select(max(rho, floor))

        return Choice(floor, frontier.points(FRONTIER_POINTS), select, saving)

    def _curve(self, selector: Selector, importance: dict[str, float]) -> Frontier | SubmodularFrontier:
        power = self.objective.power
        if power is None:
            return selector.frontier(importance)
        blocks = {n: f"{found[1]}.{found[2]}" for n in self.names if (found := _BLOCK.match(n))}
        return SubmodularFrontier(selector, importance, blocks, power)

    def ratio(self, names: tuple[str, ...], saving: CacheSaving | None = None) -> float:
        """cost(S) ÷ T_full."""
        ratio = self.costs.flops(names) / self.profile.full_flops
        return ratio if saving is None else ratio - saving.ratio_of(names)


def _linear(floor: float, everything: Selection) -> Choice:
    """Every tensor at any ρ from the floor up, the gain in proportion to the backward work that is not dropped.

    With no measure of what a dropped gradient was worth, a share of the steps' gradients counts as that share of their
    worth; the floor, where what can be dropped always is, counts as nothing.
    """

    def select(rho: float) -> Selection:
        rho = min(max(rho, floor), everything.rho_planned)
        gain = (rho - floor) / (everything.rho_planned - floor)
        return Selection(rho_planned=rho, importance=gain, selected=everything.selected)

    taken = [select(rho) for rho in np.linspace(floor, everything.rho_planned, LINEAR_POINTS).tolist()]
    return Choice(
        floor, tuple(FrontierPoint(rho=s.rho_planned, importance=s.importance) for s in taken), select
    )


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
