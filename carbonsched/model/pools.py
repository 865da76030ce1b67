"""What the API shows of the budgets that jobs share."""

from carbonsched.model.base import Doc
from carbonsched.model.job_state import JobState


class PoolJob(Doc):
    """An unfinished job that draws on a pool.

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
    """As charged to the pool: known grams, and the unknown at their worst case."""
    part_g: float
    """The part of what the pool has left that this job may spend now."""
    floor_g: float | None
    """Spend floor of its remaining work; None if unknown, and in a pool that accrues."""
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
    """Granted so far, to all its jobs ever."""
    g_per_h: float | None
    """Grams per hour by which it grows; None: it does not."""
    spent_g: float
    """By all its jobs, finished ones included; the unknown at their worst case."""
    left_g: float
    """Granted less spent."""
    held_g: float
    """The part of it that the jobs below hold; the rest waits for the next division, or for a job that it can pay for."""
    gain_per_more_g: float | None
    """The price: what one more gram would buy, as a share of the gain of a whole job of weight 1. 0: nothing, all that were
    let in have what full speed takes; None: `price` says why there is none."""
    price: str
    """The same in words."""
    jobs: tuple[PoolJob, ...]
    """In order of submission."""
    jobs_over: int
    """Number of finished jobs; what they spent stays counted."""


class PoolList(Doc):
    """`pools`.

    Example:
        >>> PoolList(pools=[]).dump()
        {'pools': []}
    """

    pools: tuple[PoolView, ...]
