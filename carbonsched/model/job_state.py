"""JobState lists the states of a job; TRANSITIONS is the one table of the moves between them.

The supervisor moves jobs, the ledger keeps the moves, API and CLI show the states: all of them go by this table.
"""

from enum import StrEnum

from carbonsched.errors import StateError


class JobState(StrEnum):
    """What a job is doing, or how it ended.

    Example:
        >>> JobState("stopped").ended
        True
    """

    QUEUED = "queued"
    RUNNING = "running"
    WAITING = "waiting"
    """Told to wait for a cleaner hour."""
    PAUSED = "paused"
    """By its owner."""
    FINISHED = "finished"
    FAILED = "failed"
    CANCELLED = "cancelled"
    STOPPED = "stopped"
    """On budget: what is left cannot pay for the rest; a checkpoint is kept."""

    @property
    def live(self) -> bool:
        """Whether a trainer process belongs to this state."""
        return self in (JobState.RUNNING, JobState.WAITING)

    @property
    def ended(self) -> bool:
        return self in (JobState.FINISHED, JobState.FAILED, JobState.CANCELLED, JobState.STOPPED)


TRANSITIONS: dict[JobState, frozenset[JobState]] = {
    JobState.QUEUED: frozenset(
        {
            JobState.RUNNING,
            JobState.WAITING,
            JobState.PAUSED,
            JobState.CANCELLED,
            JobState.FAILED,
            JobState.STOPPED,
        }
    ),
    JobState.RUNNING: frozenset(
        {
            JobState.WAITING,
            JobState.PAUSED,
            JobState.FINISHED,
            JobState.FAILED,
            JobState.CANCELLED,
            JobState.STOPPED,
        }
    ),
    JobState.WAITING: frozenset(
        {
            JobState.RUNNING,
            JobState.QUEUED,
            JobState.PAUSED,
            JobState.FINISHED,
            JobState.FAILED,
            JobState.CANCELLED,
            JobState.STOPPED,
        }
    ),
    JobState.PAUSED: frozenset({JobState.QUEUED, JobState.CANCELLED, JobState.FAILED}),
    JobState.FAILED: frozenset({JobState.QUEUED}),
    JobState.STOPPED: frozenset({JobState.QUEUED}),
    JobState.FINISHED: frozenset(),
    JobState.CANCELLED: frozenset(),
}
"""The one table of allowed moves; `resume` is the way out of paused, failed and stopped."""


def move(job_id: str, old: JobState, new: JobState) -> JobState:
    """`new`, if the table allows it. Raises StateError that names what is possible."""
    if new not in TRANSITIONS[old]:
        allowed = ", ".join(sorted(TRANSITIONS[old])) or "nothing: it has ended"
        raise StateError(f"job {job_id} is {old}, it cannot become {new}; possible from here: {allowed}")
    return new
