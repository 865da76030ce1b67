"""Sets what each job may spend: its own grams, grams that accrue, its share of a pool, or no limit.

`JobRun.budget_g` is the one number that every guard checks; this file computes it and changes it.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from carbonsched.clock import Clock
from carbonsched.ledger.ledger import Ledger
from carbonsched.model.job_state import JobState
from carbonsched.supervisor.budgets.accrual import SAVED_H, Accrual
from carbonsched.supervisor.budgets.division import ProblemOf, divide_pool
from carbonsched.supervisor.budgets.pools import Pool, Pools
from carbonsched.supervisor.estimates.inputs import Funds
from carbonsched.supervisor.jobs.job_run import JobRun
from carbonsched.supervisor.jobs.process_state import Ending
from carbonsched.text import grams as show_grams

_AGAIN = 2.0
"""A job that exhausted its budget is retried once it has this many times the grams its last attempt took."""
_SAVABLE = 0.95
"""Largest share of the saved-up maximum that a retry may wait for."""


@dataclass(slots=True)
class BudgetAllocator:
    """The budgets of the jobs that are not over.

    Example::

        allocator.grow(runs)
        allocator.funds(run, runs).left_g  # what the job may spend now
    """

    ledger: Ledger
    clock: Clock
    pools: Pools
    record: Callable[[str, float, str], None]
    """Writes a job's new budget and the reason into the ledger, or queues it while the ledger refuses writes."""
    accruals: dict[str, Accrual] = field(default_factory=dict)
    """Job → its accruing budget, from the job's first start on."""

    def enlist(self, run: JobRun) -> None:
        """Restore what had accrued for a job that an earlier daemon, or an earlier process of the job, left."""
        rate = run.spec.carbon.budget_rate_g_per_h
        if rate is None or run.id in self.accruals:
            return
        entries = self.ledger.history(run.id, kinds=("budget",), newest=1)
        if entries:
            self._set(run, Accrual.resume(rate, entries[-1], self.clock.now()))

    def begin(self, run: JobRun) -> None:
        """The job starts for the first time: its budget begins to grow."""
        rate = run.spec.carbon.budget_rate_g_per_h
        if rate is not None and run.id not in self.accruals:
            self._set(run, Accrual.begin(rate, self.clock.now()))
            self._record(run, self.accruals[run.id])

    def shift(self, step: timedelta) -> None:
        """The wall clock was set."""
        for accrual in self.accruals.values():
            accrual.shift(step)

    def forget(self, run: JobRun) -> None:
        """The job is over."""
        self.accruals.pop(run.id, None)

    def grow(self, runs: Sequence[JobRun]) -> None:
        """Grant all jobs the grams that have accrued."""
        for run in runs:
            accrual = self.accruals.get(run.id)
            if accrual is not None:
                run.grant(accrual.grow(self.clock.now(), run.charged_g))

    def divide_stale_pools(self, runs: Sequence[JobRun], problem_of: ProblemOf) -> None:
        """Divide again every pool whose jobs came, left or changed."""
        for pool in self.pools.pools.values():
            if pool.stale:
                self._divide(pool, runs, problem_of)

    def resolve(
        self,
        run: JobRun,
        runs: Sequence[JobRun],
        problem_of: ProblemOf,
        full_g: Callable[[JobRun], float | None],
    ) -> None:
        """Prepare the budget for a plan: divide its pool again, record what accrued, and fix `budget_share` in grams once. full_g: grams of
        full fine-tuning for the remaining work."""
        share = run.spec.carbon.budget_share
        if run.spec.carbon.pool is not None and (pool := self.pools.of(run.spec)) is not None:
            self._divide(pool, runs, problem_of)
        if run.id in self.accruals:
            self._record(run, self.accruals[run.id])
        elif share is not None and run.budget_g is None and (remaining_g := full_g(run)) is not None:
            whole_g = remaining_g + run.charged_g
            run.grant(share * whole_g)
            reason = f"budget_share {share:g} of {show_grams(whole_g)}, full fine-tuning at the mean intensity (estimated)"
            self.record(run.id, share * whole_g, reason)

    def funds(self, run: JobRun, runs: Sequence[JobRun]) -> Funds:
        """The funds of the job now. runs: all jobs that are not over, since some share a budget."""
        accrual = self.accruals.get(run.id)
        rate = accrual.g_per_h if accrual is not None else None
        if run.spec.carbon.pool is not None:
            rate = self.pools.rate(run, runs)
        return Funds(
            budget_g=run.budget_g,
            charged_g=run.charged_g,
            begun_g=run.account.begun_g,
            g_per_h=rate,
            most_g=0.0 if rate is None else rate * SAVED_H,
        )

    def _divide(self, pool: Pool, runs: Sequence[JobRun], problem_of: ProblemOf) -> None:
        """Divide the pool by one price; jobs whose part changed much are planned again at once."""
        pool.stale = False
        if pool.accrual is not None:
            self.pools.record(pool, f"accrued at {pool.accrual.g_per_h:g} g/h")
            return
        for run, part in divide_pool(pool, runs, problem_of):
            self.pools.give(run, part.budget_g, part.floor_g)

    def _set(self, run: JobRun, accrual: Accrual) -> None:
        self.accruals[run.id] = accrual
        run.grant(accrual.granted_g)

    def _record(self, run: JobRun, accrual: Accrual) -> None:
        accrual.grow(self.clock.now(), run.charged_g)
        self.record(run.id, accrual.granted_g, f"accrued at {accrual.g_per_h:g} g/h")


def when_exhausted(funds: Funds, tick_s: float, now: datetime, reason: str) -> Ending:
    """Decide where a job with an exhausted budget goes: it waits if more grams will accrue, else it is stopped. If an attempt took half or
    more of what can be saved up, waiting cannot pay for another."""
    rate, most = funds.g_per_h, funds.most_g
    if rate is None:
        return Ending(JobState.STOPPED, reason)
    wanted = _AGAIN * (funds.charged_g - funds.begun_g)
    if wanted > most * _AGAIN * _SAVABLE:
        return Ending(JobState.STOPPED, f"{reason}; {show_grams(most)} are all that {rate:.4g} g/h save up")
    wait_h = max((min(wanted, most * _SAVABLE) - funds.left_g) / rate, tick_s / 3600)
    text = f"{reason.removeprefix('stop: ')}; more accrues at {rate:.4g} g/h"
    return Ending(JobState.WAITING, text, now + timedelta(hours=wait_h))
