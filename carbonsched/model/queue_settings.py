"""`[queue]`: when a job may start among the others, how often it is tried, and how long a try may take."""

from typing import Annotated

from pydantic import Field

from carbonsched.model.base import Doc, Duration


class QueuePart(Doc):
    """`[queue]`: its place among the jobs that wait, and what becomes of a process that dies.

    Example:
        >>> QueuePart(max_attempts=3).backoff_s(2)
        120.0
    """

    priority: Annotated[int, Field(ge=-100, le=100)] = 0
    """Higher ones start first, those of one priority in the order of submission. Above 0 is for admins."""
    after: Annotated[
        tuple[Annotated[str, Field(min_length=1, max_length=64)], ...], Field(max_length=100)
    ] = ()
    """Jobs that must have finished before it starts: ids, first letters of them, or names."""
    max_attempts: Annotated[int, Field(ge=1, le=100)] = 1
    """How often it is started when its process dies or ends with an error, each time from its last checkpoint."""
    backoff: Duration = 60.0
    """Before the second attempt; doubled before each one after it, up to an hour."""
    time_limit: Duration | None = None
    """How long one start of it may run, waiting for cleaner hours included; then it is asked to checkpoint and has failed."""
    silence_limit: Duration | None = None
    """How long its process may say nothing where it should; then it is ended as one that died, and tried again where it may be."""
    hold: bool = False
    """Start it only when `release` says so."""
    dedupe_key: Annotated[str, Field(min_length=1, max_length=200)] | None = None
    """A submit with the key of a job of the same owner that is not over, or has finished, gives that job and queues nothing."""

    def backoff_s(self, failed: int) -> float:
        """Seconds to wait after so many attempts that failed, from 1."""
        return min(self.backoff * 2.0 ** (failed - 1), max(self.backoff, MOST_BACKOFF_S))


MOST_BACKOFF_S = 3600.0
