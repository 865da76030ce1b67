"""A ledger with a job's history, for tests of ledger and report: real rows, real hashes, a synthetic grid.

Eight segments on one GPU and the host, a wait for a cleaner hour, a restart of the daemon that is bridged, a stretch
without intensity, and one segment that was killed and begun again.
"""

import math
import sqlite3
from datetime import UTC, datetime, timedelta
from pathlib import Path

from carbonsched.ledger import Ledger
from carbonsched.ledger.ledger import spec_sha256
from carbonsched.model.energy import Account, EnergyDelta, EnergyMethod, Interval
from carbonsched.model.grid import Basis, Kind, Reading, Source
from carbonsched.model.job import CarbonPart, DataPart, JobSpec, ModelPart, Owner, SubmittedJob, TrainPart
from carbonsched.model.job_state import JobState
from carbonsched.model.protocol import Directive, Evaluated, Lease, SegmentDone, Waste
from carbonsched.units import grams

T0 = datetime(2026, 11, 20, 16, 0, tzinfo=UTC)
GPU = "GPU-6f1c2a7e"
PUE = 1.2


def harm(ledger: Path, table: str) -> int:
    """Overwrite the first page of a table by what no page begins with. Returns its number."""
    raw = sqlite3.connect(ledger)
    (root,) = raw.execute("SELECT rootpage FROM sqlite_master WHERE name = ?", (table,)).fetchone()
    (size,) = raw.execute("PRAGMA page_size").fetchone()
    raw.close()
    with ledger.open("r+b") as file:
        file.seek((root - 1) * size)
        file.write(b"\xee" * size)
    return int(root)


def submitted(
    job_id: str = "scitldr-1", name: str = "scitldr-smollm2", budget_g: float | None = 120.0
) -> SubmittedJob:
    spec = JobSpec(
        name=name,
        model=ModelPart(name_or_path="HuggingFaceTB/SmolLM2-135M"),
        data=DataPart(name_or_path="allenai/scitldr"),
        train=TrainPart(epochs=8),
        carbon=CarbonPart(budget_g=budget_g) if budget_g else CarbonPart(budget_share=0.5),
    )
    owner = Owner(uid=1000, gid=1000, user="ada")
    return SubmittedJob(id=job_id, spec=spec, owner=owner, submitted_at=T0, sha256=spec_sha256(spec))


