"""Connects the hooks of any `transformers.Trainer` with a SegmentDriver, so that it trains at a FLOPs ratio.

A segment begins in `on_step_begin` (the optimizer exists, the checkpoint's RNG is restored, and a resumed epoch cannot
begin it twice as `on_epoch_begin` would) and ends in `on_log` after its last step; what it is made of is in
trainer/training/segment_driver.py. Between its steps control.json is read. With a job directory every stage is reported in events.jsonl
and the callback asks for checkpoints; without one it trains at a constant ρ and leaves saving to its Trainer.
Gradient clipping sees the selected tensors only.
"""

import inspect
import logging
import math
import time
from dataclasses import fields
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from carbonsched.errors import CarbonschedError
from carbonsched.model.protocol import SegmentDone
from trainer.device import device_seconds
from trainer.distributed.wrapping import twin_before_sharding
from trainer.importance.gradient_pass import model_loss
from trainer.job.directives import DirectiveSource, Stopped
from trainer.job.job_dir import find_job_dir, now
from trainer.job.segment import SegmentRecord
from trainer.profiling.flop_counter import Shape, StepCounter
from trainer.training.host_trainer import HostTrainer
from trainer.training.options import Options
from trainer.training.segment_driver import SegmentDriver, Training

log = logging.getLogger("trainer")

STEP_EVENT_S = 1.0
"""Seconds between two `step` events at least."""


