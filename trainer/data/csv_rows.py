"""csv_rows reads the records of a CSV file, as Python's csv module does, and refuses those that cannot be told apart safely.

A row with more or fewer fields than the header, a column name that stands twice and a quote that is never closed are errors:
read as they are, text would land in another column, or rows in one another, without a word.
"""

from collections.abc import Iterator, Sequence
from typing import NoReturn

from carbonsched import csv_text
from carbonsched.errors import InputError


def csv_rows(text: str, file: str) -> Iterator[tuple[str, dict[str, str]]]:
    """(where, record) of every row; `where` names the line on which it begins. Raises InputError.

    text: decoded, with its line ends as they are in the file.
    """

    def refuse(line: int, problem: str, hint: str) -> NoReturn:
        raise InputError("data.name_or_path", f"{file}: line {line} {problem}", hint)

    header: list[str] | None = None
    for line, cells, _ in csv_text.csv_rows(text, refuse):
        if header is None:
            header = cells
            _check_header(header, line, refuse)
            continue
        _check_row(cells, header, line, refuse)
        yield f"line {line}", dict(zip(header, cells, strict=True))


def _check_header(header: Sequence[str], line: int, refuse: csv_text.Refuse) -> None:
    for column in header:
        # a sheet saved as CSV may end in unnamed columns; these are checked row by row
        if column.strip() and header.count(column) > 1:
            refuse(
                line,
                f"names the column {column!r} {header.count(column)} times",
                "give every column a name of its own",
            )


def _check_row(cells: Sequence[str], header: Sequence[str], line: int, refuse: csv_text.Refuse) -> None:
    if len(cells) != len(header):
        refuse(
            line,
            f"has {len(cells)} fields, the header has {len(header)}",
            "put fields with a comma or a line end in quotes" if len(cells) > len(header) else "fix that row",
        )
    nameless = [cell for column, cell in zip(header, cells, strict=True) if not column.strip()]
    if len(nameless) > 1 and any(cell.strip() for cell in nameless):
        refuse(line, "has text in a column that has no name", "name the column in the header, or drop it")
