"""csv_rows reads the rows of a CSV file, as Python's csv module does, and refuses those that cannot be told apart safely.

A row with more or fewer fields than the header, a column name that stands twice and a quote that is never closed are errors:
read as they are, text would land in another column, or rows in one another, without a word.
"""

import csv
import io
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import NoReturn

from carbonsched.errors import InputError


def csv_rows(text: str, file: str) -> Iterator[tuple[str, dict[str, str]]]:
    """(where, record) of every row; `where` names the line on which it begins. Raises InputError.

    text: decoded, with its line ends as they are in the file.
    """
    header: list[str] | None = None
    for line, cells in _cells(text, file):
        if header is None:
            header = cells
            _check_header(header, f"{file}: line {line}")
            continue
        where = f"line {line}"
        _check_row(cells, header, f"{file}: {where}")
        yield where, dict(zip(header, cells, strict=True))


def _cells(text: str, file: str) -> Iterator[tuple[int, list[str]]]:
    """(line, fields) of every row that is not blank. Raises InputError."""
    # newline="": line ends are those of CSV, not the eleven that str.splitlines knows, and stay as they are inside quotes
    lines = _Lines(io.StringIO(text, newline=""))
    reader = csv.reader(lines)
    while True:
        begins = lines.read + 1
        try:
            with _fields_of_any_length():
                cells = next(reader, None)
        except csv.Error as e:
            _refuse(f"{file}: line {begins} is not CSV ({e})", "mend that line")
        if cells is None:
            return
        if lines.ended:
            _refuse(
                f"{file}: a quote that opens in the row of line {begins} is never closed",
                'close it, or write a quote inside a quoted field twice, as ""',
            )
        if cells:
            yield begins, cells


class _Lines:
    """Lines for csv.reader, which asks for one too many only inside a quoted field."""

    def __init__(self, lines: Iterable[str]) -> None:
        self._lines = iter(lines)
        self.read = 0
        self.ended = False

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        try:
            line = next(self._lines)
        except StopIteration:
            self.ended = True
            raise
        self.read += 1
        return line


@contextmanager
def _fields_of_any_length() -> Iterator[None]:
    before = csv.field_size_limit(min(sys.maxsize, 2**31 - 1))
    try:
        yield
    finally:
        csv.field_size_limit(before)


def _check_header(header: Sequence[str], where: str) -> None:
    for column in header:
        # a sheet saved as CSV may end in columns without a name; they are looked at row by row
        if column.strip() and header.count(column) > 1:
            _refuse(
                f"{where} names the column {column!r} {header.count(column)} times",
                "give every column a name of its own",
            )


def _check_row(cells: Sequence[str], header: Sequence[str], where: str) -> None:
    if len(cells) != len(header):
        _refuse(
            f"{where} has {len(cells)} fields, the header has {len(header)}",
            "put fields with a comma or a line end in quotes"
            if len(cells) > len(header)
            else "mend that row",
        )
    nameless = [cell for column, cell in zip(header, cells, strict=True) if not column.strip()]
    if len(nameless) > 1 and any(cell.strip() for cell in nameless):
        _refuse(f"{where} has text in a column that has no name", "name the column in the header, or drop it")


def _refuse(problem: str, hint: str) -> NoReturn:
    raise InputError("data.name_or_path", problem, hint)
