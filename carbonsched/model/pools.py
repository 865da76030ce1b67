"""What the API tells of the budgets that jobs share."""

from carbonsched.model.base import Doc
from carbonsched.model.job_state import JobState


class PoolJob(Doc):
    """A job that draws on a pool and is not over.

    Example:
        >>> PoolJob(id="a-1", name="a", owner="alice", state="queued", weight=1, spent_g=0, part_g=80, floor_g=75,
        ...     reason="waits").part_g
        80.0
    """

    id: str
    name: str
    owner: str
    state: JobState
    weight: float
    spent_g: float
    """As the pool is charged: known grams, and what is not known at its worst."""
    part_g: float
    """Of what the pool has left, what this job may spend now."""
    floor_g: float | None
    """What it still needs at its lowest ρ; None while it is not known, and in a pool that grows."""
    reason: str


class PoolView(Doc):
    """One shared budget and the jobs that draw on it.

    Example:
        >>> lab = PoolView(name="lab", granted_g=500, g_per_h=None, spent_g=320, left_g=180, held_g=100, gain_per_more_g=0.004,
        ...     price="one more gram buys 0.4% of a job's gain", jobs=[], jobs_over=2)
        >>> lab.left_g - lab.held_g
        80.0
    """

    name: str
    granted_g: float
    """In all up to now, to all its jobs ever."""
    g_per_h: float | None
    """By which it grows; None: it does not."""
    spent_g: float
    """By all its jobs, also those that are over; what is not known at its worst."""
    left_g: float
    """Granted less spent."""
    held_g: float
    """Of that, the parts of the jobs below; the rest waits for the next division, or for a job that it can pay for."""
    gain_per_more_g: float | None
    """The price: what one more gram would buy, as a share of the gain of a whole job of weight 1. 0: nothing, all that were
    let in have what full speed takes; None: `price` says why there is none."""
    price: str
    """The same in words."""
    jobs: tuple[PoolJob, ...]
    """In order of submission."""
    jobs_over: int
    """How many more are over; what they spent stays counted."""


class PoolList(Doc):
    """`pools`.

    Example:
        >>> PoolList(pools=[]).dump()
        {'pools': []}
    """

    pools: tuple[PoolView, ...]
