"""Stands in for the batches of a stream, of which only the past is known.

A stream cannot be read twice: it may be a socket, or an exhausted generator. So importance is measured on the batches that are about to be
trained, which the Trainer has already fetched, and future batches are assumed to be like past ones.
"""

from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch.utils.data import IterableDataset

from trainer.data.upcoming_batches import Batches
from trainer.profiling.flop_counter import FullStepFlops, Shape

SHAPES = 1024
"""Recent micro-batches whose shapes represent those to come."""


def is_stream(loader: Any) -> bool:
    """Whether a loader's data set yields rows in one fixed order, without access by number."""
    data = getattr(loader, "dataset", None)
    return isinstance(data, IterableDataset) or not (
        hasattr(data, "__len__") and hasattr(data, "__getitem__")
    )


@dataclass(slots=True)
class StreamWindow:
    """The most recent micro-batches that a Trainer fetched.

    Example:
        >>> window = StreamWindow(most=1)
        >>> window.note(["first", "second"])
        >>> window.note(["third"])
        >>> list(window.batches)
        ['second', 'third']
    """

    most: int
    """Batches kept beside those of the coming step."""
    batches: deque[Any] = field(default_factory=deque)
    shapes: deque[Shape] = field(default_factory=lambda: deque(maxlen=SHAPES))
    shape_of: Callable[[Mapping[str, Any]], Shape] | None = None

    def note(self, coming: list[Any]) -> None:
        """The Trainer has fetched the micro-batches of a step."""
        self.batches.extend(coming)
        while len(self.batches) > self.most + len(coming):
            self.batches.popleft()
        if self.shape_of is not None:
            self.shapes.extend(map(self.shape_of, coming))


@dataclass(frozen=True, slots=True)
class StreamBatches(Batches):
    """The batches of a stream.

    Example::

        window = StreamWindow(most=1)
        batches = StreamBatches(loader, schedule, 1, 4, False, ranks(), window)
        newest = batches.drawn(k=0, count=1, seed=0)
    """

    window: StreamWindow

    def __post_init__(self) -> None:
        self.window.shape_of = self.shape_of
        self.window.shapes.clear()
        self.window.shapes.extend(map(self.shape_of, self.window.batches))

    def drawn(self, k: int, count: int, seed: int) -> list[dict[str, torch.Tensor]]:
        """The newest `count` batches, or as many as there are, including those of the coming step."""
        return list(self.window.batches)[-count:]

    def check_labels(self, seed: int) -> None:
        """Does nothing: labels may still come."""

    def shapes_ahead(self, nominal: Shape, first: int, end: int) -> tuple[list[Shape], float]:
        seen = list(self.window.shapes) or [nominal]
        return seen, (end - first) * self.accumulation / len(seen)

    def unforeseen_order(self, first: int, end: int) -> str | None:
        return "a stream"

    def share_ahead(
        self,
        flops: Callable[[Mapping[str, Any], Shape], float] | None,
        full: FullStepFlops,
        first: int,
        end: int,
    ) -> float:
        """Always 0: no row is known to be read again."""
        return 0.0
