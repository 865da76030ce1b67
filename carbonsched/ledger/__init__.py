"""The record of what was spent: append-only, hash-chained, re-computable by anyone who holds the rows (docs/ledger.md).

The database:

ledger        `Ledger`, what the rest of carbonsched calls
store         one writer, many readers, migrations, LedgerError
database_file  SQLite's files: lock, log, space on a full disk
log_sync      syncs commits to disk apart from the commit
tables        the schema
append_only   checks the tables, and the triggers that refuse changes

Rows and the chains of hashes:

rows          an interval flattened to a row, its canonical JSON and its hash
records       reads a job and a finished segment from their rows
listed        reads of both what a list shows
late_energy   spreads energy reported late over the unknown rows
meter_marks   where the account of each board ends
settlements   intensities that became known later
heads         the heads of both chains, and whether they still hold
anchors       signatures and time stamps of heads, by OpenSSH and OpenSSL

Queries and sums:

reader        queries for jobs, the journal and segments
sums_reader   queries for rows and their sums
totals        sums by job, segment, board and method
hours         sums the rows that begin in one hour
hour_totals   caches these sums
job_pieces    joins a long job's rows that differ in time alone

Roll-up of old rows:

rollup        merges old rows, a slice at a time
merging       merges rows that are alike into one per minute or hour
archives      stores the original rows, a file per month
tiers         walks the merged rows

Verification and export:

audit         `audit verify`: every hash and every gram
chains        walks both hash chains
archive_audit  recomputes merged rows from the archive
conservation  was every counted joule charged once?
overlap       was time charged twice?
journal_agreement  do jobs and segments agree with the journal?
hour_faults   do the cached sums agree with the rows?
checkpoint    the progress of a verification, kept in a file
export        both chains as text, with scripts that recompute them
effects       one of these scripts: what each job saved
comparison    where two exports differ
"""

from carbonsched.ledger.ledger import Ledger
from carbonsched.ledger.records import JobRecord, SegmentRecord
from carbonsched.ledger.totals import Totals

__all__ = ["JobRecord", "Ledger", "SegmentRecord", "Totals"]
