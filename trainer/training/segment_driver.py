"""Takes a training from segment to segment: importance, frontier, directive, selection, and the record of each.

The Trainer's hooks that call it are in trainer/training/callback.py. Several processes (DDP, FSDP2) take every decision as
one: trainer/distributed/ranks.py.
"""

import logging
import os
from collections.abc import Collection
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path

from carbonsched.model.methods.lora import ALL_LINEAR
from carbonsched.model.protocol import Checkpoint, Directive, Event, SegmentDone, Warned
from trainer.data.upcoming_batches import Batches
from trainer.device import device_seconds
from trainer.distributed.ranks import ranks
from trainer.distributed.wrapping import Wrapping
from trainer.importance.gradient_pass import Loss, model_loss
from trainer.importance.measure import Importance
from trainer.importance.objectives import TrainingHistory
from trainer.job import checkpoint
from trainer.job.budget_schedule import BudgetSchedule
from trainer.job.directives import DirectiveSource, Granted
from trainer.job.job_dir import now
from trainer.job.segment import Schedule, SegmentRecord
from trainer.methods.auto import Auto
from trainer.methods.method import SelectionCurve
from trainer.methods.prepare import Prepared, prepare
from trainer.profiling.labelled_head import HeadError
from trainer.training.adapter_choice import AdapterChoice, without_adapters
from trainer.training.departure import departure, skipped_layers
from trainer.training.gradient_checkpointing import fit_checkpointing
from trainer.training.importance_pass import ImportancePass
from trainer.training.learning_rate import LearningRate, multiplier, scales_with_full
from trainer.training.options import Options
from trainer.training.setting_points import offer
from trainer.training.setup import Training, coming_batches, find_head, find_split, nominal_batch
from trainer.training.step_checks import StepLosses, diverged, finite, gradient_faults
from trainer.training.trainable_model import TrainableModel, find_trainable
from trainer.training.upcoming_costs import UpcomingCosts
from trainer.training.waste import WasteAccount

log = logging.getLogger("trainer")

