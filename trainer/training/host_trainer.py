"""Reaches what the hooks of `TrainerCallback` leave out: the Trainer that calls them, its own loss, what it logs.

A callback gets the model and the optimizer, not the Trainer. What its user wants of a loss (label smoothing, `compute_loss_func`, an
overridden `compute_loss`) only the Trainer knows, so it is looked up among the callers of the hook that runs. While it trains, three of
its methods are wrapped: no hook sees the loss of a step, for the Trainer filters what it logs, and what is added to a log by `on_log` comes
after the log has been kept and after TensorBoard has seen it.
"""

import copy
import functools
import sys
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from types import FrameType
from typing import Any

from torch import Tensor, nn
from transformers import Trainer, TrainerCallback

from trainer.profiling.labelled_head import LabelledHead

_PLAIN = (int, float, str, bool, type(None))
_MANY = 10_000
"""A larger container does not hold step counts."""


_ABSENT = object()


@dataclass(slots=True)
class HostTrainer:
    """The Trainer that a callback belongs to.

    Example::

        host = HostTrainer.calling(callback)  # inside one of its hooks
        loss = model_loss if host is None else host.loss
    """

    trainer: Any
    _wrapped: dict[str, tuple[Any, Any]] = field(default_factory=dict)
    """By name: the original method, and the Trainer's own attribute of that name, if it had one."""

    @classmethod
    def calling(cls, callback: TrainerCallback) -> "HostTrainer | None":
        """The Trainer whose hook is running `callback`; None if another loop calls it."""
        frame: FrameType | None = sys._getframe(1)
        while frame is not None:
            caller = frame.f_locals.get("self")
            if isinstance(caller, Trainer) and callback in caller.callback_handler.callbacks:
                return cls(caller)
            frame = frame.f_back
        return None

    def loss(self, model: nn.Module, batch: Mapping[str, Any]) -> Tensor:
        """The loss of `batch` as the Trainer computes it for a step of this batch alone; its own step counts do not change."""
        trainer = self.trainer
        with _keep_counts(trainer):
            get_batches, _ = self._wrapped.get("get_batch_samples", (trainer.get_batch_samples, None))
            _, items = get_batches(iter([batch]), 1, trainer.args.device)
            inputs = trainer._prepare_inputs(dict(batch))
            with trainer.compute_loss_context_manager():
                loss: Tensor = trainer.compute_loss(model, inputs, num_items_in_batch=items)
        return loss

    @property
    def scales_gradients(self) -> bool:
        """Whether a GradScaler (fp16) skips steps with gradients that are not finite."""
        return getattr(self.trainer.accelerator, "scaler", None) is not None

    @property
    def ignores_by_label(self) -> bool:
        """Whether labels of -100 are left out of the loss: known for the losses of transformers and TRL."""
        own = type(self.trainer).compute_loss.__module__.partition(".")[0] not in ("transformers", "trl")
        return not own and self.trainer.compute_loss_func is None

    @property
    def leaves_logits_alone(self) -> bool:
        """Whether only the model's own loss, or label smoothing, reads the logits of a training step."""
        return self._transformers_loss and self.trainer.compute_loss_func is None

    @property
    def _transformers_loss(self) -> bool:
        return bool(type(self.trainer).compute_loss.__module__.partition(".")[0] == "transformers")

    def mind_head(self, head: LabelledHead) -> None:
        """Until `release`: let label smoothing, for which the model does not get the labels, use the logits that `head` leaves."""
        trainer, smoother = self.trainer, self.trainer.label_smoother
        if smoother is None:
            return

        def compute_loss(compute: Any, model: Any, inputs: Any, *args: Any, **kwargs: Any) -> Any:
            head.expected = inputs.get("labels")
            try:
                return compute(model, inputs, *args, **kwargs)
            finally:
                head.expected = None

        def smooth(output: Any, labels: Any, shift_labels: bool = False, **kwargs: Any) -> Any:
            if head.targets is not None:
                labels, shift_labels = head.targets, False
            return smoother(output, labels, shift_labels=shift_labels, **kwargs)

        self._wrap("compute_loss", compute_loss, None)
        self._wrapped["label_smoother"] = (smoother, smoother)
        trainer.label_smoother = smooth

    def watch(
        self,
        note_loss: Callable[[Tensor, Any], None],
        add_figures: Callable[[dict[str, Any]], None],
        note_batches: Callable[[list[Any]], None] | None = None,
        on_error: Callable[[], None] | None = None,
    ) -> None:
        """Until `release`: call `note_loss` with the loss of each micro-batch, and the batch; `add_figures` with what is about to be
        logged; `note_batches` with the batches of a step that is about to begin; `on_error` before what a step raises ends the training: no hook
        is called then."""

        def training_step(step: Any, model: Any, inputs: Any, *args: Any, **kwargs: Any) -> Any:
            loss = step(model, inputs, *args, **kwargs)
            note_loss(loss, inputs)
            return loss

        def log(write: Any, logs: dict[str, Any], *args: Any, **kwargs: Any) -> Any:
            add_figures(logs)
            return write(logs, *args, **kwargs)

        def get_batch_samples(get: Any, *args: Any, **kwargs: Any) -> Any:
            found = get(*args, **kwargs)
            if note_batches is not None:
                note_batches(found[0])
            return found

        for around in (training_step, log, get_batch_samples):
            self._wrap(around.__name__, around, on_error)

    def guard(self, on_error: Callable[[], None]) -> None:
        """Call `on_error` before an error ends the next `train`, in a step or between two. Call before training begins."""
        trainer = self.trainer
        train = trainer.train

        @functools.wraps(train)
        def guarded(*args: Any, **kwargs: Any) -> Any:
            try:
                return train(*args, **kwargs)
            except BaseException:  # Ctrl-C, too
                on_error()
                raise

        trainer.train = guarded

    def release(self) -> None:
        """Restore the Trainer's own methods."""
        for name, (_, before) in self._wrapped.items():
            if before is _ABSENT:
                delattr(self.trainer, name)
            else:
                setattr(self.trainer, name, before)
        self._wrapped.clear()

    def _wrap(self, name: str, around: Callable[..., Any], on_error: Callable[[], None] | None) -> None:
        method = getattr(self.trainer, name)

        @functools.wraps(method)
        def wrapped(*args: Any, **kwargs: Any) -> Any:
            try:
                return around(method, *args, **kwargs)
            except BaseException:  # Ctrl-C, too
                if on_error is not None:
                    on_error()
                raise

        self._wrapped[name] = (method, vars(self.trainer).get(name, _ABSENT))
        setattr(self.trainer, name, wrapped)


@contextmanager
def _keep_counts(trainer: Any) -> Iterator[None]:
    """A context in which a loss may count freely: TRL's Trainers accumulate metrics that they log later."""
    before = {name: copy.deepcopy(value) for name, value in vars(trainer).items() if _is_plain(value)}
    try:
        yield
    finally:
        vars(trainer).update(before)


def _is_plain(value: Any, depth: int = 4) -> bool:
    """Whether it consists only of numbers and words, in containers or not."""
    if isinstance(value, _PLAIN):
        return True
    if not depth or not isinstance(value, (dict, list, deque, set)) or len(value) > _MANY:
        return False
    inside = [*value.keys(), *value.values()] if isinstance(value, dict) else value
    return all(_is_plain(x, depth - 1) for x in inside)
