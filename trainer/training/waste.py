"""Keeps account of what a stock Trainer would have computed on the rows of a segment: the waste effect (docs/reports.md).

In a job the rows are ours: stock is the same rows, in random order where we group them by length, in the batches that ran where we do not,
each batch padded to its longest row. In a user's own Trainer the batches are theirs, and stock is these very batches: there only
the output embeddings are ours.
"""

from collections import Counter
from collections.abc import Mapping
from typing import Any

from torch import Tensor

from carbonsched.model.protocol import Waste
from trainer.data.sampling import grouped_sampler
from trainer.data.upcoming_batches import Batches
from trainer.job.segment import SegmentRecord
from trainer.profiling.flop_counter import FullStepFlops, Shape
from trainer.profiling.labelled_head import IGNORED
from trainer.profiling.stock import Lengths, all_logits, padded, random_orders


class WasteAccount:
    """Of one training, on this rank.

    Example::

        account = WasteAccount(batches, prepared.full)
        account.note(batch, batches.shape_of(batch))
        account.add(segment, *account.take_step())
        waste = account.of(segment)
    """

    def __init__(self, batches: Batches, full: FullStepFlops) -> None:
        self.batches, self.full = batches, full
        self.grouped = batches.own_rows and grouped_sampler(batches.loader) is not None
        self._ours: list[Shape] = []
        self._stock: list[Shape] = []
        """Batches of the running step, as they are and as stock pads them."""
        self._rows: Counter[Lengths] = Counter()

    def note(self, batch: Mapping[str, Any], shape: Shape) -> None:
        """A micro-batch of the running step, of this shape. Traces nothing: the step may be counted."""
        rows = self._lengths(batch) if self.batches.own_rows else None
        if rows is not None and self.grouped:
            self._rows.update(rows)
        self._ours.append(all_logits(shape))
        self._stock.append(all_logits(shape) if rows is None or self.grouped else padded(rows))

    def take_step(self) -> tuple[float, float]:
        """Of the step that ended: T_full with logits for every token, and of the same batches as stock pads them."""
        ours, stock = (sum(map(self.full.flops, shapes)) for shapes in (self._ours, self._stock))
        self._ours, self._stock = [], []
        return ours, stock

    def add(self, segment: SegmentRecord, all_logits: float, stock: float) -> None:
        """What `take_step` gave, all ranks'."""
        segment.counted_steps += 1
        segment.flops_all_logits += all_logits
        segment.flops_stock += stock
        for (seq, target), count in self._rows.items():
            name = f"{seq}" if target is None else f"{seq},{target}"
            segment.row_lengths[name] = segment.row_lengths.get(name, 0) + count
        self._rows.clear()

    def of(self, segment: SegmentRecord) -> Waste | str:
        """Of a segment that ended, or why it is not known. Called on every rank."""
        if segment.counted_steps < segment.steps_done:
            return "its first steps were taken by a version that did not count it"
        whole, spread, orders = segment.flops_stock, 0.0, 0
        if self.grouped:
            rows = {_read(name): count for name, count in segment.row_lengths.items()}
            mean, deviation, orders = random_orders(self.full, rows, self.batches.batch, segment.k)
            whole, squares = self.batches.ranks.sum([mean, deviation**2])
            spread = squares**0.5
        return Waste(
            stock_flops=whole,
            padding_flops=whole - segment.flops_all_logits,
            # a sum of many steps, rounded: never below 0
            head_flops=max(segment.flops_all_logits - segment.flops_full, 0.0),
            orders=orders,
            spread_flops=spread,
        )

    def _lengths(self, batch: Mapping[str, Any]) -> list[Lengths] | None:
        """Of the rows in a batch; None where it does not tell them."""
        mask, labels = batch.get("attention_mask"), batch.get("labels")
        if not isinstance(mask, Tensor) or mask.ndim != 2:
            return None
        lengths = mask.sum(1).tolist()
        if not self.batches.encoder_decoder:
            return [(seq, None) for seq in lengths]
        if not isinstance(labels, Tensor) or labels.ndim != 2:
            return None
        return list(zip(lengths, (labels != IGNORED).sum(1).tolist(), strict=True))


def _read(name: str) -> Lengths:
    seq, _, target = name.partition(",")
    return int(seq), int(target) if target else None
