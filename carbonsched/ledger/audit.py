"""Verifies a ledger: do the rows still say what was written, and was every counted joule charged once?

`verify` lets SQLite check its file, walks both hash chains, recomputes every gram and compares jobs and segments with the journal.
`carbonsched.ledger.conservation` balances every energy counter, and `carbonsched.ledger.overlap` finds time that was charged twice. Earlier
heads must still be in the chains, and cached hour sums must agree with the rows.
"""

from collections.abc import Sequence
from contextlib import suppress
from functools import partial

from sqlalchemy import Connection, func, select
from sqlalchemy.exc import SQLAlchemyError

from carbonsched.errors import InputError, LedgerError
from carbonsched.ledger.append_only import missing_table, missing_trigger
from carbonsched.ledger.archive_audit import recompute
from carbonsched.ledger.archives import Archive
from carbonsched.ledger.chains import Fault, JournalWalk, Walk, intervals_fault, walk_journal
from carbonsched.ledger.checkpoint import Checkpoint
from carbonsched.ledger.conservation import conservation, imbalance
from carbonsched.ledger.heads import Head, head_of, missed
from carbonsched.ledger.hour_faults import hours_fault
from carbonsched.ledger.hour_totals import Books
from carbonsched.ledger.journal_agreement import jobs_problem, segments_problem
from carbonsched.ledger.rollup import rolled_to
from carbonsched.ledger.rows import GENESIS
from carbonsched.ledger.settlements import Settled, settlements
from carbonsched.ledger.store import file_problem
from carbonsched.ledger.sums_reader import eras_of
from carbonsched.ledger.tables import HOURS, INTERVALS
from carbonsched.ledger.tiers import rollups_problem
from carbonsched.model.audit import AuditResult, ChainHeads, MergedRows


def verify(
    connection: Connection,
    earlier: Sequence[Head] = (),
    since: Head | None = None,
    archive: Archive | None = None,
    steps: Checkpoint | None = None,
) -> AuditResult:
    """Walk both chains in order, one page in memory at a time, then balance every counter; the result names the first fault.

    earlier: heads recorded before, each of which must be in the chains. since: a head up to which the rows were verified already; only
    later rows are checked, and all of the journal, jobs and segments. archive: recompute the merged rows that it contains. steps: receives
    the progress, and says where to resume.
    """
    steps = steps or Checkpoint()
    if since is not None and since.rows is None:
        raise InputError("--since", f"{since.source} does not say of how many rows it is", "give a later one")
    if since is None and (damage := file_problem(connection)):
        return _of_damaged(connection, damage)
    if gone := missing_table(connection):
        return _of_damaged(connection, gone)
    if since is None:
        steps.read(connection)
    after = (0, GENESIS) if since is None or since.rows is None else (since.rows, since.intervals)
    if after[0] < rolled_to(connection, 0)[0]:
        after = (0, GENESIS)  # rows after it were merged since: they are few, and are checked again
    fault, overlap, problem = _chains(connection, since, after, steps)
    try:
        balances = conservation(connection, after[0])
    except (
        ArithmeticError,
        TypeError,
        ValueError,
    ):  # the chain walk has found it already, unless the chain was forged
        balances = ()
        problem = problem or "the energy, counter or board of a row is what no row can hold"
    problem = problem or next((imbalance(each) for each in balances if not each.ok), None)
    if problem is None and (fault := overlap or _missed(connection, earlier)):
        problem = fault.what
    merged, wrong = _merged(connection, archive, steps)
    problem = problem or wrong or _hours_problem(connection, after[0], steps)
    problem = problem or missing_trigger(connection)
    steps.done()
    head = head_of(connection)
    return AuditResult(
        ok=problem is None,
        rows=_count(connection),
        first_bad=None if fault is None else fault.row,
        problem=problem,
        conservation=balances,
        heads=head.chain_heads(),
        entries=head.entries,
        compared=len(earlier),
        since=None if since is None else since.rows,
        merged=merged,
    )


def _chains(
    connection: Connection, since: Head | None, after: tuple[int, str], steps: Checkpoint
) -> tuple[Fault | None, Fault | None, str | None]:
    """(which row is wrong, which rows charge a time twice, what is wrong with either chain or with the journal's statements)."""
    journal = walk_journal(connection)
    lost = None if since is None else missed(connection, since)
    fault, overlap = (lost, None) if lost else _rows_fault(connection, journal, after, steps)
    problem = (
        (fault and fault.what)
        or journal.problem
        or rollups_problem(connection, journal.rolled)
        or jobs_problem(connection, journal.told)
        or segments_problem(connection, journal.segments)
    )
    return fault, overlap, problem


def _merged(
    connection: Connection, archive: Archive | None, steps: Checkpoint
) -> tuple[MergedRows | None, str | None]:
    """(how many merged rows were recomputed, None if there are none; what is wrong with them)."""
    rows = rolled_to(connection, 0)[0]
    if not rows:
        return None, None
    if archive is None:
        return MergedRows(rows=rows, recomputed=None, gone=None), None
    found = recompute(connection, archive, steps)
    return MergedRows(rows=rows, recomputed=found.rows, gone=found.gone), found.problem


def _rows_fault(
    connection: Connection, journal: JournalWalk, after: tuple[int, str], steps: Checkpoint
) -> tuple[Fault | None, Fault | None]:
    """See `intervals_fault`."""
    came = partial(_came, steps)
    return intervals_fault(connection, journal.heartbeats, after, steps.walk, came)


def _came(steps: Checkpoint, walk: Walk, rows: int) -> None:
    steps.came("rows", rows, walk)


def _hours_problem(connection: Connection, after: int, steps: Checkpoint) -> str | None:
    if connection.execute(select(HOURS.c.hour_us).limit(1)).first() is None:
        return None
    try:
        books = Books.of(connection, eras_of(connection), Settled.of(settlements(connection)))
        return hours_fault(
            connection, books, after, steps.hour_us, lambda hour: steps.came("hours", 1, hour_us=hour)
        )
    except (ArithmeticError, KeyError, LedgerError, TypeError, ValueError) as e:
        return f"what the rows of an hour come to cannot be told: {e}"


def _count(connection: Connection) -> int:
    """Rows that were written, including those that were merged since."""
    rows = func.coalesce(func.sum(func.coalesce(INTERVALS.c.rows, 1)), 0)
    return int(connection.execute(select(rows)).scalar_one())


def _missed(connection: Connection, earlier: Sequence[Head]) -> Fault | None:
    return next((fault for head in earlier if (fault := missed(connection, head))), None)


def _of_damaged(connection: Connection, damage: str) -> AuditResult:
    """The result if no row can be read reliably."""
    rows: int | None = None
    with suppress(SQLAlchemyError):
        rows = _count(connection)
    heads = ChainHeads(intervals=None, journal=None)
    return AuditResult(ok=False, rows=rows, first_bad=None, problem=damage, heads=heads)
