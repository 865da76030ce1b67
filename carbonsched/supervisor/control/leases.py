"""From what is known of a job and the grid to its next directive: builds the planner's problem, grants the lease.

The planner is imported when the first job needs it: NumPy is 13 MB that a daemon at rest does not have to hold.
"""

import math
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

from carbonsched.clock import Clock
from carbonsched.config import Config
from carbonsched.feeds.chain import Chain
from carbonsched.model.allowed_hours import stretches
from carbonsched.model.files import save
from carbonsched.model.grid import Reading
from carbonsched.model.protocol import OPENING, Directive, Lease, SegmentDone, SegmentReady
from carbonsched.plan.forecasting.archive import ForecastArchive
from carbonsched.plan.problem import EnergyModel, Plan, Problem, Slot
from carbonsched.supervisor.estimates.remaining_work import RemainingWork
from carbonsched.supervisor.estimates.throughput import Throughput
from carbonsched.supervisor.jobs.job_run import JobRun
from carbonsched.units import MJ_PER_J, grams

if TYPE_CHECKING:
    from carbonsched.plan import guard
    from carbonsched.plan.energy_fit import EnergyFit
    from carbonsched.plan.objective import Objective

RESIDENT_WAIT_S = 600.0
"""Waits up to here keep the process; longer ones checkpoint and exit (DESIGN 2)."""
_HISTORY_DAYS = 29  # four weeks teach the blend of persistence and hour-of-week mean
_PRIOR_C0 = 0.0  # measured on a CPU: seconds(ρ) / seconds(1) is ρ − 0.05 … ρ; the first segments tell
_BUSY_S = 2.0  # below this the power of a segment's steps was hardly seen
_BYTES_PER_PARAM = 12  # weights and two AdamW moments in fp32
_DISK_BYTES_PER_S = 3e8  # of a checkpoint, before one was measured
_HOURS_AHEAD = timedelta(days=8)  # an allowed hour comes within a week


