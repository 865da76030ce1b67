"""Defines Method: which tensors may be trained, what each selection costs, and what is gained at each ρ (a SelectionCurve).

Method itself selects tensors by importance (greentrainer, greentrainer+lora, fixed, random); what differs between these is
in their traits. Other kinds are subclasses in files of their own: constant.py, dropbp.py. A plugin's may be, too.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Protocol

from carbonsched.model.methods.traits import MethodTraits
from carbonsched.model.profile import Profile, Selection
from carbonsched.model.protocol import FrontierPoint
from carbonsched.model.setting import Setting
from trainer.importance.objectives import TrainingHistory, draw_importance, objective_of
from trainer.profiling.flop_counter import Shape
from trainer.selection.cached_frontier import BestOf, CacheSaving
from trainer.selection.cost_model import CostModel
from trainer.selection.frontier import Frontier, Selector
from trainer.selection.submodular import SubmodularFrontier

FRONTIER_POINTS = 200
"""Approximate number of frontier points sent to the daemon; more would not improve a plan."""
BLOCK = re.compile(r"^(.*?)\.(\d+)\.")
"""Name of a tensor in a numbered block: the stack's name, the block's number."""


@dataclass(frozen=True, slots=True)
class SelectionCurve:
    """What can be selected in one segment. ρ here is the selector's cost ratio, without importance batches.

    Example::

        curve = method.curve(importance)
        best = curve.select(0.6)
        assert best.rho_planned <= max(0.6, curve.floor)
    """

    floor: float
    points: tuple[FrontierPoint, ...]
    select: Callable[[float], Selection]
    """The best selection at a ρ: everything from the ρ of everything up, the cheapest selection below the floor."""
    saving: CacheSaving | None = None
    """What the activation cache saves on selections that train nothing below it."""

    def cache_saving(self, names: tuple[str, ...]) -> float:
        """The part of a selection's ρ that it expects the activation cache to save."""
        return 0.0 if self.saving is None else self.saving.ratio_of(names)


class StepHook(Protocol):
    """Changes the model before each optimizer step, by a draw that depends on seed and step alone.

    Example::

        ratio = hook.draw(0.6, step=12)
    """

    def draw(self, rho: float, step: int) -> float:
        """Set the model up for optimizer step `step` at an expected `rho`; returns that step's own ratio."""

    def remove(self) -> None:
        """Restore the model."""


class Method:
    """Selects tensors by importance, within a FLOPs ratio.

    Example::

        method = build_method("greentrainer", profile)
        values = method.importance(0, measured)
        selected = method.curve(values).select(0.6).selected
    """

    plans_with_cache = True
    """Whether the activation cache's savings are subtracted from the cost of a selection."""

    def __init__(
        self,
        name: str,
        traits: MethodTraits,
        profile: Profile,
        seed: int = 0,
        among: frozenset[str] | None = None,
        importance: str = "reach",
    ) -> None:
        """`among`: the tensors that may be trained at all; None: every tensor of the profile. Raises InputError if the method does not fit
        the model."""
        self.name, self.traits, self.profile, self.seed = name, traits, profile, seed
        self.objective, self.history = objective_of(importance), TrainingHistory()
        self.names = self.narrow([t.name for t in profile.tensors if among is None or t.name in among])
        self.first: dict[str, float] | None = None
        """The importances of the first measurement, for methods that measure only once."""
        self.costs = CostModel.of(profile)

    # ---- what a subclass may change

    def narrow(self, names: list[str]) -> list[str]:
        """Which of these tensors the method may train. Raises InputError."""
        return names

    def inspect(self, model: Any, shape: Shape, attn: str | None = None) -> None:
        """Measure what the method needs to know of `model` beside its profile. Raises InputError."""

    def step_hook(self, model: Any, seed: int) -> StepHook | None:
        """What changes `model` from step to step; None: nothing."""
        return None

    @property
    def floor(self) -> float:
        """ρ of the cheapest selection this method makes."""
        return self.selector.rho_floor

    def curve(self, importance: dict[str, float], saving: CacheSaving | None = None) -> SelectionCurve:
        """What can be selected with these values. saving: what the activation cache will save in the coming segment."""
        ceiling = self.ratio(tuple(self.names), saving)
        everything = self.everything(sum(importance[n] for n in self.names), saving)
        frontier: Frontier | SubmodularFrontier | BestOf = self._frontier(self.selector, importance)
        if isinstance(frontier, SubmodularFrontier):
            everything = everything.model_copy(update={"importance": frontier.value(self.names)})
        above = [] if saving is None else [n for n in self.names if n not in saving.beneath]
        if saving is not None and above:
            cheaper = self._frontier(Selector(saving.apply_to(self.profile), above), importance)
            frontier = BestOf(cheaper, frontier)
        floor = frontier.rho_floor

        def select(rho: float) -> Selection:
            return everything if rho >= ceiling else frontier.select(max(rho, floor))

        return SelectionCurve(floor, frontier.points(FRONTIER_POINTS), select, saving)

    def settings(self, curve: SelectionCurve) -> tuple[tuple[Setting, float], ...]:
        """(setting, ρ) for each setting it can change to for a segment, without importance batches; empty: it has one way to train at a ρ."""
        return ()

    def curve_in(self, setting: Setting) -> SelectionCurve | None:
        """What can be selected in a setting that it offered; None: the result of `curve`."""
        return None

    # ---- what all have in common

    @cached_property
    def selector(self) -> Selector:
        return Selector(self.profile, self.names)

    @property
    def measured_share(self) -> float:
        """The share of the tokens through which gradient flows where importance is measured."""
        return 1.0

    @property
    def measured_ratio(self) -> float:
        """Cost of an importance batch ÷ T_full."""
        return self.ceiling

    @property
    def ceiling(self) -> float:
        """ρ of everything that this method may train."""
        return self.ratio(tuple(self.names))

    def everything(self, importance: float, saving: CacheSaving | None = None) -> Selection:
        """The selection of everything this method may train."""
        names = tuple(self.names)
        return Selection(rho_planned=self.ratio(names, saving), importance=importance, selected=names)

    def measures(self) -> bool:
        """Whether importance batches run before the coming segment."""
        if self.objective.estimator is None:
            return False
        when = self.traits.measures
        return when == "each segment" or (when == "once" and self.first is None)

    def importance(self, k: int, measured: dict[str, float] | None) -> dict[str, float]:
        """The values that segment k is selected by; from the measured ones if this method measures."""
        once, never = (self.traits.measures == when for when in ("once", "never"))
        if self.objective.estimator is None or (never and self.traits.selects):
            # chosen once: the first draw is kept
            k = 0 if once else k
            return draw_importance({t.name: t.numel for t in self.profile.tensors}, self.seed, k)
        if once:
            self.first = self.first or measured
            measured = self.first
        return {t.name: (measured or {}).get(t.name, 0.0) for t in self.profile.tensors}

    def ratio(self, names: tuple[str, ...], saving: CacheSaving | None = None) -> float:
        """cost(S) ÷ T_full."""
        ratio = self.costs.flops(names) / self.profile.full_flops
        return ratio if saving is None else ratio - saving.ratio_of(names)

    def _frontier(self, selector: Selector, importance: dict[str, float]) -> Frontier | SubmodularFrontier:
        power = self.objective.power
        if power is None:
            return selector.frontier(importance)
        blocks = {n: f"{found[1]}.{found[2]}" for n in self.names if (found := BLOCK.match(n))}
        return SubmodularFrontier(selector, importance, blocks, power)
