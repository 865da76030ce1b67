"""Measures a ledger that has lasted: its size, how long verifying takes, whole and since the last heads, and reports.

    python benchmarks/ledger_year.py FOLDER [--days 365] [--boards 8] [--row-s 10]

A year of 8 boards and the host at 10 s is 28 million rows. `--days` makes a part of it; what is printed then is of that part, and
the figures that grow with the rows are carried on to the year beside it, marked so. Making the rows can be cut short: the next call goes on
behind the last day that is whole.
"""

import argparse
import json
import math
import sys
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

from carbonsched.ledger import Ledger
from carbonsched.ledger.heads import Head
from carbonsched.model.energy import Account, EnergyDelta, EnergyMethod, Interval
from carbonsched.model.grid import Basis, Kind, Reading, Source
from carbonsched.model.job import CarbonPart, DataPart, JobSpec, ModelPart, Owner, SubmittedJob
from carbonsched.report import build
from carbonsched.report.render import render
from carbonsched.units import grams

BEGAN = datetime(2025, 1, 1, tzinfo=UTC)
DAY_S = 86_400
YEAR_D = 365
PUE = 1.2
WATTS = 400.0
HOST_W = 180.0


def rows_of(day: int, boards: int, row_s: int) -> Iterator[Interval]:
    """A day: each board works for a job of its own, the host is nobody's."""
    for n in range(DAY_S // row_s):
        at = BEGAN + timedelta(days=day, seconds=n * row_s)
        reading = _reading(at)
        for board in range(boards):
            yield _row(
                at, row_s, f"GPU-{board}", round(WATTS * row_s * 1000), reading, job_id(day, board), n // 360
            )
        yield _row(at, row_s, "host", round(HOST_W * row_s * 1000), reading, None, None)


def job_id(day: int, board: int) -> str:
    """A job lasts a week."""
    return f"job-{day // 7}-{board}"


def _reading(at: datetime) -> Reading:
    start = at.replace(minute=at.minute // 30 * 30, second=0)
    value = round(250 + 90 * math.sin(start.hour / 24 * 2 * math.pi) + start.minute / 10 + start.day, 1)
    source = Source(
        provider="neso",
        zone="GB",
        basis=Basis.AVERAGE_DIRECT,
        kind=Kind.ACTUAL,
        fetched_at=start,
        body_sha256="5d" * 32,
    )
    return Reading(start=start, end=start + timedelta(minutes=30), g_per_kwh=value, source=source)


def _row(
    at: datetime, row_s: int, board: str, energy: int, reading: Reading, job: str | None, segment: int | None
) -> Interval:
    host = board == "host"
    counter = round((at - BEGAN).total_seconds() / row_s) * energy
    delta = EnergyDelta(
        device=board,
        start=at,
        end=at + timedelta(seconds=row_s),
        energy_mj=energy,
        power_w=energy / 1000 / row_s,
        method=EnergyMethod.ESTIMATED if host else EnergyMethod.COUNTER,
        counter_epoch="boot:0",
        counter_start_mj=None if host else counter,
        counter_end_mj=None if host else counter + energy,
        bridged=False,
        coverage=1.0,
        reason="modelled from CPU load" if host else None,
        meter="codecarbon:cpu_load+ram" if host else "nvml",
    )
    return Interval(
        account=Account.JOB if job else Account.IDLE,
        job_id=job,
        segment=segment,
        delta=delta,
        intensity=reading,
        pue=PUE,
        pue_source="operator's figure",
        rho=0.6 if job else None,
        grams=grams(energy / 1000, reading.g_per_kwh, PUE),
    )


def fill(ledger: Ledger, days: int, boards: int, row_s: int) -> None:
    """Make the days that are not there yet."""
    a_day = DAY_S // row_s * (boards + 1)
    first = ledger.totals().rows // a_day
    began = time.monotonic()
    for day in range(first, days):
        with ledger.transaction():
            if day % 7 == 0:
                for board in range(boards):
                    ledger.add_job(_job(job_id(day, board), BEGAN + timedelta(days=day)))
            ledger.append(list(rows_of(day, boards, row_s)))
        ledger.heartbeat("daemon", BEGAN + timedelta(days=day + 1))
        done = day + 1 - first
        left = (time.monotonic() - began) / done * (days - day - 1)
        _progress("rows", (day + 1) / days, left)
    sys.stderr.write("\n")


def _job(name: str, at: datetime) -> SubmittedJob:
    spec = JobSpec(
        name=name,
        model=ModelPart(name_or_path="HuggingFaceTB/SmolLM2-135M"),
        data=DataPart(name_or_path="allenai/scitldr"),
        carbon=CarbonPart(budget_g=1e6),
    )
    return SubmittedJob(
        id=name, spec=spec, owner=Owner(uid=1000, gid=1000, user="ada"), submitted_at=at, sha256=spec.sha256
    )


def _progress(what: str, share: float, left_s: float) -> None:
    sys.stderr.write(f"\r{what} [{'#' * round(share * 40):40}] {share:4.0%}, {left_s:.0f} s left  ")
    sys.stderr.flush()


def timed(work: Callable[[], object]) -> tuple[float, object]:
    """(seconds, what it answered)."""
    began = time.monotonic()
    found = work()
    return time.monotonic() - began, found


def measure(ledger: Ledger, path: Path, days: int) -> dict[str, dict[str, float | None]]:
    """What each takes here, and what that comes to over a year where it grows with the rows."""
    now = BEGAN + timedelta(days=days)
    whole_s, result = timed(ledger.verify)
    if not getattr(result, "ok", False):
        raise SystemExit(f"it does not verify: {result}")
    hour_ago = next(iter(ledger.rows(start=now - timedelta(hours=1))))
    since = Head(hour_ago["hash"], "0" * 64, hour_ago["id"], 0)
    since_s, _ = timed(lambda: ledger.verify(since=since))
    year_s, _ = timed(lambda: render(build(ledger, now=now), ledger, "json"))
    job_s, _ = timed(lambda: render(build(ledger, job_id(days - 1, 0), now=now), ledger, "json"))
    size = sum(file.stat().st_size for file in path.parent.glob("ledger.db*"))
    scale = YEAR_D / days
    return {
        "database_gb": _figure(size / 1e9, 2.0, scale),
        "full_verify_s": _figure(whole_s, 600.0, scale),
        "incremental_verify_s": _figure(since_s, 5.0, None),
        "yearly_report_s": _figure(year_s, 3.0, scale),
        "job_report_s": _figure(job_s, 0.3, None),
    }


def _figure(here: float, aim: float, scale: float | None) -> dict[str, float | None]:
    return {
        "here": round(here, 3),
        "aim": aim,
        "carried_on_to_a_year": None if scale is None else round(here * scale, 3),
    }


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--days", type=int, default=YEAR_D)
    parser.add_argument("--boards", type=int, default=8)
    parser.add_argument("--row-s", type=int, default=10)
    asked = parser.parse_args(argv)
    asked.folder.mkdir(parents=True, exist_ok=True)
    path = asked.folder / "ledger.db"
    with Ledger.open(f"sqlite:///{path}") as ledger:
        fill(ledger, asked.days, asked.boards, asked.row_s)
        rows = ledger.totals().rows
        found = {
            "days": asked.days,
            "boards": asked.boards,
            "rows": rows,
            **measure(ledger, path, asked.days),
        }
    print(json.dumps(found, indent=2))


if __name__ == "__main__":
    main()
