"""Builds a ledger as it is after a year, through its own append and roll-up, and measures it.

    python benchmarks/ledger_year.py FOLDER [--days 365] [--boards 8] [--row-s 10] [--raw-days 7] [--minute-days 30] [--held] [--url URL]

A year of 8 boards and the host at 10 s is 28 million rows. Each day is appended, its hours are added up, and what is due by its evening is
merged, the rows themselves to the archive: so no more than 7 days of rows as written are held at any time. It can be cut short at any moment;
the next call goes on behind the last day that is whole. `--days` makes a part of the year; what is printed then is of that part, and
the figures that grow with the rows are carried on to the year beside it, marked so: by how many rows each tier has of a day after the
roll-up, of which the year has 7 days as written, 23 of minutes and 335 of hours. `--raw-days` and `--minute-days` make all three in a few days.
`--held` writes days that are old as sparse as the roll-up leaves them (a row for each intensity of
half an hour, and for each minute): as many rows as the year holds then, in minutes instead of hours.
"""

import argparse
import json
import math
import sys
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from pathlib import Path

from carbonsched.ledger import Ledger
from carbonsched.ledger.archives import Archive
from carbonsched.ledger.heads import Head
from carbonsched.ledger.rollup import MOST_AT_REST, Retention, RollUp
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