@dataclass(slots=True)
class Steering:
    config: Config
    chain: Chain
    clock: Clock
    archive: ForecastArchive = field(default_factory=ForecastArchive)

    def slots(self) -> tuple[Slot, ...]:
        """The grid from now on, as known now."""
        from carbonsched.plan.forecasting import slots as forecast

        now = self.clock.now()
        day_s = self.day_s()
        self.heed()
        return forecast.slots(
            now,
            self.config.plan.horizon * day_s / 86_400.0,
            self.chain.reading_at(now),
            self.chain.forecast(),
            self._history(now),
            day_s=day_s,
            quantile=self.config.plan.quantile,
            worst=self.config.zone.worst_g_per_kwh,
            archive=self.archive,
        )

    def _history(self, now: datetime) -> tuple[Reading, ...]:
        return self.chain.history(now - timedelta(seconds=_HISTORY_DAYS * self.day_s()))

    def heed(self) -> None:
        """Remember what the provider says now: how right it was tells how far it may be trusted."""
        self.archive.day_s = self.day_s()
        self.archive.add(self.clock.now(), self.chain.forecast())

    def day_s(self) -> float:
        """Wall seconds of a grid day: fewer in a replay."""
        reading = self.chain.reading_at(self.clock.now())
        return 86_400.0 / (reading.source.time_compression if reading else 1.0)

    def fit(self, run: JobRun, ready: SegmentReady, watts: float, watts_limit: float | None) -> "EnergyFit":
        """The job's energy model: a prior from its own speed and the devices' power, taught by the segments it has done."""
        from carbonsched.plan.energy_fit import EnergyFit

        run.fit = EnergyFit.prior(
            seconds_full=ready.seconds_per_step or 1.0, watts=watts, c0=_PRIOR_C0, rated_watts=watts_limit
        )
        for done in run.done:
            observe(run, done)
        return run.fit

    def foreseen(self, run: JobRun, speed: Throughput) -> "EnergyFit":
        """The prior of a job that has not begun, from its check and the speed of the box."""
        from carbonsched.plan.energy_fit import EnergyFit

        step_s = speed.step_s(run.checked) if run.checked else 1.0
        return EnergyFit.prior(seconds_full=max(step_s, 1e-6), watts=speed.watts, c0=_PRIOR_C0)

    def problem(
        self, run: JobRun, remaining: RemainingWork, energy: EnergyModel, left_g: float, idle_w: float
    ) -> Problem:
        from carbonsched.plan.forecasting.slots import beyond_history, has_forecast
        from carbonsched.plan.gain_decay import decay

        carbon = run.spec.carbon
        now, deadline = self.clock.now(), run.deadline
        deadline_s = None if deadline is None else (deadline - now).total_seconds()
        slots, history = self.slots(), self._history(now)
        return Problem(
            segments=remaining.segments,
            slots=slots,
            energy=energy,
            budget_g=left_g,
            rho_min=max(carbon.rho_min or 0.0, remaining.rho_floor),
            rho_max=max(carbon.rho_max, remaining.rho_floor),
            pue=self.config.pue,
            deadline_s=deadline_s,
            may_pause=carbon.may_pause,
            idle_w=idle_w,
            switch_j=self._checkpoint_s(run) * 2 * energy.watts_high,
            worst_g_per_kwh=self.config.zone.worst_g_per_kwh,
            waiting=run.waiting is not None,
            reserve_g=self._reserve_g(run, energy),
            price_hint=run.plan.price if run.plan and run.plan.price else None,
            day_s=self.day_s(),
            done=remaining.done,
            allowed=self._allowed(run, now, max(slots[-1].end_s, deadline_s or 0.0)),
            decay=decay(list(run.gains.items()), run.segments or len(remaining.segments)),
            has_forecast=has_forecast(now, self.chain.forecast(), history, self.day_s()),
            beyond_g_per_kwh=beyond_history(slots, history, self.day_s()),
        )

    def _allowed(self, run: JobRun, now: datetime, until_s: float) -> tuple[tuple[float, float], ...] | None:
        carbon = run.spec.carbon
        if not carbon.allowed_hours:
            return None
        end = now + max(timedelta(seconds=until_s), _HOURS_AHEAD)
        found = stretches(carbon.allowed_hours, carbon.timezone, now, end)
        return tuple(((a - now).total_seconds(), (b - now).total_seconds()) for a, b in found)

    def opens(self, run: JobRun) -> datetime | None:
        """When the job may train next, where it may not now; None: now."""
        now, carbon = self.clock.now(), run.spec.carbon
        if not carbon.allowed_hours:
            return None
        first = stretches(carbon.allowed_hours, carbon.timezone, now, now + _HOURS_AHEAD)[0]
        return first[0] if first[0] > now else None

    def full_grams(self, remaining: RemainingWork, energy: EnergyModel) -> float:
        """Grams of what is ahead at ρ = 1 and the mean intensity of the horizon: the base of `budget_share`."""
        joules = sum(energy.joules(1.0, segment.steps) for segment in remaining.segments)
        slots = self.slots()
        span = sum(slot.end_s - slot.start_s for slot in slots)
        mean = sum(slot.g_per_kwh * (slot.end_s - slot.start_s) for slot in slots) / span
        return grams(joules + energy.tail_j, mean, self.config.pue)

    def decide(
        self, run: JobRun, ready: SegmentReady, problem: Problem, aim: "Objective", left_g: float
    ) -> tuple[Plan, Directive]:
        """The plan for what is left of the job, and the directive for the segment that is ready.

        left_g: what may be spent now, which the lease is cut to.
        """
        from carbonsched.plan.objective import solve_for

        _, plan = solve_for(problem, aim)
        energy, now = problem.energy, self.clock.now()
        lease = self._lease(run, energy, left_g, plan.rho or ready.rho_floor)
        action, reason = plan.action, plan.reason
        if action == "train" and lease.seconds <= 0:
            action, reason = "stop", self._short(run, energy, left_g)
        return plan, Directive(
            seq=(run.directive.seq if run.directive else 0) + 1,
            k=ready.k,
            action=action,
            rho=plan.rho if action == "train" else None,
            until=None if plan.wait_s is None else now + timedelta(seconds=plan.wait_s),
            lease=Lease(valid_until=now + timedelta(seconds=lease.seconds), max_steps=lease.steps),
            price=plan.price,
            reason=reason,
        )

    def opening(self, run: JobRun, energy: EnergyModel, left_g: float) -> Directive:
        """For a process that is about to start, loading included: `rho_start`, should its first question stay unanswered."""
        carbon, now = run.spec.carbon, self.clock.now()
        unknown = run.budget_g is None and (carbon.budget_share or carbon.budget_rate_g_per_h) is not None
        lease = self._lease(run, energy, 0.0 if unknown else left_g, carbon.rho_start)
        return Directive(
            seq=0,
            k=OPENING,
            action="train",
            rho=carbon.rho_start,
            lease=Lease(valid_until=now + timedelta(seconds=lease.seconds), max_steps=lease.steps),
            reason=f"rho {carbon.rho_start:g} where nobody answers the first segment",
        )

    def renew(self, run: JobRun, energy: EnergyModel, left_g: float) -> Directive | None:
        """The running directive anew: a stop where one more tick could pass the budget, a fresh lease where the old one
        is half over; None: as it is."""
        old = run.directive
        if old is None or old.action != "train":
            return None
        from carbonsched.plan import guard

        now = self.clock.now()
        if guard.must_stop(
            left_g,
            energy.watts_high,
            self.config.power.tick_s,
            self._stop_j(run, energy),
            self.config.zone.worst_g_per_kwh,
            self.config.pue,
        ):
            nothing = Lease(valid_until=now, max_steps=0)
            reason = self._short(run, energy, left_g)
            stop = {"seq": old.seq + 1, "action": "stop", "rho": None, "lease": nothing, "reason": reason}
            return old.model_copy(update=stop)
        fresh = self._lease(run, energy, left_g, old.rho or 1.0)
        held_s = (old.lease.valid_until - now).total_seconds()
        shortened = fresh.seconds < held_s
        if held_s > self.config.plan.lease_s / 2 and not shortened:
            return None
        if abs(fresh.seconds - held_s) < max(self.config.power.tick_s * 2, 0.1 * held_s):
            return None
        lease = Lease(valid_until=now + timedelta(seconds=fresh.seconds), max_steps=fresh.steps)
        return old.model_copy(update={"seq": old.seq + 1, "lease": lease})

    def ease(self, run: JobRun, problem: Problem) -> Directive | None:
        """The running directive at a lower ρ, where the guard would no longer grant the one it has; None: as it is."""
        from carbonsched.plan import guard

        old = run.directive
        if old is None or old.action != "train" or old.rho is None:
            return None
        lower = guard.rest_rho(problem, old.rho)
        if lower is None:
            return None
        reason = f"rho {lower:.3f} for the rest of the segment instead of {old.rho:.3f}: what follows needs the grams"
        return old.model_copy(update={"seq": old.seq + 1, "rho": lower, "reason": reason})

    def _lease(self, run: JobRun, energy: EnergyModel, left_g: float, rho: float) -> "guard.Allowance":
        from carbonsched.plan import guard

        return guard.allowance(
            left_g,
            energy,
            rho,
            self.config.zone.worst_g_per_kwh,
            pue=self.config.pue,
            reserve_j=self._stop_j(run, energy),
            longest_s=self._longest_s(run),
            tick_s=self.config.power.tick_s,
        )

    def _longest_s(self, run: JobRun) -> float:
        """No lease reaches past the allowed hours: where the daemon is away the trainer waits by itself."""
        now, carbon = self.clock.now(), run.spec.carbon
        if not carbon.allowed_hours:
            return self.config.plan.lease_s
        first = stretches(carbon.allowed_hours, carbon.timezone, now, now + _HOURS_AHEAD)[0]
        return min(self.config.plan.lease_s, (first[1] - now).total_seconds())

    def _short(self, run: JobRun, energy: EnergyModel, left_g: float) -> str:
        return (
            f"stop: {left_g:.3g} g of the budget are left, a step, a checkpoint and the stop may take "
            f"{self._reserve_g(run, energy):.3g} g at {self.config.zone.worst_g_per_kwh:g} g/kWh"
        )

    def _stop_j(self, run: JobRun, energy: EnergyModel) -> float:
        """What a stop may still take: the step it falls into, at ρ = 1, or a batch of importance or of held-out rows, and a
        checkpoint, unless all is in one."""
        saved = run.ready is None and run.checkpoint is not None and run.checkpoint.step == run.step
        amid_s = max(energy.seconds_full, _batch_s(run))
        return energy.watts_high * (amid_s + (0.0 if saved else self._checkpoint_s(run)))

    def _reserve_g(self, run: JobRun, energy: EnergyModel) -> float:
        """What no plan spends: a stop and one tick at the worst intensity, so that the last lease covers a step."""
        joules = self._stop_j(run, energy) + energy.watts_high * self.config.power.tick_s
        return grams(joules, self.config.zone.worst_g_per_kwh, self.config.pue)

    def _checkpoint_s(self, run: JobRun) -> float:
        if run.checkpoint is not None:
            return run.checkpoint.seconds
        said = run.started or run.checked
        return said.params * _BYTES_PER_PARAM / _DISK_BYTES_PER_S if said else 10.0

    def energy(self, run: JobRun, fit: "EnergyFit") -> EnergyModel:
        """The fitted model, and what comes after the last segment: another evaluation and the saving of weights, a third of a checkpoint."""
        energy = fit.model()
        tail_s = _evaluation_s(run) + self._checkpoint_s(run) / 3 + 1.0
        watts = energy.joules_full / energy.seconds_full if energy.seconds_full > 0 else energy.watts_high
        looks_s = run.looks.segment_s if run.looks is not None else 0.0
        overhead_s = energy.overhead_s or self._checkpoint_s(run) + looks_s
        return replace(
            energy,
            tail_s=tail_s,
            tail_j=tail_s * watts,
            overhead_s=overhead_s,
            overhead_j=energy.overhead_j or overhead_s * watts,
        )


