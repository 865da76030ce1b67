"""Which feeds' states are to be told: those that are another one than was told last, and not too often."""

from collections.abc import Iterable, Iterator
from typing import Final

from carbonsched.model.grid import FeedStatus

TOLD_AGAIN_S: Final = 60.0
"""A feed that fails and comes back all the time is told of so often at most."""


def changes(
    found: Iterable[FeedStatus], told: dict[str, tuple[str, float]], now_s: float
) -> Iterator[FeedStatus]:
    """Those of `found` whose state is another than was told last; `told` is brought up to date."""
    for status in found:
        state, at_s = told.get(status.name, ("untried", now_s - TOLD_AGAIN_S))
        if status.state != state and now_s - at_s >= TOLD_AGAIN_S:
            told[status.name] = status.state, now_s
            yield status
