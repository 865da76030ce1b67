"""Times the parts of every training step: forward without and with gradient, backward, clipping, update.

It stands on hooks that torch has for all modules and optimizers, and wraps what has none, so what is timed is what users run. Importance
passes and evaluation lie outside of steps and are not in it.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.module import register_module_forward_hook, register_module_forward_pre_hook
from torch.optim.optimizer import register_optimizer_step_post_hook, register_optimizer_step_pre_hook
from transformers import TrainerCallback

from trainer.device import device_seconds
from trainer.job.job_dir import write_json
from trainer.job.step_parts import StepParts


class StepClock(TrainerCallback):  # type: ignore[misc]
    """A Trainer's callback, to be added behind those that work at a step's begin, or a context around steps of one's own.

    On a GPU the end of each part is waited for, which costs a little time of its own.

    Example:
        >>> model = nn.Linear(4, 1)
        >>> with StepClock() as clock:
        ...     clock.begin_step()
        ...     model(torch.ones(2, 4)).sum().backward()
        ...     torch.optim.SGD(model.parameters(), lr=0.1).step()
        ...     clock.end_step()
        >>> clock.parts.steps, clock.parts.backward_s > 0
        (1, True)
    """

    def __init__(self, file: Path | None = None) -> None:
        """file: where the parts are written when training ends, added to those that it holds."""
        self._file = file
        self._seconds = {name: 0.0 for name in StepParts.model_fields if name.endswith("_s")}
        self._steps, self._on = 0, False
        self._calls: list[tuple[nn.Module, bool, float]] = []
        """Modules being called where a forward pass began or gradients went off: (which, with gradients, since when)."""
        self._update_began = 0.0
        self._undo: list[Callable[[], None]] = []

    @property
    def parts(self) -> StepParts:
        return StepParts(steps=self._steps, **self._seconds)

    def begin_step(self) -> None:
        self._on = True

    def end_step(self) -> None:
        self._on, self._calls = False, []
        self._steps += 1

    def on_train_begin(self, *given: Any, **kwargs: Any) -> None:
        self.__enter__()

    def on_step_begin(self, *given: Any, **kwargs: Any) -> None:
        self.begin_step()

    def on_step_end(self, *given: Any, **kwargs: Any) -> None:
        self.end_step()

    def on_train_end(self, *given: Any, **kwargs: Any) -> None:
        self.__exit__()
        if self._file is not None:
            text = self._file.read_text(encoding="utf-8") if self._file.exists() else "{}"
            write_json(self._file, StepParts.model_validate_json(text).add(self.parts).dump())

    def __enter__(self) -> "StepClock":
        hooks = (
            register_module_forward_pre_hook(self._enter),
            register_module_forward_hook(self._leave, always_call=True),
            register_optimizer_step_pre_hook(self._begin_update),
            register_optimizer_step_post_hook(self._end_update),
        )
        self._undo = [hook.remove for hook in hooks]
        self._wrap(Tensor, "backward", "backward_s")
        self._wrap(nn.utils, "clip_grad_norm_", "clipping_s")
        return self

    def __exit__(self, *error: object) -> None:
        for undo in self._undo:
            undo()
        self._undo = []

    def _enter(self, module: nn.Module, args: Any) -> None:
        if not self._on:
            return
        with_gradients = torch.is_grad_enabled()
        if torch._C._current_graph_task_id() != -1:  # checkpointing runs it again: part of the backward pass
            return
        if not self._calls or (self._calls[-1][1] and not with_gradients):
            self._calls.append((module, with_gradients, device_seconds()))

    def _leave(self, module: nn.Module, args: Any, result: Any) -> None:
        if not self._calls or self._calls[-1][0] is not module:
            return
        _, with_gradients, began = self._calls.pop()
        seconds = device_seconds() - began
        self._seconds["forward_s" if with_gradients else "forward_no_grad_s"] += seconds
        if self._calls:  # the call around it goes on: its time is its own
            outer, graph, since = self._calls[-1]
            self._calls[-1] = (outer, graph, since + seconds)

    def _begin_update(self, optimizer: Any, args: Any, kwargs: Any) -> None:
        self._update_began = device_seconds()

    def _end_update(self, optimizer: Any, args: Any, kwargs: Any) -> None:
        if self._on:
            self._seconds["update_s"] += device_seconds() - self._update_began

    def _wrap(self, owner: Any, name: str, part: str) -> None:
        whole = getattr(owner, name)

        def timed(*args: Any, **kwargs: Any) -> Any:
            began = device_seconds()
            try:
                return whole(*args, **kwargs)
            finally:
                if self._on:
                    self._seconds[part] += device_seconds() - began

        setattr(owner, name, timed)
        self._undo.append(lambda: setattr(owner, name, whole))