def _batch_s(run: JobRun) -> float:
    """Of importance or of held-out rows, as far as seen; between two of them the trainer heeds its lease. Text it heeds
    it in at every token."""
    found = [run.ready.importance_seconds / max(run.ready.importance_batches, 1)] if run.ready else []
    batch = run.spec.evaluate.batch_size or run.spec.train.batch_size
    looks = [look for look in run.evaluated if "generated_rows" not in look.metrics]
    found += [look.seconds / max(math.ceil(look.samples / batch), 1) for look in looks]
    return max(found, default=0.0)


def _evaluation_s(run: JobRun) -> float:
    """What held-out rows will take after training, by the first look at them; text, where it is written, takes the most."""
    if not run.evaluated:
        return run.looks.after_s if run.looks is not None else 0.0
    first = run.evaluated[0]
    rows = first.metrics.get("generated_rows") or first.samples
    return first.seconds * (1 + (run.started.test_rows if run.started else 0) / max(rows, 1))


def observe(run: JobRun, done: SegmentDone) -> None:
    """Teach the job's energy model with a segment that has ended: its metered joules, overheads apart."""
    k = done.k
    if run.fit is None or done.steps == 0:
        return
    total_j = run.segment_mj.get(k, 0) / MJ_PER_J
    wall = (done.at - run.since(done)).total_seconds()
    if total_j <= 0 or wall <= 0:
        return
    share_j = total_j * min(done.seconds / wall, 1.0)
    busy_mj, busy_s = run.busy.get(k, (0, 0.0))
    # the power while steps ran: a segment that also waited must not look cheap
    joules = min(busy_mj / MJ_PER_J / busy_s * done.seconds, total_j) if busy_s >= _BUSY_S else share_j
    run.fit = run.fit.observe(
        rho=done.rho_realised,
        steps=done.steps,
        joules=joules,
        seconds=done.seconds,
        overhead_j=total_j - joules,
        overhead_s=max(wall - done.seconds, 0.0),
    )


def write_control(job_dir: Path, directive: Directive) -> None:
    """Say it to the trainer. Raises OSError; then it was not said."""
    save(job_dir / "control.json", directive)
