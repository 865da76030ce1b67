"""GreenTrainerCallback: steers any `transformers.Trainer` by a FLOPs ratio, segment by segment.

A segment begins in `on_step_begin` (the optimizer exists, the checkpoint's RNG is restored, and a resumed epoch cannot
begin it twice as `on_epoch_begin` would): importance, frontier, directive, selection. It ends in `on_log` after its last
step. Between its steps control.json is looked at. With a job directory every stage is reported in events.jsonl and the
callback asks for checkpoints; without one it trains at a constant ρ and leaves saving to its Trainer.

    trainer = Trainer(model, args, train_dataset=rows, callbacks=[GreenTrainerCallback(rho=0.5)])

Gradient clipping sees the selected tensors only. One process: DDP would need wrapping anew at each selection.
"""

import logging
import math
import os
import time
from collections.abc import Callable, Collection
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from carbonsched.errors import CarbonschedError, InputError
from carbonsched.model.protocol import Checkpoint, Event, SegmentDone, SegmentReady, Step, Warned
from trainer import checkpoint
from trainer.flopcount import FullCost, Shape, StepCounter
from trainer.flops import profile
from trainer.importance import Importance, measure
from trainer.job import JobDir, now
from trainer.meta import meta_twin
from trainer.methods import Choice, Method, check_method
from trainer.order import coming_batches, own_random
from trainer.segment import Schedule, Segment, rows_in
from trainer.steering import Answer, Steering, Stopped

log = logging.getLogger("trainer")

STEP_EVENT_S = 1.0
"""`step` events are throttled to one in so many seconds."""
LOOKED_AT = 256
"""Batches of a coming segment whose shapes are looked at; of more an even sample."""
PASS_STEPS = 1.3
"""Full steps that an importance pass takes, measured 1.1 to 1.5: what a step takes before one was seen."""
_EPSILON = 1e-9


def train_only(model: nn.Module, names: tuple[str, ...], among: Collection[str]) -> None:
    """Of `among` train `names`. Gradients go first: AdamW would still move a frozen tensor that has a stale one."""
    chosen = set(names)
    for name, parameter in model.named_parameters():
        parameter.grad = None
        if name in among:
            parameter.requires_grad_(name in chosen)


