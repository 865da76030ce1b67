"""Reads a recorded intensity from CSV, for the replay feed, `carbonsched simulate` and the planner's benchmarks.

The header is `datetime,g_per_kwh[,forecast_g_per_kwh]`; times are UTC and ascending; a row holds until the next one. What
providers export is read, too (see `exports`).
"""

import hashlib
import math
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Final

from carbonsched.errors import InputError
from carbonsched.feeds.columns import read_text, refuse, split, timed
from carbonsched.feeds.exports import KNOWN, Export, read_export
from carbonsched.model.grid import Basis
from carbonsched.text import several
from carbonsched.units import plain_number

MOST_G_PER_KWH: Final = 100_000.0
"""No fuel comes near; beyond it sums over a trace lose their meaning, and at 1e308 they overflow."""
COLUMNS: Final = ("datetime", "g_per_kwh", "forecast_g_per_kwh")


@dataclass(frozen=True, slots=True)
class Trace:
    """A trace as columns; all have one entry per row.

    Example::

        trace = read_trace("examples/grid-week.csv")
        mean = sum(trace.g_per_kwh) / len(trace.g_per_kwh)
    """

    times: tuple[datetime, ...]
    g_per_kwh: tuple[float, ...]
    forecast: tuple[float | None, ...] | None
    """What was forecast for the row's time; None: the file has no such column. An entry is None where its cell is empty."""
    sha256: tuple[str, ...]
    """Of each raw row, without its line end; where one is made of several, of the whole file."""
    note: str = ""
    """Where the values were made of a generation mix: with which factors."""

    @property
    def step_s(self) -> float:
        """How long the last row holds: as long as the one before it."""
        return (self.times[-1] - self.times[-2]).total_seconds()

    @property
    def span_s(self) -> float:
        """From the first row's start to the last one's end."""
        return (self.times[-1] - self.times[0]).total_seconds() + self.step_s


def read_trace(path: str | Path, zone: str = "", basis: Basis = Basis.AVERAGE_LIFECYCLE) -> Trace:
    """Read and check a trace, or an export of a provider. Raises InputError with the file, the line and a hint.

    zone, basis: which one is meant, where an export tells of several.
    """
    path = Path(path)
    text = read_text(path, f"give a CSV with the header {','.join(COLUMNS[:2])}")
    header, rows = split(path, text)
    if header not in (COLUMNS[:2], COLUMNS):
        found = read_export(str(path), header, list(rows), zone, basis)
        if found is not None:
            return _of_export(str(path), found, text)
        refuse(
            f"{path}, line 1",
            f"the header is {','.join(header)!r}",
            f"write {','.join(COLUMNS[:2])}, and {COLUMNS[2]} behind it if you have forecasts, or give {KNOWN}",
        )
    read = timed(path, header, rows, _cell)
    forecast = tuple(row[1] for row in read.rows) if len(header) == 3 else None
    return Trace(read.times, read.column(0), forecast, read.sha256)


def _cell(cell: str, where: str, column: str) -> float | None:
    """Of the forecast one may be empty."""
    return None if column == COLUMNS[2] and not cell.strip() else _intensity(cell, where, column)


def _of_export(where: str, export: Export, text: str) -> Trace:
    points, whole = export.points, hashlib.sha256(text.encode()).hexdigest()
    if len(points) < 2:
        refuse(
            where,
            f"holds {several(len(points), 'value')}",
            "a trace needs two or more, to know how long a row holds",
        )
    for point in points:
        for value in (point.g_per_kwh, point.forecast):
            if value is not None:
                _intensity(str(value), f"{where}, {point.at:%Y-%m-%dT%H:%MZ}", COLUMNS[1])
    return Trace(
        tuple(point.at for point in points),
        tuple(point.g_per_kwh for point in points),
        tuple(p.forecast for p in points) if any(p.forecast is not None for p in points) else None,
        tuple(hashlib.sha256(p.raw.rstrip("\r\n").encode()).hexdigest() if p.raw else whole for p in points),
        export.note,
    )


def _intensity(cell: str, where: str, column: str) -> float:
    try:
        value = plain_number(cell)
    except ValueError as e:
        raise InputError(
            where, f"{column} is not a number: {cell!r}", "write gCO2e per kWh, like 312.5"
        ) from e
    if not math.isfinite(value) or value < 0:
        raise InputError(
            where, f"{column} must be 0 or more, is {cell.strip()}", "write gCO2e per kWh, or drop the row"
        )
    if value > MOST_G_PER_KWH:
        raise InputError(
            where, f"{column} is {value:g}, above anything that burns", "write gCO2e per kWh, like 312.5"
        )
    return value
