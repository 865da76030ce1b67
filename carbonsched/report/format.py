"""What a report format is: a media type, and a function that writes a report as text.

Every format stands in a file of its own as one `ReportFormat`. `carbonsched.report.render` has the table of those that come
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
    """Of the answer over HTTP, e.g. `text/csv; charset=utf-8`."""
    write: Callable[[Report, Ledger], str | Iterator[str]]
    """The text, or its pieces where it may be longer than memory is large. Raises InputError where the report has not
    what the format needs; that must happen before the first piece."""

    def pieces(self, report: Report, ledger: Ledger) -> Iterator[str]:
        """The text of `report` a piece at a time."""
        written = self.write(report, ledger)
        return iter([written]) if isinstance(written, str) else written
