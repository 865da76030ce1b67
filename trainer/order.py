"""Which rows the coming steps will read: transformers' training order, foreseen without drawing from it.

A segment's FLOPs at full fine-tuning depend on the lengths of its batches; to plan with them, not with a mean, the order
is worked out again from the sampler's own seed (accelerate's `SeedableRandomSampler`, the default).
"""

import random
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch

from trainer.segment import Schedule


@contextmanager
def own_random(seed: int, devices: Sequence[int] = ()) -> Iterator[None]:
    """Within it random numbers come from `seed`; afterwards every generator stands where it stood.

    devices: CUDA indices whose generators are kept too.
    """
    python, numpy = random.getstate(), np.random.get_state()
    try:
        with torch.random.fork_rng(devices=devices):
            torch.manual_seed(seed)
            yield
    finally:
        random.setstate(python)
        np.random.set_state(numpy)


def coming_batches(
    loader: Any, schedule: Schedule, first: int, end: int, accumulation: int
) -> list[list[int]] | None:
    """Row numbers of every micro-batch of optimizer steps [first, end); None where the order cannot be foreseen."""
    sampler = getattr(getattr(loader, "batch_sampler", None), "sampler", None)
    size = getattr(getattr(loader, "batch_sampler", None), "batch_size", None)
    drop_last = bool(getattr(getattr(loader, "batch_sampler", None), "drop_last", False))
    found: list[list[int]] = []
    per_epoch = schedule.steps_per_epoch
    for epoch in range(first // per_epoch, -(-end // per_epoch)):
        order = _order(sampler, len(loader.dataset), epoch)
        if order is None or size is None:
            return None
        batches = [order[i : i + size] for i in range(0, len(order), size)]
        if drop_last and len(batches[-1]) < size:
            batches.pop()
        begin, stop = max(first - epoch * per_epoch, 0), min(end - epoch * per_epoch, per_epoch)
        found += batches[begin * accumulation : stop * accumulation]
    return found


def _order(sampler: Any, rows: int, epoch: int) -> list[int] | None:
    from accelerate.data_loader import SeedableRandomSampler

    if isinstance(sampler, torch.utils.data.SequentialSampler):
        return list(range(rows))
    if isinstance(sampler, SeedableRandomSampler):
        twin = SeedableRandomSampler(range(rows), generator=torch.Generator(), data_seed=sampler.initial_seed)
        twin.set_epoch(epoch)
        return list(twin)
    return None
