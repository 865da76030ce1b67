"""Reads recorded values from CSV, `datetime` and one or more columns of numbers: the format of traces, prices and supplies.

Times are UTC and ascending; a row holds until the next one, the last one as long as the one before it.
"""

import hashlib
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import NoReturn

from carbonsched.csv_text import CsvRow, csv_rows
from carbonsched.errors import InputError
from carbonsched.model.base import utc
from carbonsched.text import several
from carbonsched.units import plain_number

TIME = "datetime"
Check = Callable[[str, str, str], float | None]
"""(cell, its place, column) → its value, None if the column may be empty. Raises InputError."""


@dataclass(frozen=True, slots=True)
class Columns:
    """The content of a file, one entry per row.

    Example::

        prices = read_columns(Path("prices.csv"), [("eur_per_kwh",)], number("EUR per kWh, like 0.31", least=None))
        mean = sum(prices.column(0)) / len(prices.times)
    """

    names: tuple[str, ...]
    """Of its columns, without the time."""
    times: tuple[datetime, ...]
    rows: tuple[tuple[float | None, ...], ...]
    sha256: tuple[str, ...]
    """Hash of each raw row, without its line end."""

    def column(self, i: int) -> tuple[float, ...]:
        """A column without empty cells."""
        return tuple(float(row[i] or 0.0) for row in self.rows)


def number(unit: str, least: float | None = 0.0, most: float = math.inf) -> Check:
    """A check for a number from `least` (None: any) to `most`. unit: how it is written, for the hint."""

    def check(cell: str, where: str, column: str) -> float:
        try:
            value = plain_number(cell)
        except ValueError as e:
            raise InputError(where, f"{column} is not a number: {cell!r}", f"write {unit}") from e
        if not math.isfinite(value) or (least is not None and value < least):
            wanted = "a finite number" if least is None else f"{least:g} or more"
            raise InputError(
                where, f"{column} must be {wanted}, is {cell.strip()}", f"write {unit}, or drop the row"
            )
        if value > most:
            raise InputError(where, f"{column} is {value:g}, above {most:g}", f"write {unit}")
        return value

    return check


def read_columns(path: Path, headers: Sequence[tuple[str, ...]], check: Check) -> Columns:
    """Read a file whose columns after `datetime` match one of `headers`. Raises InputError with the file, the line and a hint."""
    wanted = " or ".join(",".join((TIME, *names)) for names in headers)
    text = read_text(path, f"give a CSV with the header {wanted}")
    header, rows = split(path, text)
    if header[:1] != (TIME,) or header[1:] not in headers:
        refuse(f"{path}, line 1", f"the header is {','.join(header)!r}", f"write {wanted}")
    return timed(path, header, rows, check)


def read_text(path: Path, hint: str) -> str:
    """Raises InputError if it cannot be read as text."""
    try:
        return path.read_bytes().decode("utf-8-sig")
    except (OSError, ValueError) as e:  # a NUL in the name is a ValueError, too
        why = e.strerror if isinstance(e, OSError) else None
        why = why or ("it is not UTF-8 text" if isinstance(e, UnicodeError) else str(e))
        raise InputError(str(path), f"cannot be read: {why}", hint) from e


def split(path: Path, text: str) -> tuple[tuple[str, ...], Iterator[CsvRow]]:
    """(the header's names, the rows below it)."""
    rows = csv_rows(text, lambda line, problem, hint: refuse(f"{path}, line {line}", problem, hint))
    return tuple(name.strip() for name in next(rows, CsvRow(1, [], "")).cells), rows


def timed(path: Path, header: tuple[str, ...], rows: Iterator[CsvRow], check: Check) -> Columns:
    """The rows below a header whose first column is the time."""
    times: list[datetime] = []
    values: list[tuple[float | None, ...]] = []
    hashes: list[str] = []
    for line, cells, raw in rows:
        if not raw.strip():
            continue
        where = f"{path}, line {line}"
        if len(cells) != len(header):
            refuse(where, f"has {len(cells)} columns, the header {len(header)}", "give every row all columns")
        at = _time(cells[0], where)
        if times and at <= times[-1]:
            problem = f"{cells[0].strip()} does not come after the row before"
            refuse(where, problem, "sort rows by time, each once")
        times.append(at)
        values.append(
            tuple(check(cell, where, name) for name, cell in zip(header[1:], cells[1:], strict=True))
        )
        hashes.append(hashlib.sha256(raw.rstrip("\r\n").encode()).hexdigest())
    if len(times) < 2:
        hint = "a trace needs two or more, to know how long a row holds"
        refuse(str(path), f"holds {several(len(times), 'row')}", hint)
    return Columns(header[1:], tuple(times), tuple(values), tuple(hashes))


def refuse(where: str, problem: str, hint: str) -> NoReturn:
    raise InputError(where, problem, hint)


def _time(cell: str, where: str) -> datetime:
    try:
        at = datetime.fromisoformat(cell.strip())
    except ValueError as e:
        raise InputError(where, f"{cell!r} is not a time", "write it like 2022-01-01T00:00:00Z") from e
    if at.tzinfo is None:
        raise InputError(where, f"{cell!r} has no time zone", "write it in UTC with a trailing Z")
    try:
        return utc(at)
    except ValueError as e:
        raise InputError(where, f"{cell!r} {e}") from e
