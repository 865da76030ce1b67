"""From what is known of a job and the grid to its next directive: builds the planner's problem, grants the lease.

The planner is imported when the first job needs it: NumPy is 13 MB that a daemon at rest does not have to hold.
"""

import os
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING

from carbonsched.clock import Clock
from carbonsched.config import Config
from carbonsched.feeds.chain import Chain
from carbonsched.model.protocol import Directive, Lease, SegmentDone, SegmentReady
from carbonsched.plan.problem import EnergyModel, Plan, Problem, Segment, Slot
from carbonsched.supervisor.run import JobRun
from carbonsched.units import MJ_PER_J, grams

if TYPE_CHECKING:
    from carbonsched.plan import guard
    from carbonsched.plan.energy import EnergyFit

RESIDENT_WAIT_S = 600.0
"""Waits up to here keep the process; longer ones checkpoint and exit (DESIGN 2)."""
_HISTORY_DAYS = 29  # four weeks teach the blend of persistence and hour-of-week mean
_PRIOR_C0 = 0.0  # measured on a CPU: seconds(ρ) / seconds(1) is ρ − 0.05 … ρ; the first segments tell
_BUSY_S = 2.0  # below this the power of a segment's steps was hardly seen
_BYTES_PER_PARAM = 12  # weights and two AdamW moments in fp32
_DISK_BYTES_PER_S = 3e8  # of a checkpoint, before one was measured


