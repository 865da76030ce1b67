"""Reads the log of a ZeusMonitor (`log_file=`): a line a window, with the joules of each GPU.

Windows nest: an epoch's holds those of its steps. What lies inside another window is in its joules, and is left out.
"""

import hashlib
import re
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

from carbonsched.errors import InputError
from carbonsched.imports.log_table import LogRow, demand, read_log
from carbonsched.model.grid import Basis
from carbonsched.model.imported import ImportBody, ImportedPart, ImportedRun
from carbonsched.units import MJ_PER_J

_NEEDED: Final = ("start_time", "window_name", "elapsed_time")
_GPU: Final = re.compile(r"gpu\d+_energy")
_SLACK: Final = timedelta(milliseconds=1)
"""Two windows that follow each other may share so much."""


def read(path: Path, g_per_kwh: float | None, zone: str = "") -> ImportBody:
    """g_per_kwh: of the grid then, which the log does not know. Raises InputError with line and field."""
    header, rows, data = read_log(path)
    demand(header, path.name, _NEEDED, "log of a ZeusMonitor")
    gpus = [name for name in header if _GPU.fullmatch(name)]
    if not gpus:
        raise InputError(
            f"{path.name} line 1", "names no gpu<N>_energy: it has no joules", "give another file"
        )
    windows = sorted(
        ((_run(row, gpus, g_per_kwh, zone), row) for row in rows),
        key=lambda w: (w[0].start, -w[0].end.timestamp()),
    )
    outer: list[ImportedRun] = []
    for run, row in windows:
        if outer and run.end <= outer[-1].end + _SLACK and run.start < outer[-1].end - _SLACK:
            continue
        if outer and run.start < outer[-1].end - _SLACK:
            row.refuse(
                "start_time",
                f"its window overlaps that of {outer[-1].where} in part",
                "leave one of them out",
            )
        outer.append(run)
    return ImportBody(
        source="zeus",
        file=path.name,
        sha256=hashlib.sha256(data).hexdigest(),
        basis=Basis.AVERAGE_UNSTATED,
        runs=tuple(outer),
        left_out=len(rows) - len(outer),
    )


def _run(row: LogRow, gpus: list[str], g_per_kwh: float | None, zone: str) -> ImportedRun:
    begun, took = row.number("start_time"), row.number("elapsed_time")
    try:
        start = datetime.fromtimestamp(begun, UTC)
    except (OverflowError, ValueError, OSError):
        row.refuse("start_time", f"{begun:g} is no time", "it is in seconds since 1970")
    name = row.text("window_name") or "zeus"
    parts = tuple(
        ImportedPart(name=gpu.removesuffix("_energy"), energy_mj=round(joules * MJ_PER_J))
        for gpu in gpus
        if (joules := row.maybe(gpu)) is not None
    )
    if not parts:
        row.refuse(gpus[0], "is empty", "give the joules")
    digest = hashlib.sha256(f"{begun!r} {took!r} {name}".encode()).hexdigest()[:24]
    return ImportedRun(
        key=f"zeus:{digest}",
        name=name,
        start=start,
        end=start + timedelta(seconds=took),
        parts=parts,
        g_per_kwh=g_per_kwh,
        zone=zone,
        tool="zeus",
        where=f"{row.file} line {row.line}",
    )