class GreenTrainerCallback(TrainerCallback):  # type: ignore[misc]
    """`history` holds the `SegmentDone` of every segment that ended in this process."""

    def __init__(
        self,
        rho: float = 0.6,
        *,
        job_dir: str | Path | None = None,
        method: str = "greentrainer",
        segment: int | str = "epoch",
        importance_batches: int = 1,
        seed: int = 0,
        shape: tuple[int, int | None] | None = None,
        keep_checkpoints: int = 2,
        stopping: Callable[[], bool] = lambda: False,
        patience_s: float | None = None,
    ) -> None:
        """rho: constant without `job_dir`; with it, for the first segment where no directive comes in time.

        segment: `epoch` or optimizer steps. shape: (seq, target_seq) to profile at; None: of a drawn batch. stopping:
        polled between steps, importance batches and while waiting; once it holds, training ends behind a checkpoint.
        """
        check_method(method)
        self.job = None if job_dir is None else JobDir(Path(job_dir))
        self.steering = Steering(rho, self.job, stopping)
        if patience_s is not None:
            self.steering.patience_s = patience_s
        self.method_name, self.segment_length, self.batches, self.seed = (
            method,
            segment,
            importance_batches,
            seed,
        )
        self.shape, self.keep_checkpoints, self.stopping = shape, keep_checkpoints, stopping
        self.history: list[SegmentDone] = []
        self.stopped: str | None = None
        """Why training ended before its last step; None where it did not."""
        self._segment: Segment | None = None
        self._counter: StepCounter | None = None
        self._in_step = False
        self._shapes: list[Shape] = []
        """Of the running step's micro-batches."""
        self._hold: str | None = None
        self._resumed = False
        self._seconds_full: float | None = None
        self._logged = 0
        self._told = 0.0
        self._step_began = self._step_seconds = self._save_began = 0.0

    @property
    def segment(self) -> Segment:
        """The one that runs, or the last that ran. Raises RuntimeError before the first."""
        if self._segment is None:
            raise RuntimeError("no segment has begun")
        return self._segment

    # ---- begin and end of training

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        model, loader = kwargs["model"], kwargs["train_dataloader"]
        if args.world_size > 1:
            raise InputError(
                "trainer", f"{args.world_size} processes", "GreenTrainerCallback steers one process"
            )
        if not hasattr(loader.dataset, "__len__"):
            raise InputError(
                "trainer", "its data set has no length", "use one that can be drawn from by index"
            )
        self._accumulation: int = args.gradient_accumulation_steps
        self._rows: int = len(loader.dataset)
        self._batch: int = min(args.train_batch_size, self._rows)
        per_epoch = max(-(-len(loader) // self._accumulation), 1)
        length = per_epoch if isinstance(self.segment_length, str) else self.segment_length
        self.schedule = Schedule(state.max_steps, per_epoch, length)
        self._encoder_decoder = bool(getattr(model.config, "is_encoder_decoder", False))
        if self.shape is None:
            drawn = self._shape_of(self._draw(loader, 0)[0])
            self.shape = (drawn.seq, drawn.target_seq)
        self._nominal = Shape(self._batch, *self.shape)
        if hasattr(model, "disable_input_require_grads") and not hasattr(model, "peft_config"):
            # with checkpointing transformers makes the embeddings' output require a gradient, which only the reentrant
            # kind needs: the activation gradient would go down to the bottom whatever is frozen (ρ .93 for .80)
            model.disable_input_require_grads()
        # taken before the hook below is on: a copy of the model would copy what the hook holds
        twin = meta_twin(model)
        measured = profile(twin, *self._nominal)
        held = {id(p) for group in kwargs["optimizer"].param_groups for p in group["params"]}
        self._trainable = frozenset(n for n, p in model.named_parameters() if id(p) in held)
        among = self._trainable & {t.name for t in measured.tensors}
        if len(among) < len(measured.tensors):
            self._warn(
                f"{len(measured.tensors) - len(among)} tensors are not in the optimizer: they stay frozen"
            )
        self.method = Method(self.method_name, measured, self.seed, among)
        self._full = FullCost(lambda shape: profile(twin, *shape).full_flops)
        self._full.learn(self._nominal, measured.full_flops)
        self._hook = model.register_forward_pre_hook(self._see, with_kwargs=True)
        self._logged = state.global_step
        if state.global_step:
            self._restore(Path(args.output_dir) / f"checkpoint-{state.global_step}")

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        self._hook.remove()
        train_only(kwargs["model"], tuple(self._trainable), self._trainable)

    # ---- a step

    def on_step_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        model, step = kwargs["model"], state.global_step
        try:
            if self._resumed:
                self._resumed = False
                self._open(self.segment, step, model)
            elif self._segment is None or step >= self.segment.end:
                self._begin(step, model, kwargs["optimizer"], kwargs["train_dataloader"])
            elif self._hold is not None:
                why, self._hold = self._hold, None
                self._apply(self.steering.hold(self.segment.k, step, why), model)
        except Stopped as e:
            self.stopped = str(e)
            raise
        self.steering.step_started()
        self._shapes, self._in_step = [], True
        if self.segment.current.counted_ratio is None:
            self._counter = StepCounter()
            self._counter.start()
        self._step_began = time.monotonic()

    def on_pre_optimizer_step(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        if self._counter is not None:
            self._counter.stop()

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        segment, counter = self.segment, self._counter
        self._step_seconds = time.monotonic() - self._step_began
        full = sum(self._full.flops(shape) for shape in self._shapes)
        if counter is not None:
            segment.ran(full, self._step_seconds, counter.flops, counter.recomputed)
        else:
            segment.ran(full, self._step_seconds, None, 0.0)
        self._counter, self._in_step = None, False
        self._save_began = time.monotonic()
        if state.global_step >= segment.end:
            control.should_log = True
            control.should_save = control.should_save or self.job is not None
            if self.stopping():
                self._stop("signal", control)
        else:
            self._between(segment, control, kwargs["model"])

    def _between(self, segment: Segment, control: TrainerControl, model: nn.Module) -> None:
        """Between two steps of a segment: has anything been said?"""
        if self.stopping():
            return self._stop("signal", control)
        directive = self.steering.look(segment.k)
        if directive is not None:
            if directive.action == "stop":
                return self._stop(directive.reason, control)
            if directive.action == "wait":
                self._hold = directive.reason
            else:
                rho = segment.directed if directive.rho is None else directive.rho
                self._apply(Answer(rho, directive.seq), model)
            control.should_save = control.should_save or directive.checkpoint
        self._hold = self._hold or self.steering.lapsed()
        if self._hold is not None:
            control.should_save = True
        return None

    def _stop(self, reason: str, control: TrainerControl) -> None:
        self.stopped = reason
        control.should_training_stop = True
        control.should_save = control.should_save or self.job is not None

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, float] | None = None,
        **kwargs: Any,
    ) -> None:
        if self._segment is None or not logs or "loss" not in logs:
            return
        segment = self._segment
        loss, steps = logs["loss"], state.global_step - self._logged
        if not math.isfinite(loss):
            raise CarbonschedError(
                f"the loss became {loss} at step {state.global_step}: lower train.lr (now {args.learning_rate:g}) "
                "or train in fp32"
            )
        self._logged = state.global_step
        segment.loss_sum += loss * steps
        segment.loss_steps += steps
        ended = state.global_step >= segment.end
        if ended or time.monotonic() - self._told >= STEP_EVENT_S:
            self._told = time.monotonic()
            log.info(
                "segment %d/%d step %d/%d loss %.4f rho %.3f %.2f s/step",
                segment.k + 1,
                self.schedule.segments,
                state.global_step,
                self.schedule.steps,
                loss,
                segment.planned,
                self._step_seconds,
            )
            self._send(
                Step(
                    at=now(),
                    k=segment.k,
                    step=state.global_step,
                    steps=self.schedule.steps,
                    loss=loss,
                    lr=logs.get("learning_rate", args.learning_rate),
                    seconds=self._step_seconds,
                    rho=segment.directed,
                )
            )
        if ended:
            self._end(segment)
        self._save_began = time.monotonic()

    def on_save(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        folder = Path(args.output_dir) / f"checkpoint-{state.global_step}"
        segment = self.segment
        ended = state.global_step >= segment.end
        saved = {
            "step": state.global_step,
            "segment": None if ended else segment.dump(),
            "first_importance": self.method.first,
            "seconds_full": self._seconds_full,
        }
        size = checkpoint.seal(folder, saved)
        if self.job is None:
            return
        if folder.parent.resolve() == self.job.checkpoints.resolve():  # never in a folder of the user's own
            checkpoint.prune(folder.parent, self.keep_checkpoints)
        self._send(
            Checkpoint(
                at=now(),
                k=segment.k,
                step=state.global_step,
                path=os.path.relpath(folder, self.job.path),
                seconds=time.monotonic() - self._save_began,
                bytes=size,
            )
        )

    # ---- a segment

    def _begin(self, step: int, model: nn.Module, optimizer: Any, loader: Any) -> None:
        k, _, end = self.schedule.bounds(step)
        # a checkpoint of someone else's making has no segment of ours: what is left of the segment becomes one
        segment = Segment(k, step, end, self._planned_full(loader, step, end))
        if self.method.measures():
            segment.importance = self._measure(segment, model, optimizer, loader)
        else:
            segment.importance = self.method.importance(k, None)
        self._segment = segment
        self._open(segment, step, model)

    def _measure(self, segment: Segment, model: nn.Module, optimizer: Any, loader: Any) -> dict[str, float]:
        # a process that ended while it waited has measured these very weights: that pass is paid
        kept = checkpoint.kept_importance(self.job.checkpoints, segment.first) if self.job else None
        if kept is not None:
            found = Importance(**kept)
        else:
            device = next(model.parameters()).device
            batches = [
                {name: tensor.to(device) for name, tensor in batch.items()}
                for batch in self._draw(loader, segment.k)
            ]
            found = measure(model, optimizer, batches, seed=self.seed + segment.k, stop=self.stopping)
            if self.job is not None:
                checkpoint.keep_importance(self.job.checkpoints, segment.first, asdict(found))
        segment.importance_batches = len(found.flops)
        segment.importance_flops = sum(found.flops)
        segment.importance_seconds = found.seconds
        segment.share = segment.importance_flops / segment.expected_full
        self._seconds_full = found.seconds / len(found.flops) / PASS_STEPS * self._accumulation
        log.info(
            "segment %d: importance of %d tensors %s (%d batches, %.1f s, moments of age %d)",
            segment.k + 1,
            len(found.values),
            "measured" if kept is None else "as measured before",
            len(found.flops),
            found.seconds,
            found.age,
        )
        return self.method.importance(segment.k, found.values)

    def _open(self, segment: Segment, step: int, model: nn.Module) -> None:
        """Offer the frontier, take the answer. Also for what is left of a segment that was interrupted."""
        began = time.monotonic()
        self._choice: Choice = self.method.choice(segment.importance)
        points = tuple(p.model_copy(update={"rho": p.rho + segment.share}) for p in self._choice.points)
        segment.selection_seconds += time.monotonic() - began
        self._send(
            SegmentReady(
                at=now(),
                k=segment.k,
                segments=self.schedule.segments,
                first_step=step,
                steps=segment.end - step,
                steps_left=self.schedule.steps - step,
                importance_batches=segment.importance_batches,
                frontier=points,
                flops_full=segment.expected_full - segment.flops_full,
                rho_floor=self._choice.floor + segment.share,
                seconds_per_step=self._seconds_full,
                importance_seconds=segment.importance_seconds,
            )
        )
        self._apply(self.steering.ask(segment.k, step), model)

    def _apply(self, answer: Answer, model: nn.Module) -> None:
        """Train at the answer's ρ from the next step on; the same ρ means the same selection."""
        segment = self.segment
        segment.directive_seq = answer.seq
        if segment.stretches and answer.rho == segment.directed:
            train_only(model, segment.current.selected, self._trainable)
            return
        began = time.monotonic()
        floor = self._choice.floor + segment.share
        if answer.rho < floor - _EPSILON:
            self._warn(
                f"segment {segment.k}: rho {answer.rho:.4g} is below the floor {floor:.4f} of {self.method.name}; "
                "training at the floor"
            )
        selection = self._choice.select(answer.rho - segment.share)
        segment.directed = answer.rho
        segment.select(selection.selected, self.method.ratio(selection.selected))
        train_only(model, selection.selected, self._trainable)
        segment.selection_seconds += time.monotonic() - began

    def _end(self, segment: Segment) -> None:
        if segment.current.cost_ratio > 0.95:
            self._seconds_full = segment.step_seconds / segment.steps_done
        elif not self.method.measures():
            self._seconds_full = segment.step_seconds / segment.steps_done / segment.current.cost_ratio
        done = SegmentDone(
            at=now(),
            k=segment.k,
            first_step=segment.first,
            steps=segment.steps,
            rho_directed=segment.directed,
            rho_planned=segment.planned,
            rho_realised=segment.realised,
            flops=segment.flops,
            flops_full=segment.flops_full,
            flops_recomputed=segment.flops_recomputed,
            loss=segment.loss,
            seconds=segment.seconds,
            importance_seconds=segment.importance_seconds,
            selection_seconds=segment.selection_seconds,
            selected=segment.current.selected,
            directive_seq=segment.directive_seq,
        )
        self.history.append(done)
        self._send(done)

    # ---- helpers

    def _planned_full(self, loader: Any, first: int, end: int) -> float:
        """T_full of steps [first, end): of the batches to come, or of as many rows at the profiled shape."""
        batches = coming_batches(loader, self.schedule, first, end, self._accumulation)
        if not batches:
            rows = rows_in(self.schedule, first, end, self._rows, self._batch, self._accumulation)
            return self._full.flops(self._nominal) * rows / self._batch
        looked_at = batches[:: -(-len(batches) // LOOKED_AT)]
        with own_random(0):  # a collator may draw
            shapes = [self._shape_of(loader.collate_fn([loader.dataset[i] for i in b])) for b in looked_at]
        return sum(self._full.flops(shape) for shape in shapes) * len(batches) / len(shapes)

    def _restore(self, folder: Path) -> None:
        saved = checkpoint.read(folder)
        if saved is None:
            self._warn(f"{folder.name} holds no segment of ours: the selection begins anew")
            return
        self.method.first = saved["first_importance"]
        self._seconds_full = saved["seconds_full"]
        if saved["segment"] is not None:
            self._segment = Segment.load(saved["segment"])
            self._resumed = True

    def _draw(self, loader: Any, k: int) -> list[dict[str, torch.Tensor]]:
        """Importance batches of segment k, by a generator of their own: the training order is not touched."""
        size = self._batch
        generator = torch.Generator().manual_seed(self.seed * 1_000_003 + k)
        chosen = [
            torch.randperm(self._rows, generator=generator)[:size].tolist() for _ in range(self.batches)
        ]
        with own_random(self.seed + k):
            return [loader.collate_fn([loader.dataset[i] for i in rows]) for rows in chosen]

    def _see(self, model: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        if self._in_step and torch.is_grad_enabled():
            self._shapes.append(self._shape_of(kwargs))

    def _shape_of(self, batch: dict[str, Any]) -> Shape:
        inputs = batch["input_ids"] if batch.get("input_ids") is not None else batch["inputs_embeds"]
        target = batch["labels"].shape[1] if self._encoder_decoder else None
        return Shape(inputs.shape[0], inputs.shape[1], target)

    def _send(self, event: Event) -> None:
        if self.job is not None:
            self.job.send(event)

    def _warn(self, message: str) -> None:
        log.warning(message)
        self._send(Warned(at=now(), message=message))
