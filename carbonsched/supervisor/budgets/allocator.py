"""Sets what each job may spend: its own grams, grams that accrue, its part of a pool, or no limit at all.

`JobRun.budget_g` is the one number that every guard holds against; this is where it comes from and why it moves.
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
"""A job that spent all it had tries again with this many times what its last try took."""
_SAVABLE = 0.95
"""Share of what may be saved up that a try may wait for."""


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
    """Writes a job's new budget and why into the ledger, later where it refuses now."""
    accruals: dict[str, Accrual] = field(default_factory=dict)
    """Job → its budget that grows with time, from its first start on."""

    def enlist(self, run: JobRun) -> None:
        """Of a job that an earlier daemon, or an earlier process of the job, left: what had accrued by then."""
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
        """Grant the jobs what has accrued."""
        for run in runs:
            accrual = self.accruals.get(run.id)
            if accrual is not None:
                run.grant(accrual.grow(self.clock.now(), run.charged_g))

    def divide_stale_pools(self, runs: Sequence[JobRun], problem_of: ProblemOf) -> None:
        """Divide the pools whose jobs came, went or were changed."""
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
        """Before a plan: its pool is divided anew, what accrued is recorded, a share is turned into grams once.

        full_g: the grams of full fine-tuning of what remains.
        """
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
        """What the job may spend now. runs: all jobs that are not over, for some share a budget."""
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
        """Everyone's part anew, by one price; whose part shifted much is planned anew at once."""
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
    """Where a job goes that has nothing left to spend: it waits where more will come, else it is stopped.

    A try that took all that may be saved up, or half of it, cannot be made with more.
    """
    rate, most = funds.g_per_h, funds.most_g
    if rate is None:
        return Ending(JobState.STOPPED, reason)
    wanted = _AGAIN * (funds.charged_g - funds.begun_g)
    if wanted > most * _AGAIN * _SAVABLE:
        return Ending(JobState.STOPPED, f"{reason}; {show_grams(most)} are all that {rate:.4g} g/h save up")
    wait_h = max((min(wanted, most * _SAVABLE) - funds.left_g) / rate, tick_s / 3600)
    text = f"{reason.removeprefix('stop: ')}; more accrues at {rate:.4g} g/h"
    return Ending(JobState.WAITING, text, now + timedelta(hours=wait_h))
