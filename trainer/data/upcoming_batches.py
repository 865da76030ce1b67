"""Predicts shapes and rows of the batches that a loader will give, without drawing from it."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch

from trainer.data.sampling import coming_batches, drawn_rows
from trainer.distributed.ranks import Ranks
from trainer.job.random_state import own_random
from trainer.job.segment import Schedule, rows_in
from trainer.profiling.flop_counter import FullStepFlops, Shape

LOOKED_AT = 256
"""Batches of a coming segment whose shapes are looked at; of more an even sample."""


@dataclass(frozen=True, slots=True)
class Batches:
    """Foresees the batches of a Trainer's loader, and draws others for importance.

    Example::

        batches = Batches(loader, schedule, accumulation=1, batch=4, encoder_decoder=False, ranks=ranks())
        shape = batches.shape_of(next(iter(loader)))
    """

    loader: Any
    schedule: Schedule
    accumulation: int
    batch: int
    """Rows of a micro-batch of one rank."""
    encoder_decoder: bool
    ranks: Ranks

    def shape_of(self, batch: Mapping[str, Any]) -> Shape:
        inputs = batch["input_ids"] if batch.get("input_ids") is not None else batch["inputs_embeds"]
        target = batch["labels"].shape[1] if self.encoder_decoder else None
        return Shape(inputs.shape[0], inputs.shape[1], target)

    def drawn(self, k: int, count: int, seed: int) -> list[dict[str, torch.Tensor]]:
        """`count` batches for segment k, by a generator of their own: the training order is not touched."""
        rows = len(self.loader.dataset)
        chosen = drawn_rows(rows, self.batch, count, seed * 1_000_003 + k, self.ranks.index)
        with own_random(self.ranks.offset_seed(seed + k)):
            return [self._collate(numbers) for numbers in chosen]

    def full_ahead(self, full: FullStepFlops, nominal: Shape, first: int, end: int) -> float:
        """T_full of steps [first, end), all ranks: of the batches to come, or of as many rows at the shape `nominal`."""
        batches = coming_batches(self.loader, self.schedule, first, end, self.accumulation)
        if not batches:
            step = self.batch * self.ranks.size
            rows = rows_in(self.schedule, first, end, len(self.loader.dataset), step, self.accumulation)
            return full.flops(nominal) * rows / self.batch
        looked_at = batches[:: -(-len(batches) // LOOKED_AT)]
        with own_random(0):  # a collator may draw
            shapes = [self.shape_of(self._collate(numbers)) for numbers in looked_at]
        mine = sum(full.flops(shape) for shape in shapes) * len(batches) / len(shapes)
        return self.ranks.sum([mine])[0]

    def share_ahead(
        self,
        flops: Callable[[Mapping[str, Any], Shape], float] | None,
        full: FullStepFlops,
        first: int,
        end: int,
    ) -> float:
        """Σ of `flops`(batch, its shape) over the batches of steps [first, end) ÷ their T_full, all ranks.

        Every batch is looked at. 0 where they cannot be foreseen, or where `flops` is None on every rank.
        """
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
