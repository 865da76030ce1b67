"""Holds the model that is trained, and brings everything about it in line with each selection.

Which tensors are trained decides which gradients there are, what the optimizer holds of them, how deep the activation cache
lies, and how DDP or torch.compile wrap the model. All of that changes here and in one order, so that no part is forgotten.
"""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from trainer.distributed.wrapping import Wrapping, train_only
from trainer.methods.method import StepHook
from trainer.profiling.labelled_head import LabelledHead
from trainer.profiling.prompt_split import PromptSplit
from trainer.training.activation_cache import ActivationCache
from trainer.training.optimizer_state import StaleState
from trainer.training.options import Options


@dataclass(frozen=True, slots=True)
class TrainableModel:
    """A model from the beginning of its training to its end.

    Example::

        model = TrainableModel.build(module, optimizer, wrapping, options, step_hook=None)
        model.train_only(["lm_head.weight"], epochs_left=2.5)
        model.release()
    """

    module: Any
    optimizer: Any
    names: frozenset[str]
    """Tensors that may be trained: those that the optimizer holds."""
    wrapping: Wrapping
    stale_state: StaleState
    cache: ActivationCache
    step_hook: StepHook | None
    """What the method changes from step to step, if anything."""
    head: LabelledHead | None = None
    """Its output embeddings, where they run on labelled tokens alone."""
    split: PromptSplit | None = None
    """Its rows, where they run in two parts."""
    outside: tuple[Any, ...] = ()
    """Parameters with a gradient that the optimizer does not hold: nothing would come of it but its cost, so they are frozen."""

    @classmethod
    def build(
        cls,
        module: Any,
        optimizer: Any,
        wrapping: Wrapping,
        options: Options,
        step_hook: StepHook | None,
        head: LabelledHead | None = None,
        split: PromptSplit | None = None,
    ) -> "TrainableModel":
        """step_hook: that of the method; head and split: not attached. Raises InputError where activations cannot be cached."""
        cache = ActivationCache(options.cache, options.cache_gb)
        cache.attach(module)
        state, names = StaleState(options.stale_state, optimizer), find_trainable(module, optimizer)
        outside = tuple(p for n, p in module.named_parameters() if n not in names and p.requires_grad)
        for parameter in outside:
            parameter.requires_grad_(False)
        if head is not None:
            head.attach()
        if split is not None:
            split.attach()
        return cls(module, optimizer, names, wrapping, state, cache, step_hook, head, split, outside)

    def train_only(
        self,
        names: Iterable[str],
        epochs_left: float | None,
        *,
        stay: bool = False,
        share: float | None = None,
    ) -> None:
        """Train `names` from the next step on.

        epochs_left: of the whole training; None: no segment has begun. stay: the selection counts on what the cache holds. share: of the
        tokens, that gradient flows through; None: all.
        """
        if self.split is not None:
            self.split.share = 1.0 if share is None else share
        self.wrapping.reshard()
        train_only(self.module, tuple(names), self.names)
        self.stale_state.apply()
        if epochs_left is not None:
            self.cache.update_depth(epochs_left, stay=stay)
        self.wrapping.rebuild()

    @contextmanager
    def at_share(self, share: float) -> Iterator[None]:
        """Let gradient flow through this share of the tokens, whatever the last segment trained: what is measured then depends neither
        on that nor on whether this process was resumed."""
        if self.split is None:
            yield
            return
        before, self.split.share = self.split.share, share
        try:
            yield
        finally:
            self.split.share = before

    def draw_cost_ratio(self, expected: float, step: int) -> float | None:
        """Draw what optimizer step `step` drops; returns the step's cost ÷ T_full, None where nothing is drawn."""
        return None if self.step_hook is None else self.step_hook.draw(expected, step)

    def release(self, *, alone: bool = False) -> None:
        """Training is over: the model as it was, all of it trainable.

        alone: an error ended it on this rank, and the others wait for no collective now: what DDP or FSDP2 wrapped stays so.
        """
        self.cache.detach()
        if self.head is not None:
            self.head.detach()
        if self.split is not None:
            self.split.detach()
        if self.step_hook is not None:
            self.step_hook.remove()
        if alone:
            train_only(self.module, tuple(self.names), self.names)
        else:
            self.train_only(self.names, None)
        for parameter in self.outside:
            parameter.requires_grad_(True)


def find_trainable(module: Any, optimizer: Any) -> frozenset[str]:
    """Names of the parameters that `optimizer` holds."""
    held = {id(p) for group in optimizer.param_groups for p in group["params"]}
    return frozenset(n for n, p in module.named_parameters() if id(p) in held)
