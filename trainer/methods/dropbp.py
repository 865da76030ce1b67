"""Implements DropBP: in each step the backward passes of some residual branches are dropped at random (arXiv 2402.17812).

A residual branch (the attention or the MLP of a block) adds to the stream that passes it by. A dropped branch still
runs forward, unchanged, but without a graph: no gradient goes through it, its weights are not updated in that step, and
what it would have kept for the backward pass is not kept. The gradient reaches what lies beneath over the identity.

Every branch is dropped at one rate p, set so that the expected FLOPs of a step meet ρ:
p = (1 − ρ) / (1 − floor), floor being the cost with every branch dropped. The cost of a set of branches is measured, not
written by hand: real steps on meta tensors, nothing dropped, one branch of each kind dropped, all dropped; it is used
only where the parts add up to the whole exactly.

The draw of a step depends on the seed and the step's number alone, so that a replayed step repeats it and a resumed run
goes on with it. It is a systematic sample over a random order, one kind of branch after the other: each branch
goes at rate p, as in independent draws, but the number that goes is within one of p times their number in every step.

Where this differs from the paper: there each branch has a rate of its own, given out once, after a tenth of training. A
branch's sensitivity is how much the gradients' L2 norms change when it alone is dropped, and rates rise greedily where the
summed sensitivity rises least, until the FLOPs are met. That takes one backward pass more than there are branches: 61 of
SmolLM2-135M, two fifths of a 150-step run at ρ = 1, so it cannot be a default where every pass is counted. Near the floor,
where all branches go, and near 1, where none does, rates have no freedom and the two are the same; in between ours is
the paper's method before its allocation, of the same expected FLOPs.

A branch is shut by running all modules in it that own parameters without a graph: that also holds where the residual is
added inside the branch's own module (BLOOM), or where it has no module of its own (fc1, fc2 of OPT).
"""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from typing import Any

import numpy as np
from torch import nn

from carbonsched.errors import InputError
from carbonsched.model.profile import Selection
from carbonsched.model.protocol import FrontierPoint
from trainer.methods.method import Method, SelectionCurve
from trainer.profiling.flop_counter import Shape, without_graph
from trainer.profiling.labelled_head import traced_head
from trainer.profiling.meta_model import meta_twin, traceable
from trainer.profiling.profiler import make_counter, token_batch
from trainer.selection.cached_frontier import CacheSaving

_NUMBERED = re.compile(r"\.\d+$")
_NUMBER = re.compile(r"\.\d+\.")
_CROSS = re.compile(r"cross|enc_?dec|encoder_attn", re.IGNORECASE)
"""Attention of a decoder to the encoder."""
_LINEAR_POINTS = 21
"""Points of the straight line that is told to the daemon."""


@dataclass(frozen=True)
class Branches:
    """The branches that may be dropped and what each saves, at one batch shape. All ratios are relative to full fine-tuning.

    Example:
        >>> branches = Branches(names=("0.mlp", "1.mlp"), saves=(0.2, 0.2), whole=1.0)
        >>> round(branches.ratio([0]), 3), round(branches.rate(0.8), 3)
        (0.8, 0.5)
    """

    names: tuple[str, ...]
    saves: tuple[float, ...]
    """By how much a step gets cheaper when this branch's backward pass is dropped."""
    whole: float
    """Ratio of a step that drops nothing: 1 if every tensor is trained."""

    @cached_property
    def floor(self) -> float:
        """Ratio of a step with every branch dropped."""
        return self.ratio(range(len(self.names)))

    def ratio(self, dropped: Sequence[int]) -> float:
        """Ratio of a step with these branches (by position) dropped."""
        return self.whole - sum(self.saves[b] for b in dropped)

    def rate(self, rho: float) -> float:
        """The drop rate at which a step's expected ratio is `rho`, which is clamped to the reachable range."""
        rho = min(max(rho, self.floor), self.whole)
        return (self.whole - rho) / (self.whole - self.floor)

    def draw(self, rho: float, seed: int, step: int) -> list[int]:
        """Positions of the branches that optimizer step `step` drops."""
        rng = np.random.default_rng((seed, step))
        order = sorted(rng.permutation(len(self.names)).tolist(), key=lambda b: self.saves[b])
        marks = np.floor(np.arange(len(order) + 1) * self.rate(rho) + rng.random()).astype(int).tolist()
        return [b for b, (low, high) in zip(order, pairwise(marks), strict=True) if high > low]


class DropBP(Method):
    """Trains every tensor and drops backward passes of residual branches at the rate that ρ asks for.

    Example::

        method = build_method("dropbp", profile)
        method.inspect(model, shape)
        hook = method.step_hook(model, seed=0)
    """

    plans_with_cache = False  # adapters have another floor
    branches: "Branches | None" = None

    def inspect(self, model: Any, shape: Shape, attn: str | None = None) -> None:
        self.branches = measure(model, shape, self.profile.full_flops, attn)

    @property
    def _measured(self) -> "Branches":
        if self.branches is None:
            raise RuntimeError("inspect(model, shape) comes first")
        return self.branches

    @property
    def floor(self) -> float:
        return self._measured.floor

    def step_hook(self, model: Any, seed: int) -> "Dropper":
        return Dropper(model, self._measured, seed)

    def curve(self, importance: dict[str, float], saving: CacheSaving | None = None) -> SelectionCurve:
        """Every tensor at any ρ from the floor up; gain is proportional to the backward work that is not dropped.

        The value of a dropped gradient is not measured, so a share of the gradients counts as that share of their value; the floor, where
        every droppable branch is dropped, counts as nothing.
        """
        floor, everything = self.floor, self.everything(1.0)
        whole = everything.rho_planned

        def select(rho: float) -> Selection:
            rho = min(max(rho, floor), whole)
            gain = (rho - floor) / (whole - floor)
            return Selection(rho_planned=rho, importance=gain, selected=everything.selected)

        taken = [select(rho) for rho in np.linspace(floor, whole, _LINEAR_POINTS).tolist()]
        points = tuple(FrontierPoint(rho=s.rho_planned, importance=s.importance) for s in taken)
        return SelectionCurve(floor, points, select)


