"""Reaches what the hooks of `TrainerCallback` leave out: the Trainer that calls them, its own loss.

A callback gets the model and the optimizer, not the Trainer. What its user wants of a loss (label smoothing, `compute_loss_func`, an
overridden `compute_loss`) only the Trainer knows, so it is looked up among the callers of the hook that runs.
"""

import copy
import sys
from collections import deque
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType
from typing import Any

from torch import Tensor, nn
from transformers import Trainer, TrainerCallback

_PLAIN = (int, float, str, bool, type(None))
_MANY = 10_000
"""A container of more is no count of steps."""


@dataclass(frozen=True, slots=True)
class HostTrainer:
    """The Trainer that a callback belongs to.

    Example::

        host = HostTrainer.calling(callback)  # inside one of its hooks
        loss = model_loss if host is None else host.loss
    """

    trainer: Any

    @classmethod
    def calling(cls, callback: TrainerCallback) -> "HostTrainer | None":
        """The Trainer whose hook runs `callback` right now; None where another loop calls it."""
        frame: FrameType | None = sys._getframe(1)
        while frame is not None:
            caller = frame.f_locals.get("self")
            if isinstance(caller, Trainer) and callback in caller.callback_handler.callbacks:
                return cls(caller)
            frame = frame.f_back
        return None

    def loss(self, model: nn.Module, batch: Mapping[str, Any]) -> Tensor:
        """The loss of `batch` as the Trainer takes it in a step of this batch alone; what it counts of its steps stays as it was."""
        trainer = self.trainer
        with _keep_counts(trainer):
            _, items = trainer.get_batch_samples(iter([batch]), 1, trainer.args.device)
            inputs = trainer._prepare_inputs(dict(batch))
            with trainer.compute_loss_context_manager():
                loss: Tensor = trainer.compute_loss(model, inputs, num_items_in_batch=items)
        return loss


@contextmanager
def _keep_counts(trainer: Any) -> Iterator[None]:
    """Within it a loss may count what it likes: TRL's Trainers add up metrics that they log later."""
    before = {name: copy.deepcopy(value) for name, value in vars(trainer).items() if _is_plain(value)}
    try:
        yield
    finally:
        vars(trainer).update(before)


def _is_plain(value: Any, depth: int = 4) -> bool:
    """Whether it holds numbers and words alone, in containers or not."""
    if isinstance(value, _PLAIN):
        return True
    if not depth or not isinstance(value, (dict, list, deque, set)) or len(value) > _MANY:
        return False
    inside = [*value.keys(), *value.values()] if isinstance(value, dict) else value
    return all(_is_plain(x, depth - 1) for x in inside)
