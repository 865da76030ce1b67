"""Reads codecarbon's emissions.csv (2.x and 3.x): one run a run_id, of which its last line counts, for each is the total so far.

Its energies are kWh with PUE in them, its emissions kilograms, its time stamps the local time of a run's end, without a zone.
"""

import hashlib
from datetime import UTC, datetime, timedelta, tzinfo
from pathlib import Path
from typing import Final

from carbonsched.imports.log_table import LogRow, demand, read_log
from carbonsched.model.grid import Basis
from carbonsched.model.imported import ImportBody, ImportedPart, ImportedRun
from carbonsched.units import J_PER_KWH, MJ_PER_J

_NEEDED: Final = ("timestamp", "run_id", "duration", "emissions", "energy_consumed")
_PARTS: Final = ("cpu", "gpu", "ram")
_SLACK: Final = 0.01
"""Its parts may differ from its sum by so much of it."""


def read(path: Path, zone: tzinfo) -> ImportBody:
    """zone: of its time stamps. Raises InputError with line and field."""
    header, rows, data = read_log(path)
    demand(header, path.name, _NEEDED, "emissions.csv of codecarbon")
    last: dict[str, tuple[LogRow, ImportedRun]] = {}
    for row in rows:
        run = _run(row, zone)
        before = last.get(run.key)
        if before is not None and before[1].end > run.end:
            row.refuse("timestamp", "is before that of an earlier line of its run", "put the lines in order")
        last[run.key] = row, run
    return ImportBody(
        source="codecarbon",
        file=path.name,
        sha256=hashlib.sha256(data).hexdigest(),
        basis=Basis.AVERAGE_UNSTATED,
        runs=tuple(run for _, run in last.values()),
        left_out=len(rows) - len(last),
    )


def _run(row: LogRow, zone: tzinfo) -> ImportedRun:
    run_id = row.text("run_id")
    if not 0 < len(run_id) <= 60:
        row.refuse("run_id", "is empty or longer than 60 characters", "give codecarbon's own")
    end, duration = _time(row, zone), row.number("duration")
    consumed, kilograms = row.number("energy_consumed"), row.number("emissions")
    pue = row.maybe("pue") or 1.0
    if pue < 1:
        row.refuse("pue", f"{pue:g} is below 1", "fix it")
    version = row.text("codecarbon_version")
    return ImportedRun(
        key=f"codecarbon:{run_id}",
        name=row.text("project_name") or "codecarbon",
        start=end - timedelta(seconds=duration),
        end=end,
        parts=_parts(row, consumed, pue),
        pue=pue,
        # of a run that used nothing no intensity is told, and none is needed
        g_per_kwh=_intensity(row, kilograms, consumed),
        zone=row.text("country_iso_code"),
        tool=f"codecarbon {version}".strip(),
        where=f"{row.file} line {row.line}",
    )


def _intensity(row: LogRow, kilograms: float, kwh: float) -> float | None:
    if kwh == 0:
        if kilograms > 0:
            row.refuse("emissions", f"{kilograms:g} kg came of no energy", "fix the line")
        return None
    found = kilograms * 1000 / kwh
    if found > 5000:
        row.refuse("emissions", f"gives {found:.4g} g/kWh, which no grid has", "its unit is kg")
    return found


def _parts(row: LogRow, consumed: float, pue: float) -> tuple[ImportedPart, ...]:
    """CPU, GPU and RAM where they are told, else all of it as one; without PUE."""
    told = {name: row.maybe(f"{name}_energy") for name in _PARTS}
    known = {name: kwh for name, kwh in told.items() if kwh is not None}
    if known:
        if abs(sum(known.values()) - consumed) > _SLACK * consumed + 1e-12:
            row.refuse(
                "energy_consumed",
                f"{consumed:g} kWh is not the sum of its parts, {sum(known.values()):g} kWh",
                "fix the line",
            )
    else:
        known = {"all": consumed}
    return tuple(
        ImportedPart(name=name, energy_mj=round(kwh * J_PER_KWH * MJ_PER_J / pue))
        for name, kwh in known.items()
    )


def _time(row: LogRow, zone: tzinfo) -> datetime:
    text = row.text("timestamp")
    try:
        at = datetime.fromisoformat(text)
    except ValueError:
        row.refuse("timestamp", f"{text[:40]!r} is no time", "write it like 2026-11-22T10:00:00")
    return (at if at.tzinfo is not None else at.replace(tzinfo=zone)).astimezone(UTC)