class Dropper:
    """Shuts the branches of a model that a step drops. `remove` restores the model.

    Example::

        dropper = Dropper(model, branches, seed=0)
        rho = dropper.draw(0.6, step=12)
        model(**batch).loss.backward()
        dropper.remove()
    """

    def __init__(self, model: nn.Module, branches: Branches, seed: int = 0) -> None:
        self.branches, self.seed = branches, seed
        found = find(model)
        self._shut = [False] * len(branches.names)
        self._guarded: list[nn.Module] = []
        for at, name in enumerate(branches.names):
            for module in found[name]:
                self._guard(module, at)

    def draw(self, rho: float, step: int) -> float:
        """Shut the branches that optimizer step `step` drops at `rho`; returns that step's own ratio."""
        dropped = self.branches.draw(rho, self.seed, step)
        self.set(dropped)
        return self.branches.ratio(dropped)

    def set(self, dropped: Sequence[int]) -> None:
        """From the next forward pass on, shut these branches, by position, and open all others."""
        for at in range(len(self._shut)):
            self._shut[at] = at in dropped

    def remove(self) -> None:
        for module in self._guarded:
            del module.forward
        self._guarded.clear()

    def _guard(self, module: nn.Module, at: int) -> None:
        inner: Callable[..., Any] = module.forward

        def forward(*args: Any, **kwargs: Any) -> Any:
            if not self._shut[at]:
                return inner(*args, **kwargs)
            with without_graph():
                return inner(*args, **kwargs)

        module.forward = forward
        self._guarded.append(module)


def find(model: nn.Module) -> dict[str, list[nn.Module]]:
    """Residual branches from bottom to top of each stack: name → the modules in it that own parameters.

    A block is a numbered module with a norm and something with matrices directly in it; each of its children with
    matrices is a branch, matrices side by side (fc1, fc2) are one.
    """
    found: dict[str, list[nn.Module]] = {}
    blocks: list[str] = []
    for name, block in model.named_modules():
        if not _NUMBERED.search(name) or any(name.startswith(f"{outer}.") for outer in blocks):
            continue
        children = list(block.named_children())
        if not any("norm" in type(child).__name__.lower() for _, child in children):
            continue
        parts = [(n, child) for n, child in children if any(p.dim() >= 2 for p in child.parameters())]
        if not parts:
            continue
        blocks.append(name)
        alone: str | None = None
        for child_name, child in parts:
            single = next(child.children(), None) is None
            if single and alone is not None:
                key = f"{alone}+{child_name}"
                found[key] = [*found.pop(alone), child]
            else:
                key = f"{name}.{child_name}"
                found[key] = [
                    m for m in child.modules() if next(m.parameters(recurse=False), None) is not None
                ]
            alone = key if single else None
    return found


def measure(model: Any, shape: Shape, full_flops: float, attn: str | None = None) -> Branches:
    """What each branch of `model` saves at `shape`, by its present `requires_grad`; full_flops: T_full there.

    attn: as in the profile that this goes with. Raises InputError for a model without branches whose costs add up.
    """
    twin = meta_twin(model, attn)
    for mirrored, parameter in zip(twin.parameters(), model.parameters(), strict=True):
        mirrored.requires_grad_(parameter.requires_grad)
    found = find(twin)
    # an encoder gets the loss only through these: one has to stay
    cross = [name for name in found if _CROSS.search(name)]
    names = tuple(name for name in found if name not in cross[-1:])
    if not names:
        raise InputError(
            "train.method",
            f"'dropbp' finds no residual branches in {model.config.model_type}",
            "use greentrainer",
        )
    dropper = Dropper(twin, Branches(names, (0.0,) * len(names), 1.0))

    def cost(dropped: Sequence[int]) -> int:
        dropper.set(dropped)
        return _step_flops(twin, shape)

    whole = cost([])
    lowest = cost(range(len(names)))
    kinds = [_kind(name, found[name]) for name in names]
    by_kind = {kind: whole - cost([kinds.index(kind)]) for kind in dict.fromkeys(kinds)}
    saves = [by_kind[kind] for kind in kinds]
    if whole - sum(saves) != lowest:  # with frozen tensors, branches of one kind differ by what is below them
        saves = [whole - cost([at]) for at in range(len(names))]
    if whole - sum(saves) != lowest or lowest == whole:
        raise InputError(
            "train.method",
            f"'dropbp' cannot price the branches of {model.config.model_type}: dropped together they save "
            f"{whole - lowest:.3g} FLOPs, one by one {sum(saves):.3g}",
            "use greentrainer",
        )
    return Branches(names, tuple(s / full_flops for s in saves), whole / full_flops)


def _kind(name: str, modules: list[nn.Module]) -> tuple[Any, ...]:
    shapes = [(tuple(p.shape), p.requires_grad) for m in modules for p in m.parameters(recurse=False)]
    return (_NUMBER.sub(".", name), *(type(m) for m in modules), *shapes)


def _step_flops(twin: Any, shape: Shape) -> int:
    with make_counter() as count:
        with traceable(twin.config._attn_implementation or "eager"), traced_head(twin, shape.labelled):
            loss = twin(**token_batch(*shape[:3]), use_cache=False).loss
        loss.backward()
    for parameter in twin.parameters():
        parameter.grad = None
    return int(count.get_total_flops())
