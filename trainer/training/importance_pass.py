"""Measures importance at the beginning of a segment: once for the same weights, and with a lease before each of its batches."""

import logging
from dataclasses import asdict
from functools import partial
from pathlib import Path

from accelerate.utils import send_to_device

from trainer.data.upcoming_batches import Batches
from trainer.importance.gradient_pass import Loss
from trainer.importance.measure import Importance, measure
from trainer.job import checkpoint
from trainer.job.directives import DirectiveSource
from trainer.job.segment import SegmentRecord
from trainer.methods.method import Method
from trainer.training.options import Options
from trainer.training.trainable_model import TrainableModel

log = logging.getLogger("trainer")


class ImportancePass:
    """The importance passes of one training.

    Example::

        found = ImportancePass(model, batches, method, options, directives, model_loss).measure(segment)
        values = method.objective.value(found, method.history)
    """

    def __init__(
        self,
        model: TrainableModel,
        batches: Batches,
        method: Method,
        options: Options,
        directives: DirectiveSource,
        loss: Loss,
    ) -> None:
        self.model, self.batches, self.method = model, batches, method
        self.options, self.directives, self.loss = options, directives, loss
        self.warm = False
        """Whether this process has run forward and backward passes on its device."""

    def measure(self, segment: SegmentRecord) -> Importance:
        """Measure for the segment about to begin, and record the cost in it. Raises Stopped."""
        # a process that ended while it waited has already measured these weights
        job, ranks = self.directives.job, self.batches.ranks
        folder: Path | None = job.checkpoints if job else None
        earlier = partial(checkpoint.read_importance, folder, segment.first) if folder else None
        kept = ranks.broadcast(earlier) if earlier else None
        found = Importance(**kept) if kept is not None else self._run(segment)
        if kept is None and folder is not None and ranks.main:
            checkpoint.save_importance(folder, segment.first, asdict(found))
        segment.set_importance(found.flops, found.seconds, found.relative_error, found.recomputed)
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

    def _run(self, segment: SegmentRecord) -> Importance:
        model, options, ranks = self.model, self.options, self.batches.ranks
        device = next(model.module.parameters()).device
        drawn = self.batches.drawn_labelled(segment.k, options.importance_batches, options.seed)
        model.wrapping.reshard()
        warm, self.warm = self.warm or device.type == "cpu", True
        with model.at_share(self.method.measured_share):
            return measure(
                model.module,
                model.optimizer,
                [send_to_device(batch, device) for batch in drawn],
                estimator=self.method.objective.estimator or "update",
                common_steps=self.method.history.common_steps(model.names),
                seed=ranks.offset_seed(options.seed + segment.k),
                stop=self._check_stop,
                ranks=ranks,
                warm=warm,
                loss=self.loss,
            )

    def _check_stop(self) -> bool:
        """Between two batches: wait if the lease is over; returns whether a signal came. Raises Stopped."""
        self.batches.ranks.broadcast(self.directives.check_lease)
        return self.options.stopping()
