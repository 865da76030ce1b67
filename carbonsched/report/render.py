"""One report, five formats."""

from collections.abc import Iterator, Mapping
from typing import Final, Literal

from carbonsched.errors import InputError
from carbonsched.ledger.ledger import Ledger
from carbonsched.report.codecarbon import emissions_csv
from carbonsched.report.csv import rows_csv
from carbonsched.report.document import Report
from carbonsched.report.html import page
from carbonsched.report.model_card import model_card

Format = Literal["json", "csv", "html", "codecarbon", "model-card"]

MEDIA: Final[Mapping[str, str]] = {
    "json": "application/json",
    "csv": "text/csv; charset=utf-8",
    "html": "text/html; charset=utf-8",
    "codecarbon": "text/csv; charset=utf-8",
    "model-card": "text/markdown; charset=utf-8",
}
"""Format → media type."""


def render(report: Report, ledger: Ledger, form: Format) -> str:
    """The report as text. Raises InputError for a format that is not one of `MEDIA`."""
    return "".join(pieces(report, ledger, form))


def pieces(report: Report, ledger: Ledger, form: Format) -> Iterator[str]:
    """The same a piece at a time: csv, which reads its rows from the ledger, may be longer than memory is large."""
    match form:
        case "json":
            return iter([report.model_dump_json(indent=2) + "\n"])
        case "csv":
            return rows_csv(report, ledger)
        case "html":
            return iter([page(report)])
        case "codecarbon":
            return iter([emissions_csv(report, ledger)])
        case "model-card":
            return iter([model_card(report)])
    raise InputError("--format", f"there is no format {form!r}", f"choose one of {', '.join(MEDIA)}")
