"""GreenTrainerCallback: steers any `transformers.Trainer` by a FLOPs ratio, segment by segment.

A segment begins in `on_step_begin` (the optimizer exists, the checkpoint's RNG is restored, and a resumed epoch cannot
begin it twice as `on_epoch_begin` would): importance, frontier, directive, selection. It ends in `on_log` after its last
step. Between its steps control.json is looked at. With a job directory every stage is reported in events.jsonl and the
callback asks for checkpoints; without one it trains at a constant ρ and leaves saving to its Trainer.

    trainer = Trainer(model, args, train_dataset=rows, callbacks=[GreenTrainerCallback(rho=0.5)])

Gradient clipping sees the selected tensors only. Several processes (DDP, FSDP2) take every decision as one: trainer/parallel.py.
"""

import logging
import math
import os
import time
from collections.abc import Callable
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import torch
from accelerate.utils import send_to_device
from torch import nn
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from carbonsched.errors import CarbonschedError, InputError
from carbonsched.model.protocol import Checkpoint, Event, SegmentDone, SegmentReady, Step, Warned
from trainer import checkpoint
from trainer.batches import Batches
from trainer.cache import ActivationCache, Place
from trainer.dropbp import Dropper
from trainer.flopcount import Shape, StepCounter
from trainer.importance import Importance, measure
from trainer.job import job_at, now
from trainer.methods import Choice, check_method
from trainer.objectives import Past, objective_of
from trainer.parallel import Wrapping, ranks, train_only, unsharded
from trainer.prepare import prepare
from trainer.segment import Schedule, Segment
from trainer.stale import Policy, StaleState
from trainer.steering import Answer, Steering, Stopped

log = logging.getLogger("trainer")

STEP_EVENT_S = 1.0
"""`step` events are throttled to one in so many seconds."""
PASS_STEPS = 1.3
"""Full steps that an importance pass takes, measured 1.1 to 1.5: what a step takes before one was seen."""
_EPSILON = 1e-9


