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
SUSTAINED = {"fp32": 0.6, "bf16": 0.4, "fp16": 0.4}
"""Share of a board's rated FLOP/s that training sustains: matrix products on CUDA cores come nearer to it than tensor cores fed
from memory."""
FLOPS_PER_J = {"fp32": 3e10, "bf16": 2e11, "fp16": 2e11}
"""Sustained per watt of the limit where a board's rating is not known: of an A100 fp32 2.9e10 and bf16 3.1e11, of an RTX 4090 1.1e11
and 1.5e11."""
GPU_WATTS, CPU_WATTS_PER_CORE = 300.0, 10.0
_RATED_SHARE = 0.75
"""Of a device's power limit that training draws."""
_HOST_SHARE = 0.3
"""Of the host's rated power that it draws while a board trains: one busy thread, memory, and what it draws anyway."""
_OWN = "this model"
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
    of_model: bool = False
    """Whether it was measured on this box with the job's own model."""
    measured: bool = False
    """On this box; else its devices' rating alone tells."""

    def step_s(self, checked: CheckResult) -> float:
        return checked.step_flops_full / self.flops_per_s


def estimate_throughput(ledger: Ledger, devices: tuple[Device, ...], spec: JobSpec) -> Throughput:
    """Of the newest jobs on a board of this name in this precision, those of the same model first; else rated figures.

    devices: those that the job has or may get, the first GPU counts, and as many of its kind as the job has processes.
    """
    gpus = [device for device in devices if device.kind == "gpu"]
    target = gpus[0].name if gpus else ""
    board = gpus[0] if gpus else None
    wanted, boards = precision(spec, board), boards_of(spec, gpus)
    seen = [job for job in ledger.newest(RECENT_JOBS) if precision(job.spec, board) == wanted]
    for jobs, what in ((same_model(seen, spec), _OWN), (seen, "other models")):
        here = (job for job in jobs if _board_of(ledger, job.id, gpus) == target)
        found = islice(
            (one for one in (_measured(ledger, job.id, boards_of(job.spec, gpus)) for job in here) if one),
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
    """How many boards a job trains on at once, where there are any; 1 on a CPU, whose cores its processes share."""
    return (spec.train.processes or 1) if gpus else 1


def precision(spec: JobSpec, board: Device | None) -> str:
    """What matrix products run in on `board` (None: a CPU): autocast's, else the model's dtype."""
    peak = None if board is None else board.peak_flops
    able = peak is not None and peak.of("bf16") > peak.of("fp32")
    auto = spec.train.autocast == "auto" and spec.model.dtype == "fp32" and able
    return "bf16" if auto or spec.train.autocast == "bf16" else spec.model.dtype


def _of_boards(board: Device, boards: int, dtype: str, host_w: float | None) -> Throughput:
    """boards: so many of its kind train together."""
    limit = board.watts_limit or GPU_WATTS / _RATED_SHARE
    if board.peak_flops is not None:
        flops, how = board.peak_flops.of(dtype) * SUSTAINED[dtype], f"{SUSTAINED[dtype]:.0%} of its rating"
    else:
        flops, how = limit * FLOPS_PER_J[dtype], f"by its limit of {limit:.0f} W"
    part = 1.0
    if board.instances:  # which instance a job gets is not known before
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
    """By codecarbon's model of the load, where the host is metered by it or RAPL: rated power × (0.1 + 0.9·load³)."""
    if host_w is None:
        return cores * CPU_WATTS_PER_CORE
    load = min(cores / (os.cpu_count() or cores), 1.0)
    return host_w * (0.1 + 0.9 * load**3)


def _board_of(ledger: Ledger, job_id: str, gpus: Sequence[Device]) -> str | None:
    """The name of the board that a job ran on last; empty: it had none. None: never started, or on one that is not here."""
    started = ledger.history(job_id, kinds=("started",), newest=1)
    if not started:
        return None
    names = {gpu.id: gpu.name for gpu in gpus}
    boards = [board for board in started[-1]["boards"] if board != "host"]
    return names.get(boards[0]) if boards else ""


def same_model(jobs: Sequence[JobRecord], spec: JobSpec) -> list[JobRecord]:
    """Those of the same model, loaded the same way."""
    return [job for job in jobs if _kind(job.spec) == _kind(spec)]


def _kind(spec: JobSpec) -> tuple[str, str, str | None]:
    return spec.model.name_or_path, spec.model.dtype, spec.train.autocast


def _measured(ledger: Ledger, job_id: str, boards: int) -> tuple[float, float, float, float] | None:
    """(FLOPs, seconds of steps, metered joules, their wall seconds) of a job's segments, on each of its boards; None where one
    is not known."""
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
