"""Budgets that several jobs share: what each pool has left, and the part of it that each job holds.

The promise: the parts that jobs hold beyond what they have spent never add up to more than the pool has left, and each
job keeps within its part by the guards it would have with a budget of its own; so the pool is never passed by their sum.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from carbonsched.clock import Clock
from carbonsched.config import PoolConfig
from carbonsched.errors import InputError
from carbonsched.ledger.ledger import Ledger
from carbonsched.model.job import JobSpec
from carbonsched.model.views import PoolJob, PoolList, PoolView
from carbonsched.plan.problem import Problem
from carbonsched.supervisor.budgets.accrual import Accrual
from carbonsched.supervisor.jobs.job_run import JobRun

if TYPE_CHECKING:
    from carbonsched.plan.allocation import Allotment

DAEMON = "daemon"
_SHIFT, _LEAST = 0.05, 0.01
"""A part whose spare over the floor changed by more than the first share, and itself by more than the second, has its job
re-planned at once, not at its next segment: a plan spends all of the spare, so a job that is given less would be stopped short."""

ProblemOf = Callable[[JobRun], Problem | None]
"""A run's problem, its budget apart; None where nothing is known of the job yet."""


@dataclass(slots=True)
class Pool:
    name: str
    granted_g: float
    """In all, to all its jobs ever."""
    accrual: Accrual | None = None
    over_g: dict[str, float] = field(default_factory=dict)
    """Job → what was charged to those that are over."""
    stale: bool = True
    """Jobs came, went or were changed: everyone's part is to be looked at anew."""
    price: float | None = None
    """Of the last division, weighted gain a gram; None where no job was let in, or the pool is shared by weight."""

    def left_g(self, runs: Sequence[JobRun]) -> float:
        """runs: the pool's jobs that are not over."""
        here = {run.id for run in runs}
        over = sum(grams for job_id, grams in self.over_g.items() if job_id not in here)
        return self.granted_g - over - sum(run.charged_g for run in runs)


