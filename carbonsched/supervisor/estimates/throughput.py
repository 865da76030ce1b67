"""Estimates throughput and power of a job on this box before the job itself was measured.

The priors are what this box measured for other jobs, else the rated figures of its devices. `Throughput.source` says which, and every
figure based on them is labelled estimated.
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
"""Sustained FLOP/s per core in fp32 training. Measured: SmolLM2-135M at 4×80 takes 2.5 s per step on two cores."""
SUSTAINED = {"fp32": 0.6, "bf16": 0.4, "fp16": 0.4}
"""Share of a board's rated FLOP/s that training sustains. Matrix products on CUDA cores come closer to the rating than tensor cores, which
wait for memory."""
FLOPS_PER_J = {"fp32": 3e10, "bf16": 2e11, "fp16": 2e11}
"""Sustained FLOPs per joule of the power limit, for a board without a known rating. An A100 reaches 2.9e10 in fp32 and 3.1e11 in bf16, an
RTX 4090 1.1e11 and 1.5e11."""
GPU_WATTS, CPU_WATTS_PER_CORE = 300.0, 10.0
_RATED_SHARE = 0.75
"""Share of a device's power limit that training draws."""
_HOST_SHARE = 0.3
"""Share of the host's rated power that it draws while a board trains: one busy thread, memory and its idle power."""
_OWN = "this model"
_MEASURED_JOBS = 3
"""Most jobs of this box, newest first, whose segments are averaged."""
RECENT_JOBS = 30
"""Newest jobs that are searched for such jobs."""


@dataclass(frozen=True, slots=True)
class Throughput:
    """Throughput and power of this box, before the job itself was measured.

    Example:
        >>> Throughput(flops_per_s=2e13, watts=75.0, source="assumed").watts
        75.0
    """

    flops_per_s: float
    watts: float
    source: str
    """For people."""
    of_model: bool = False
    """Whether it was measured on this box with the same model."""
    measured: bool = False
    """Whether it was measured on this box at all; False: it is the devices' rating."""

    def step_s(self, checked: CheckResult) -> float:
        return checked.step_flops_full / self.flops_per_s


def estimate_throughput(ledger: Ledger, devices: tuple[Device, ...], spec: JobSpec) -> Throughput:
    """From the newest jobs on a board of this name at this precision, those of the same model first; else from rated figures. devices:
    those that the job has or may get. The first GPU counts, times the number of the job's processes."""
    gpus = [device for device in devices if device.kind == "gpu" and spec.train.device != "cpu"]
    target = gpus[0].name if gpus else ""
    board = gpus[0] if gpus else None
    wanted, boards = precision(spec, board), boards_of(spec, gpus)
    seen = [job for job in ledger.newest(RECENT_JOBS) if precision(job.spec, board) == wanted]
    # the supervisor's lock is held meanwhile: their boards are one query, not one for each
    boards_of_jobs = ledger.last_boards([job.id for job in seen])
    here = [job for job in seen if _name_of(boards_of_jobs.get(job.id), gpus) == target]
    own = same_model(here, spec)
    others = [job for job in here if all(job is not each for each in own)]
    for jobs, what in ((own, _OWN), (others, "other models")):
        found = islice(
            (one for one in (_measured(ledger, job.id, boards_of(job.spec, gpus)) for job in jobs) if one),
            _MEASURED_JOBS,
        )
        sums = [sum(column) for column in zip(*found, strict=True)]
        if sums:
            flops, seconds, joules, wall = sums
            flops, joules = flops * boards, joules * boards
            source = f"measured on this box with {what}: {flops / seconds:.3g} FLOP/s, {joules / wall:.3g} W"
            return Throughput(flops / seconds, joules / wall, source, measured=True, of_model=what == _OWN)
    host_w = next((device.watts_limit for device in devices if device.kind == "host"), None)
    if gpus:
        return _of_boards(gpus[0], boards, wanted, host_w)
    cores = os.cpu_count() or 1
    if spec.train.threads is not None:
        cores = (
            spec.train.threads
            if spec.train.processes is None
            else min(spec.train.threads * spec.train.processes, cores)
        )
    flops, watts = cores * CPU_FLOPS_PER_CORE, _cpu_watts(cores, host_w)
    return Throughput(
        flops,
        watts,
        f"assumed for {cores} CPU cores, nothing of the kind was trained here yet: {flops:.3g} FLOP/s and {watts:.0f} W",
    )


