"""Takes a training from segment to segment: importance, frontier, directive, selection, and the record of each.

The Trainer's hooks that call it are in trainer/training/callback.py. Several processes (DDP, FSDP2) take every decision as
one: trainer/distributed/ranks.py.
"""

import logging
import os
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

from accelerate.utils import send_to_device
from transformers import TrainingArguments

from carbonsched.errors import InputError
from carbonsched.model.protocol import Checkpoint, Directive, Event, SegmentDone, Warned
from trainer.data.upcoming_batches import Batches
from trainer.device import device_seconds
from trainer.distributed.ranks import Ranks, ranks
from trainer.distributed.wrapping import Wrapping
from trainer.importance.gradient_pass import Loss, model_loss
from trainer.importance.measure import Importance, measure
from trainer.importance.objectives import TrainingHistory
from trainer.job import checkpoint
from trainer.job.directives import DirectiveSource, GrantedRho
from trainer.job.job_dir import now
from trainer.job.segment import Schedule, SegmentRecord
from trainer.methods.method import SelectionCurve
from trainer.methods.prepare import Prepared, prepare
from trainer.profiling.flop_counter import Shape
from trainer.training.gradient_checkpointing import fit_checkpointing
from trainer.training.options import Options
from trainer.training.trainable_model import TrainableModel, find_trainable

log = logging.getLogger("trainer")

PASS_STEPS = 1.3
"""Time of an importance pass ÷ that of a full step, measured 1.1 to 1.5: by it a step is timed before one has run."""
_EPSILON = 1e-9
"""A ρ may lie so far below the floor, or below what everything costs, by rounding alone."""


@dataclass(frozen=True, slots=True)
class Training:
    """What a transformers.Trainer has made ready when its training begins.

    Example::

        training = Training(args, model, trainer.optimizer, trainer.get_train_dataloader(), twin=None)
    """

    args: TrainingArguments
    model: Any
    optimizer: Any
    loader: Any
    twin: Any
    """What `twin_before_sharding` gave: the model before FSDP shards it; None without FSDP."""
    loss: Loss = model_loss
    """What training minimises."""


