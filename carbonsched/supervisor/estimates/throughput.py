"""Estimates how fast and at what power this box trains a job that has not been measured yet.

Before anything of a job was metered its throughput and power are priors: what this box did for other jobs, else the rated
figures of its devices. `Throughput.source` says which, and every answer that rests on them is labelled estimated.
"""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice

from carbonsched.ledger.ledger import Ledger
from carbonsched.ledger.records import JobRecord
from carbonsched.model.job import JobSpec
from carbonsched.model.profile import CheckResult
from carbonsched.power.base import Device
from carbonsched.units import MJ_PER_J

CPU_FLOPS_PER_CORE = 5e10
"""Sustained in fp32 training, measured: SmolLM2-135M at 4×80 takes 2.5 s per step on two cores."""
GPU_FLOPS = {"fp32": 2e13, "bf16": 1e14, "fp16": 1e14}
"""Sustained by a data-centre device of these years, about 40% of its rating."""
GPU_WATTS, CPU_WATTS_PER_CORE = 300.0, 10.0
_RATED_SHARE = 0.75
"""Of a device's power limit that training draws."""
_MEASURED_JOBS = 3
"""Jobs of this box, newest first, whose segments tell its speed."""
RECENT_JOBS = 30
"""Jobs, newest first, among which such are looked for."""


@dataclass(frozen=True, slots=True)
class Throughput:
    """How fast and at what power this box trains, before the job itself was seen.

    Example:
        >>> Throughput(flops_per_s=2e13, watts=75.0, source="assumed").watts
        75.0
    """

    flops_per_s: float
    watts: float
    source: str
    """For people."""

    def step_s(self, checked: CheckResult) -> float:
        return checked.step_flops_full / self.flops_per_s


def estimate_throughput(ledger: Ledger, devices: tuple[Device, ...], spec: JobSpec) -> Throughput:
    """Of the newest jobs on this box, those of the same model and dtype first; else rated figures."""
    seen = ledger.newest(RECENT_JOBS)
    for jobs, what in ((same_model(seen, spec), "this model"), (seen, "other models")):
        found = islice((one for one in (_measured(ledger, job.id) for job in jobs) if one), _MEASURED_JOBS)
        sums = [sum(column) for column in zip(*found, strict=True)]
        if sums:
            flops, seconds, joules, wall = sums
            source = f"measured on this box with {what}: {flops / seconds:.3g} FLOP/s, {joules / wall:.3g} W"
            return Throughput(flops / seconds, joules / wall, source)
    gpu = next((device for device in devices if device.kind == "gpu"), None)
    if gpu is not None:
        watts = gpu.watts_limit * _RATED_SHARE if gpu.watts_limit else GPU_WATTS
        flops = GPU_FLOPS[spec.model.dtype]
        return Throughput(
            flops, watts, f"assumed, nothing was trained here yet: {flops:.3g} FLOP/s and {watts:.0f} W"
        )
    cores = spec.train.threads or os.cpu_count() or 1
    flops, watts = cores * CPU_FLOPS_PER_CORE, cores * CPU_WATTS_PER_CORE
    return Throughput(
        flops,
        watts,
        f"assumed for {cores} CPU cores, nothing was trained here yet: {flops:.3g} FLOP/s and {watts:.0f} W",
    )


def same_model(jobs: Sequence[JobRecord], spec: JobSpec) -> list[JobRecord]:
    """Those of the same model, loaded the same way."""
    return [job for job in jobs if _kind(job.spec) == _kind(spec)]


def _kind(spec: JobSpec) -> tuple[str, str]:
    return spec.model.name_or_path, spec.model.dtype


def _measured(ledger: Ledger, job_id: str) -> tuple[float, float, float, float] | None:
    """(FLOPs, seconds of steps, metered joules, their wall seconds) of a job's segments; None where one is not known."""
    sums = {k: total for k, total in ledger.segment_totals(job_id).items() if k is not None}
    if not any(total.energy_mj for total in sums.values()):
        return None
    segments = ledger.segments(job_id)
    known = [s for s in segments if s.k in sums and sums[s.k].energy_mj > 0]
    found = (
        sum(s.done.flops for s in segments),
        sum(s.done.seconds for s in segments),
        sum(sums[s.k].energy_mj for s in known) / MJ_PER_J,
        sum((s.end - s.start).total_seconds() for s in known),
    )
    return found if min(found) > 0 else None