@dataclass(slots=True)
class Steering:
    config: Config
    chain: Chain
    clock: Clock

    def slots(self) -> tuple[Slot, ...]:
        """The grid from now on, as known now."""
        from carbonsched.plan import forecast

        now = self.clock.now()
        day_s = self.day_s()
        return forecast.slots(
            now,
            self.config.plan.horizon * day_s / 86_400.0,
            self.chain.reading_at(now),
            self.chain.forecast(),
            self.chain.history(now - timedelta(seconds=_HISTORY_DAYS * day_s)),
            day_s=day_s,
            quantile=self.config.plan.quantile,
            worst=self.config.zone.worst_g_per_kwh,
        )

    def day_s(self) -> float:
        """Wall seconds of a grid day: fewer in a replay."""
        reading = self.chain.reading_at(self.clock.now())
        return 86_400.0 / (reading.source.time_compression if reading else 1.0)

    def fit(self, run: JobRun, ready: SegmentReady, watts: float, watts_limit: float | None) -> "EnergyFit":
        """The job's energy model: a prior from its own speed and the boards' power, taught by the segments it has done."""
        from carbonsched.plan.energy import EnergyFit

        run.fit = EnergyFit.prior(
            seconds_full=ready.seconds_per_step or 1.0, watts=watts, c0=_PRIOR_C0, rated_watts=watts_limit
        )
        for done in run.done:
            observe(run, done)
        return run.fit

    def problem(
        self, run: JobRun, ready: SegmentReady, energy: EnergyModel, left_g: float, idle_w: float
    ) -> Problem:
        left = [ready.steps, *_rest(ready.steps_left - ready.steps, ready.segments - ready.k - 1)]
        curve = tuple((point.rho, point.importance) for point in ready.frontier)
        carbon = run.spec.carbon
        deadline = run.deadline
        return Problem(
            segments=tuple(Segment(ready.k + i, steps, curve) for i, steps in enumerate(left)),
            slots=self.slots(),
            energy=energy,
            budget_g=left_g,
            rho_min=max(carbon.rho_min or 0.0, ready.rho_floor),
            rho_max=max(carbon.rho_max, ready.rho_floor),
            pue=self.config.pue,
            deadline_s=None if deadline is None else (deadline - self.clock.now()).total_seconds(),
            may_pause=carbon.may_pause,
            idle_w=idle_w,
            switch_j=self._checkpoint_s(run) * 2 * energy.watts_high,
            worst_g_per_kwh=self.config.zone.worst_g_per_kwh,
            waiting=run.waiting is not None,
            reserve_g=self._reserve_g(run, energy),
            price_hint=run.plan.price if run.plan and run.plan.price else None,
            day_s=self.day_s(),
            done=1 - ready.steps_left / run.started.steps if run.started else 0.0,
        )

    def full_grams(self, ready: SegmentReady, energy: EnergyModel) -> float:
        """Grams of the whole job at ρ = 1 and the mean intensity of the horizon: the base of `budget_share`."""
        joules = sum(
            energy.joules(1.0, n)
            for n in (ready.steps, *_rest(ready.steps_left - ready.steps, ready.segments - 1))
        )
        slots = self.slots()
        span = sum(slot.end_s - slot.start_s for slot in slots)
        mean = sum(slot.g_per_kwh * (slot.end_s - slot.start_s) for slot in slots) / span
        return grams(joules + energy.tail_j, mean, self.config.pue)

    def decide(
        self, run: JobRun, ready: SegmentReady, fit: "EnergyFit", left_g: float, idle_w: float
    ) -> tuple[Plan, Directive]:
        """The plan for what is left of the job, and the directive for the segment that is ready."""
        from carbonsched.plan import planner

        energy = self.energy(run, fit)
        plan = planner.solve(self.problem(run, ready, energy, left_g, idle_w))
        now = self.clock.now()
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

    def renew(self, run: JobRun, fit: "EnergyFit", left_g: float) -> Directive | None:
        """The running directive anew: a stop where one more tick could pass the budget, a fresh lease where the old one
        is half over; None: as it is."""
        old = run.directive
        if old is None or old.action != "train":
            return None
        from carbonsched.plan import guard

        now = self.clock.now()
        energy = self.energy(run, fit)
        if guard.must_stop(
            0.0,
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

    def _lease(self, run: JobRun, energy: EnergyModel, left_g: float, rho: float) -> "guard.Lease":
        from carbonsched.plan import guard

        return guard.lease(
            left_g,
            energy,
            rho,
            self.config.zone.worst_g_per_kwh,
            pue=self.config.pue,
            reserve_j=self._stop_j(run, energy),
            longest_s=self.config.plan.lease_s,
            tick_s=self.config.power.tick_s,
        )

    def _short(self, run: JobRun, energy: EnergyModel, left_g: float) -> str:
        return (
            f"stop: {left_g:.3g} g of the budget are left, a step, a checkpoint and the stop may take "
            f"{self._reserve_g(run, energy):.3g} g at {self.config.zone.worst_g_per_kwh:g} g/kWh"
        )

    def _stop_j(self, run: JobRun, energy: EnergyModel) -> float:
        """What a stop may still take: the step it falls into, at ρ = 1, and a checkpoint."""
        return energy.watts_high * (energy.seconds_full + self._checkpoint_s(run))

    def _reserve_g(self, run: JobRun, energy: EnergyModel) -> float:
        """What no plan spends: a stop and one tick at the worst intensity, so that the last lease covers a step."""
        joules = self._stop_j(run, energy) + energy.watts_high * self.config.power.tick_s
        return grams(joules, self.config.zone.worst_g_per_kwh, self.config.pue)

    def _checkpoint_s(self, run: JobRun) -> float:
        if run.checkpoint is not None:
            return run.checkpoint.seconds
        return run.started.params * _BYTES_PER_PARAM / _DISK_BYTES_PER_S if run.started else 10.0

    def energy(self, run: JobRun, fit: "EnergyFit") -> EnergyModel:
        """The fitted model, and what comes after the last segment: another evaluation and the saving of weights, a third of a checkpoint."""
        energy = fit.model()
        evaluation = run.evaluated[0].seconds if run.evaluated else 0.0
        tail_s = evaluation + self._checkpoint_s(run) / 3 + 1.0
        watts = energy.joules_full / energy.seconds_full if energy.seconds_full > 0 else energy.watts_high
        overhead_s = energy.overhead_s or self._checkpoint_s(run)
        return replace(
            energy,
            tail_s=tail_s,
            tail_j=tail_s * watts,
            overhead_s=overhead_s,
            overhead_j=energy.overhead_j or overhead_s * watts,
        )


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
    """Replace control.json: a reader sees the old or the new one, whole, also after a power cut."""
    target = job_dir / "control.json"
    temporary = job_dir / ".control.json.tmp"
    with temporary.open("w", encoding="utf-8") as file:
        file.write(directive.model_dump_json())
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(target)


def _rest(steps: int, segments: int) -> list[int]:
    """Steps of the segments to come, spread evenly: only their sum is known."""
    if segments <= 0 or steps <= 0:
        return []
    base, more = divmod(steps, segments)
    return [base + (i < more) for i in range(segments)]