class GreenTrainerCallback(TrainerCallback):  # type: ignore[misc]
    """`history` holds the `SegmentDone` of every segment that ended in this process."""

    def __init__(
        self,
        rho: float = 0.6,
        *,
        job_dir: str | Path | None = None,
        method: str = "greentrainer",
        segment: int | str = "epoch",
        importance: str = "update",
        importance_batches: int = 1,
        seed: int = 0,
        shape: tuple[int, int | None] | None = None,
        keep_checkpoints: int = 2,
        stopping: Callable[[], bool] = lambda: False,
        patience_s: float | None = None,
        alone: bool = False,
        skip_earliest: float = 0.0,
        stale_state: Policy = "keep",
        cache: Place = "off",
        cache_gb: float = 4.0,
    ) -> None:
        """rho: constant without a job directory; with one, for the first segment where no directive comes in time.

        job_dir: None: $CARBONSCHED_JOB_DIR, which the daemon sets for what it starts; without either no job directory.

        segment: `epoch` or optimizer steps. shape: (seq, target_seq) to profile at; None: of a drawn batch. stopping:
        polled between steps, importance batches and while waiting; once it holds, training ends behind a checkpoint.
        alone: write the events to `job_dir`, but train at `rho` and ask no daemon. skip_earliest, stale_state, cache,
        cache_gb: as `train.*` in docs/configuration.md.
        """
        check_method(method)
        objective_of(importance)
        self.importance, self.skip_earliest, self.stale_state = importance, skip_earliest, stale_state
        self.cache = ActivationCache(cache, cache_gb)
        self.job = job_at(job_dir)
        self.steering = Steering(rho, self.job, stopping, alone)
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
        self._unsharded: Any = None
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
        self._dropper: Dropper | None = None
        self._price: float | None = None
        """Of the running step where it is drawn: cost ÷ T_full at the profiled shape."""

    @property
    def segment(self) -> Segment:
        """The one that runs, or the last that ran. Raises RuntimeError before the first."""
        if self._segment is None:
            raise RuntimeError("no segment has begun")
        return self._segment

    # ---- begin and end of training

    def on_init_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        self._unsharded = unsharded(kwargs["model"], args)

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        model, loader = kwargs["model"], kwargs["train_dataloader"]
        self.ranks = ranks()
        self._wrapping = Wrapping(model, kwargs["optimizer"], self.ranks, args, self._unsharded)
        if not hasattr(loader.dataset, "__len__"):
            raise InputError(
                "trainer", "its data set has no length", "use one that can be drawn from by index"
            )
        self._accumulation: int = args.gradient_accumulation_steps
        batch: int = min(args.train_batch_size, len(loader.dataset))
        per_epoch = max(-(-len(loader) // self._accumulation), 1)
        length = per_epoch if isinstance(self.segment_length, str) else self.segment_length
        self.schedule = Schedule(state.max_steps, per_epoch, length)
        two_sided = bool(getattr(model.config, "is_encoder_decoder", False))
        batches = Batches(loader, self.schedule, self._accumulation, batch, two_sided, self.ranks)
        self._batches = batches
        if self.shape is None:
            drawn = self.ranks.from_main(lambda: batches.shape_of(batches.drawn(0, 1, self.seed)[0]))
            self.shape = (drawn.seq, drawn.target_seq)
        self._nominal = Shape(batch, *self.shape)
        if hasattr(model, "disable_input_require_grads"):
            # with checkpointing transformers makes the embeddings' output require a gradient, which only the reentrant
            # kind needs: the activation gradient would go down to the bottom whatever is frozen (ρ .93 for .80)
            model.disable_input_require_grads()
        # taken before the hook below is on: a copy of the model would copy what the hook holds
        held = {id(p) for group in kwargs["optimizer"].param_groups for p in group["params"]}
        self._trainable = frozenset(n for n, p in model.named_parameters() if id(p) in held)
        prepared = prepare(
            self._unsharded or model,
            self.method_name,
            self._nominal,
            self.seed,
            held=self._trainable,
            importance=self.importance,
            skip_earliest=self.skip_earliest,
        )
        if prepared.left:
            self._warn(f"{prepared.left} tensors are not in the optimizer: they stay frozen")
        self.method, self._full = prepared.method, prepared.full
        branches = self.method.branches
        self._dropper = None if branches is None else Dropper(model, branches, self.seed)
        self._stale = StaleState(self.stale_state, kwargs["optimizer"])
        self.cache.attach(model)
        self._hook = model.register_forward_pre_hook(self._see, with_kwargs=True)
        self._logged = state.global_step
        if state.global_step:
            self._restore(Path(args.output_dir) / f"checkpoint-{state.global_step}")

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        self._hook.remove()
        self.cache.detach()
        if self._dropper is not None:
            self._dropper.remove()
        self._train(kwargs["model"], tuple(self._trainable))

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
                self._begin(step, model, kwargs["optimizer"])
            elif self._hold is not None:
                why, self._hold = self._hold, None
                hold = partial(self.steering.hold, self.segment.k, step, why)
                self._apply(self.ranks.from_main(hold), model)
        except Stopped as e:
            self.stopped = str(e)
            raise
        self.steering.step_started()
        self._price = self._dropper.draw(self.segment.current.cost_ratio, step) if self._dropper else None
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
        flops = (0.0, 0.0) if counter is None else (counter.flops, counter.recomputed)
        mine = [full, *flops, float(self.stopping()), self.cache.take_saved()]
        full, counted, again, stop, saved = self.ranks.sum(mine)
        price = segment.current.cost_ratio - saved / full if saved else self._price
        segment.ran(full, self._step_seconds, None if counter is None else counted, again, price)
        if counter is not None:
            self._wrapping.counted()
        self._counter, self._in_step = None, False
        self._save_began = time.monotonic()
        if state.global_step >= segment.end:
            control.should_log = True
            control.should_save = control.should_save or self.job is not None
            if stop:
                self._stop("signal", control)
        elif stop:
            self._stop("signal", control)
        else:
            self._between(segment, control, kwargs["model"])

    def _between(self, segment: Segment, control: TrainerControl, model: nn.Module) -> None:
        """Between two steps of a segment: has anything been said?"""
        look, lapsed = self.steering.look, self.steering.lapsed
        directive, over = self.ranks.from_main(lambda: (look(segment.k), lapsed()))
        if directive is not None:
            if directive.action == "stop":
                return self._stop(directive.reason, control)
            if directive.action == "wait":
                self._hold = directive.reason
            else:
                rho = segment.directed if directive.rho is None else directive.rho
                self._apply(Answer(rho, directive.seq), model)
            control.should_save = control.should_save or directive.checkpoint
        self._hold = self._hold or over
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
            "past": asdict(self.method.past),
            "seconds_full": self._seconds_full,
        }
        self.ranks.gather(None)  # every rank has written its part
        size = checkpoint.seal(folder, saved) if self.ranks.main else 0
        if self.job is None or not self.ranks.main:
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

    def _begin(self, step: int, model: nn.Module, optimizer: Any) -> None:
        k, _, end = self.schedule.bounds(step)
        # a checkpoint of someone else's making has no segment of ours: what is left of the segment becomes one
        segment = Segment(k, step, end, self._batches.full_ahead(self._full, self._nominal, step, end))
        if self.method.measures():
            segment.importance = self._measure(segment, model, optimizer)
        else:
            segment.importance = self.method.importance(k, None)
        self._segment = segment
        self._open(segment, step, model)

    def _measure(self, segment: Segment, model: nn.Module, optimizer: Any) -> dict[str, float]:
        # a process that ended while it waited has measured these very weights: that pass is paid
        earlier = (
            partial(checkpoint.kept_importance, self.job.checkpoints, segment.first) if self.job else None
        )
        kept = self.ranks.from_main(earlier) if earlier else None
        if kept is not None:
            found = Importance(**kept)
        else:
            device = next(model.parameters()).device
            batches = [
                send_to_device(batch, device)
                for batch in self._batches.drawn(segment.k, self.batches, self.seed)
            ]
            self._wrapping.settle()
            found = measure(
                model,
                optimizer,
                batches,
                estimator=self.method.objective.estimator or "update",
                together=self.method.past.together(self._trainable),
                seed=self.ranks.noise(self.seed + segment.k),
                stop=self.stopping,
                ranks=self.ranks,
            )
            if self.job is not None and self.ranks.main:
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
        segment.importance_error = found.relative_error
        return self.method.importance(segment.k, self.method.objective.value(found, self.method.past))

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
                importance_error=segment.importance_error,
            )
        )
        self._apply(self.ranks.from_main(partial(self.steering.ask, segment.k, step)), model)

    def _apply(self, answer: Answer, model: nn.Module) -> None:
        """Train at the answer's ρ from the next step on; the same ρ means the same selection."""
        segment = self.segment
        segment.directive_seq = answer.seq
        if segment.stretches and answer.rho == segment.directed:
            self._train(model, segment.current.selected)
            return
        began = time.monotonic()
        floor = self._choice.floor + segment.share
        if answer.rho < floor - _EPSILON:
            self._warn(
                f"segment {segment.k}: rho {answer.rho:.4g} is below the floor {floor:.4f} of {self.method.name}; "
                "training at the floor"
            )
        selection = self.ranks.from_main(lambda: self._choice.select(answer.rho - segment.share))
        segment.directed = answer.rho
        segment.select(selection.selected, selection.rho_planned)
        self._train(model, selection.selected)
        segment.selection_seconds += time.monotonic() - began

    def _train(self, model: nn.Module, names: tuple[str, ...]) -> None:
        self._wrapping.settle()
        train_only(model, names, self._trainable)
        self._stale.follow()
        if self._segment is not None:
            step = self.segment.first + self.segment.steps_done
            self.cache.follow((self.schedule.steps - step) / self.schedule.steps_per_epoch)
        self._wrapping.renew()

    def _end(self, segment: Segment) -> None:
        if segment.current.cost_ratio > 0.95:
            self._seconds_full = segment.step_seconds / segment.steps_done
        elif not self.method.measures():
            self._seconds_full = segment.step_seconds / segment.steps_done / segment.current.cost_ratio
        done = segment.done(now())
        self.method.past.add((s.selected, s.steps) for s in segment.stretches)
        self.history.append(done)
        self._send(done)

    # ---- helpers

    def _restore(self, folder: Path) -> None:
        saved = self.ranks.from_main(partial(checkpoint.read, folder))
        if saved is None:
            self._warn(f"{folder.name} holds no segment of ours: the selection begins anew")
            return
        self.method.first = saved["first_importance"]
        self.method.past = Past(**saved.get("past", {}))
        self._seconds_full = saved["seconds_full"]
        if saved["segment"] is not None:
            self._segment = Segment.load(saved["segment"])
            self._resumed = True

    def _see(self, model: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        if self._in_step and torch.is_grad_enabled():
            self._shapes.append(self._batches.shape_of(kwargs))
            self.cache.serve(kwargs, self._shapes[-1])

    def _send(self, event: Event) -> None:
        if self.job is not None:
            self.job.send(event)

    def _warn(self, message: str) -> None:
        log.warning(message)
        self._send(Warned(at=now(), message=message))