def reading(at: datetime, g_per_kwh: float, *, compression: float = 1.0, note: str = "") -> Reading:
    start = at.replace(minute=at.minute // 30 * 30, second=0, microsecond=0)
    source = Source(
        provider="replay" if compression > 1 else "neso",
        zone="GB",
        basis=Basis.AVERAGE_DIRECT,
        kind=Kind.ACTUAL,
        fetched_at=start,
        body_sha256="5d" * 32,
        time_compression=compression,
        note=note,
    )
    return Reading(start=start, end=start + timedelta(minutes=30), g_per_kwh=g_per_kwh, source=source)


def grid(at: datetime) -> float:
    """A day's wave about 210 g/kWh, lowest towards 04:00."""
    hour = at.hour + at.minute // 30 / 2
    return round(210 + 95 * math.cos((hour - 17.5) / 24 * 2 * math.pi) + 18 * math.sin(hour * 1.7), 1)


def interval(
    start: datetime,
    seconds: float,
    energy_mj: int | None,
    *,
    board: str = GPU,
    job_id: str | None = None,
    segment: int | None = None,
    rho: float | None = None,
    g_per_kwh: float | None = 200.0,
    counter: int | None = None,
    bridged: bool = False,
    method: EnergyMethod = EnergyMethod.COUNTER,
    reason: str | None = None,
    compression: float = 1.0,
    note: str = "",
) -> Interval:
    intensity = None if g_per_kwh is None else reading(start, g_per_kwh, compression=compression, note=note)
    known = energy_mj is not None and g_per_kwh is not None
    delta = EnergyDelta(
        device=board,
        start=start,
        end=start + timedelta(seconds=seconds),
        energy_mj=energy_mj,
        power_w=None if energy_mj is None else energy_mj / 1000 / seconds,
        method=method if energy_mj is not None else EnergyMethod.UNAVAILABLE,
        counter_epoch="boot-1:0",
        counter_start_mj=None if counter is None or energy_mj is None else counter,
        counter_end_mj=None if counter is None or energy_mj is None else counter + energy_mj,
        bridged=bridged,
        coverage=1.0 if energy_mj is not None else 0.0,
        reason=reason if energy_mj is not None else reason or "the board did not answer",
        meter="nvml" if board != "host" else "codecarbon:cpu_load+ram",
    )
    return Interval(
        account=Account.IDLE if job_id is None else Account.JOB,
        job_id=job_id,
        segment=segment,
        delta=delta,
        intensity=intensity,
        pue=PUE,
        pue_source="operator's figure for 2025",
        rho=rho,
        grams=grams(energy_mj / 1000, g_per_kwh, PUE) if known else None,
    )


DEPARTURE = "realised rho 0.700 is not the planned 0.600: its batches took 20% less than was foreseen"


def done(
    k: int, at: datetime, rho: float, *, seconds: float = 4500.0, steps: int = 498, loss: float = 3.0
) -> SegmentDone:
    full = 2.1e16
    return SegmentDone(
        at=at,
        k=k,
        first_step=k * steps,
        steps=steps,
        rho_directed=rho,
        rho_planned=rho - 0.004,
        rho_realised=rho - 0.006,
        flops=(rho - 0.006) * full,
        flops_full=full,
        waste=Waste(
            stock_flops=1.7 * full,
            padding_flops=0.3 * full,
            head_flops=0.4 * full,
            orders=16,
            spread_flops=0.01 * full,
        ),
        loss=loss,
        seconds=seconds,
        importance_seconds=9.0,
        selection_seconds=0.4,
        selected=tuple(f"model.layers.{n}.mlp.up_proj.weight" for n in range(29 - round(rho * 12), 30)),
        directive_seq=k + 1,
        departure=DEPARTURE if k == 3 else None,
    )


def directive(k: int, at: datetime, rho: float) -> Directive:
    lease = Lease(valid_until=at + timedelta(minutes=5), max_steps=500)
    reason = f"train at {rho:.2f}: the budget binds, 240 g/kWh expected until 06:00"
    return Directive(
        seq=k + 1, k=k, action="train", rho=rho, lease=lease, price=0.0021 + k / 1e4, reason=reason
    )


def evaluated(at: datetime, when: str, step: int, loss: float) -> Evaluated:
    fields = {
        "at": at,
        "when": when,
        "step": step,
        "loss": loss,
        "samples": 64,
        "tokens": 1543,
        "seconds": 21.0,
    }
    return Evaluated.model_validate(fields | {"metrics": {"rouge1": 18 + 3 / loss}})


def write_history(ledger: Ledger, job: SubmittedJob, *, compression: float = 1.0, note: str = "") -> datetime:
    """Write the history; returns its end."""
    at, counter = T0, 18_400_000
    row_s = 60.0
    ledger.add_job(job)
    ledger.set_state(job.id, JobState.RUNNING, "started, loading the model", "daemon", at)

    def burn(
        minutes: float, watts: float, segment: int | None, rho: float | None, *, charge: bool = True
    ) -> None:
        nonlocal at, counter
        rows: list[Interval] = []
        for n in range(round(minutes * 60 / row_s)):
            mj = round(watts * row_s * 1000 * (1 + 0.04 * math.sin(n * 0.7)))
            g = None if 8 <= n < 12 and segment == 6 else grid(at)
            own = {"job_id": job.id, "segment": segment, "rho": rho} if charge else {}
            shared = {"g_per_kwh": g, "compression": compression, "note": note}
            rows.append(interval(at, row_s, mj, counter=counter, **own, **shared))  # type: ignore[arg-type]
            host = round(61_000 * row_s * (1 + 0.02 * math.sin(n)))
            how = {"board": "host", "method": EnergyMethod.ESTIMATED, "reason": "modelled from CPU load"}
            rows.append(interval(at, row_s, host, **own, **shared, **how))  # type: ignore[arg-type]
            counter += mj
            at += timedelta(seconds=row_s)
        ledger.append(rows)

    burn(4, 90, None, None)
    ledger.note(job.id, "evaluated", evaluated(at, "before", 0, 4.542).dump(), "trainer", at)
    rhos = [0.62, 0.55, 0.48, 0.7, 0.86, 0.94, 0.9, 0.66]
    for k, rho in enumerate(rhos):
        start = at
        if k == 2:
            ledger.set_state(job.id, JobState.WAITING, "a cleaner hour is near", "trainer", at)
            burn(100, 42, k, None)
            ledger.set_state(job.id, JobState.RUNNING, "the wait is over", "daemon", at)
        if k == 5:
            burn(31, 255, k, rho)
            ledger.set_state(job.id, JobState.FAILED, "killed by signal 9", "daemon", at)
            burn(6, 38, None, None, charge=False)
            ledger.set_state(job.id, JobState.QUEUED, "resumed by ada", "ada", at)
            ledger.set_state(job.id, JobState.RUNNING, "started, loading the model", "daemon", at)
            burn(3, 90, None, None)
            start = at
        seconds = 4500 * (0.28 + 0.72 * rho)
        burn(round(seconds / 60), 262 - 18 * (1 - rho), k, rho)
        if k == 3:
            mj = 137_700_000
            gap = interval(at, 540, mj, job_id=job.id, segment=k, rho=rho, g_per_kwh=grid(at), counter=counter, bridged=True,
                           reason="the daemon was away for 540 s", compression=compression, note=note)  # fmt: skip
            ledger.append([gap])
            counter += mj
            at += timedelta(seconds=540)
        burn(2, 110, k, rho)
        _save_segment(ledger, job.id, k, (start, at), rho, seconds)
    ledger.note(job.id, "evaluated", evaluated(at, "after", 498 * 8, 2.571).dump(), "trainer", at)
    burn(2, 95, None, None)
    ledger.set_state(job.id, JobState.FINISHED, "done", "daemon", at)
    return at


def _save_segment(
    ledger: Ledger, job_id: str, k: int, span: tuple[datetime, datetime], rho: float, seconds: float
) -> None:
    start, end = span
    loss = 2.62 + 1.5 * math.exp(-k / 2.2)
    with ledger.transaction():
        ledger.save_segment(
            job_id, done(k, end, rho, seconds=seconds, loss=loss), start, end, directive(k, start, rho)
        )
        ledger.set_offset(job_id, 4096 * (k + 1))


def written(path: Path, rows: int = 12) -> Path:
    """A small ledger: a job that runs, its rows, and a segment of it."""
    with Ledger.open(f"sqlite:///{path / 'ledger.db'}") as ledger:
        job = submitted("j")
        ledger.add_job(job)
        ledger.append(
            [interval(T0 + timedelta(seconds=n), 1, 100 + n, job_id="j", segment=0) for n in range(rows)]
        )
        ledger.save_segment("j", done(0, T0, 0.5), T0, T0 + timedelta(seconds=9), directive(0, T0, 0.5))
        ledger.set_state("j", JobState.RUNNING, "started", "daemon", T0)
        assert ledger.verify().ok
    return path / "ledger.db"
