"""Gathers all that one decision about a job needs, once: remaining work, its cost, the grid's forecast, the grams left.

`control.decide`, `submit --explain`, the division of pools and the easing of ρ in mid-segment all start from these inputs, so they see the
same job. A lease is renewed far more often than a job is planned, so its inputs are gathered separately: a grid forecast takes
milliseconds.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime

from carbonsched.clock import Clock
from carbonsched.config import Config
from carbonsched.model.job_state import JobState
from carbonsched.plan.clocks import Clock as GraphicsClock
from carbonsched.plan.forecasting.prices import DAYS, with_prices
from carbonsched.plan.gain_decay import decay
from carbonsched.plan.objective import NO_LIMIT_G, BudgetRate, Objective
from carbonsched.plan.problem import EnergyModel, Problem, Slot
from carbonsched.plan.step_dial import OpenEnd, lay_out_steps
from carbonsched.supervisor.estimates.grid_outlook import GridForecast, GridOutlook
from carbonsched.supervisor.estimates.job_cost import (
    GUESS,
    JobCostEstimator,
    checkpoint_s,
    loading_j,
    mean_watts,
    stop_j,
)
from carbonsched.supervisor.estimates.loss_outlook import LossOutlook
from carbonsched.supervisor.estimates.remaining_work import RemainingWork, remaining_work
from carbonsched.supervisor.jobs.job_run import JobRun
from carbonsched.supervisor.price_watch import PriceWatch
from carbonsched.supervisor.tick_interval import TickInterval
from carbonsched.units import grams

RESIDENT_WAIT_S = 600.0
"""During a wait of up to so many seconds the process stays; for a longer one it checkpoints and exits."""
_DRAIN = 0.5
"""Share of an accruing budget's rate. If the idle power of a waiting process could use more than that, it exits instead."""


@dataclass(frozen=True, slots=True)
class Funds:
    """What a job may spend under its current budget.

    Example:
        >>> Funds(budget_g=10.0, charged_g=4.0).left_g
        6.0
    """

    budget_g: float | None
    """None: there is no limit."""
    charged_g: float
    begun_g: float = 0.0
    """Grams charged when the process was started."""
    g_per_h: float | None = None
    """Grams per hour by which the budget grows; None: it does not grow."""
    most_g: float = 0.0
    """For an accruing budget, the most that can be saved up."""

    @property
    def left_g(self) -> float:
        """Grams that may be spent now; `NO_LIMIT_G` if there is no limit."""
        return NO_LIMIT_G if self.budget_g is None else self.budget_g - self.charged_g


RECHECK_S = 60.0
"""Longest time in seconds between two checks of a running segment."""
_LOOKS = 100.0
"""Checks of a job of open end during the time that its grams last. What it trains between two checks is the error of its end."""
_TICKS = 2.0
"""At least so many ticks lie between two checks."""

NO_FUNDS = Funds(budget_g=0.0, charged_g=0.0)
"""For a problem whose budget the caller sets."""


@dataclass(frozen=True, slots=True)
class LeaseInputs:
    """What a lease is computed from: the grams left, and the power that can use them.

    Example::

        lease = estimates.gather_lease(run, allocator.funds(run, runs))
        lease.reserve_g <= lease.left_g  # else the job must stop
    """

    now: datetime
    energy: EnergyModel
    funds: Funds
    stop_j: float
    """Joules that a stop may still take: the step it interrupts, and a checkpoint."""
    worst_g_per_kwh: float
    pue: float
    tick_s: float
    lease_s: float
    """The longest lease that the config allows."""
    longest_s: float
    """The longest lease now. It ends with the allowed hours, so that the trainer waits by itself if the daemon is away."""
    waiting: bool = False
    """Whether the trainer waits for a lease that covers one step."""
    at_least: "LeaseInputs | None" = None
    """The same inputs with the lowest possible step cost, if the cost is a guess; None: a step was measured."""

    @property
    def left_g(self) -> float:
        return self.funds.left_g

    @property
    def reserve_g(self) -> float:
        """Grams that no plan spends: a stop and one tick at the worst intensity, so that the last lease covers a step."""
        joules = self.stop_j + self.energy.watts_high * self.tick_s
        return grams(joules, self.worst_g_per_kwh, self.pue)