def boards_of(spec: JobSpec, gpus: Sequence[Device]) -> int:
    """Boards that a job trains on at once, if the box has any; 1 on a CPU, whose cores its processes share."""
    return (spec.train.processes or 1) if gpus else 1


def precision(spec: JobSpec, board: Device | None) -> str:
    """The precision of matrix products on `board` (None: a CPU): autocast's, else the model's dtype."""
    peak = None if board is None else board.peak_flops
    able = peak is not None and peak.of("bf16") > peak.of("fp32")
    auto = spec.train.autocast == "auto" and spec.model.dtype == "fp32" and able
    return "bf16" if auto or spec.train.autocast == "bf16" else spec.model.dtype


def _of_boards(board: Device, boards: int, dtype: str, host_w: float | None) -> Throughput:
    """boards: number of boards of its kind that train together."""
    limit = board.watts_limit or GPU_WATTS / _RATED_SHARE
    if board.peak_flops is not None:
        flops, how = board.peak_flops.of(dtype) * SUSTAINED[dtype], f"{SUSTAINED[dtype]:.0%} of its rating"
    else:
        flops, how = limit * FLOPS_PER_J[dtype], f"by its limit of {limit:.0f} W"
    part = 1.0
    if board.instances:  # which MIG instance the job will get is not known yet
        part = 1 / len(board.instances)
    share = part * boards
    watts = limit * _RATED_SHARE * share + (host_w or 0.0) * _HOST_SHARE
    where = board.name if boards == 1 else f"{boards} {board.name}"
    return Throughput(
        flops * share,
        watts,
        f"assumed, nothing was trained in {dtype} on {where} here yet: {flops * share:.3g} FLOP/s ({how}) and "
        f"{watts:.0f} W",
    )


def _cpu_watts(cores: int, host_w: float | None) -> float:
    """Power by codecarbon's load model, if it or RAPL meters the host: rated power × (0.1 + 0.9·load³)."""
    if host_w is None:
        return cores * CPU_WATTS_PER_CORE
    load = min(cores / (os.cpu_count() or cores), 1.0)
    return host_w * (0.1 + 0.9 * load**3)


def _name_of(boards: Sequence[str] | None, gpus: Sequence[Device]) -> str | None:
    """The name of the board that a job last ran on; empty: it ran without one. None: it never started, or that board is not here."""
    if boards is None:
        return None
    names = {gpu.id: gpu.name for gpu in gpus}
    own = [board for board in boards if board != "host"]
    return names.get(own[0]) if own else ""


def same_model(jobs: Sequence[JobRecord], spec: JobSpec) -> list[JobRecord]:
    """The jobs of the same model, loaded the same way."""
    return [job for job in jobs if _kind(job.spec) == _kind(spec)]


def _kind(spec: JobSpec) -> tuple[str, str, str | None]:
    return spec.model.name_or_path, spec.model.dtype, spec.train.autocast


def _measured(ledger: Ledger, job_id: str, boards: int) -> tuple[float, float, float, float] | None:
    """(FLOPs, seconds of steps, metered joules, their wall seconds) of a job's segments, per board; None if one of them is unknown."""
    sums = {k: total for k, total in ledger.segment_totals(job_id).items() if k is not None}
    if not any(total.energy_mj for total in sums.values()):
        return None
    segments = ledger.segments(job_id)
    known = [s for s in segments if s.k in sums and sums[s.k].energy_mj > 0]
    found = (
        sum(s.done.flops for s in segments) / boards,
        sum(s.done.seconds for s in segments),
        sum(sums[s.k].energy_mj for s in known) / MJ_PER_J / boards,
        sum((s.end - s.start).total_seconds() for s in known),
    )
    return found if min(found) > 0 else None
