"""Controls one live job at every tick: finds what is due, gathers the inputs once, decides, and applies the decision."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

from carbonsched.clock import Clock
from carbonsched.config import Config
from carbonsched.supervisor.budgets.allocator import BudgetAllocator
from carbonsched.supervisor.budgets.division import ProblemOf
from carbonsched.supervisor.control.clock_dial import ClockDial
from carbonsched.supervisor.control.decide import Due, decide, find_due
from carbonsched.supervisor.control.decision import Decision, Outcome
from carbonsched.supervisor.control.director import Director
from carbonsched.supervisor.control.leases import anneal, ease, exhaust, opening, renew
from carbonsched.supervisor.estimates.inputs import NO_FUNDS, Estimates, PlanningInputs
from carbonsched.supervisor.jobs.job_run import JobRun


@dataclass(frozen=True, slots=True)
class ControlLoop:
    """The control loop of a supervisor; loaded with the first job.

    Example::

        for run in live_runs:
            loop.step(run)
    """

    clock: Clock
    config: Callable[[], Config]
    estimates: Estimates
    allocator: BudgetAllocator
    director: Director
    clocks: ClockDial
    runs: Mapping[str, JobRun]
    """Jobs that are not over: some share a budget."""
    problem_of: ProblemOf

    def divide_stale_pools(self) -> None:
        self.allocator.divide_stale_pools(list(self.runs.values()), self.problem_of)

    def open(self, run: JobRun) -> None:
        """Write the first lease for a process that is about to start. Raises OSError."""
        carbon = run.spec.carbon
        unknown = run.budget_g is None and (carbon.budget_share or carbon.budget_rate_g_per_h) is not None
        funds = NO_FUNDS if unknown else self.allocator.funds(run, list(self.runs.values()))
        lease = self.estimates.gather_lease(run, funds, self.estimates.costs.watts_high(run))
        self.director.open(run, opening(lease, carbon.rho_start))

    def step(self, run: JobRun) -> None:
        """Run one tick of a job whose process is alive. Raises OSError if the directive cannot be written."""
        if run.process.alive_to is not None:
            return
        now, runs = self.clock.now(), list(self.runs.values())
        funds = self.allocator.funds(run, runs)
        spent = exhaust(funds, self.estimates.tick_g(run), self.estimates.tick_s, now)
        if spent is not None:
            self.director.kill(run, spent)
        elif run.process.target is None:
            due = find_due(run, now, self.clock.monotonic())
            decision = self._plan(run) if due is Due.PLAN else self._replan(run, due)
            if decision is None and due is not Due.PLAN:
                decision = self._keep(run, due) or self.clocks.correct(run)
            if decision is not None:
                self.director.apply(run, decision)

    def _plan(self, run: JobRun) -> Decision | None:
        runs = list(self.runs.values())
        self.allocator.resolve(run, runs, self.problem_of, self.estimates.full_g)
        funds = self.allocator.funds(run, runs)
        inputs = self.estimates.gather(run, funds)
        if inputs is None:
            return None
        choice = self.clocks.choose(run, inputs)
        if choice.anew:
            inputs = self.estimates.gather(run, funds, choice.offered) or inputs
        decision = decide(inputs)
        self.clocks.settle(run, choice, decision)
        return self.clocks.apply(run, self._add_loss_forecast(run, inputs, decision))

    def _replan(self, run: JobRun, due: Due) -> Decision | None:
        """Plan the rest of the first segment again if its steps cost something else than the first plan assumed.

        The first steps are slow, so a few of them may change ρ but neither stop the job nor make it wait.
        """
        costs = self.estimates.costs
        if due not in (Due.RENEW, Due.EASE) or not costs.has_moved(run):
            return None
        run.note_step_j(costs.estimate(run).joules_full)
        decision = self._plan(run)
        trains = decision is not None and decision.outcome is Outcome.GO_ON
        return decision if trains else None

    def _add_loss_forecast(self, run: JobRun, inputs: PlanningInputs, decision: Decision) -> Decision:
        """Add the forecast of the held-out loss at the plan's end, for the journal."""
        losses, plan = self.estimates.losses, decision.plan
        if losses is None or plan is None or decision.outcome is Outcome.STOP:
            return decision
        return replace(decision, loss=losses.forecast(run, decision.problem or inputs.problem, plan))

    def _keep(self, run: JobRun, due: Due) -> Decision | None:
        """Check whether the running directive still holds."""
        if due is Due.NOTHING:
            return None
        funds = self.allocator.funds(run, list(self.runs.values()))
        decision = renew(self.estimates.gather_lease(run, funds), run.directive)
        if decision is not None or due is not Due.EASE:
            return decision
        inputs = self.estimates.gather(run, funds)
        if inputs is None:
            return None
        run.note_easing(self.clock.monotonic(), inputs.recheck_s)
        return ease(inputs, run.directive) if inputs.open_end is None else anneal(inputs, run.directive)
