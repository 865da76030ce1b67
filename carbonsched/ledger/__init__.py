"""The record of what was spent: append-only, hash-chained, re-computable by anyone who holds the rows (docs/ledger.md).

store         one writer, many readers, migrations, vendor errors made ours
database_file  SQLite's files: lock, log, room on a full disk
log_sync      waits for the disk apart from the commit
tables        the schema
rows          an interval flattened to a row, its canonical JSON and its hash
records       a job and a finished segment, read from their rows
totals        sums by job, segment, board and method
settlements   what was revised later: which intensity rows count with as settled
late_energy   energy told late, spread over the rows that were unknown
merging       rows that are alike as one of a minute or an hour
rollup        rows that grow old are merged, a slice at a time
hours         what the rows that begin in an hour come to
hour_totals   keeps that for whole hours, and adds up the rest
hour_faults   holds what is kept against the rows
archives      the rows that were merged, a file a month
tiers         walks the rows that stand for others
append_only   are the tables and the triggers that refuse changes there?
archive_audit  merged rows once more from the archive
audit         every hash and every gram once more
checkpoint    how far a verification came, kept in a file
chains        walks both hash chains
overlap       was time charged twice?
journal_agreement  do jobs and segments hold what the journal said?
conservation  was every counted joule charged once?
heads         where the chains stood earlier, and whether they still hold that
anchors       signatures and time stamps of heads, by OpenSSH and OpenSSL
meter_marks   where the account of each board ends
sums_reader   what the rows come to, by hour, job and segment
job_pieces    a long job's rows, added up where they differ in time alone
reader        what can be asked of it besides: jobs and the journal
export        both chains as text, with scripts that recompute them
effects       one of these: what each job saved, once more, by Python alone
comparison    where two exports part
ledger        `Ledger`, what the rest of carbonsched calls
"""

from carbonsched.ledger.ledger import Ledger
from carbonsched.ledger.records import JobRecord, SegmentRecord
from carbonsched.ledger.totals import Totals

__all__ = ["JobRecord", "Ledger", "SegmentRecord", "Totals"]
