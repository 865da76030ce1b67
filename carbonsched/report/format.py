"""The definition of a report format: a media type, and a function that writes a report as text.

Every format has its own file with one `ReportFormat`. `carbonsched.report.render` has the table of the formats that come
with carbonsched; a site adds its own by an entry point of the group `carbonsched.report_formats` (docs/reports.md).
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from carbonsched.ledger.ledger import Ledger
from carbonsched.report.document import Report


@dataclass(frozen=True, slots=True)
class ReportFormat:
    """How `carbonsched report --format NAME` writes a report.

    Example:
        >>> short = ReportFormat("text/plain; charset=utf-8", lambda report, ledger: f"{report.totals.spent_g:.1f} g\\n")
        >>> short.media_type
        'text/plain; charset=utf-8'
    """

    media_type: str
    """Of the HTTP response, e.g. `text/csv; charset=utf-8`."""
    write: Callable[[Report, Ledger], str | Iterator[str]]
    """The text, or its pieces if it may be larger than memory. Raises InputError if the report lacks
    something that the format needs; that must happen before the first piece."""

    def pieces(self, report: Report, ledger: Ledger) -> Iterator[str]:
        """The text of `report`, piece by piece."""
        written = self.write(report, ledger)
        return iter([written]) if isinstance(written, str) else written