PASS_STEPS = 1.3
"""Time of an importance pass relative to a full step, measured as 1.1 to 1.5; used to estimate a step before one has run."""
SCALED_PATIENCE = 10
"""Consecutive steps that a GradScaler may skip: it halves its factor at each."""
WITHOUT_HEAD = "the output embeddings run on every token, not on the labelled alone: "
_EPSILON = 1e-9
"""Rounding may put a ρ this far below the floor, or below the ρ of everything."""


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
        budget: BudgetSchedule | None = None,
        adapters: AdapterChoice | None = None,
    ) -> None:
        """budget: if the daemon decides how many steps there are. adapters: if it decides whether to train adapters."""
        self.options, self.directives, self.job = options, directives, directives.job
        self.model, self.batches = model, batches
        self.ranks, self.budget = batches.ranks, budget
        self.method, self.full = prepared.method, prepared.full
        self.importance = ImportancePass(model, batches, self.method, options, directives, loss)
        self.adapters = adapters
        # a job whose setting the daemon chooses was full fine-tuning otherwise
        self._own_ratio = prepared.own_ratio if adapters is None or not adapters.made else 1.0
        self.rate = LearningRate(on=options.lr_scaling == "full" and scales_with_full(model.optimizer))
        self.upcoming = UpcomingCosts(batches, prepared, drawn=model.step_hook is not None)
        self.waste = WasteAccount(batches, prepared.full)
        self._segment: SegmentRecord | None = None
        self.is_open = False
        """Whether a segment has begun and not ended."""
        self._flops, self._flops_full = 0.0, 0.0
        """Sums over the finished segments, earlier processes' included."""
        self._alarmed: set[str] = set()
        self._bad_steps = 0
        """Consecutive steps with a loss that was not finite."""
        self._interrupted = False
        self._last_importance: dict[str, float] = {}
        """The last segment's importance: a short remainder is selected by it."""
        self._last_loss: float | None = None
        """Mean training loss of the last segment; None: unknown in this process."""
        self._wait_reason: str | None = None
        """Why the next step has to wait; None: it need not."""
        self._seconds_full: float | None = None
        """Seconds of a full fine-tuning step."""
        if prepared.left:
            self._warn(f"{prepared.left} tensors are not in the optimizer: they stay frozen")

    @classmethod
    def build(
        cls,
        options: Options,
        directives: DirectiveSource,
        training: Training,
        max_steps: int,
        budget: BudgetSchedule | None = None,
        adapters: AdapterChoice | None = None,
    ) -> "SegmentDriver":
        """Profile the model and build the driver's parts; call when training begins, with everything trainable. Raises InputError for a
        model, method or data set that is not supported."""
        model, optimizer, mine = training.model, training.optimizer, ranks()
        wrapping = Wrapping(model, optimizer, mine, training.args, training.twin)
        batches = coming_batches(training, options, max_steps, mine)
        if training.labelled:
            batches.check_labels(options.seed)
        head, without_head = None, ""
        try:
            head = find_head(options, training, batches)
        except HeadError as e:
            without_head = WITHOUT_HEAD + str(e)
        if options.labelled_head and mine.any(head is None):  # every rank counts alike
            head, without_head = None, without_head or WITHOUT_HEAD + "it differs on another rank"
        split = find_split(options, training, batches, head)
        batches = replace(batches, labelled_head=head is not None, splits_rows=split is not None)
        shape, form = nominal_batch(batches, options, training.twin or model)
        switched = fit_checkpointing(model)
        prepared = prepare(
            training.twin or model,
            options.method,
            shape,
            options.seed,
            held=find_trainable(model, optimizer),
            importance=options.importance,
            skip_earliest=options.skip_earliest,
            form=form,
            gradient_share=options.gradient_share,
            offers_tokens=split is not None,
            lora=None if adapters is None else adapters.train,
        )
        hook = prepared.method.step_hook(model, options.seed)
        trainable = TrainableModel.build(model, optimizer, wrapping, options, hook, head, split)
        driver = cls(options, directives, trainable, batches, prepared, training.loss, budget, adapters)
        if without_head:
            driver._warn(without_head)
        if switched:
            driver._warn(
                "use_reentrant=True would give the tensors of most blocks no gradient: checkpointing with use_reentrant=False"
            )
        return driver

    @property
    def segment(self) -> SegmentRecord:
        """The current segment, or the last one. Raises RuntimeError before the first."""
        if self._segment is None:
            raise RuntimeError("no segment has begun")
        return self._segment

    @property
    def has_segment(self) -> bool:
        return self._segment is not None

    @property
    def schedule(self) -> Schedule:
        """The schedule as far as it is decided."""
        batches, budget = self.batches, self.budget
        step = self._segment.step if self._segment is not None else 0
        return batches.schedule if budget is None else budget.narrow(batches.schedule, step)

    @property
    def cools(self) -> int | None:
        """First step of a cooldown that has begun by the next step; None: none has."""
        return (
            None
            if self.budget is None or self._segment is None
            else self.budget.cools_from(self._segment.step)
        )

    def is_over(self, step: int) -> bool:
        """Whether the job is complete after `step` steps, by what the daemon decided."""
        return self.budget is not None and self.budget.is_over(step)

    def close(self, *, alone: bool = False) -> None:
        """Training is over: restore the model, with everything trainable. alone: as for `TrainableModel.release`."""
        self.model.release(alone=alone and self.ranks.size > 1)

    # ---- around a step

    def begin_step(self, step: int) -> None:
        """Before a step: begin a segment, resume an interrupted one, or wait if needed. Raises Stopped."""
        if self._interrupted:
            self._interrupted = False
            self.upcoming.look_ahead(self.segment.first, self.segment.end)
            self._offer(self.segment)
        elif self._segment is None or step >= self._segment.end:
            self._begin_segment(step)
        elif self._wait_reason is not None:
            why, self._wait_reason = self._wait_reason, None
            self._apply(self.ranks.broadcast(partial(self.directives.wait, self._segment.k, step, why)))

    def draw_cost_ratio(self, step: int) -> float | None:
        """The cost ratio of this step if it is drawn; None: the selection's."""
        return self.model.draw_cost_ratio(self.segment.current.cost_ratio, step)

    def poll_directive(self) -> tuple[Directive | None, bool]:
        """Between two steps of a segment: obey a new directive, unless it is a stop; returns whether to checkpoint and wait."""
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
            self._apply(Granted.by(directive, rho))
        self._wait_reason = self._wait_reason or over
        return directive, self._wait_reason is not None

    def check_losses(self, losses: StepLosses, step: int, lr: float, *, scaled: bool) -> None:
        """Check before optimizer step `step`. scaled: a GradScaler skips bad steps. Raises CarbonschedError, since the step would spoil the
        weights."""
        if not self.ranks.any(losses.bad):
            self._bad_steps = 0
            return
        self._bad_steps += 1
        gradients = [p.grad for n, p in self.model.module.named_parameters() if n in self.model.names]
        harmless = not losses.bad or (losses.unlabelled and finite(gradients))
        if not self.ranks.any(not harmless):
            self._alarm("labels", f"step {step}: every label of a batch is -100, nothing is learned from it")
        elif not scaled or self._bad_steps >= SCALED_PATIENCE:
            raise diverged(f"the loss became {losses.worst}", step, lr)

    def check_gradients(self, lr: float) -> None:
        """After the backward pass of a counted step: check that the gradients are those of the selection. lr: of the steps before."""
        segment, model = self.segment, self.model
        if segment.fault is None and model.step_hook is None:  # dropped branches have none
            before = lr if segment.step else None
            segment.fault = gradient_faults(model.module, model.names, segment.current.selected, before)
        if segment.fault is not None:
            self._alarm("gradients", f"segment {segment.k + 1}: {segment.fault}")

    def note_uncounted(self, names: Collection[str]) -> None:
        """After a counted step: report once which operators have no formula."""
        if names:
            self._alarm(
                "uncounted", f"{', '.join(sorted(names))}: FLOPs are not counted, rho leaves this work out"
            )

    def check_weights(self, step: int, lr: float) -> None:
        """At the end of a segment. Raises CarbonschedError if a trained weight is not finite."""
        chosen = set(self.segment.current.selected)
        weights = [p for n, p in self.model.module.named_parameters() if n in chosen]
        if self.ranks.any(not finite(weights)):
            raise diverged("weights are not finite any more", step, lr)

    def figures(self, *, whole: bool) -> dict[str, float]:
        """Figures to log beside a loss. whole: at the end of training."""
        segment = self.segment
        flops, full = self._flops, self._flops_full
        if self.is_open:
            flops, full = flops + segment.flops, full + segment.flops_full
        if whole:
            return {"rho_realised": flops / full if full else segment.rho_planned, "flops": flops}
        sizes = {t.name: t.numel for t in self.method.profile.tensors if t.name in self.model.names}
        chosen = sum(sizes.get(name, 0) for name in segment.current.selected)
        return {
            "rho_planned": segment.rho_planned,
            "rho_realised": segment.rho_so_far,
            "flops": flops,
            "selected_share": chosen / sum(sizes.values()),
        }

    def end_segment(self) -> SegmentDone | None:
        """Close the segment with the last step that was done; returns the event that was sent, None if there was no step."""
        segment, self.is_open, self.importance.warm = self.segment, False, True
        if not segment.steps_done:
            return None
        if segment.step < segment.end:
            segment.cut()
        if segment.current.cost_ratio > 0.95:
            self._seconds_full = segment.step_seconds / segment.steps_done
        elif not self.method.measures():
            self._seconds_full = segment.step_seconds / segment.steps_done / segment.current.cost_ratio
        self._last_loss = segment.loss if segment.loss is not None else self._last_loss
        if segment.importance_batches:
            self._last_importance = segment.importance
        order = self.batches.unforeseen_order(segment.first, segment.end)
        missed = departure(segment, order, skipped_layers(getattr(self.model.module, "config", None)))
        if missed is not None and missed != segment.fault:
            self._alarm("ratio", f"segment {segment.k + 1}: {missed}")
        more = {} if self.budget is None else self.budget.segment_end(segment.step)
        more["segments"] = None if self.schedule.is_open else max(self.schedule.segments, segment.k + 1)
        done = segment.done_event(now(), missed, self.waste.of(segment), **more)
        self._flops, self._flops_full = self._flops + done.flops, self._flops_full + done.flops_full
        self.method.history.add((s.selected, s.steps) for s in segment.spans)
        self.send(done)
        return done

    # ---- a segment

    def _begin_segment(self, step: int) -> None:
        k, _, end = self.schedule.bounds(step)
        end = end if self.budget is None else min(end, self.budget.steps)
        # a checkpoint made by other code has no segment of ours: the rest of the segment becomes one
        full = self.upcoming.look_ahead(step, end)
        segment = SegmentRecord(k, step, end, full, self._own_ratio)
        if self.schedule.is_remainder(k) and self._last_importance:
            # a pass would weigh more in it than in any other segment, and raise the floor of the whole job
            segment.importance = self._last_importance
        else:
            found = self._measure(segment) if self._measures() else None
            values = None if found is None else self.method.objective.value(found, self.method.history)
            segment.importance = self.method.importance(k, values)
        self._segment, self.is_open = segment, True
        self._offer(segment)

    def _measures(self) -> bool:
        """Whether importance is measured: not if ρ is known to suffice for everything, so that there is nothing to choose."""
        rho = self.directives.constant
        return self.method.measures() and (rho is None or rho < self.method.ceiling - _EPSILON)

    def _measure(self, segment: SegmentRecord) -> Importance:
        found = self.importance.measure(segment)
        if found.batch_seconds is not None:
            self._seconds_full = found.batch_seconds / PASS_STEPS * self.batches.accumulation
        return found

    def _offer(self, segment: SegmentRecord) -> None:
        """Offer the frontier of the segment, or of its rest, and train at the ρ that is granted."""
        self._choose(segment)
        floor, points = self._curve.floor, self._curve.points
        own, choice = self.method.settings(self._curve), self.adapters
        found = own if choice is None else choice.offered(own, self._adapters_ratio, segment.step)
        settings = offer(
            found, floor, segment, self._last_loss, choice is None or choice.train.lora_targets == ALL_LINEAR
        )
        self.send(
            segment.ready_event(now(), self.schedule, floor, points, self._seconds_full, settings, self.cools)
        )
        granted = self.ranks.broadcast(partial(self.directives.ask, segment.k, segment.step))
        if choice is not None:
            choice.check(granted, self._adapters_ratio, segment.step)
        self._apply(granted)

    @property
    def _adapters_ratio(self) -> float | None:
        return self.method.adapters if isinstance(self.method, Auto) else self.method.ceiling

    def _choose(self, segment: SegmentRecord) -> None:
        began = device_seconds()
        self._chosen_at = segment.step
        saving = self.model.cache.forecast_saving(self.batches, self.full, segment.step, segment.end)
        self._curve: SelectionCurve = self.method.curve(segment.importance, saving)
        segment.selection_seconds += device_seconds() - began

    def _apply(self, granted: Granted) -> None:
        """Train at the granted ρ from the next step on.

        Reuse the current selection if ρ is unchanged, unless it relied on a cache that was emptied.
        """
        segment = self.segment
        granted = without_adapters(granted, self.adapters)
        segment.directive_seq = granted.seq
        self._move_end(granted)
        setting = None if granted.setting is None else granted.setting.dump()
        same = bool(segment.spans) and granted.rho == segment.rho_directed and setting == segment.setting
        segment.setting = setting
        if same and self.model.cache.on:
            same = not self.ranks.any(segment.current.saving > 0 and not self.model.cache.filled)
        if same:
            here = segment.current
            self._train(here.selected, stay=here.saving > 0, share=here.gradient_share)
            return
        if self.model.cache.on and self._chosen_at != segment.step:
            self._choose(segment)
        began = device_seconds()
        left = granted.rho - segment.importance_share
        if left >= self.method.ceiling - _EPSILON:
            left = max(left, self.method.ceiling)  # everything, despite rounding in the sum
        curve = self._curve
        if granted.setting is not None:
            curve = self.method.curve_in(granted.setting) or curve
        if left < curve.floor - _EPSILON:
            floor = curve.floor + segment.importance_share
            self._warn(
                f"segment {segment.k + 1}: rho {granted.rho:.4g} is below the floor {floor:.4f} of {self.method.name}; "
                "training at the floor"
            )
        selection, off = self.ranks.broadcast(lambda: self.upcoming.select(curve, left))
        segment.rho_directed = granted.rho
        share = selection.gradient_share
        self.rate.aim(multiplier(self.method.traits, selection.rho_planned, granted.setting, share))
        saved = curve.cache_saving(selection.selected)
        planned = selection.rho_planned + off
        whole = planned + saved
        # a cache that starts over saves nothing in its first epoch: ρ has to pay for that
        self._train(selection.selected, stay=saved > 0 and whole > left, share=share)
        if saved and self.model.cache.filled:
            segment.select(selection.selected, planned, saved)
        else:
            segment.select(selection.selected, whole, share=share)
        segment.selection_seconds += device_seconds() - began

    def _move_end(self, granted: Granted) -> None:
        """Move the segment's end to the job's, if the daemon has decided that."""
        segment, budget = self.segment, self.budget
        if budget is None or not budget.obey(granted, segment.step):
            return
        end = min(self.schedule.bounds(segment.step)[2], budget.steps)
        if end != segment.end:
            segment.move_end(end, self.upcoming.look_ahead(segment.step, end))

    def _train(self, names: tuple[str, ...], *, stay: bool, share: float | None) -> None:
        left = self.schedule.steps - self.segment.step
        self.model.train_only(names, left / self.schedule.steps_per_epoch, stay=stay, share=share)

    # ---- checkpoints and events

    def save(self, folder: Path, step: int, began: float) -> None:
        """Save our part of the checkpoint that the Trainer has written to `folder`, and seal it. began: monotonic."""
        segment = self.segment
        saved = {
            "step": step,
            "segment": None if step >= segment.end else segment.dump(),
            "first_importance": self.method.first,
            "last_importance": self._last_importance,
            "past": asdict(self.method.history),
            "seconds_full": self._seconds_full,
            "flops": (self._flops, self._flops_full),
            "budget": None if self.budget is None else self.budget.dump(),
            "rate": self.rate.dump(),
            "adapters": self.adapters is not None and self.adapters.made,
        }
        self.ranks.gather(None)  # every rank has written its part
        size = checkpoint.seal(folder, saved) if self.ranks.main else 0
        if self.job is None or not self.ranks.main:
            return
        if folder.parent.resolve() == self.job.checkpoints.resolve():  # never in a user's own folder
            checkpoint.prune(folder.parent, self.options.keep_checkpoints)
        path, seconds = os.path.relpath(folder, self.job.path), device_seconds() - began
        self.send(Checkpoint(at=now(), k=segment.k, step=step, path=path, seconds=seconds, bytes=size))

    def restore(self, folder: Path) -> None:
        """Continue from what `save` has put into a checkpoint."""
        saved = self.ranks.broadcast(partial(checkpoint.read, folder))
        if saved is None:
            self._warn(f"{folder.name} holds no segment of ours: the selection begins anew")
            return
        self.method.first = saved["first_importance"]
        self._last_importance = saved.get("last_importance", {})
        self.method.history = TrainingHistory(**saved.get("past", {}))
        self._seconds_full = saved["seconds_full"]
        self._flops, self._flops_full = saved.get("flops", (0.0, 0.0))
        self.rate.restore(saved.get("rate"))
        if saved["segment"] is not None:
            self._segment, self._interrupted, self.is_open = SegmentRecord.load(saved["segment"]), True, True

    def send(self, event: Event) -> None:
        if self.job is not None:
            self.job.send(event)

    def _alarm(self, kind: str, message: str) -> None:
        """Warn once per kind: each segment's record has it anyway."""
        if kind not in self._alarmed:
            self._alarmed.add(kind)
            self._warn(message)

    def _warn(self, message: str) -> None:
        log.warning(message)
        self.send(Warned(at=now(), message=message))
