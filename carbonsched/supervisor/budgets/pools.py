"""Keeps the budgets that several jobs share: what each pool has left, and which part each job holds.

`carbonsched.supervisor.budgets.division` divides a pool; a daemon without jobs never loads it.

The invariant: the unspent parts that jobs hold never add up to more than the pool has left. Each job's guard keeps it within its part, so
the jobs together never exceed the pool.
"""

import logging
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from datetime import timedelta

from carbonsched.clock import Clock
from carbonsched.config import PoolConfig
from carbonsched.errors import InputError, LedgerError
from carbonsched.ledger.ledger import Ledger
from carbonsched.model.job import JobSpec
from carbonsched.model.pools import PoolJob, PoolList, PoolView
from carbonsched.supervisor.budgets.accrual import Accrual
from carbonsched.supervisor.jobs.actors import DAEMON
from carbonsched.supervisor.jobs.job_run import JobRun

log = logging.getLogger(__name__)

_SHIFT, _LEAST = 0.05, 0.01
"""Thresholds for planning a job again at once: its spare grams above the floor changed by more than the first share, and its part by more
than the second. A plan spends all spare grams, so a job whose part shrinks would otherwise be stopped short."""


@dataclass(slots=True)
class Pool:
    """One shared budget.

    Example:
        >>> Pool("lab", granted_g=300.0, over_g={"old-1": 120.0}).left_g([])
        180.0
    """

    name: str
    granted_g: float
    """In all, to all its jobs ever."""
    accrual: Accrual | None = None
    over_g: dict[str, float] = field(default_factory=dict)
    """Grams charged to the jobs that are over, by job."""
    stale: bool = True
    """Jobs came, left or changed: all parts have to be computed again."""
    price: float | None = None
    """Weighted gain per gram of the last division; None if no job was admitted or the pool is divided by weight."""

    def left_g(self, runs: Sequence[JobRun]) -> float:
        """runs: the pool's jobs that are not over."""
        here = {run.id for run in runs}
        over = sum(grams for job_id, grams in self.over_g.items() if job_id not in here)
        return self.granted_g - over - sum(run.charged_g for run in runs)


class Pools:
    """All pools of the box.

    Example::

        pools = Pools(config.pools, ledger, clock, lambda job_id: journal.account(job_id).charged_g)
        pools.view(runs).pools[0].left_g
    """

    def __init__(
        self,
        config: Sequence[PoolConfig],
        ledger: Ledger,
        clock: Clock,
        charged_g: Callable[[str], float],
    ) -> None:
        """charged_g: grams the ledger has for a job that is over, with unknown stretches at their worst case."""
        self.ledger, self.clock = ledger, clock
        self.pools: dict[str, Pool] = {}
        self.configure(config)
        for row in ledger.of_pools() if self.pools else ():
            pool = self.of(row.spec)
            if pool is not None:
                pool.over_g[row.id] = charged_g(row.id)

    def configure(self, config: Sequence[PoolConfig]) -> None:
        """Apply the config's pools, and record budgets that changed. A pool that left the config keeps its account and grants nothing more."""
        last = {row["name"]: row for row in self.ledger.history(None, kinds=("pool",))}
        for entry in config:
            old, kept = last.get(entry.name), self.pools.get(entry.name)
            pool = Pool(entry.name, 0.0, over_g=kept.over_g if kept else {})
            if entry.budget_rate_g_per_h is not None:
                pool.accrual = kept.accrual if kept else None
                if pool.accrual is None:
                    pool.accrual = Accrual.resume(entry.budget_rate_g_per_h, old, self.clock.now())
                pool.accrual.g_per_h = entry.budget_rate_g_per_h
                pool.granted_g = pool.accrual.granted_g
            else:
                pool.granted_g = entry.budget_g or 0.0
            self.pools[entry.name] = pool
            if old is None or old["budget_g"] != pool.granted_g:
                self.record(pool, "as configured")
        for name in set(self.pools) - {entry.name for entry in config}:
            self.pools[name].granted_g, self.pools[name].accrual = 0.0, None

    def of(self, spec: JobSpec) -> Pool | None:
        return self.pools.get(spec.carbon.pool) if spec.carbon.pool is not None else None

    def check(self, spec: JobSpec) -> None:
        """Raise InputError if the job names a pool that the config lacks."""
        if spec.carbon.pool is not None and self.of(spec) is None:
            known = ", ".join(sorted(self.pools)) or "none"
            raise InputError(
                "carbon.pool", f"this box has no pool {spec.carbon.pool!r}", f"its pools: {known}"
            )

    def close(self, run: JobRun) -> None:
        """Close a job's account in its pool; its unspent part is free again."""
        pool = self.of(run.spec)
        if pool is not None:
            pool.over_g[run.id] = run.charged_g
            pool.stale = True

    def mark_stale(self, run: JobRun) -> None:
        """Mark the job's pool for a new division: the job came, left or changed."""
        pool = self.of(run.spec)
        if pool is not None:
            pool.stale = True

    def grow(self, runs: Sequence[JobRun]) -> None:
        """Grant what has accrued. In an accruing pool each job gets its weight's share of the grams that nobody holds."""
        for pool in self.pools.values():
            if pool.accrual is None:
                continue
            members = members_of(pool, runs)
            pool.granted_g = pool.accrual.grow(self.clock.now(), pool.granted_g - pool.left_g(members))
            held = sum(run.part_g for run in members)
            free = max(pool.left_g(members) - held, 0.0)
            for run in members:
                run.grant((run.budget_g or run.charged_g) + free * weight_share(run, members))

    def shift(self, step: timedelta) -> None:
        """The wall clock was set."""
        for pool in self.pools.values():
            if pool.accrual is not None:
                pool.accrual.shift(step)

    def view(self, runs: Sequence[JobRun]) -> PoolList:
        """The current state of each pool; runs: all jobs that are not over."""
        return PoolList(pools=tuple(_view(pool, members_of(pool, runs)) for pool in self.pools.values()))

    def rate(self, run: JobRun, runs: Sequence[JobRun]) -> float | None:
        """Grams per hour by which the job's part grows; None if its pool does not accrue."""
        pool = self.of(run.spec)
        if pool is None or pool.accrual is None:
            return None
        return pool.accrual.g_per_h * weight_share(run, members_of(pool, runs))

    def share_by_weight(self, runs: Sequence[JobRun]) -> None:
        """Divide by weight what is left, until more is known: used after a restart."""
        for pool in self.pools.values():
            members = members_of(pool, runs)
            left = max(pool.left_g(members), 0.0)
            for run in members:
                run.grant(run.charged_g + left * weight_share(run, members))
            pool.stale = True

    def give(self, run: JobRun, part_g: float, floor_g: float) -> None:
        """Set a job's part; if it changed much, the job is planned again at once."""
        old = None if run.budget_g is None else run.budget_g - run.charged_g
        run.require(floor_g)
        run.grant(run.charged_g + part_g)
        if old is None or abs(part_g - old) > max(_SHIFT * (old - floor_g), _LEAST * old, 1e-12):
            run.request_plan()

    def record(self, pool: Pool, reason: str) -> None:
        """Record in the journal what the pool has granted."""
        detail = {"name": pool.name, "budget_g": pool.granted_g, "reason": reason}
        try:
            self.ledger.note(None, "pool", detail, DAEMON, self.clock.now())
        except LedgerError as e:  # recorded with the next division, or at the next start
            log.warning("pool %s: %s", pool.name, e)


