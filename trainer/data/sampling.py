"""Groups rows of similar length into batches, and predicts which rows the coming steps will read, without drawing from their sampler.

A segment's FLOPs at full fine-tuning depend on the lengths of its batches. To plan with these and not with a mean, the order is recomputed
from the sampler's own seed (accelerate's `SeedableRandomSampler`, a Trainer's default; `GroupedSampler`, a job's).
"""

import copy
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import torch
from torch.utils.data import BatchSampler, Sampler

from trainer.job.random_state import own_random
from trainer.job.segment import Schedule

POOL = 100
"""Batches whose rows are sorted together."""


class GroupedSampler(Sampler[int]):
    """Batches of rows of similar length, so that little is padded; grouping and order are random in each epoch.

    The rows are shuffled, cut into pools of 100 batches, sorted by length within each pool, and all batches of the epoch are shuffled. An
    incomplete batch comes last and may mix lengths. Seed and epoch determine everything.

    Example:
        >>> sampler = GroupedSampler([9, 1, 8, 2, 9], batch=2, seed=0)
        >>> sorted(sampler), list(sampler) == sampler.order(0)
        ([0, 1, 2, 3, 4], True)
    """

    def __init__(self, lengths: Sequence[Any], batch: int, seed: int, epoch: int = 0) -> None:
        """lengths: what rows are sorted by; batch: rows of a batch over all ranks; epoch: the first one."""
        self.lengths, self.batch, self.seed, self.epoch = lengths, batch, seed, epoch

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch

    def __len__(self) -> int:
        return len(self.lengths)

    def __iter__(self) -> Iterator[int]:
        return iter(self.order(self.epoch))

    def order(self, epoch: int) -> list[int]:
        """Row numbers of one epoch."""
        generator = torch.Generator().manual_seed(self.seed * 1_000_003 + epoch)
        rows = torch.randperm(len(self.lengths), generator=generator).tolist()
        whole = len(rows) // self.batch * self.batch
        batches = []
        for begin in range(0, whole, POOL * self.batch):
            pool = sorted(rows[begin : min(begin + POOL * self.batch, whole)], key=self.lengths.__getitem__)
            batches += [pool[i : i + self.batch] for i in range(0, len(pool), self.batch)]
        shuffled = torch.randperm(len(batches), generator=generator).tolist()
        return [row for i in shuffled for row in batches[i]] + rows[whole:]

    def drawn(self, size: int, batches: int, seed: int, rank: int = 0) -> list[list[int]]:
        """Row numbers of `batches` typical batches, by a separate generator; `size` rows of one rank from each. Fewer if there are not as many."""
        generator = torch.Generator().manual_seed(seed)
        rows = torch.randperm(len(self.lengths), generator=generator)[: POOL * self.batch].tolist()
        pool = sorted(rows[: len(rows) // self.batch * self.batch], key=self.lengths.__getitem__)
        chosen = torch.randperm(len(pool) // self.batch, generator=generator)[:batches].tolist()
        begins = [group * self.batch + rank * size for group in chosen]
        return [pool[begin : begin + size] for begin in begins]


def drawn_rows(rows: int, size: int, batches: int, seed: int, rank: int = 0) -> list[list[int]]:
    """Row numbers of `batches` random batches, by a separate generator; ranks draw different rows while there are enough."""
    generator = torch.Generator().manual_seed(seed)
    mine = (torch.arange(size) + rank * size) % rows
    return [torch.randperm(rows, generator=generator)[mine].tolist() for _ in range(batches)]


def coming_batches(
    loader: Any, schedule: Schedule, first: int, end: int, accumulation: int
) -> list[list[int]] | None:
    """Row numbers of every micro-batch of optimizer steps [first, end), with several ranks this rank's. None if the order cannot be predicted."""
    shard = getattr(loader, "batch_sampler", None)
    whole = getattr(shard, "batch_sampler", shard)  # inside accelerate's wrapper that takes one rank's share
    sampler, size = getattr(whole, "sampler", None), getattr(whole, "batch_size", None)
    drop_last = bool(getattr(whole, "drop_last", False))
    found: list[list[int]] = []
    for epoch, begin, stop in _by_epoch(schedule, first, end):
        order = _order(sampler, len(loader.dataset), epoch)
        if order is None or size is None:
            return None
        batches = list(_share(BatchSampler(order, size, drop_last), shard))
        found += batches[begin * accumulation : stop * accumulation]
    return found


def _by_epoch(schedule: Schedule, first: int, end: int) -> Iterator[tuple[int, int, int]]:
    """For steps [first, end): each epoch, and which of its steps."""
    per_epoch = schedule.steps_per_epoch
    for epoch in range(first // per_epoch, -(-end // per_epoch)):
        yield epoch, max(first - epoch * per_epoch, 0), min(end - epoch * per_epoch, per_epoch)


def typical_batches(
    loader: Any, schedule: Schedule, first: int, end: int, accumulation: int
) -> list[list[int]] | None:
    """Row numbers of micro-batches like those of steps [first, end), by another draw of the same sampler.

    For an order that cannot be predicted (rows grouped by length, a user's own sampler). None if nothing can be drawn.
    """
    shard = getattr(loader, "batch_sampler", None)
    whole = getattr(shard, "batch_sampler", shard)
    try:
        twin = _own_twin(whole)
        if getattr(twin, "sampler", None) is not None:
            twin.sampler = _own_twin(twin.sampler)
        with own_random(0):
            epoch = [list(map(int, rows)) for rows in _share(twin, shard)]
    except Exception:  # a user's own class: its other requirements are unknown
        return None
    spans = _by_epoch(schedule, first, end)
    return [rows for _, begin, stop in spans for rows in epoch[begin * accumulation : stop * accumulation]]


def grouped_sampler(loader: Any) -> GroupedSampler | None:
    """The sampler that groups the rows of `loader` by length; None: there is none of ours."""
    shard = getattr(loader, "batch_sampler", None)
    found = getattr(getattr(shard, "batch_sampler", shard), "sampler", None)
    return found if isinstance(found, GroupedSampler) else None


def order_of(loader: Any) -> str:
    """The name of what decides the order of the rows."""
    shard = getattr(loader, "batch_sampler", None)
    whole = getattr(shard, "batch_sampler", shard)
    return type(getattr(whole, "sampler", None) or whole).__name__


def _own_twin(sampler: Any) -> Any:
    """A copy whose draws leave the sampler's own untouched."""
    twin = copy.copy(sampler)
    if isinstance(getattr(twin, "generator", None), torch.Generator):
        twin.generator = twin.generator.clone_state()
    return twin


def _share(batches: Any, shard: Any) -> Iterable[list[int]]:
    """The share of `batches` that `shard`, accelerate's wrapper for one rank, takes; all if it is none."""
    from accelerate.data_loader import BatchSamplerShard

    if not isinstance(shard, BatchSamplerShard):
        whole: Iterable[list[int]] = batches
        return whole
    ours: Iterable[list[int]] = BatchSamplerShard(
        batches, shard.num_processes, shard.process_index, shard.split_batches, shard.even_batches
    )
    return ours


def _order(sampler: Any, rows: int, epoch: int) -> list[int] | None:
    from accelerate.data_loader import SeedableRandomSampler

    if isinstance(sampler, GroupedSampler):
        return sampler.order(epoch)
    if isinstance(sampler, torch.utils.data.SequentialSampler):
        return list(range(rows))
    if isinstance(sampler, SeedableRandomSampler):
        twin = SeedableRandomSampler(range(rows), generator=torch.Generator(), data_seed=sampler.initial_seed)
        twin.set_epoch(epoch)
        return list(twin)
    return None
