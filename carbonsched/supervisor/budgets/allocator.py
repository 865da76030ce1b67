"""What each job may spend: its own grams, grams that accrue, its part of a pool, or no limit at all.

`JobRun.budget_g` is the one number that every guard holds against; this is where it comes from and why it moves.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING

from carbonsched.clock import Clock
from carbonsched.ledger.ledger import Ledger
from carbonsched.model.job_state import JobState
from carbonsched.plan.problem import EnergyModel
from carbonsched.supervisor.budgets.accrual import SAVED_H, Accrual
from carbonsched.supervisor.budgets.pools import DAEMON, Pools, ProblemOf
from carbonsched.supervisor.control.leases import RESIDENT_WAIT_S, Steering
from carbonsched.supervisor.estimates.remaining_work import RemainingWork
from carbonsched.supervisor.jobs.job_run import JobRun
from carbonsched.units import grams

if TYPE_CHECKING:
    from carbonsched.plan.objective import Objective

_DRAIN = 0.5
_AGAIN = 2.0
"""A job that ran dry tries again with this many times what its last try took."""


@dataclass(slots=True)
class BudgetAllocator:
    ledger: Ledger
    clock: Clock
    steering: Steering
    pools: Pools

    def restore(self, run: JobRun) -> None:
        """Of a job that an earlier daemon, or an earlier life of the job, left: what had accrued by then."""
        rate = run.spec.carbon.budget_rate_g_per_h
        told = self.ledger.history(run.id, kinds=("budget",)) if rate is not None else ()
        if rate is not None and told:
            run.accrual = Accrual.resume(rate, told[-1], self.clock.now())
            run.budget_g = run.accrual.granted_g
        if run.spec.carbon.pool is not None:
            run.budget_g = run.charged_g

    def begin(self, run: JobRun) -> None:
        """The job starts for the first time: its budget begins to grow."""
        rate = run.spec.carbon.budget_rate_g_per_h
        if rate is not None and run.accrual is None:
            run.accrual = Accrual.begin(rate, self.clock.now())
            run.budget_g = run.accrual.granted_g
            self._record(run, run.accrual)

    def grow(self, runs: Sequence[JobRun]) -> None:
        for run in runs:
            if run.accrual is not None:
                run.budget_g = run.accrual.grow(self.clock.now(), run.charged_g)
        self.pools.grow(runs)

    def share(self, runs: Sequence[JobRun], ask: ProblemOf) -> None:
        """Divide the pools whose jobs came, went or were changed."""
        for pool in self.pools.pools.values():
            if pool.stale:
                self.pools.divide(pool, runs, ask)

    def resolve(self, run: JobRun, remaining: RemainingWork, energy: EnergyModel) -> None:
        """Before a plan: a share is turned into grams, once, and recorded; so is what has accrued by now."""
        share = run.spec.carbon.budget_share
        if run.accrual is not None:
            self._record(run, run.accrual)
        elif share is not None and run.budget_g is None:
            full_g = self.steering.full_grams(remaining, energy) + run.charged_g
            run.budget_g = share * full_g
            reason = f"budget_share {share:g} of {full_g:.4g} g, full fine-tuning at the mean intensity (estimated)"
            self.ledger.set_budget(run.id, run.budget_g, reason, DAEMON, self.clock.now())

    def left_g(self, run: JobRun) -> float:
        """What may be spent now."""
        from carbonsched.plan.objective import NO_LIMIT_G

        return NO_LIMIT_G if run.budget_g is None else run.budget_g - run.charged_g

    def aim(
        self,
        run: JobRun,
        remaining: RemainingWork,
        energy: EnergyModel,
        idle_w: float,
        runs: Sequence[JobRun],
    ) -> "Objective":
        from carbonsched.plan.objective import BudgetRate, Objective

        rate = self.rate(run, runs)
        if rate is None:
            return Objective(rho_mean=remaining.rho_due)
        reading = self.steering.chain.reading_at(self.clock.now())
        g_per_kwh = reading.g_per_kwh if reading else self.steering.config.zone.worst_g_per_kwh
        watts = energy.joules_full / energy.seconds_full if energy.seconds_full > 0 else energy.watts_high
        pue = self.steering.config.pue
        again_g = grams((run.load_s or 0.0) * watts, g_per_kwh, pue)
        # where waiting with the model in memory takes what accrues meanwhile, or may take it, the process ends
        drained = idle_w <= 0 or grams(idle_w * 3600.0, g_per_kwh, pue) > _DRAIN * rate
        resident_s = 0.0 if drained else RESIDENT_WAIT_S
        return Objective(budget_rate=BudgetRate(rate, self.left_g(run), rate * SAVED_H, again_g, resident_s))

    def rate(self, run: JobRun, runs: Sequence[JobRun]) -> float | None:
        """Grams an hour by which what the job may spend grows; None where it does not."""
        return run.accrual.g_per_h if run.accrual is not None else self.pools.growth(run, runs)

    def dry(self, run: JobRun, runs: Sequence[JobRun], reason: str) -> tuple[JobState, str]:
        """Where a job goes that has nothing left to spend: it waits where more will come, else it is stopped.

        Sets `wake_at`. A try that took all that may be saved up, or half of it, cannot be made with more.
        """
        rate = self.rate(run, runs)
        if rate is None:
            return JobState.STOPPED, reason
        wanted, most = _AGAIN * (run.charged_g - run.begun_g), rate * SAVED_H
        left = self.left_g(run)
        if wanted > most * _AGAIN * 0.95:
            return JobState.STOPPED, f"{reason}; {most:.4g} g are all that {rate:.4g} g/h save up"
        wait_h = max((min(wanted, most * 0.95) - left) / rate, self.steering.config.power.tick_s / 3600)
        run.wake_at = self.clock.now() + timedelta(hours=wait_h)
        return JobState.WAITING, f"{reason.removeprefix('stop: ')}; more accrues at {rate:.4g} g/h"

    def _record(self, run: JobRun, accrual: Accrual) -> None:
        accrual.grow(self.clock.now(), run.charged_g)
        reason = f"accrued at {accrual.g_per_h:g} g/h"
        self.ledger.set_budget(run.id, accrual.granted_g, reason, DAEMON, self.clock.now())
