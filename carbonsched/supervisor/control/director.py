"""What each live job is told: a directive for its next segment, a fresh lease, a lower ρ in mid-segment, or to end."""

import logging
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import timedelta

from carbonsched.clock import Clock
from carbonsched.launch.base import Launcher
from carbonsched.ledger.ledger import Ledger
from carbonsched.model.job_state import JobState
from carbonsched.model.protocol import Directive, SegmentReady
from carbonsched.plan.problem import EnergyModel
from carbonsched.supervisor.budgets.allocator import BudgetAllocator
from carbonsched.supervisor.budgets.pools import DAEMON, ProblemOf
from carbonsched.supervisor.control.leases import RESIDENT_WAIT_S, Steering, write_control
from carbonsched.supervisor.estimates.job_cost import JobCostEstimator
from carbonsched.supervisor.jobs.job_run import JobRun
from carbonsched.supervisor.recovery import ProcessJournal
from carbonsched.units import grams

log = logging.getLogger(__name__)

_EASE_S = 60.0
"""Between two looks at whether ρ must fall in mid-segment."""


@dataclass(frozen=True, slots=True)
class Director:
    ledger: Ledger
    clock: Clock
    launcher: Launcher
    steering: Steering
    outlook: JobCostEstimator
    allowances: BudgetAllocator
    lives: ProcessJournal
    runs: Mapping[str, JobRun]
    """Jobs that are not over: some share a budget."""
    ask: ProblemOf

    def steer(self, run: JobRun) -> None:
        """One look at a job whose process lives."""
        if run.alive_to is not None or self._spent(run) or run.target is not None:
            return
        if run.ready is None:
            self._between(run)
            return
        ready, directive = run.ready, run.directive
        opens = self.steering.opens(run)
        answered = directive is not None and directive.k == ready.k and run.planned_at >= run.ready_seen_s
        waited = (
            directive is not None
            and directive.action == "wait"
            and (directive.until is None or self.clock.now() >= directive.until)
        )
        closed = opens is not None and directive is not None and directive.action == "train"
        if not answered or waited or run.replan or closed:
            self._plan(run, ready)
            return
        energy = self.steering.energy(run, self.outlook.fit(run, ready))
        eased_s = self.clock.monotonic() - max(run.eased_at, run.planned_at)
        if not self._renew(run, energy) and eased_s >= _EASE_S:
            self._ease(run)

    def open(self, run: JobRun) -> None:
        """Before a start: leave a lease, should we be gone when it asks. Nothing is taken for said. Raises OSError."""
        _, energy = self.outlook.of(run)
        energy = replace(energy, watts_high=max(energy.watts_high, self.outlook.watts_high(run)))
        write_control(run.dir, self.steering.opening(run, energy, self.allowances.left_g(run)))

    def _between(self, run: JobRun) -> None:
        """What is saved, measured and looked at between two segments, and after the last, is under a lease too."""
        if run.loaded and run.finished is None and self.steering.opens(run) is None:
            self._renew(run, self.outlook.of(run)[1])

    def _renew(self, run: JobRun, energy: EnergyModel) -> bool:
        fresh = self.steering.renew(run, energy, self.allowances.left_g(run))
        if fresh is None:
            return False
        if fresh.action == "stop":
            self._dry(run, fresh)
        else:
            self.direct(run, fresh, journal=False)
        return True

    def direct(self, run: JobRun, directive: Directive, *, journal: bool = True) -> None:
        """Raises OSError where control.json cannot be written: then nothing was said, and is not taken for said."""
        write_control(run.dir, directive)
        run.directive, run.reason = directive, directive.reason
        if journal:
            detail = directive.dump() | {"spent_g": run.spent_g, "budget_g": run.budget_g}
            self.ledger.note(run.id, "directive", detail, DAEMON, self.clock.now())
            log.info("job %s segment %d: %s", run.id, directive.k, directive.reason)

    def end(self, run: JobRun, target: JobState, reason: str) -> None:
        """ProblemOf the process to checkpoint and end, by a signal; it is killed after `launch.stop_s`."""
        self._aim(run, target, reason)
        self.launcher.terminate(run.dir)
        self.lives.ending(run)

    def _aim(self, run: JobRun, target: JobState, reason: str) -> None:
        """Where the job goes when its process has ended, and when that must have been; nothing here can fail."""
        run.target, run.target_reason, run.reason = target, reason, reason
        if run.kill_at is None:
            run.kill_at = self.clock.monotonic() + self.steering.config.launch.stop_s

    def _dry(self, run: JobRun, stop: Directive) -> None:
        """A stop on budget; where the budget grows the job ends its process and waits instead."""
        target, reason = self.allowances.dry(run, list(self.runs.values()), stop.reason)
        self._aim(run, target, reason)
        try:
            self.direct(run, stop.model_copy(update={"reason": reason}))
        except OSError as e:
            log.warning("job %s: stopped by a signal, control.json cannot be written: %s", run.id, e)
            self.launcher.terminate(run.dir)
        self.lives.ending(run)

    def _spent(self, run: JobRun) -> bool:
        """The last net, also for loading and saving, which no lease covers: one more tick could pass the budget.

        Killed, not asked: what a checkpoint takes is not there any more; the next start goes on from the one before.
        """
        if run.budget_g is None:
            return False
        config = self.steering.config
        tick_j = self.outlook.watts_high(run) * config.power.tick_s
        tick_g = grams(tick_j, config.zone.worst_g_per_kwh, config.pue)
        if run.charged_g + tick_g <= run.budget_g:
            return False
        self.launcher.kill(run.dir)
        if run.target is None:
            reason = f"stop: the budget is spent, {run.charged_g:.4g} g of {run.budget_g:.4g} g"
            self._aim(run, *self.allowances.dry(run, list(self.runs.values()), reason))
            log.warning("job %s: %s", run.id, run.target_reason)
            self.lives.ending(run)
        return True

    def _plan(self, run: JobRun, ready: SegmentReady) -> None:
        pool, runs = self.allowances.pools.of(run.spec), list(self.runs.values())
        if pool is not None:
            self.allowances.pools.divide(pool, runs, self.ask)
        rest, energy = self.outlook.of(run)
        if rest is None:
            return
        self.allowances.resolve(run, rest, energy)
        left_g, idle_w = self.allowances.left_g(run), self.outlook.idle(run)
        problem = self.steering.problem(run, rest, energy, left_g, idle_w)
        aim = self.allowances.aim(run, rest, energy, idle_w, runs)
        plan, directive = self.steering.decide(run, ready, problem, aim, left_g)
        if directive.action == "stop":
            self._dry(run, directive)
        else:
            self.direct(run, directive)
        run.plan, run.planned_at, run.replan = plan, self.clock.monotonic(), False
        wait_s = plan.wait_s or 0.0
        if directive.action == "wait" and wait_s > (
            aim.budget_rate.resident_s if aim.budget_rate else RESIDENT_WAIT_S
        ):
            run.wake_at = self.clock.now() + timedelta(seconds=wait_s)
            self.end(run, JobState.WAITING, directive.reason)

    def _ease(self, run: JobRun) -> None:
        """Lower ρ for the rest of the segment rather than stop when the grams are gone."""
        run.eased_at = self.clock.monotonic()
        rest, energy = self.outlook.of(run)
        if rest is None:
            return
        left_g = self.allowances.left_g(run)
        lower = self.steering.ease(
            run, self.steering.problem(run, rest, energy, left_g, self.outlook.idle(run))
        )
        if lower is not None:
            self.direct(run, lower)