class SegmentDriver:
    """Begins and ends the segments of one training.

    Example::

        driver = SegmentDriver.build(options, directives, training, max_steps=100)
        driver.begin_step(0)  # measures, asks, selects
        names = driver.segment.current.selected
    """

    def __init__(
        self,
        options: Options,
        directives: DirectiveSource,
        model: TrainableModel,
        batches: Batches,
        prepared: Prepared,
        loss: Loss = model_loss,
    ) -> None:
        self.options, self.directives, self.job = options, directives, directives.job
        self.model, self.batches = model, batches
        self.schedule, self.ranks = batches.schedule, batches.ranks
        self.method, self.full, self._loss = prepared.method, prepared.full, loss
        self._segment: SegmentRecord | None = None
        self._interrupted = False
        self._last_importance: dict[str, float] = {}
        """What the segment before measured: a short remainder is selected by it."""
        self._wait_reason: str | None = None
        """Why the next step has to wait; None: it need not."""
        self._warm = False
        """Whether this process has run forward and backward passes on its device."""
        self._seconds_full: float | None = None
        """Of a step of full fine-tuning."""
        if prepared.left:
            self._warn(f"{prepared.left} tensors are not in the optimizer: they stay frozen")

    @classmethod
    def build(
        cls, options: Options, directives: DirectiveSource, training: Training, max_steps: int
    ) -> "SegmentDriver":
        """Profile the model and make what a driver works with; when training begins, everything trainable.

        Raises InputError for a model, method or data set that cannot be steered.
        """
        model, optimizer, mine = training.model, training.optimizer, ranks()
        wrapping = Wrapping(model, optimizer, mine, training.args, training.twin)
        batches = _coming_batches(training, options, max_steps, mine)
        shape = _nominal_shape(batches, options)
        switched = fit_checkpointing(model)
        prepared = prepare(
            training.twin or model,
            options.method,
            shape,
            options.seed,
            held=find_trainable(model, optimizer),
            importance=options.importance,
            skip_earliest=options.skip_earliest,
        )
        hook = prepared.method.step_hook(model, options.seed)
        trainable = TrainableModel.build(model, optimizer, wrapping, options, hook)
        driver = cls(options, directives, trainable, batches, prepared, training.loss)
        if switched:
            driver._warn(
                "use_reentrant=True would give the tensors of most blocks no gradient: checkpointing with use_reentrant=False"
            )
        return driver

    @property
    def segment(self) -> SegmentRecord:
        """The one that runs, or the last that ran. Raises RuntimeError before the first."""
        if self._segment is None:
            raise RuntimeError("no segment has begun")
        return self._segment

    @property
    def has_segment(self) -> bool:
        return self._segment is not None

    def close(self) -> None:
        """Training is over: the model as it was, all of it trainable."""
        self.model.release()

    # ---- around a step

    def begin_step(self, step: int) -> None:
        """Before a step: begin a segment, resume one that was interrupted, or wait where that is due. Raises Stopped."""
        if self._interrupted:
            self._interrupted = False
            self._offer(self.segment)
        elif self._segment is None or step >= self._segment.end:
            self._begin_segment(step)
        elif self._wait_reason is not None:
            why, self._wait_reason = self._wait_reason, None
            self._apply(self.ranks.broadcast(partial(self.directives.wait, self._segment.k, step, why)))

    def draw_cost_ratio(self, step: int) -> float | None:
        """The cost ratio of this very step, where it is drawn; None: the selection's."""
        return self.model.draw_cost_ratio(self.segment.current.cost_ratio, step)

    def poll_directive(self) -> tuple[Directive | None, bool]:
        """Between two steps of a segment: a directive that came, obeyed unless it is a stop; whether to checkpoint and wait."""
        segment, directives = self.segment, self.directives
        directive, over = self.ranks.broadcast(
            lambda: (directives.poll(segment.k), directives.lapse_reason())
        )
        if directive is not None and directive.action == "stop":
            return directive, False
        if directive is not None and directive.action == "wait":
            self._wait_reason = directive.reason
        elif directive is not None:
            rho = segment.rho_directed if directive.rho is None else directive.rho
            self._apply(GrantedRho(rho, directive.seq))
        self._wait_reason = self._wait_reason or over
        return directive, self._wait_reason is not None

    def end_segment(self) -> SegmentDone:
        """Close the segment, whose last step is done and its loss known; returns the event, which was sent."""
        segment, self._warm = self.segment, True
        if segment.current.cost_ratio > 0.95:
            self._seconds_full = segment.step_seconds / segment.steps_done
        elif not self.method.measures():
            self._seconds_full = segment.step_seconds / segment.steps_done / segment.current.cost_ratio
        if segment.importance_batches:
            self._last_importance = segment.importance
        done = segment.done_event(now())
        self.method.history.add((s.selected, s.steps) for s in segment.spans)
        self.send(done)
        return done

    # ---- a segment

    def _begin_segment(self, step: int) -> None:
        k, _, end = self.schedule.bounds(step)
        # a checkpoint of someone else's making has no segment of ours: what is left of the segment becomes one
        profile = self.method.profile
        nominal = Shape(profile.batch, profile.seq, profile.target_seq)
        segment = SegmentRecord(k, step, end, self.batches.full_ahead(self.full, nominal, step, end))
        if self.schedule.is_remainder(k) and self._last_importance:
            # a pass would weigh more in it than in any other segment, and raise the floor of the whole job
            segment.importance = self._last_importance
        else:
            found = self._measure(segment) if self._measures() else None
            values = None if found is None else self.method.objective.value(found, self.method.history)
            segment.importance = self.method.importance(k, values)
        self._segment = segment
        self._offer(segment)

    def _measures(self) -> bool:
        """Whether importance is measured: not where ρ is known to suffice for everything, so that nothing is chosen."""
        rho = self.directives.constant
        return self.method.measures() and (rho is None or rho < self.method.ceiling - _EPSILON)

    def _measure(self, segment: SegmentRecord) -> Importance:
        # a process that ended while it waited has measured these very weights: that pass is paid
        folder = self.job.checkpoints if self.job else None
        earlier = partial(checkpoint.read_importance, folder, segment.first) if folder else None
        kept = self.ranks.broadcast(earlier) if earlier else None
        found = Importance(**kept) if kept is not None else self._run_pass(segment)
        if kept is None and folder is not None and self.ranks.main:
            checkpoint.save_importance(folder, segment.first, asdict(found))
        segment.set_importance(found.flops, found.seconds, found.relative_error, found.recomputed)
        if found.batch_seconds is not None:
            self._seconds_full = found.batch_seconds / PASS_STEPS * self.batches.accumulation
        log.info(
            "segment %d: importance of %d tensors %s (%d batches, %.1f s, moments of age %d)",
            segment.k + 1,
            len(found.values),
            "measured" if kept is None else "as measured before",
            len(found.flops),
            found.seconds,
            found.age,
        )
        return found

    def _run_pass(self, segment: SegmentRecord) -> Importance:
        model, options = self.model, self.options
        device = next(model.module.parameters()).device
        drawn = self.batches.drawn(segment.k, options.importance_batches, options.seed)
        model.wrapping.reshard()
        warm, self._warm = self._warm or device.type == "cpu", True
        return measure(
            model.module,
            model.optimizer,
            [send_to_device(batch, device) for batch in drawn],
            estimator=self.method.objective.estimator or "update",
            common_steps=self.method.history.common_steps(model.names),
            seed=self.ranks.offset_seed(options.seed + segment.k),
            stop=self._check_stop,
            ranks=self.ranks,
            warm=warm,
            loss=self._loss,
        )

    def _check_stop(self) -> bool:
        """Between two batches of importance: wait where the lease is over; whether a signal came. Raises Stopped."""
        self.ranks.broadcast(self.directives.check_lease)
        return self.options.stopping()

    def _offer(self, segment: SegmentRecord) -> None:
        """Offer the frontier of the segment, or of what is left of it, and train at the ρ that is granted."""
        self._choose(segment)
        floor, points = self._curve.floor, self._curve.points
        self.send(segment.ready_event(now(), self.schedule, floor, points, self._seconds_full))
        self._apply(self.ranks.broadcast(partial(self.directives.ask, segment.k, segment.step)))

    def _choose(self, segment: SegmentRecord) -> None:
        began = device_seconds()
        self._chosen_at = segment.step
        saving = self.model.cache.forecast_saving(self.batches, self.full, segment.step, segment.end)
        self._curve: SelectionCurve = self.method.curve(segment.importance, saving)
        segment.selection_seconds += device_seconds() - began

    def _apply(self, granted: GrantedRho) -> None:
        """Train at the granted ρ from the next step on.

        Reuse the current selection if ρ is unchanged, unless it relied on a cache that was emptied.
        """
        segment = self.segment
        segment.directive_seq = granted.seq
        same = bool(segment.spans) and granted.rho == segment.rho_directed
        if same and self.model.cache.on:
            same = not self.ranks.any(segment.current.saving > 0 and not self.model.cache.filled)
        if same:
            self._train(segment.current.selected, stay=segment.current.saving > 0)
            return
        if self.model.cache.on and self._chosen_at != segment.step:
            self._choose(segment)
        began = device_seconds()
        left = granted.rho - segment.importance_share
        if left >= self.method.ceiling - _EPSILON:
            left = max(left, self.method.ceiling)  # everything, whatever the last bit of a sum says
        if left < self._curve.floor - _EPSILON:
            floor = self._curve.floor + segment.importance_share
            self._warn(
                f"segment {segment.k}: rho {granted.rho:.4g} is below the floor {floor:.4f} of {self.method.name}; "
                "training at the floor"
            )
        selection = self.ranks.broadcast(lambda: self._curve.select(left))
        segment.rho_directed = granted.rho
        saved = self._curve.cache_saving(selection.selected)
        whole = selection.rho_planned + saved
        # a cache that begins anew saves nothing in its first epoch: ρ has to pay for that
        self._train(selection.selected, stay=saved > 0 and whole > left)
        if saved and self.model.cache.filled:
            segment.select(selection.selected, selection.rho_planned, saved)
        else:
            segment.select(selection.selected, whole)
        segment.selection_seconds += device_seconds() - began

    def _train(self, names: tuple[str, ...], *, stay: bool) -> None:
        left = self.schedule.steps - self.segment.step
        self.model.train_only(names, left / self.schedule.steps_per_epoch, stay=stay)

    # ---- checkpoints and events

    def save(self, folder: Path, step: int, began: float) -> None:
        """Our part of the checkpoint that the Trainer has written to `folder`, and its seal. began: monotonic."""
        segment = self.segment
        saved = {
            "step": step,
            "segment": None if step >= segment.end else segment.dump(),
            "first_importance": self.method.first,
            "last_importance": self._last_importance,
            "past": asdict(self.method.history),
            "seconds_full": self._seconds_full,
        }
        self.ranks.gather(None)  # every rank has written its part
        size = checkpoint.seal(folder, saved) if self.ranks.main else 0
        if self.job is None or not self.ranks.main:
            return
        if folder.parent.resolve() == self.job.checkpoints.resolve():  # never in a folder of the user's own
            checkpoint.prune(folder.parent, self.options.keep_checkpoints)
        path, seconds = os.path.relpath(folder, self.job.path), device_seconds() - began
        self.send(Checkpoint(at=now(), k=segment.k, step=step, path=path, seconds=seconds, bytes=size))

    def restore(self, folder: Path) -> None:
        """Go on from what `save` has put into a checkpoint."""
        saved = self.ranks.broadcast(partial(checkpoint.read, folder))
        if saved is None:
            self._warn(f"{folder.name} holds no segment of ours: the selection begins anew")
            return
        self.method.first = saved["first_importance"]
        self._last_importance = saved.get("last_importance", {})
        self.method.history = TrainingHistory(**saved.get("past", {}))
        self._seconds_full = saved["seconds_full"]
        if saved["segment"] is not None:
            self._segment, self._interrupted = SegmentRecord.load(saved["segment"]), True

    def send(self, event: Event) -> None:
        if self.job is not None:
            self.job.send(event)

    def _warn(self, message: str) -> None:
        log.warning(message)
        self.send(Warned(at=now(), message=message))


def _coming_batches(training: Training, options: Options, max_steps: int, mine: Ranks) -> Batches:
    loader, args = training.loader, training.args
    if not hasattr(loader.dataset, "__len__"):
        raise InputError("trainer", "its data set has no length", "use one that can be drawn from by index")
    accumulation: int = args.gradient_accumulation_steps
    batch: int = min(args.train_batch_size, len(loader.dataset))
    per_epoch = max(-(-len(loader) // accumulation), 1)
    length = per_epoch if isinstance(options.segment, str) else options.segment
    schedule = Schedule(max_steps, per_epoch, length)
    two_sided = bool(getattr(training.model.config, "is_encoder_decoder", False))
    return Batches(loader, schedule, accumulation, batch, two_sided, mine)


def _nominal_shape(batches: Batches, options: Options) -> Shape:
    """The shape to profile at: the option's, else that of a drawn batch, on every rank the first one's."""
    shape = options.shape
    if shape is None:
        drawn = batches.ranks.broadcast(lambda: batches.shape_of(batches.drawn(0, 1, options.seed)[0]))
        shape = (drawn.seq, drawn.target_seq)
    return Shape(batches.batch, *shape)