def _view(pool: Pool, members: Sequence[JobRun]) -> PoolView:
    left_g, parts = pool.left_g(members), [max(run.part_g, 0.0) for run in members]
    price = pool.price if members and pool.accrual is None else None
    return PoolView(
        name=pool.name,
        granted_g=pool.granted_g,
        g_per_h=pool.accrual.g_per_h if pool.accrual is not None else None,
        spent_g=pool.granted_g - left_g,
        left_g=left_g,
        held_g=sum(parts),
        gain_per_more_g=price,
        price=_price_text(pool, members, price),
        jobs=tuple(
            PoolJob(
                id=run.id,
                name=run.spec.name,
                owner=run.job.owner.user,
                state=run.state,
                weight=run.spec.carbon.weight,
                spent_g=run.charged_g,
                part_g=part,
                floor_g=run.needs_g or None,
                reason=run.reason,
            )
            for run, part in zip(members, parts, strict=True)
        ),
        jobs_over=len(set(pool.over_g) - {run.id for run in members}),
    )


def _price_text(pool: Pool, members: Sequence[JobRun], price: float | None) -> str:
    if pool.accrual is not None:
        return "no price: what accrues is shared by weight"
    if not members:
        return "no price: no job draws on it"
    if price is None and any(run.needs_g > 0 for run in members):
        return "no price: what is left does not pay for the floor of any job that waits for it"
    if price is None:
        return "no price yet: its jobs have not said what lies ahead of them"
    if price == 0:
        return "one more gram buys nothing: every job that was let in can train at its highest ρ"
    whole = (
        "a whole job's gain"
        if {run.spec.carbon.weight for run in members} == {1.0}
        else "the gain of a whole job of weight 1"
    )
    return f"one more gram in this pool buys {100 * price:.3g}% of {whole}"


def members_of(pool: Pool, runs: Iterable[JobRun]) -> list[JobRun]:
    """The pool's jobs in order of submission. A paused job keeps its floor and its place."""
    mine = (run for run in runs if run.spec.carbon.pool == pool.name)
    return sorted(mine, key=lambda run: (run.job.submitted_at, run.id))


def weight_share(run: JobRun, members: Sequence[JobRun]) -> float:
    """The job's share by weight among `members`, itself included."""
    return run.spec.carbon.weight / sum(other.spec.carbon.weight for other in members)
