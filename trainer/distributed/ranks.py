"""Lets the processes of one training act as one: what rank 0 decides, every rank does before the same step.

Only rank 0 listens to the daemon and selects; the result is broadcast over a gloo group of its own, because a wait for a clean hour must
not hit the timeout of the group that carries the gradients, and numbers on the host need no device. In a single process all of it is free.
"""

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from functools import cache
from typing import Any, TypeVar

import torch
import torch.distributed as dist

from carbonsched.errors import CarbonschedError, InputError
from carbonsched.model.job import TrainPart
from trainer.job.directives import Stopped

T = TypeVar("T")

PATIENCE = timedelta(days=30)
"""How long ranks wait for rank 0, which may be waiting for the daemon."""


def world_size() -> int:
    """Processes that torchrun (or accelerate) has started for this training."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def world_of(train: TrainPart) -> int:
    """Processes in a training: those that torchrun has started, or else those that the spec asks for."""
    return world_size() if "WORLD_SIZE" in os.environ else train.processes or 1


def check_world(train: TrainPart) -> None:
    """Raise InputError if the number of processes differs from the spec's."""
    world = world_of(train)
    if world > 1 and train.parallel == "none":
        raise InputError(
            "train.parallel", f"is 'none', but {world} processes were started", "set it to 'ddp' or 'fsdp2'"
        )
    if world == 1 and train.parallel != "none":
        raise InputError(
            "train.processes",
            f"is missing, {train.parallel!r} takes several",
            "give how many, each on a board of its own, or start them with torchrun",
        )
    if train.processes not in (None, world):
        raise InputError(
            "train.processes",
            f"is {train.processes}, but {world} were started",
            "start as many, or leave it out",
        )


@dataclass(frozen=True, slots=True)
class Ranks:
    """The processes of one training. All of them call the same methods in the same order.

    Example:
        >>> alone = Ranks()
        >>> alone.main, alone.sum([1.0, 2.0]), alone.broadcast(lambda: "decided once")
        (True, [1.0, 2.0], 'decided once')
    """

    index: int = 0
    size: int = 1
    group: Any = None

    @property
    def main(self) -> bool:
        """Whether this rank listens to the daemon and writes."""
        return self.index == 0

    def sum(self, values: Sequence[float]) -> list[float]:
        """Elementwise over ranks, float64."""
        if self.size == 1:
            return list(values)
        total = torch.tensor(values, dtype=torch.float64)
        dist.all_reduce(total, group=self.group)
        found: list[float] = total.tolist()
        return found

    def offset_seed(self, seed: int) -> int:
        """A seed that differs on each rank; `seed` itself on rank 0."""
        return seed + 1_000_003 * self.index

    def any(self, flag: bool) -> bool:
        """Whether it holds on any rank."""
        return self.sum([float(flag)])[0] > 0

    def gather(self, mine: T) -> list[T]:
        """`mine` of every rank, ordered by rank: plain data."""
        if self.size == 1:
            return [mine]
        found: list[Any] = [None] * self.size
        dist.all_gather_object(found, mine, group=self.group)
        return found

    def broadcast(self, make: Callable[[], T]) -> T:
        """Call `make` on rank 0 and return its result on every rank. Its exceptions are raised on every rank."""
        if self.size == 1:
            return make()
        failed: Exception | None = None
        sent: list[Any] = [None, None]
        if self.main:
            try:
                sent[0] = make()
            except Exception as e:
                # not the exception itself: some cannot be pickled because of their constructors
                failed, sent[1] = e, (isinstance(e, Stopped), str(e))
        dist.broadcast_object_list(sent, src=0, group=self.group)
        if failed is not None:
            raise failed
        if sent[1] is not None:
            stopped, message = sent[1]
            raise Stopped(message) if stopped else CarbonschedError(f"rank 0: {message}")
        result: T = sent[0]
        return result


def ranks() -> Ranks:
    """This process among those of its training; created once. Every rank asks for it at the same point."""
    if not (dist.is_available() and dist.is_initialized()) or dist.get_world_size() == 1:
        return Ranks()
    return _ranks()


def leave() -> None:
    """Close the process groups after a training that succeeded or was stopped: their threads would otherwise abort the process at exit."""
    if dist.is_available() and dist.is_initialized():
        ranks().gather(None)
        _ranks.cache_clear()
        dist.destroy_process_group()


@cache
def _ranks() -> Ranks:
    group = dist.new_group(backend="gloo", timeout=PATIENCE)
    return Ranks(dist.get_rank(), dist.get_world_size(), group)
