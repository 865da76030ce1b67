"""One report, five formats."""

from collections.abc import Mapping
from typing import Final, Literal

from carbonsched.errors import InputError
from carbonsched.ledger.ledger import Ledger
from carbonsched.report.card import model_card
from carbonsched.report.codecarbon import emissions_csv
from carbonsched.report.csv import rows_csv
from carbonsched.report.document import Report
from carbonsched.report.html import page

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
    """The report as text. json, html and model-card need nothing but the report; csv reads its rows from the ledger.

    Raises InputError for another format.
    """
    match form:
        case "json":
            return report.model_dump_json(indent=2) + "\n"
        case "csv":
            return rows_csv(report, ledger)
        case "html":
            return page(report)
        case "codecarbon":
            return emissions_csv(report, ledger)
        case "model-card":
            return model_card(report)
    raise InputError("--format", f"there is no format {form!r}", f"choose one of {', '.join(MEDIA)}")
