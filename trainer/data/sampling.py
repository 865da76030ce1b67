"""Predicts which rows the coming steps will read: transformers' training order, worked out without drawing from it.

A segment's FLOPs at full fine-tuning depend on the lengths of its batches; to plan with them, not with a mean, the order
is worked out again from the sampler's own seed (accelerate's `SeedableRandomSampler`, the default).
"""

from collections.abc import Iterable
from typing import Any

import torch
from torch.utils.data import BatchSampler

from trainer.job.segment import Schedule


def drawn_rows(rows: int, size: int, batches: int, seed: int, rank: int = 0) -> list[list[int]]:
    """Row numbers of `batches` random batches by a generator of their own; ranks draw other rows while there are any."""
    generator = torch.Generator().manual_seed(seed)
    mine = (torch.arange(size) + rank * size) % rows
    return [torch.randperm(rows, generator=generator)[mine].tolist() for _ in range(batches)]


def coming_batches(
    loader: Any, schedule: Schedule, first: int, end: int, accumulation: int
) -> list[list[int]] | None:
    """Row numbers of every micro-batch of optimizer steps [first, end), of several ranks those of this one.

    None where the order cannot be foreseen.
    """
    shard = getattr(loader, "batch_sampler", None)
    whole = getattr(shard, "batch_sampler", shard)  # within accelerate's share of one rank
    sampler, size = getattr(whole, "sampler", None), getattr(whole, "batch_size", None)
    drop_last = bool(getattr(whole, "drop_last", False))
    found: list[list[int]] = []
    per_epoch = schedule.steps_per_epoch
    for epoch in range(first // per_epoch, -(-end // per_epoch)):
        order = _order(sampler, len(loader.dataset), epoch)
        if order is None or size is None:
            return None
        batches = list(_share(BatchSampler(order, size, drop_last), shard))
        begin, stop = max(first - epoch * per_epoch, 0), min(end - epoch * per_epoch, per_epoch)
        found += batches[begin * accumulation : stop * accumulation]
    return found


def _share(batches: BatchSampler, shard: Any) -> Iterable[list[int]]:
    """What `shard`, accelerate's share of one rank, takes of `batches`; all where it is none."""
    from accelerate.data_loader import BatchSamplerShard

    if not isinstance(shard, BatchSamplerShard):
        return batches
    ours: Iterable[list[int]] = BatchSamplerShard(
        batches, shard.num_processes, shard.process_index, shard.split_batches, shard.even_batches
    )
    return ours


def _order(sampler: Any, rows: int, epoch: int) -> list[int] | None:
    from accelerate.data_loader import SeedableRandomSampler

    if isinstance(sampler, torch.utils.data.SequentialSampler):
        return list(range(rows))
    if isinstance(sampler, SeedableRandomSampler):
        twin = SeedableRandomSampler(range(rows), generator=torch.Generator(), data_seed=sampler.initial_seed)
        twin.set_epoch(epoch)
        return list(twin)
    return None