def rows_of(day: int, boards: int, row_s: int, hours: range = range(24)) -> Iterator[Interval]:
    """A day, or some hours of it: each board works for a job of its own, the host is nobody's."""
    for n in range(hours.start * 3600 // row_s, hours.stop * 3600 // row_s):
        at = BEGAN + timedelta(days=day, seconds=n * row_s)
        span = at, at + timedelta(seconds=row_s)
        reading = _reading(at.replace(minute=at.minute // 30 * 30, second=0))
        k = n * row_s // 3600
        for board in range(boards):
            yield _row(span, f"GPU-{board}", round(WATTS * row_s * 1000), reading, job_id(day, board), k)
        yield _row(span, "host", round(HOST_W * row_s * 1000), reading, None, None)


def job_id(day: int, board: int) -> str:
    """A job lasts a week."""
    return f"job-{day // 7}-{board}"


@lru_cache(maxsize=4)
def _reading(start: datetime) -> Reading:
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
    span: tuple[datetime, datetime],
    board: str,
    energy: int,
    reading: Reading,
    job: str | None,
    segment: int | None,
) -> Interval:
    """As the meter makes it; its types are what they must be, so they are not looked at once more."""
    host, (start, end) = board == "host", span
    row_s = (end - start).total_seconds()
    counter = round((start - BEGAN).total_seconds() / row_s) * energy
    delta = EnergyDelta.model_construct(
        device=board,
        start=start,
        end=end,
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
    return Interval.model_construct(
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


def fill(ledger: Ledger, days: int, boards: int, row_s: int, rolling: RollUp, longest_s: float) -> float:
    """Make the days that are not there yet, as a daemon would that ran all the time; the seconds it took.

    Another call goes on where this one was cut short, by `longest_s` or a signal: a day's rows are one transaction.
    """
    a_day = DAY_S // row_s * (boards + 1)
    first = (ledger.head().rows or 0) // a_day
    began = time.monotonic()
    for day in range(first, days):
        with ledger.transaction():
            if day % 7 == 0:
                for board in range(boards):
                    ledger.add_job(_job(job_id(day, board), BEGAN + timedelta(days=day)))
            for hour in range(24):
                ledger.append(list(rows_of(day, boards, row_s, range(hour, hour + 1))))
        keep_house(ledger, BEGAN + timedelta(days=day + 1), rolling)
        done, took_s = day + 1 - first, time.monotonic() - began
        _progress(f"day {day + 1}", (day + 1) / days, took_s / done * (days - day - 1))
        if took_s > longest_s:
            raise SystemExit(f"\nstopped behind day {day + 1} of {days}; call it again to go on")
    sys.stderr.write("\n")
    return time.monotonic() - began


def keep_house(ledger: Ledger, now: datetime, rolling: RollUp) -> None:
    """What a daemon does by itself: add up hours, merge what is old, note the heads."""
    ledger.total_hours(now)
    rolling.work(now)
    ledger.heartbeat("daemon", now, counted=False)


def fill_held(ledger: Ledger, days: int, boards: int, row_s: int, keep: Retention) -> None:
    """All days, as sparse as the roll-up leaves them; none where there are rows."""
    if ledger.totals().rows:
        return
    began = time.monotonic()
    for day in range(days):
        left = days - day
        step = row_s if left <= keep.raw_days else 60 if left <= keep.minute_days else 1800
        with ledger.transaction():
            if day % 7 == 0:
                for board in range(boards):
                    ledger.add_job(_job(job_id(day, board), BEGAN + timedelta(days=day)))
            ledger.append(list(rows_of(day, boards, step)))
        ledger.heartbeat("daemon", BEGAN + timedelta(days=day + 1))
        _progress("rows", (day + 1) / days, (time.monotonic() - began) / (day + 1) * (days - day - 1))
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


def archive_of(folder: Path) -> Archive:
    return Archive(folder / "archive")


def archived_bytes(archive: Archive) -> int:
    return sum(file.stat().st_size for file in archive.folder.glob("*")) if archive.folder.exists() else 0


def of_a_year(ledger: Ledger, days: int, boards: int, keep: Retention) -> tuple[int, float]:
    """(rows held, how many times as many a year of 8 boards and the host would hold)."""
    raw, minutes = min(keep.raw_days, days), min(keep.minute_days, days)
    spans = {None: raw, 1: minutes - raw, 2: days - minutes}
    year = {None: 7.0, 1: 23.0, 2: YEAR_D - 30.0}
    counts = dict.fromkeys(spans, 0)
    for row in ledger.rows():
        counts[row["tier"]] += 1
    held = sum(counts.values())
    carried, a_day = 0.0, 0.0
    for tier, span in spans.items():
        # a tier that is not there yet is taken to be as large as the one before
        a_day = counts[tier] / span if span > 0 else a_day
        carried += a_day * year[tier]
    return held, carried * 9 / (boards + 1) / held


def used_bytes(ledger: Ledger) -> float:
    """Of the database, without the room that merged rows left for new ones."""
    with ledger.transaction() as connection:
        if connection.dialect.name != "sqlite":
            text = (
                "SELECT sum(pg_total_relation_size(oid)) FROM pg_class "
                "WHERE relkind = 'r' AND relnamespace = current_schema()::regnamespace"
            )
            return float(connection.exec_driver_sql(text).scalar() or 0)
        size, pages, free = (
            float(connection.exec_driver_sql(f"PRAGMA {name}").scalar() or 0)
            for name in ("page_size", "page_count", "freelist_count")
        )
    return size * (pages - free)


def measure(ledger: Ledger, days: int, boards: int, scale: float) -> dict[str, dict[str, float | None]]:
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
    size = used_bytes(ledger)
    return {
        "database_gb": _figure(size / 1e9, 2.0, scale),
        "full_verify_s": _figure(whole_s, 600.0, scale),
        "incremental_verify_s": _figure(since_s, 5.0, None),
        # that one grows with the hours
        "yearly_report_s": _figure(year_s, 3.0, YEAR_D / days * 9 / (boards + 1)),
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
    parser.add_argument("--raw-days", type=float, default=7.0)
    parser.add_argument("--minute-days", type=float, default=30.0)
    parser.add_argument("--held", action="store_true")
    parser.add_argument(
        "--url", metavar="URL", help="of an empty database of PostgreSQL; FOLDER has the archive then"
    )
    parser.add_argument(
        "--longest-s",
        type=float,
        default=math.inf,
        metavar="S",
        help="stop behind the day that is made by then",
    )
    asked = parser.parse_args(argv)
    asked.folder.mkdir(parents=True, exist_ok=True)
    path = asked.folder / "ledger.db"
    with Ledger.open(asked.url or f"sqlite:///{path}") as ledger:
        keep = Retention(raw_days=asked.raw_days, minute_days=asked.minute_days, rows=MOST_AT_REST)
        archive = archive_of(asked.folder)
        rolling = RollUp(ledger, keep, archive, at_rest=True)
        cpu_s = time.process_time()
        if asked.held:
            fill_held(ledger, asked.days, asked.boards, asked.row_s, keep)
            took_s = 0.0
        else:
            took_s = fill(ledger, asked.days, asked.boards, asked.row_s, rolling, asked.longest_s)
        cpu_s = time.process_time() - cpu_s
        keep_house(ledger, BEGAN + timedelta(days=asked.days), rolling)
        ledger.total_hours(BEGAN + timedelta(days=asked.days, hours=1))
        held, scale = of_a_year(ledger, asked.days, asked.boards, keep)
        found = {
            "days": asked.days,
            "boards": asked.boards,
            "rows": ledger.totals().rows,
            "rows_held": held,
            "a_year_holds": round(held * scale),
            "archive_bytes": archived_bytes(archive),
            "hours": ledger.held()[1],
            "filled_s": round(took_s, 1),
            "filled_cpu_s": round(cpu_s, 1),
            **measure(ledger, asked.days, asked.boards, scale),
        }
    print(json.dumps(found, indent=2))


if __name__ == "__main__":
    main()
