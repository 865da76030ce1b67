"""The rows behind a report as CSV: one line per interval, times in RFC 3339, unknown left empty, hashes included."""

import csv
import io
from collections.abc import Iterator
from typing import Final

from carbonsched.ledger.ledger import Ledger
from carbonsched.ledger.rows import plain
from carbonsched.ledger.settlements import Settled
from carbonsched.ledger.tables import INTERVALS
from carbonsched.report.document import Report
from carbonsched.report.format import ReportFormat

COLUMNS: Final = (
    *(column.name.removesuffix("_us") for column in INTERVALS.columns),
    *("settled_g_per_kwh", "settled_grams"),
)
"""Those of the ledger, and what a row counts as with what became known later."""
_LINES: Final = 1000
"""In a piece; a ledger has millions."""


def rows_csv(report: Report, ledger: Ledger) -> Iterator[str]:
    """A job's rows, or all rows of the period, piece by piece: the head and the first come together."""
    out = io.StringIO()
    writer = csv.DictWriter(out, COLUMNS, lineterminator="\n")
    writer.writeheader()
    settled = Settled.of(ledger.settlements())
    for n, row in enumerate(ledger.rows(report.job_id, report.start, report.end), start=1):
        found = settled.charge(row)
        more = {"settled_g_per_kwh": found.g_per_kwh, "settled_grams": found.grams}
        writer.writerow(plain(row) | {"prev_hash": row["prev_hash"], "hash": row["hash"]} | more)
        if n % _LINES == 0:
            yield out.getvalue()
            out.seek(0)
            out.truncate()
    yield out.getvalue()


CSV: Final = ReportFormat("text/csv; charset=utf-8", rows_csv)
