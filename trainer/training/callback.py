"""Connects the hooks of any `transformers.Trainer` with a SegmentDriver, so that it trains at a FLOPs ratio.

A segment begins in `on_step_begin` (the optimizer exists, the checkpoint's RNG is restored, and a resumed epoch cannot
begin it twice as `on_epoch_begin` would) and ends in `on_log` after its last step; what it is made of is in
trainer/training/segment_driver.py. Between its steps control.json is read. With a job directory every stage is reported in events.jsonl
and the callback asks for checkpoints; without one it trains at a constant ρ and leaves saving to its Trainer.
Gradient clipping sees the selected tensors only. What hooks do not see, a step's own loss for one, comes from
trainer/training/host_trainer.py.
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

from carbonsched.errors import InputError
from carbonsched.model.protocol import SegmentDone
from trainer.data.streams import StreamWindow, is_stream
from trainer.device import device_seconds
from trainer.distributed.wrapping import twin_before_sharding
from trainer.importance.gradient_pass import model_loss
from trainer.job.budget_schedule import BudgetSchedule
from trainer.job.directives import DirectiveSource, Stopped
from trainer.job.job_dir import find_job_dir, now
from trainer.job.segment import SegmentRecord
from trainer.profiling.batch_form import forward_names
from trainer.profiling.flop_counter import Shape, StepCounter
from trainer.profiling.shaped_costs import trained_tokens
from trainer.training.adapter_choice import AdapterChoice
from trainer.training.gradient_checkpointing import fit_checkpointing
from trainer.training.host_trainer import HostTrainer
from trainer.training.options import Options, check_names
from trainer.training.segment_driver import SegmentDriver
from trainer.training.setup import Training
from trainer.training.step_checks import StepLosses, diverged

log = logging.getLogger("trainer")

STEP_EVENT_S = 1.0
"""Minimum seconds between two `step` events."""


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
        """Raises InputError for an unknown option, and for an invalid value."""
        check_names(options)
        self.options = Options(rho, **options)
        self.job = find_job_dir(self.options.job_dir)
        if self.job is not None and not self.job.path.is_dir():
            raise InputError("job_dir", f"there is no folder {self.job.path}", "make it first")
        self.directives = DirectiveSource(
            self.options.rho, self.job, self.options.stopping, self.options.alone, self.options.silence_s
        )
        self.budget: BudgetSchedule | None = None
        """Set before training begins, if the daemon decides how many steps there are."""
        self.adapters: AdapterChoice | None = None
        """Likewise, if it decides whether to train adapters."""
        self.history: list[SegmentDone] = []
        self.stopped: str | None = None
        """Why training ended before its last step; None if it did not."""
        self.stopped_elsewhere = False
        """Whether the reason was neither a directive nor `stopping`, but another callback or the data."""
        self._driver: SegmentDriver | None = None
        self._host: HostTrainer | None = None
        self._training: Training | None = None
        self._hook: Any = None
        self._twin: Any = None
        self._counter: StepCounter | None = None
        self._in_step = False
        self._shapes: list[Shape] = []
        """Shapes of the current step's micro-batches."""
        self._losses = StepLosses()
        """Losses of the current step's micro-batches; only with a Trainer."""
        self._cost_ratio: float | None = None
        """Cost ratio of the current step, if it is drawn."""
        self._logged = self._epoch_began = 0
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
        """The current segment, or the last one. Raises RuntimeError before the first."""
        return self.driver.segment

    # ---- begin and end of training

    def on_init_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        self._twin = twin_before_sharding(kwargs["model"], args)
        host = HostTrainer.calling(self)
        if host is not None:
            host.guard(self._abandon)

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        self._leave()  # a training that an error ended
        self._driver, self.stopped, self.stopped_elsewhere = None, None, False
        model, loader = kwargs["model"], kwargs["train_dataloader"]
        self._host = host = HostTrainer.calling(self)
        window = StreamWindow(self.options.importance_batches) if host and is_stream(loader) else None
        loss = model_loss if host is None else host.loss
        labelled = host is not None and host.ignores_by_label
        self._training = Training(
            args, model, kwargs["optimizer"], loader, self._twin, loss, window, labelled, host
        )
        self._logged = state.global_step
        if host is not None:
            note_batches = None if window is None else window.note
            host.watch(self._note_loss, self._add_figures, note_batches, self._abandon)
        if window is None:
            self._begin(args, state, self._training)

    def _begin(self, args: TrainingArguments, state: TrainerState, training: Training) -> None:
        self._driver = SegmentDriver.build(
            self.options, self.directives, training, state.max_steps, self.budget, self.adapters
        )
        # after the driver's profile: a copy of the model would copy what the hook holds
        # and before the head's: that one gives an encoder-decoder other labels
        self._hook = training.model.register_forward_pre_hook(
            self._note_shape, with_kwargs=True, prepend=True
        )
        if state.global_step:
            self._driver.restore(_checkpoint(args, state))

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        over = self._driver is not None and self._driver.is_over(state.global_step)
        if self.stopped is None and state.global_step < state.max_steps and not over:
            who = (
                "another callback"
                if control.should_training_stop and self._epoch_began < state.global_step
                else "the data"
            )
            self.stopped = f"{who} ended it after step {state.global_step} of {state.max_steps}"
            self.stopped_elsewhere = True
            log.warning("training stopped early: %s", self.stopped)
        # after a stop under a daemon, a checkpoint continues the segment
        if self._driver is not None and self._driver.is_open and (self.stopped_elsewhere or self.job is None):
            self._end_segment()
        self._leave()

    def _leave(self, *, alone: bool = False) -> None:
        """Remove everything of ours from the Trainer and its model; no error if nothing is there. alone: other ranks do not call this."""
        if self._host is not None:
            self._host.release()
        if self._counter is not None:
            self._counter.stop()
        if self._hook is not None:
            self._hook.remove()
            self.driver.close(alone=alone)
        self._host = self._counter = self._hook = None
        self._in_step = False

    def _abandon(self) -> None:
        """An error ends the training without a further hook: restore the user's model, with everything trainable."""
        self._leave(alone=True)

    def on_epoch_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        self._epoch_began = state.global_step

    # ---- a step

    def on_step_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        if self._driver is None and self._training is not None:
            self._begin(args, state, self._training)
        if self.driver.is_open and state.global_step >= self.segment.end:
            self._end_segment()  # another callback kept the Trainer from logging
        try:
            self.driver.begin_step(state.global_step)
        except Stopped as e:
            self.stopped = str(e)
            raise
        self.directives.count_step()
        self._cost_ratio = self.driver.draw_cost_ratio(state.global_step)
        self._shapes, self._losses, self._in_step = [], StepLosses(), True
        if self.segment.current.counted_ratio is None:
            self._counter = StepCounter()
            self._counter.start()
        self._step_began = device_seconds()

    def _note_shape(self, model: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        if not torch.is_grad_enabled():
            return
        # again before each pass: around a reference model's pass a Trainer may switch checkpointing (TRL's DPO)
        fit_checkpointing(model)
        if self._in_step:
            names = forward_names(model) if args else None
            given = dict(zip(names or (), args, strict=False)) | kwargs
            head = self.driver.model.head
            if head is not None and given.get("labels") is None:
                given["labels"] = head.expected
            shape = self.driver.batches.shape_of(given)
            if (split := self.driver.model.split) is not None and split.share < 1:
                shape = shape.cut(split.share)
            self._shapes.append(shape)
            self.driver.waste.note(given, shape)
            self.driver.model.cache.serve(kwargs, shape)

    def _note_loss(self, loss: Any, batch: Any) -> None:
        if self._in_step:
            self._losses.add(loss, batch)

    def on_pre_optimizer_step(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        lr = args.learning_rate * self.driver.rate.applied
        if self._counter is not None:
            self._counter.stop()
            self.driver.check_gradients(lr)
        scaled = self._host is not None and self._host.scales_gradients
        self.driver.check_losses(self._losses, state.global_step + 1, lr, scaled=scaled)
        self.driver.rate.raise_for_step(self.driver.model.optimizer)

    def on_optimizer_step(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        self.driver.rate.put_back(self.driver.model.optimizer)

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        driver, segment, counter = self.driver, self.segment, self._counter
        self._step_seconds = device_seconds() - self._step_began
        mine = sum(driver.full.flops(shape) for shape in self._shapes)
        flops = (0.0, 0.0) if counter is None else (counter.flops, counter.recomputed)
        loss = self._losses.total
        full, cost, counted, again, stop, saved, losses, lost, trained, tokens, *stock = driver.ranks.sum(
            [
                mine,
                driver.upcoming.flops(segment.current.selected, self._shapes),
                *flops,
                float(self.options.stopping()),
                driver.model.cache.take_saved_flops(),
                loss or 0.0,
                float(loss is not None),
                *trained_tokens(self._shapes),
                *driver.waste.take_step(),
            ]
        )
        counted_flops = None if counter is None else counted
        if self._losses.found:
            segment.passes = max(segment.passes, len(self._shapes) / len(self._losses.found))
        ratio = cost / full if cost else self._cost_ratio
        segment.add_step(full, self._step_seconds, counted_flops, again, ratio, saved)
        driver.waste.add(segment, *stock)
        segment.trained_tokens, segment.tokens = segment.trained_tokens + trained, segment.tokens + tokens
        if lost:
            segment.add_loss(losses / lost, 1)
        if counter is not None:
            driver.note_uncounted(counter.uncounted)
            driver.model.wrapping.reset_compiled()
        self._counter, self._in_step = None, False
        self._save_began = device_seconds()
        ended = state.global_step >= segment.end
        if ended:
            driver.check_weights(state.global_step, args.learning_rate * driver.rate.applied)
            control.should_log = True
            control.should_save = control.should_save or self.job is not None
            control.should_training_stop |= driver.is_over(state.global_step)
        if stop:
            self._stop("signal", control)
        elif not ended:
            self._poll_directive(control)

    def _poll_directive(self, control: TrainerControl) -> None:
        """Obey a directive that has come between two steps of a segment."""
        cools = self.driver.cools
        directive, wait = self.driver.poll_directive()
        if directive is not None and directive.action == "stop":
            self._stop(directive.reason, control)
        elif wait or (directive is not None and directive.checkpoint) or self.driver.cools != cools:
            control.should_save = (
                True  # also when the cooldown begins: a process killed during it resumes in it
            )

    def _stop(self, reason: str, control: TrainerControl) -> None:
        self.stopped = reason
        control.should_training_stop = True
        control.should_save = control.should_save or self.job is not None

    # ---- after it

    def _add_figures(self, logs: dict[str, Any]) -> None:
        """Add ρ and FLOPs to a loss that the Trainer is about to log, so that they reach its reporting tools."""
        if self._driver is not None and self._driver.has_segment and ("loss" in logs or "train_loss" in logs):
            if "learning_rate" in logs:  # the scheduler's rate; the last step used a multiple of it
                logs["learning_rate"] *= self._driver.rate.applied
            logs.update(self._driver.figures(whole="loss" not in logs))

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
        self._logged = state.global_step
        if self._host is None and steps:
            if not math.isfinite(loss):
                raise diverged(f"the loss became {loss}", state.global_step, args.learning_rate)
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
            rate = self.driver.rate.applied
            lr = logs.get("learning_rate", args.learning_rate * rate) * (rate if self._host is None else 1.0)
            finite = loss if math.isfinite(loss) else None
            self.driver.send(segment.step_event(now(), schedule, finite, lr, self._step_seconds))
        if ended and self.driver.is_open:
            self._end_segment()
        self._save_began = device_seconds()

    def _end_segment(self) -> None:
        done = self.driver.end_segment()
        if done is not None:
            self.history.append(done)

    def on_save(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        if self.driver.is_open and state.global_step >= self.segment.end:
            self._end_segment()
        self.driver.save(_checkpoint(args, state), state.global_step, self._save_began)


def _checkpoint(args: TrainingArguments, state: TrainerState) -> Path:
    return Path(args.output_dir) / f"checkpoint-{state.global_step}"
