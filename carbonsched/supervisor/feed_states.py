"""Finds feeds whose state changed since it was last reported, at a limited rate."""

from collections.abc import Iterable, Iterator
from typing import Final

from carbonsched.model.grid import FeedStatus

TOLD_AGAIN_S: Final = 60.0
"""A feed that keeps failing and recovering is reported once in so many seconds."""


def changes(
    found: Iterable[FeedStatus], told: dict[str, tuple[str, float]], now_s: float
) -> Iterator[FeedStatus]:
    """The statuses in `found` whose state differs from the one last reported; updates `told`."""
    for status in found:
        state, at_s = told.get(status.name, ("untried", now_s - TOLD_AGAIN_S))
        if status.state != state and now_s - at_s >= TOLD_AGAIN_S:
            told[status.name] = status.state, now_s
            yield status
