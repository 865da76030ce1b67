"""The rows behind a report as CSV: one line an interval, times in RFC 3339, unknown left empty, hashes included."""

import csv
import io
from typing import Final

from carbonsched.ledger.ledger import Ledger
from carbonsched.ledger.rows import plain
from carbonsched.ledger.tables import INTERVALS
from carbonsched.report.document import Report

COLUMNS: Final = tuple(column.name.removesuffix("_us") for column in INTERVALS.columns)


def rows_csv(report: Report, ledger: Ledger) -> str:
    """A job's rows, or all rows of the period."""
    out = io.StringIO()
    writer = csv.DictWriter(out, COLUMNS, lineterminator="\n")
    writer.writeheader()
    for row in ledger.rows(report.job_id, report.start, report.end):
        writer.writerow(plain(row) | {"prev_hash": row["prev_hash"], "hash": row["hash"]})
    return out.getvalue()