class Pools:
    def __init__(
        self,
        config: Sequence[PoolConfig],
        ledger: Ledger,
        clock: Clock,
        charged_g: Callable[[str], float],
    ) -> None:
        """charged_g: what the ledger has of a job that is over, the unknown at its worst."""
        self.ledger, self.clock = ledger, clock
        self.pools: dict[str, Pool] = {}
        self.configure(config)
        for row in ledger.jobs():
            pool = self.of(row.spec)
            if pool is not None and row.state.ended:
                pool.over_g[row.id] = charged_g(row.id)

    def configure(self, config: Sequence[PoolConfig]) -> None:
        """Take over the config's pools; a budget that differs from the recorded one is recorded anew.

        A pool that is gone from the config keeps its jobs' account and grants nothing more.
        """
        last = {entry["name"]: entry for entry in self.ledger.history(None, kinds=("pool",))}
        for told in config:
            old, kept = last.get(told.name), self.pools.get(told.name)
            pool = Pool(told.name, 0.0, over_g=kept.over_g if kept else {})
            if told.budget_rate_g_per_h is not None:
                pool.accrual = kept.accrual if kept else None
                if pool.accrual is None:
                    pool.accrual = Accrual.resume(told.budget_rate_g_per_h, old, self.clock.now())
                pool.accrual.g_per_h = told.budget_rate_g_per_h
                pool.granted_g = pool.accrual.granted_g
            else:
                pool.granted_g = told.budget_g or 0.0
            self.pools[told.name] = pool
            if old is None or old["budget_g"] != pool.granted_g:
                self._record(pool, "as configured")
        for name in set(self.pools) - {told.name for told in config}:
            self.pools[name].granted_g, self.pools[name].accrual = 0.0, None

    def of(self, spec: JobSpec) -> Pool | None:
        return self.pools.get(spec.carbon.pool) if spec.carbon.pool is not None else None

    def check(self, spec: JobSpec) -> None:
        """Raises InputError for a pool that the config does not have."""
        if spec.carbon.pool is not None and self.of(spec) is None:
            known = ", ".join(sorted(self.pools)) or "none"
            raise InputError(
                "carbon.pool", f"this box has no pool {spec.carbon.pool!r}", f"its pools: {known}"
            )

    def over(self, run: JobRun) -> None:
        """A job of the pool is over: its account stays, its part is free."""
        pool = self.of(run.spec)
        if pool is not None:
            pool.over_g[run.id] = run.charged_g
            pool.stale = True

    def changed(self, run: JobRun) -> None:
        pool = self.of(run.spec)
        if pool is not None:
            pool.stale = True

    def grow(self, runs: Sequence[JobRun]) -> None:
        """Grant what has accrued. Of a growing pool every job gets its weight's share of all that nobody holds."""
        for pool in self.pools.values():
            if pool.accrual is None:
                continue
            members = _members(pool, runs)
            pool.granted_g = pool.accrual.grow(self.clock.now(), pool.granted_g - pool.left_g(members))
            held = sum((run.budget_g or run.charged_g) - run.charged_g for run in members)
            free = max(pool.left_g(members) - held, 0.0)
            for run in members:
                run.budget_g = (run.budget_g or run.charged_g) + free * _share(run, members)

    def view(self, runs: Sequence[JobRun]) -> PoolList:
        """Each pool as it is now; runs: all jobs that are not over."""
        return PoolList(pools=tuple(_view(pool, _members(pool, runs)) for pool in self.pools.values()))

    def growth(self, run: JobRun, runs: Sequence[JobRun]) -> float | None:
        """Grams an hour by which the job's own part grows; None where its pool does not grow."""
        pool = self.of(run.spec)
        if pool is None or pool.accrual is None:
            return None
        return pool.accrual.g_per_h * _share(run, _members(pool, runs))

    def hold(self, runs: Sequence[JobRun]) -> None:
        """Until more is known: what is left, to all its jobs by weight. For the time after a restart."""
        for pool in self.pools.values():
            members = _members(pool, runs)
            left = max(pool.left_g(members), 0.0)
            for run in members:
                run.budget_g = run.charged_g + left * _share(run, members)
            pool.stale = True

    def divide(self, pool: Pool, runs: Sequence[JobRun], ask: ProblemOf) -> None:
        """Everyone's part anew, by one price; whose part shifted much is re-planned at once."""
        pool.stale = False
        if pool.accrual is not None:
            self._record(pool, f"accrued at {pool.accrual.g_per_h:g} g/h")
            return
        for run, part in self._parts(pool, _members(pool, runs), ask):
            run.needs_g = part.floor_g
            self._give(run, part.budget_g)

    def preview(
        self, pool: Pool, run: JobRun, runs: Sequence[JobRun], ask: ProblemOf
    ) -> "tuple[float, float]":
        """(part, floor) in grams that a job would get, were it submitted now."""
        members = [*_members(pool, runs), run]
        if pool.accrual is not None:
            return max(pool.left_g(members), 0.0) * _share(run, members), 0.0
        part = next(part for other, part in self._parts(pool, members, ask) if other is run)
        return part.budget_g, part.floor_g

    def _parts(
        self, pool: Pool, members: Sequence[JobRun], ask: ProblemOf
    ) -> "list[tuple[JobRun, Allotment]]":
        from carbonsched.plan.allocation import Allotment, divide

        asked = [(run, ask(run)) for run in members]
        settled = [(run, problem) for run, problem in asked if problem is not None and not run.loading]
        problems, weights = (
            [problem for _, problem in settled],
            [run.spec.carbon.weight for run, _ in settled],
        )
        begun = [run.alive_from is not None or bool(run.done) for run, _ in settled]
        left = max(pool.left_g(members), 0.0)
        parts, pool.price = divide(problems, left, weights, begun)
        loading = [run for run, problem in asked if problem is None or run.loading]
        if not loading:
            return [(run, part) for (run, _), part in zip(settled, parts, strict=True)]
        # what a job takes until it has said how much it needs is a guess: it may use its weight's share, as far as the
        # floors of those that train are not touched
        kept = sum(part.floor_g for part, live in zip(parts, begun, strict=True) if live)
        spare = max(left - kept, 0.0)
        given = {run.id: min(left * _share(run, members), spare * _share(run, loading)) for run in loading}
        parts, pool.price = divide(problems, left - sum(given.values()), weights, begun)
        return [(run, Allotment(given[run.id], 0.0)) for run in loading] + [
            (run, part) for (run, _), part in zip(settled, parts, strict=True)
        ]

    def _give(self, run: JobRun, part_g: float) -> None:
        old = None if run.budget_g is None else run.budget_g - run.charged_g
        run.budget_g = run.charged_g + part_g
        if old is None or abs(part_g - old) > max(_SHIFT * (old - run.needs_g), _LEAST * old, 1e-12):
            run.replan = True

    def _record(self, pool: Pool, reason: str) -> None:
        detail = {"name": pool.name, "budget_g": pool.granted_g, "reason": reason}
        self.ledger.note(None, "pool", detail, DAEMON, self.clock.now())


def _view(pool: Pool, members: Sequence[JobRun]) -> PoolView:
    left_g, parts = pool.left_g(members), [_part_g(run) for run in members]
    price = pool.price if members and pool.accrual is None else None
    return PoolView(
        name=pool.name,
        granted_g=pool.granted_g,
        g_per_h=pool.accrual.g_per_h if pool.accrual is not None else None,
        spent_g=pool.granted_g - left_g,
        left_g=left_g,
        held_g=sum(parts),
        gain_per_more_g=price,
        price=_words(pool, members, price),
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


def _words(pool: Pool, members: Sequence[JobRun], price: float | None) -> str:
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


def _part_g(run: JobRun) -> float:
    return max(0.0, (run.budget_g or run.charged_g) - run.charged_g)


def _members(pool: Pool, runs: Iterable[JobRun]) -> list[JobRun]:
    """In order of submission. A paused job keeps its floor and its place."""
    mine = (run for run in runs if run.spec.carbon.pool == pool.name)
    return sorted(mine, key=lambda run: (run.job.submitted_at, run.id))


def _share(run: JobRun, members: Sequence[JobRun]) -> float:
    return run.spec.carbon.weight / sum(other.spec.carbon.weight for other in members)
