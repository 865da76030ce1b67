"""What a job will take: from what it was metered at, or foreseen from its check before it has begun."""

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from carbonsched.config import Config
from carbonsched.ledger.ledger import Ledger
from carbonsched.model.job_state import JobState
from carbonsched.model.protocol import SegmentReady
from carbonsched.plan.problem import EnergyModel, Problem
from carbonsched.power.base import Meter
from carbonsched.supervisor.control.leases import Steering
from carbonsched.supervisor.estimates.evaluation_cost import evaluation
from carbonsched.supervisor.estimates.remaining_work import RemainingWork, remaining_work
from carbonsched.supervisor.estimates.throughput import estimate_throughput
from carbonsched.supervisor.jobs.job_run import JobRun
from carbonsched.units import MJ_PER_J, grams

if TYPE_CHECKING:
    from carbonsched.plan.energy_fit import EnergyFit

_WATTS_UNKNOWN = 300.0
"""Power taken for leases while a device was never read: deliberately high."""


LOAD_S = 20.0
"""Python, the libraries and a model's weights, before the job was loaded once."""


@dataclass(slots=True)
class JobCostEstimator:
    ledger: Ledger
    meter: Meter
    steering: Steering
    idle_w: dict[str, float] = field(default_factory=dict)
    """Of each device, a slow mean."""

    @property
    def config(self) -> Config:
        return self.steering.config

    def of(self, run: JobRun) -> tuple[RemainingWork | None, EnergyModel]:
        """What remains of a job, and what it takes: as metered, or as foreseen before it has begun."""
        rest = remaining_work(run)
        if run.looks is None and run.checked is not None and not run.evaluated:
            throughput = estimate_throughput(self.ledger, self.meter.devices, run.spec)
            run.looks = evaluation(self.ledger, self.meter.devices, run.spec, run.checked, throughput)
        if run.ready is not None:
            fit = self.fit(run, run.ready)
        else:
            fit = run.fit or self.steering.foreseen(
                run, estimate_throughput(self.ledger, self.meter.devices, run.spec)
            )
        return rest, self.steering.energy(run, fit)

    def question(self, run: JobRun) -> Problem | None:
        """A run's problem, its budget apart; a paused job asks for its floor alone."""
        rest, energy = self.of(run)
        if rest is None:
            return None
        asked = self.steering.problem(run, rest, energy, 0.0, self.idle(run))
        if run.alive_from is None:
            asked = replace(asked, reserve_g=asked.reserve_g + self.loading_g(run, energy))
        return replace(asked, rho_max=asked.rho_min) if run.state is JobState.PAUSED else asked

    def loading_g(self, run: JobRun, energy: EnergyModel) -> float:
        """What the next start of a job will take before its first segment, at the worst intensity."""
        looks_s = run.looks.before_s if run.looks is not None else 0.0
        seconds = LOAD_S + looks_s if run.load_s is None else run.load_s
        joules = seconds * energy.joules_full / max(energy.seconds_full, 1e-9)
        return grams(joules, self.config.zone.worst_g_per_kwh, self.config.pue)

    def idle(self, run: JobRun) -> float:
        return sum(self.idle_w.get(device, 0.0) for device in run.devices)

    def fit(self, run: JobRun, ready: SegmentReady) -> "EnergyFit":
        if run.fit is None:
            limits = [device.watts_limit or 0.0 for device in self.meter.devices if device.id in run.devices]
            watts = run.power_w or self.watts_high(run)
            run.fit = self.steering.fit(run, ready, watts, sum(limits) or None)
        return run.fit

    def charged_g(self, job_id: str) -> float:
        """What the ledger has of a job: known grams, and the unknown at its worst."""
        totals = self.ledger.totals(job_id)
        limits = [device.watts_limit for device in self.meter.devices if device.kind == "gpu"]
        watts = limits[0] if limits and limits[0] else _WATTS_UNKNOWN
        joules = totals.unknown_mj / MJ_PER_J + totals.unmetered_s * watts
        return totals.grams + grams(joules, self.config.zone.worst_g_per_kwh, self.config.pue)

    def note_power(self, live: list[JobRun], known_w: dict[str, float | None]) -> None:
        busy: dict[str, int] = {}
        for run in live:
            for device in run.devices:
                busy[device] = busy.get(device, 0) + 1
        for run in live:
            known = [(known_w.get(device), busy[device]) for device in run.devices]
            watts = [power / n for power, n in known if power is not None]
            run.power_w = sum(watts) if known and len(watts) == len(known) else None
        for device, power in known_w.items():
            if device not in busy and power is not None:
                self.idle_w[device] = 0.9 * self.idle_w.get(device, power) + 0.1 * power

    def watts_high(self, run: JobRun) -> float:
        """Power no tick of this job should pass: the model's, else a margin over what is seen or the devices' rating."""
        if run.fit is not None:
            return run.fit.model().watts_high
        if run.power_w is not None:
            return 1.25 * run.power_w
        limits = [device.watts_limit for device in self.meter.devices if device.id in run.devices]
        return sum(limit or _WATTS_UNKNOWN for limit in limits) or _WATTS_UNKNOWN