@dataclass(frozen=True, slots=True)
class PlanningInputs:
    """All inputs of one decision.

    Example::

        inputs = estimates.gather(run, allocator.funds(run, runs))
        decision = decide(inputs)
    """

    remaining: RemainingWork
    problem: Problem
    objective: Objective
    lease: LeaseInputs
    last_seq: int
    """Sequence number of the previous directive; 0 if there is none."""

    @property
    def now(self) -> datetime:
        return self.lease.now

    @property
    def k(self) -> int:
        """The segment that the decision is about."""
        return self.remaining.segments[0].k

    @property
    def energy(self) -> EnergyModel:
        return self.problem.energy

    @property
    def left_g(self) -> float:
        return self.problem.budget_g

    @property
    def rate(self) -> BudgetRate | None:
        """Grams per hour of an accruing budget."""
        return self.objective.budget_rate

    @property
    def resident_s(self) -> float:
        """During a wait of up to so many seconds the process stays."""
        return self.rate.resident_s if self.rate is not None else RESIDENT_WAIT_S

    @property
    def open_end(self) -> OpenEnd | None:
        """Set if the number of steps is open: `problem` then has to be laid out first."""
        return self.remaining.open_end

    @property
    def recheck_s(self) -> float:
        """Seconds until the next segment is checked again while it runs."""
        return RECHECK_S if self.open_end is None else self.open_end.recheck_s


