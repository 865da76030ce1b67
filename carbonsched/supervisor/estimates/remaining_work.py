"""What remains of a job: from its own words while it runs, from the trainer's check before it has begun.

Before anything was measured a job's speed and power are priors: what this box did for other jobs, else the rated
figures of its devices. They say so in words, and every answer that rests on them is labelled estimated.
"""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice

from carbonsched.ledger.ledger import JobRecord, Ledger
from carbonsched.model.job import JobSpec
from carbonsched.model.profile import CheckResult
from carbonsched.plan.problem import JobSegment
from carbonsched.power.base import Device
from carbonsched.supervisor.jobs.job_run import JobRun
from carbonsched.units import MJ_PER_J

CPU_FLOPS_A_CORE = 5e10
"""Sustained in fp32 training, measured: SmolLM2-135M at 4×80 takes 2.5 s a step on two cores."""
GPU_FLOPS = {"fp32": 2e13, "bf16": 1e14, "fp16": 1e14}
"""Sustained by a data-centre device of these years, about 40% of its rating."""
GPU_WATTS, CPU_WATTS_A_CORE = 300.0, 10.0
_RATED_SHARE = 0.75
"""Of a device's power limit that training draws."""
_JOBS = 3
"""Jobs of this box, newest first, whose segments tell its speed."""
LOOKED_AT = 30
"""Jobs, newest first, among which such are looked for."""


@dataclass(frozen=True, slots=True)
class Ahead:
    """The segments still to run, the one under way with the steps it has left."""

    segments: tuple[JobSegment, ...]
    rho_floor: float
    done: float
    """Share of the job's steps that are done."""
    rho_due: float | None
    """Mean ρ these steps must reach for the `rho_mean` of the whole job; None where none is wanted."""
    known: bool
    """Whether the job itself said so; False: the check foresaw it, and the gain is taken as linear in ρ."""


def ahead(run: JobRun) -> Ahead | None:
    """None for a job that has said nothing yet and came without a check."""
    ready, checked = run.ready, run.checked
    if ready is not None:
        under_way = min(max((run.step or 0) - ready.first_step, 0), ready.steps - 1)
        steps = [
            ready.steps - under_way,
            *spread(ready.steps_left - ready.steps, ready.segments - ready.k - 1),
        ]
        total = ready.first_step + ready.steps_left
        curve = tuple((point.rho, point.importance) for point in ready.frontier)
        return _ahead(run, steps, ready.k, curve, ready.rho_floor, total, under_way, known=True)
    if checked is None:
        return None
    done = sum(d.steps for d in run.done)
    k, n = len(run.done), max(checked.segments, len(run.done) + 1)
    steps = spread(max(checked.steps - done, 1), n - k)
    floor = checked.rho_floor
    return _ahead(run, steps, k, ((floor, floor), (1.0, 1.0)), floor, checked.steps, 0, known=False)


def _ahead(
    run: JobRun,
    steps: list[int],
    k: int,
    curve: tuple[tuple[float, float], ...],
    floor: float,
    total: int,
    under_way: int,
    *,
    known: bool,
) -> Ahead:
    left, wanted = max(sum(steps), 1), run.spec.carbon.rho_mean
    due = None
    if wanted is not None:
        rho = run.directive.rho if run.directive and run.directive.rho else wanted
        trained = sum(d.steps * d.rho_realised for d in run.done) + under_way * rho
        due = min(max((wanted * total - trained) / left, floor), 1.0)
    return Ahead(
        segments=tuple(JobSegment(k + i, n, curve) for i, n in enumerate(steps) if n > 0),
        rho_floor=floor,
        done=1 - left / max(total, 1),
        rho_due=due,
        known=known,
    )


def spread(steps: int, segments: int) -> list[int]:
    """Steps of the segments to come, spread evenly: only their sum is known."""
    if segments <= 0 or steps <= 0:
        return []
    base, more = divmod(steps, segments)
    return [base + (i < more) for i in range(segments)]


@dataclass(frozen=True, slots=True)
class Speed:
    """How fast and at what power this box trains, before the job itself was seen."""

    flops_per_s: float
    watts: float
    source: str
    """For people."""

    def step_s(self, checked: CheckResult) -> float:
        return checked.step_flops_full / self.flops_per_s


def speed(ledger: Ledger, devices: tuple[Device, ...], spec: JobSpec) -> Speed:
    """Of the newest jobs on this box, those of the same model and dtype first; else rated figures."""
    seen = ledger.newest(LOOKED_AT)
    for jobs, what in ((alike(seen, spec), "this model"), (seen, "other models")):
        found = islice((one for one in (_measured(ledger, job.id) for job in jobs) if one), _JOBS)
        sums = [sum(column) for column in zip(*found, strict=True)]
        if sums:
            flops, seconds, joules, wall = sums
            source = f"measured on this box with {what}: {flops / seconds:.3g} FLOP/s, {joules / wall:.3g} W"
            return Speed(flops / seconds, joules / wall, source)
    gpu = next((device for device in devices if device.kind == "gpu"), None)
    if gpu is not None:
        watts = gpu.watts_limit * _RATED_SHARE if gpu.watts_limit else GPU_WATTS
        flops = GPU_FLOPS[spec.model.dtype]
        return Speed(
            flops, watts, f"assumed, nothing was trained here yet: {flops:.3g} FLOP/s and {watts:.0f} W"
        )
    cores = spec.train.threads or os.cpu_count() or 1
    flops, watts = cores * CPU_FLOPS_A_CORE, cores * CPU_WATTS_A_CORE
    return Speed(
        flops,
        watts,
        f"assumed for {cores} CPU cores, nothing was trained here yet: {flops:.3g} FLOP/s and {watts:.0f} W",
    )


def alike(jobs: Sequence[JobRecord], spec: JobSpec) -> list[JobRecord]:
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
