"""csv_rows splits CSV into rows as Python's csv module does, with the line on which each begins.

Line ends are those of CSV, not the eleven that str.splitlines knows; a field may be of any length and hold any character; a
quote that is never closed, which csv takes for the end of the text, is refused. It depends on nothing: traces, power curves
and training data are all read by it.
"""

import csv
import io
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final, NamedTuple, NoReturn

_FORMULA: Final = ("=", "+", "-", "@", "\uff1d", "\uff0b", "\uff0d", "\uff20")
"""With the wide forms that some spreadsheets take for the same."""
Refuse = Callable[[int, str, str], NoReturn]
"""(line, problem, hint) → raises InputError. The problem goes on after the line: `is not CSV (…)`."""


class CsvRow(NamedTuple):
    """One row that is not blank.

    Example:
        >>> def refuse(line: int, problem: str, hint: str) -> NoReturn:
        ...     raise ValueError(f"line {line} {problem}; {hint}")
        >>> [row.cells for row in csv_rows('a,"b, c"', refuse)]
        [['a', 'b, c']]
    """

    line: int
    """Where it begins, from 1."""
    cells: list[str]
    raw: str
    """As it stands in the text, its line end included."""


def csv_rows(text: str, refuse: Refuse) -> Iterator[CsvRow]:
    """Rows that are not blank. text: decoded, with its line ends as they are in the file."""
    lines = _Lines(text)
    reader = csv.reader(lines)
    while True:
        begins, lines.taken = lines.read + 1, []
        try:
            with _fields_of_any_length():
                cells = next(reader, None)
        except csv.Error as e:
            refuse(begins, f"is not CSV ({e})", "fix that line")
        if cells is None:
            return
        if lines.ended:
            refuse(
                begins,
                "opens a quote that is never closed",
                'close it, or write a quote inside a quoted field twice, as ""',
            )
        if cells:
            yield CsvRow(begins, cells, "".join(lines.taken))


class _Lines:
    """Lines for csv.reader, which asks for one too many only inside a quoted field."""

    def __init__(self, text: str) -> None:
        self._lines = io.StringIO(text, newline="")
        self.read = 0
        self.taken: list[str] = []
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
        self.taken.append(line)
        return line


@contextmanager
def _fields_of_any_length() -> Iterator[None]:
    before = csv.field_size_limit(min(sys.maxsize, 2**31 - 1))
    try:
        yield
    finally:
        csv.field_size_limit(before)


def neutral(text: str) -> str:
    """As a spreadsheet takes for text, too: what begins like a formula gets an apostrophe before it.

    Example:
        >>> neutral("=HYPERLINK(1)"), neutral("neso")
        ("'=HYPERLINK(1)", 'neso')
    """
    formula = text.lstrip().startswith(_FORMULA) or text.startswith(("\t", "\r", "\n"))
    return f"'{text}" if formula else text
