"""A CSV log as rows of named fields; what is wrong is told with its line and field, in one line."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

from carbonsched.csv_text import csv_rows
from carbonsched.errors import InputError
from carbonsched.units import plain_number

MOST_BYTES = 256 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class LogRow:
    """One line of a log.

    Example:
        >>> LogRow("log.csv", 2, {"energy": "1.5"}).number("energy")
        1.5
    """

    file: str
    line: int
    fields: Mapping[str, str]

    def text(self, name: str) -> str:
        """As it stands there; empty where it is not."""
        return self.fields.get(name, "").strip()

    def number(self, name: str, *, least: float = 0.0) -> float:
        found = self.maybe(name, least=least)
        if found is None:
            self.refuse(name, "is empty", "give the number")
        return found

    def maybe(self, name: str, *, least: float = 0.0) -> float | None:
        """None where it is empty, or `nan`, which pandas writes for nothing."""
        text = self.text(name)
        if text.lower() in ("", "nan", "none", "null"):
            return None
        try:
            value = plain_number(text)
        except ValueError:
            self.refuse(name, f"{text[:40]!r} is no number", "fix it")
        if not math.isfinite(value) or value < least:
            self.refuse(name, f"{text[:40]} is not possible", f"give a number from {least:g} on")
        return value

    def refuse(self, name: str, problem: str, hint: str) -> NoReturn:
        raise InputError(f"{self.file} line {self.line}, {name}", problem, hint)


def read_log(path: Path) -> tuple[list[str], list[LogRow], bytes]:
    """(header, rows, the file's bytes). Raises InputError."""
    try:
        if path.stat().st_size > MOST_BYTES:
            raise InputError(str(path), f"is larger than {MOST_BYTES // 2**20} MiB", "split it")
        data = path.read_bytes()
        text = data.decode("utf-8-sig")
    except OSError as e:
        raise InputError(str(path), f"cannot be read: {e.strerror}", "give the path of a CSV file") from e
    except UnicodeDecodeError as e:
        raise InputError(str(path), "is not UTF-8 text", "give the CSV file itself") from e

    def refuse(line: int, problem: str, hint: str) -> NoReturn:
        raise InputError(f"{path.name} line {line}", problem, hint)

    rows = list(csv_rows(text, refuse))
    if not rows:
        raise InputError(path.name, "is empty", "give a log with its header")
    header = [cell.strip() for cell in rows[0].cells]
    for name in header:
        if header.count(name) > 1:
            refuse(rows[0].line, f"names {name!r} twice", "fix the header")
    made = []
    for row in rows[1:]:
        if len(row.cells) != len(header):
            refuse(row.line, f"has {len(row.cells)} fields, the header {len(header)}", "fix that line")
        made.append(LogRow(path.name, row.line, dict(zip(header, row.cells, strict=True))))
    return header, made, data


def demand(header: list[str], file: str, names: tuple[str, ...], what: str) -> None:
    """Raises InputError for a header without these."""
    missing = [name for name in names if name not in header]
    if missing:
        raise InputError(
            f"{file} line 1", f"has no column {missing[0]!r}: it is no {what}", "give another file"
        )
