"""The report's document as JSON (docs/schemas/report.json)."""

from typing import Final

from carbonsched.ledger.ledger import Ledger
from carbonsched.report.document import Report
from carbonsched.report.format import ReportFormat


def document_json(report: Report, _ledger: Ledger) -> str:
    """The whole document, indented."""
    return report.model_dump_json(indent=2) + "\n"


JSON: Final = ReportFormat("application/json", document_json)