class GreenTrainerCallback(TrainerCallback):  # type: ignore[misc]
    """Steers a Trainer, segment by segment. Its arguments are those of `Options`.

    `history` holds the `SegmentDone` of every segment that ended in this process.

    Example::

        callback = GreenTrainerCallback(rho=0.5)
        Trainer(model, args, train_dataset=rows, callbacks=[callback]).train()
        ratios = [done.rho_realised for done in callback.history]
    """

    __signature__ = inspect.signature(Options)

    def __init__(self, rho: float = 0.6, **options: Any) -> None:
        """Raises InputError for a method or an importance that is not known."""
        self.options = Options(rho, **options)
        self.job = find_job_dir(self.options.job_dir)
        self.directives = DirectiveSource(
            rho, self.job, self.options.stopping, self.options.alone, self.options.silence_s
        )
        self.history: list[SegmentDone] = []
        self.stopped: str | None = None
        """Why training ended before its last step; None where it did not."""
        self._driver: SegmentDriver | None = None
        self._twin: Any = None
        self._counter: StepCounter | None = None
        self._in_step = False
        self._shapes: list[Shape] = []
        """Of the running step's micro-batches."""
        self._cost_ratio: float | None = None
        """Of the running step, where it is drawn."""
        self._logged = 0
        self._last_step_event = 0.0
        self._step_began = self._step_seconds = self._save_began = 0.0

    @classmethod
    def of(cls, options: Options) -> "GreenTrainerCallback":
        return cls(**{field.name: getattr(options, field.name) for field in fields(options)})

    @property
    def driver(self) -> SegmentDriver:
        """Raises RuntimeError before training has begun."""
        if self._driver is None:
            raise RuntimeError("training has not begun")
        return self._driver

    @property
    def segment(self) -> SegmentRecord:
        """The one that runs, or the last that ran. Raises RuntimeError before the first."""
        return self.driver.segment

    # ---- begin and end of training

    def on_init_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        self._twin = twin_before_sharding(kwargs["model"], args)

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        model = kwargs["model"]
        host = HostTrainer.calling(self)
        loss = model_loss if host is None else host.loss
        training = Training(args, model, kwargs["optimizer"], kwargs["train_dataloader"], self._twin, loss)
        self._driver = SegmentDriver.build(self.options, self.directives, training, state.max_steps)
        # after the driver's profile: a copy of the model would copy what the hook holds
        self._hook = model.register_forward_pre_hook(self._note_shape, with_kwargs=True)
        self._logged = state.global_step
        if state.global_step:
            self._driver.restore(_checkpoint(args, state))

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        self._hook.remove()
        self.driver.close()

    # ---- a step

    def on_step_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        try:
            self.driver.begin_step(state.global_step)
        except Stopped as e:
            self.stopped = str(e)
            raise
        self.directives.count_step()
        self._cost_ratio = self.driver.draw_cost_ratio(state.global_step)
        self._shapes, self._in_step = [], True
        if self.segment.current.counted_ratio is None:
            self._counter = StepCounter()
            self._counter.start()
        self._step_began = device_seconds()

    def _note_shape(self, model: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        if self._in_step and torch.is_grad_enabled():
            shape = self.driver.batches.shape_of(kwargs)
            self._shapes.append(shape)
            self.driver.model.cache.serve(kwargs, shape)

    def on_pre_optimizer_step(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        if self._counter is not None:
            self._counter.stop()

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        driver, segment, counter = self.driver, self.segment, self._counter
        self._step_seconds = device_seconds() - self._step_began
        mine = sum(driver.full.flops(shape) for shape in self._shapes)
        flops = (0.0, 0.0) if counter is None else (counter.flops, counter.recomputed)
        full, counted, again, stop, saved = driver.ranks.sum(
            [mine, *flops, float(self.options.stopping()), driver.model.cache.take_saved_flops()]
        )
        counted_flops = None if counter is None else counted
        segment.add_step(full, self._step_seconds, counted_flops, again, self._cost_ratio, saved)
        if counter is not None:
            driver.model.wrapping.reset_compiled()
        self._counter, self._in_step = None, False
        self._save_began = device_seconds()
        ended = state.global_step >= segment.end
        if ended:
            control.should_log = True
            control.should_save = control.should_save or self.job is not None
        if stop:
            self._stop("signal", control)
        elif not ended:
            self._poll_directive(control)

    def _poll_directive(self, control: TrainerControl) -> None:
        """Between two steps of a segment: obey a directive that has come."""
        directive, wait = self.driver.poll_directive()
        if directive is not None and directive.action == "stop":
            self._stop(directive.reason, control)
        elif wait or (directive is not None and directive.checkpoint):
            control.should_save = True

    def _stop(self, reason: str, control: TrainerControl) -> None:
        self.stopped = reason
        control.should_training_stop = True
        control.should_save = control.should_save or self.job is not None

    # ---- after it

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, float] | None = None,
        **kwargs: Any,
    ) -> None:
        if self._driver is None or not self._driver.has_segment or not logs or "loss" not in logs:
            return
        segment, schedule = self.segment, self.driver.schedule
        loss, steps = logs["loss"], state.global_step - self._logged
        if not math.isfinite(loss):
            raise CarbonschedError(
                f"the loss became {loss} at step {state.global_step}: lower train.lr (now {args.learning_rate:g}) "
                "or train in fp32"
            )
        self._logged = state.global_step
        segment.add_loss(loss, steps)
        ended = state.global_step >= segment.end
        if ended or time.monotonic() - self._last_step_event >= STEP_EVENT_S:
            self._last_step_event = time.monotonic()
            log.info(
                "segment %d/%d step %d/%d loss %.4f rho %.3f %.2f s/step",
                segment.k + 1,
                schedule.segments,
                state.global_step,
                schedule.steps,
                loss,
                segment.rho_planned,
                self._step_seconds,
            )
            lr = logs.get("learning_rate", args.learning_rate)
            self.driver.send(segment.step_event(now(), schedule, loss, lr, self._step_seconds))
        if ended:
            self.history.append(self.driver.end_segment())
        self._save_began = device_seconds()

    def on_save(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        self.driver.save(_checkpoint(args, state), state.global_step, self._save_began)


def _checkpoint(args: TrainingArguments, state: TrainerState) -> Path:
    return Path(args.output_dir) / f"checkpoint-{state.global_step}"
