"""The rows of a report as CSV: one line per interval, times in RFC 3339, unknown values empty, hashes included.

Text that a spreadsheet would read as a formula is preceded by an apostrophe: board, note and source may come from other people.
"""

import csv
import io
from collections.abc import Iterator
from typing import Final

from sqlalchemy import RowMapping

from carbonsched.csv_text import neutral
from carbonsched.ledger.ledger import Ledger
from carbonsched.ledger.rows import plain
from carbonsched.ledger.settlements import Settled
from carbonsched.ledger.tables import INTERVALS
from carbonsched.report.document import Report
from carbonsched.report.format import ReportFormat
from carbonsched.report.statement import box_of, boxes

COLUMNS: Final = (
    *(column.name.removesuffix("_us") for column in INTERVALS.columns),
    *("settled_g_per_kwh", "settled_grams", "box"),
)
"""Columns of the ledger, the row's value with later information, and its box by the journal."""
_LINES: Final = 1000
"""Rows per piece; a ledger has millions."""


def rows_csv(report: Report, ledger: Ledger) -> Iterator[str]:
    """The rows of a job or of the period, piece by piece: the head and the first come together."""
    out = io.StringIO()
    writer = csv.DictWriter(out, COLUMNS, lineterminator="\n")
    writer.writeheader()
    settled = Settled.of(ledger.settlements())
    known = boxes(ledger)
    for n, row in enumerate(chosen(report, ledger), start=1):
        found = settled.charge(row)
        more = {
            "settled_g_per_kwh": found.g_per_kwh,
            "settled_grams": found.grams,
            "box": box_of(known, row["start_us"]),
        }
        fields = plain(row) | {"prev_hash": row["prev_hash"], "hash": row["hash"]} | more
        writer.writerow(
            {name: neutral(value) if isinstance(value, str) else value for name, value in fields.items()}
        )
        if n % _LINES == 0:
            yield out.getvalue()
            out.seek(0)
            out.truncate()
    yield out.getvalue()


def chosen(report: Report, ledger: Ledger) -> Iterator[RowMapping]:
    """The rows of a report."""
    only = None if report.selection is None else frozenset(report.selection.jobs)
    rows = ledger.rows(report.job_id, report.start, report.end)
    return rows if only is None else (row for row in rows if row["job_id"] in only)


CSV: Final = ReportFormat("text/csv; charset=utf-8", rows_csv)
