"""The record of what was spent: append-only, hash-chained, re-computable by anyone who holds the rows (docs/ledger.md).

store    one writer, many readers, migrations, vendor errors made ours
tables   the schema
rows     an interval flattened to a row and back, its canonical JSON and its hash
totals   sums by job, segment, board and method
audit    every hash and every gram once more, and the conservation law
ledger   `Ledger`, what the rest of carbonsched calls
"""

from carbonsched.ledger.ledger import JobRecord, Ledger, SegmentRecord
from carbonsched.ledger.totals import Totals

__all__ = ["JobRecord", "Ledger", "SegmentRecord", "Totals"]
