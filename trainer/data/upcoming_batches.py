"""Predicts shapes and rows of the batches that a loader will give, without drawing from it."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch

from carbonsched.errors import InputError
from trainer.data.sampling import (
    coming_batches,
    drawn_rows,
    grouped_sampler,
    order_of,
    typical_batches,
)
from trainer.distributed.ranks import Ranks
from trainer.job.random_state import own_random
from trainer.job.segment import Schedule, rows_in
from trainer.profiling.batch_form import sizes_of
from trainer.profiling.flop_counter import FullStepFlops, Shape
from trainer.profiling.labelled_head import IGNORED, count_labelled, counts_labels
from trainer.profiling.row_ends import RowEnds

_OTHER_SEED = 7_368_787
LOOKED_AT = 256
"""Batches of a coming segment whose shapes are read; of more an even sample."""

DRAWS = 64
"""Batches drawn at most to find one with a label."""


def unlabelled(batch: Any) -> bool:
    """Whether every label of a batch is -100, so that there is nothing to learn."""
    labels = batch.get("labels") if isinstance(batch, Mapping) else None
    if not isinstance(labels, torch.Tensor) or labels.is_floating_point() or not labels.numel():
        return False
    return bool((labels == IGNORED).all())


@dataclass(frozen=True, slots=True)
class Batches:
    """Predicts the batches of a Trainer's loader, and draws others for importance.

    Example::

        batches = Batches(loader, schedule, accumulation=1, batch=4, encoder_decoder=False, ranks=ranks())
        shape = batches.shape_of(next(iter(loader)))
    """

    loader: Any
    schedule: Schedule
    accumulation: int
    batch: int
    """Rows in a micro-batch of one rank."""
    encoder_decoder: bool
    ranks: Ranks
    labelled_head: bool = field(default=False, kw_only=True)
    """Whether the output embeddings run on labelled tokens alone, so that shapes count these."""
    splits_rows: bool = field(default=False, kw_only=True)
    """Whether rows may run in two parts, so that shapes describe their ends."""
    own_rows: bool = field(default=False, kw_only=True)
    """Whether the rows are a job's own, so that the trainer decides their padding and grouping."""

    def shape_of(self, batch: Mapping[str, Any]) -> Shape:
        """Raises InputError if the batch is not made of tensors."""
        shape = Shape(*sizes_of(batch, self.encoder_decoder))
        if self.splits_rows:
            shape = shape._replace(ends=RowEnds.of(batch))
        labels = batch.get("labels") if self.labelled_head else None
        if not counts_labels(labels):
            return shape
        return shape._replace(labelled=count_labelled(labels, shifted=not self.encoder_decoder))

    def drawn(self, k: int, count: int, seed: int) -> list[dict[str, torch.Tensor]]:
        """Draw `count` batches for segment k with a separate generator, so that the training order does not change.

        They group rows by length if training does: random batches would have more padding, and cost more.
        """
        rows, own, rank = len(self.loader.dataset), seed * 1_000_003 + k, self.ranks.index
        sampler = grouped_sampler(self.loader)
        chosen = [] if sampler is None else sampler.drawn(self.batch, count, own, rank)
        if len(chosen) < count:
            chosen = drawn_rows(rows, self.batch, count, own, rank)
        with own_random(self.ranks.offset_seed(seed + k)):
            return [self._collate(numbers) for numbers in chosen]

    def drawn_labelled(self, k: int, count: int, seed: int) -> list[dict[str, torch.Tensor]]:
        """As `drawn`, drawn again while no row has a label other than -100; the last draw is used in any case."""
        drawn = self.drawn(k, count, seed)
        for again in range(1, DRAWS):
            if not all(map(unlabelled, drawn)):
                break
            drawn = self.drawn(k, count, seed + again * _OTHER_SEED)
        return drawn

    def check_labels(self, seed: int) -> None:
        """Raise InputError if no inspected row has a label to learn from."""
        if not self.ranks.any(not all(map(unlabelled, self.drawn_labelled(0, 1, seed)))):
            raise InputError(
                "data",
                f"all labels of {DRAWS} batches that were drawn are -100: there is nothing to learn",
                "label what is to be learned; a maximum length may leave the prompt alone",
            )

    def full_ahead(self, full: FullStepFlops, nominal: Shape, first: int, end: int) -> float:
        """T_full of steps [first, end), all ranks."""
        shapes, each = self.shapes_ahead(nominal, first, end)
        return self.ranks.sum([full.total(shapes) * each])[0]

    def shapes_ahead(self, nominal: Shape, first: int, end: int) -> tuple[list[Shape], float]:
        """The shapes of steps [first, end) on this rank, and how many batches each represents.

        From the coming batches; else from typical ones; else from as many rows at the shape `nominal`.
        """
        span = (self.loader, self.schedule, first, end, self.accumulation)
        batches = coming_batches(*span) or typical_batches(*span)
        if not batches:
            step = self.batch * self.ranks.size
            rows = rows_in(self.schedule, first, end, len(self.loader.dataset), step, self.accumulation)
            return [nominal], rows / self.batch / self.ranks.size
        looked_at = batches[:: -(-len(batches) // LOOKED_AT)]
        with own_random(0):  # a collator may use random numbers
            shapes = [self.shape_of(self._collate(numbers)) for numbers in looked_at]
        return shapes, len(batches) / len(shapes)

    def unforeseen_order(self, first: int, end: int) -> str | None:
        """What decides the order of steps [first, end), if it cannot be predicted; None if it can."""
        foreseen = coming_batches(self.loader, self.schedule, first, end, self.accumulation)
        return order_of(self.loader) if foreseen is None else None

    def share_ahead(
        self,
        flops: Callable[[Mapping[str, Any], Shape], float] | None,
        full: FullStepFlops,
        first: int,
        end: int,
    ) -> float:
        """Σ of `flops`(batch, its shape) over the batches of steps [first, end) ÷ their T_full, all ranks; reads every batch. 0 if they
        cannot be predicted, or if `flops` is None on every rank."""
        batches = coming_batches(self.loader, self.schedule, first, end, self.accumulation) if flops else None
        part = whole = 0.0
        with own_random(0):
            for inputs in map(self._collate, batches or []):
                shape = self.shape_of(inputs)
                part += flops(inputs, shape) if flops else 0.0
                whole += full.flops(shape)
        part, whole = self.ranks.sum([part, whole])
        return part / whole if whole else 0.0

    def _collate(self, rows: list[int]) -> dict[str, torch.Tensor]:
        batch: dict[str, torch.Tensor] = self.loader.collate_fn([self.loader.dataset[i] for i in rows])
        return batch