@dataclass(frozen=True, slots=True)
class Estimates:
    """Gathers decision inputs from what is known of jobs and the grid.

    Example::

        estimates = Estimates(clock, lambda: config, grid, costs, metering.idle_w)
        problem = estimates.problem_for(run)  # without a budget: for the division of a pool
    """

    clock: Clock
    config: Callable[[], Config]
    grid: GridOutlook
    costs: JobCostEstimator
    idle_w: dict[str, float]
    """Device → its power while no job uses it, as a slow mean."""
    prices: PriceWatch | None = None
    losses: LossOutlook | None = None
    """None: no loss is forecast."""
    tick_interval: TickInterval | None = None
    """The time between ticks; None: as configured."""

    @property
    def tick_s(self) -> float:
        """Seconds that may pass until the next tick."""
        return self.config().power.tick_s if self.tick_interval is None else self.tick_interval.tick_s

    def fresh(self) -> "Estimates":
        """A copy for explaining a job that is not submitted: it keeps nothing of it."""
        losses = self.losses.fresh() if self.losses is not None else None
        return replace(self, costs=self.costs.fresh(), losses=losses)

    def forget(self, run: JobRun) -> None:
        """The job is over."""
        self.costs.forget(run)
        if self.losses is not None:
            self.losses.forget(run)

    def gather(
        self, run: JobRun, funds: Funds, clocks: Sequence[GraphicsClock] = ()
    ) -> PlanningInputs | None:
        """Gather the inputs; None for a job that has reported nothing and came without a check. clocks: the clocks that the plan may choose
        from, beside the one assumed for the job."""
        remaining = remaining_work(run)
        if remaining is None:
            return None
        lease, grid = self.gather_lease(run, funds), self.grid.forecast()
        if remaining.open_end is not None:
            recheck_s, is_guess = _recheck_s(lease, grid.now_g_per_kwh), lease.at_least is not None
            save_g = grams(checkpoint_s(run) * lease.energy.watts_high, lease.worst_g_per_kwh, lease.pue)
            step_elapsed_s, guess = run.step_elapsed_s(lease.now), GUESS if is_guess else 1.0
            end = replace(
                remaining.open_end,
                recheck_s=recheck_s,
                step_elapsed_s=step_elapsed_s,
                save_g=save_g,
                guess=guess,
            )
            remaining = replace(remaining, open_end=end)
        idle_w = sum(self.idle_w.get(device, 0.0) for device in run.process.devices)
        return PlanningInputs(
            remaining=remaining,
            problem=self._with_points(
                run, self._problem(run, remaining, lease, grid, idle_w), remaining.rho_floor, clocks
            ),
            objective=self._objective(run, remaining, lease, grid, idle_w),
            lease=lease,
            last_seq=run.directive.seq if run.directive else 0,
        )

    def gather_lease(self, run: JobRun, funds: Funds, watts_high: float = 0.0) -> LeaseInputs:
        """Gather only the part that a lease needs. watts_high: the power in W to assume at least, whatever the model says."""
        config, now, energy = self.config(), self.clock.now(), self.costs.estimate(run)
        energy = replace(energy, watts_high=max(energy.watts_high, watts_high))
        longest_s = config.plan.lease_s
        if run.spec.carbon.allowed_hours:
            _, closes = run.allowed_from(now)[0]
            longest_s = min(longest_s, (closes - now).total_seconds())
        lease = LeaseInputs(
            now=now,
            energy=energy,
            funds=funds,
            stop_j=stop_j(run, energy, now),
            worst_g_per_kwh=config.zone.worst_g_per_kwh,
            pue=config.pue,
            tick_s=self.tick_s,
            lease_s=config.plan.lease_s,
            longest_s=longest_s,
            waiting=run.progress.waiting is not None,
        )
        if not self.costs.is_guess(run):
            return lease
        seconds, joules = energy.seconds_full / GUESS, energy.joules_full / GUESS
        cheap = replace(energy, seconds_full=seconds, joules_full=joules)
        return replace(lease, at_least=replace(lease, energy=cheap, stop_j=stop_j(run, cheap, now)))

    def problem_for(self, run: JobRun) -> Problem | None:
        """The job's problem without its budget; for a paused job its spend floor only. None while nothing is known of the job."""
        inputs = self.gather(run, NO_FUNDS)
        if inputs is None:
            return None
        problem = inputs.problem
        if not run.alive:
            problem = replace(problem, reserve_g=problem.reserve_g + self.loading_g(run, inputs.energy))
        problem = replace(problem, eur_per_kg=None)  # pools are counted in grams
        return replace(problem, rho_max=problem.rho_min) if run.state is JobState.PAUSED else problem

    def loading_g(self, run: JobRun, energy: EnergyModel) -> float:
        """Grams of the job's next start, until its first segment, at the worst intensity."""
        config = self.config()
        joules = loading_j(run, energy, self.costs.evaluation(run))
        return grams(joules, config.zone.worst_g_per_kwh, config.pue)

    def tick_g(self, run: JobRun) -> float:
        """Grams that one more tick of the job can take at most."""
        config = self.config()
        joules = self.costs.watts_high(run) * self.tick_s
        return grams(joules, config.zone.worst_g_per_kwh, config.pue)

    def g_per_s(self, run: JobRun) -> float:
        """Grams per second of the job at its present power and the grid's present intensity; what is unknown is taken at its worst."""
        config, reading = self.config(), self.grid.watch.chain.reading_at(self.clock.now())
        watts = run.process.power_w if run.process.power_w is not None else self.costs.watts_high(run)
        return grams(watts, config.zone.worst_g_per_kwh if reading is None else reading.g_per_kwh, config.pue)

    def full_g(self, run: JobRun) -> float | None:
        """Grams of the remaining work at ρ = 1 and the horizon's mean intensity: the base of `budget_share`."""
        remaining, energy = remaining_work(run), self.costs.estimate(run)
        if remaining is None:
            return None
        segments, end = remaining.segments, remaining.open_end
        if end is not None and end.most is not None:  # all steps that the owner allows
            segments = lay_out_steps(segments[0], end, end.most - end.done)
        joules = sum(energy.joules(1.0, segment.steps) for segment in segments) + energy.tail_j
        return grams(joules, self.grid.forecast().mean_g_per_kwh, self.config().pue)

    def _problem(
        self, run: JobRun, remaining: RemainingWork, lease: LeaseInputs, grid: GridForecast, idle_w: float
    ) -> Problem:
        carbon, now, energy, deadline = run.spec.carbon, lease.now, lease.energy, run.deadline
        # setting back the clock must not extend the deadline
        deadline_s = None if deadline is None else (deadline - now).total_seconds()
        if deadline_s is not None and carbon.deadline is not None:
            deadline_s = min(deadline_s, carbon.deadline)
        segments = run.progress.segments or len(remaining.segments)
        priced = self._priced(grid)
        return Problem(
            segments=remaining.segments,
            slots=priced if carbon.eur_per_kg is not None else grid.slots,
            energy=energy,
            budget_g=lease.left_g,
            rho_min=max(carbon.rho_min or 0.0, remaining.rho_floor),
            rho_max=max(carbon.rho_max, remaining.rho_floor),
            pue=lease.pue,
            deadline_s=deadline_s,
            may_pause=carbon.may_pause,
            idle_w=idle_w,
            switch_j=checkpoint_s(run) * 2 * energy.watts_high,
            worst_g_per_kwh=lease.worst_g_per_kwh,
            waiting=run.progress.waiting is not None,
            reserve_g=lease.reserve_g if remaining.open_end is None else _end_g(remaining.open_end, lease),
            price_hint=run.plan.price if run.plan else None,
            day_s=grid.day_s,
            done=remaining.done,
            allowed=_allowed(run, now, max(grid.slots[-1].end_s, deadline_s or 0.0)),
            decay=decay(list(run.progress.gains.items()), segments),
            has_forecast=grid.has_forecast,
            beyond_g_per_kwh=grid.beyond_g_per_kwh,
            eur_per_kg=carbon.eur_per_kg,
            paid=() if carbon.eur_per_kg is not None else priced,
        )

    def _with_points(
        self, run: JobRun, problem: Problem, floor: float, clocks: Sequence[GraphicsClock]
    ) -> Problem:
        """Add the settings of a job that can change between several, each at every clock it may have."""
        if self.losses is None:
            return problem
        points = self.losses.points(run, problem.energy, floor)
        at = [replace(point, clocks=run.clock.mhz) for point in points]
        at += [
            replace(point, clocks=c.mhz, joules=point.joules * c.joules, seconds=point.seconds * c.seconds)
            for c in clocks
            for point in points
        ]
        return replace(problem, points=tuple(at))

    def _priced(self, grid: GridForecast) -> tuple[Slot, ...]:
        """The grid's slots with the price of a kWh where it is known, split where it changes."""
        if self.prices is None or self.prices.chain is None:
            return grid.slots
        published, past = self.prices.stretches(grid.slots[-1].end_s, (DAYS + 1) * grid.day_s)
        return with_prices(grid.slots, published, past, grid.day_s)

    def _objective(
        self, run: JobRun, remaining: RemainingWork, lease: LeaseInputs, grid: GridForecast, idle_w: float
    ) -> Objective:
        funds = lease.funds
        if funds.g_per_h is None:
            return Objective(rho_mean=remaining.rho_due)
        again_j = (run.progress.load_s or 0.0) * mean_watts(lease.energy)
        idle_g_per_h = grams(idle_w * 3600.0, grid.now_g_per_kwh, lease.pue)
        drained = idle_w <= 0 or idle_g_per_h > _DRAIN * funds.g_per_h
        rate = BudgetRate(
            g_per_h=funds.g_per_h,
            level_g=funds.left_g,
            most_g=funds.most_g,
            again_g=grams(again_j, grid.now_g_per_kwh, lease.pue),
            resident_s=0.0 if drained else RESIDENT_WAIT_S,
        )
        return Objective(budget_rate=rate)


def _end_g(end: OpenEnd, lease: LeaseInputs) -> float:
    """Grams that no plan of a job of open end spends: a checkpoint and a tick. Its last step is already counted at the worst case."""
    return end.save_g + grams(lease.energy.watts_high * lease.tick_s, lease.worst_g_per_kwh, lease.pue)


def _recheck_s(lease: LeaseInputs, g_per_kwh: float) -> float:
    per_s = grams(mean_watts(lease.energy), g_per_kwh, lease.pue)
    lasts_s = max(lease.left_g, 0.0) / per_s if per_s > 0 else RECHECK_S * _LOOKS
    return min(max(lasts_s / _LOOKS, _TICKS * lease.tick_s), RECHECK_S)


def _allowed(run: JobRun, now: datetime, until_s: float) -> tuple[tuple[float, float], ...] | None:
    """(start_s, end_s) from now of the hours in which the job may train; None: always."""
    if not run.spec.carbon.allowed_hours:
        return None
    found = run.allowed_from(now, until_s)
    return tuple(((start - now).total_seconds(), (end - now).total_seconds()) for start, end in found)
