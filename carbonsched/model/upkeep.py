"""Emptying the box, and taking finished jobs away: `[retention]`, and what passes between API and CLI."""

from typing import Annotated

from pydantic import Field, field_validator

from carbonsched.model.base import Doc, Duration, Line
from carbonsched.model.job_state import JobState


class RetentionConfig(Doc):
    """`[retention]`: how long the folders of jobs that are over are kept.

    Example:
        >>> RetentionConfig(after="30d").after
        2592000.0
    """

    after: Duration | None = None
    """After its end; None: until somebody removes it. Its rows in the ledger stay in any case."""
    states: tuple[JobState, ...] = (JobState.FINISHED, JobState.CANCELLED)
    """Failed and stopped ones are taken up again from their folders, so these are named or kept."""

    @field_validator("states")
    @classmethod
    def _over(cls, states: tuple[JobState, ...]) -> tuple[JobState, ...]:
        for state in states:
            if not state.ended:
                raise ValueError(f"a {state} job is not over; name finished, failed, cancelled or stopped")
        return states


class DrainBody(Doc):
    """Body of POST /v1/drain.

    Example:
        >>> DrainBody.parse({"reason": "new disks"}).reason
        'new disks'
    """

    reason: Annotated[Line, Field(max_length=200)] = ""
    """What people whose jobs wait are told."""


class Drained(Doc):
    """`drain` and `undrain`.

    Example:
        >>> Drained(drained=True, reason="the box is drained by ada", live=1, queued=2).live
        1
    """

    drained: bool
    reason: str
    """Who drained it, and why; empty where the box starts jobs."""
    live: int
    """Jobs and metered commands whose process runs on."""
    queued: int


class Removed(Doc):
    """A job whose folder is gone; its rows in the ledger stay.

    Example:
        >>> Removed(id="a-1", freed_bytes=1024).freed_bytes
        1024
    """

    id: str
    freed_bytes: int | None
    """None: nothing was removed yet, it is what `--dry-run` would."""


class RemovedList(Doc):
    """`rm` of several jobs, and `prune`.

    Example:
        >>> RemovedList(jobs=[]).dry_run
        False
    """

    jobs: tuple[Removed, ...]
    dry_run: bool = False
    """Nothing was removed: these would be. What that frees is not known before."""
