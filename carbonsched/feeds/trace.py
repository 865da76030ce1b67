"""Reads a recorded intensity from CSV, for the replay feed, `carbonsched simulate` and the planner's benchmarks.

The header is `datetime,g_per_kwh[,forecast_g_per_kwh]`; times are UTC and ascending; a row holds until the next one.
"""

import csv
import hashlib
import math
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from carbonsched.errors import InputError

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
    """Of each raw row, without its line end."""

    @property
    def step_s(self) -> float:
        """How long the last row holds: as long as the one before it."""
        return (self.times[-1] - self.times[-2]).total_seconds()

    @property
    def span_s(self) -> float:
        """From the first row's start to the last one's end."""
        return (self.times[-1] - self.times[0]).total_seconds() + self.step_s


def read_trace(path: str | Path) -> Trace:
    """Read and check a trace. Raises InputError with the file, the line and a hint."""
    path = Path(path)
    try:
        raw = path.read_bytes()
        text = raw.decode("utf-8-sig")
    except (OSError, UnicodeDecodeError) as e:
        raise InputError(
            str(path), f"cannot be read: {e}", f"give a CSV with the header {','.join(COLUMNS[:2])}"
        ) from e
    lines = text.splitlines()
    header = tuple(name.strip() for name in next(csv.reader(lines[:1]), ()))
    if header not in (COLUMNS[:2], COLUMNS):
        raise InputError(
            f"{path}, line 1",
            f"the header is {','.join(header)!r}",
            f"write {','.join(COLUMNS[:2])}, and {COLUMNS[2]} behind it if you have forecasts",
        )
    times: list[datetime] = []
    values: list[float] = []
    forecasts: list[float | None] = []
    hashes: list[str] = []
    for number, line in enumerate(lines[1:], start=2):
        if not line.strip():
            continue
        where = f"{path}, line {number}"
        cells = next(csv.reader([line]))
        if len(cells) != len(header):
            raise InputError(
                where, f"has {len(cells)} columns, the header {len(header)}", "give every row all columns"
            )
        at = _time(cells[0], where)
        if times and at <= times[-1]:
            raise InputError(
                where,
                f"{cells[0].strip()} does not come after the row before",
                "sort rows by time, each once",
            )
        times.append(at)
        values.append(_intensity(cells[1], where, COLUMNS[1]))
        if len(header) == 3:
            forecasts.append(_intensity(cells[2], where, COLUMNS[2]) if cells[2].strip() else None)
        hashes.append(hashlib.sha256(line.encode()).hexdigest())
    if len(times) < 2:
        raise InputError(
            str(path), f"holds {len(times)} rows", "a trace needs two or more, to know how long a row holds"
        )
    return Trace(tuple(times), tuple(values), tuple(forecasts) if len(header) == 3 else None, tuple(hashes))


def _time(cell: str, where: str) -> datetime:
    try:
        at = datetime.fromisoformat(cell.strip())
    except ValueError as e:
        raise InputError(where, f"{cell!r} is not a time", "write it like 2022-01-01T00:00:00Z") from e
    if at.tzinfo is None:
        raise InputError(where, f"{cell!r} has no time zone", "write it in UTC with a trailing Z")
    return at.astimezone(UTC)


def _intensity(cell: str, where: str, column: str) -> float:
    try:
        value = float(cell)
    except ValueError as e:
        raise InputError(
            where, f"{column} is not a number: {cell!r}", "write gCO2e per kWh, like 312.5"
        ) from e
    if not math.isfinite(value) or value < 0:
        raise InputError(
            where, f"{column} must be 0 or more, is {cell.strip()}", "write gCO2e per kWh, or drop the row"
        )
    return value
