"""Verifies a ledger: do the rows still say what was written, and was every counted joule charged once?

`verify` lets SQLite check its file, walks both hash chains, recomputes every gram, compares jobs and segments with the
journal, and asks `carbonsched.ledger.conservation` to balance every energy counter. `export` writes both chains for an auditor who wants to
verify them without carbonsched.
"""

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, RowMapping, Table, and_, func, select
from sqlalchemy.exc import SQLAlchemyError

from carbonsched.ledger.conservation import conservation, imbalance
from carbonsched.ledger.rows import GENESIS, canonical, chained, figures_problem
from carbonsched.ledger.store import file_problem
from carbonsched.ledger.tables import INTERVALS, JOBS, JOURNAL, SEGMENTS
from carbonsched.model.views import AuditResult, ChainHeads

_PAGE = 1000


def verify(connection: Connection) -> AuditResult:
    """Walk both chains in order, a page in memory at a time, then balance every counter; names the first thing wrong."""
    if damage := file_problem(connection):
        return _of_damaged(connection, damage)
    first_bad, problem = _intervals_problem(connection)
    problem = (
        problem or _journal_problem(connection) or _jobs_problem(connection) or _segments_problem(connection)
    )
    balances = conservation(connection)
    problem = problem or next((imbalance(each) for each in balances if not each.ok), None)
    return AuditResult(
        ok=problem is None,
        rows=connection.execute(select(func.count()).select_from(INTERVALS)).scalar_one(),
        first_bad=first_bad,
        problem=problem,
        conservation=balances,
        heads=ChainHeads(
            intervals=_last_hash(connection, INTERVALS), journal=_last_hash(connection, JOURNAL)
        ),
    )


def _of_damaged(connection: Connection, damage: str) -> AuditResult:
    """The answer where no row can be trusted to be read."""
    rows: int | None = None
    with suppress(SQLAlchemyError):
        rows = connection.execute(select(func.count()).select_from(INTERVALS)).scalar_one()
    heads = ChainHeads(intervals=None, journal=None)
    return AuditResult(ok=False, rows=rows, first_bad=None, problem=damage, heads=heads)


def _links(connection: Connection, table: Table, noun: str) -> Iterator[tuple[RowMapping, str | None]]:
    """The rows of a chain in order, each with what is wrong with its place in it; the first that is wrong is the last."""
    expected_id, prev_hash = 1, GENESIS
    while True:
        query = select(table).where(table.c.id >= expected_id).order_by(table.c.id).limit(_PAGE)
        page = connection.execute(query).mappings().all()
        for row in page:
            problem = None
            if row["id"] != expected_id:
                problem = f"{noun} {expected_id} is missing"
            elif row["prev_hash"] != prev_hash:
                problem = f"{noun} {row['id']} does not follow the one before: the hash it names is another"
            elif row["hash"] != chained(prev_hash, canonical(row)):
                problem = (
                    f"{noun} {row['id']} was changed after it was written: its hash does not match its fields"
                )
            yield row, problem
            if problem:
                return
            expected_id, prev_hash = row["id"] + 1, row["hash"]
        if len(page) < _PAGE:
            return


def _intervals_problem(connection: Connection) -> tuple[int | None, str | None]:
    """(number of the first interval that is wrong, what is wrong)."""
    anchors, rows = _Anchors(connection), 0
    for row, problem in _links(connection, INTERVALS, "row"):
        if not problem and (said := figures_problem(row)):
            problem = f"row {row['id']}: {said}"
        if not problem and not anchors.agree(row["id"], row["hash"]):
            problem = (
                f"row {row['id']} is not the one the journal saw when it was the last: rows were rewritten"
            )
        if problem:
            return rows + 1, problem
        rows = row["id"]
    if anchors.furthest > rows:
        return rows + 1, f"rows {rows + 1} to {anchors.furthest} are missing: the journal saw them"
    return None, None


def _journal_problem(connection: Connection) -> str | None:
    return next((problem for _, problem in _links(connection, JOURNAL, "journal entry") if problem), None)


def _last_hash(connection: Connection, table: Table) -> str:
    query = select(table.c.hash).order_by(table.c.id.desc()).limit(1)
    return connection.execute(query).scalar() or GENESIS


class _Anchors:
    """Where the journal saw the interval chain stand; looked up as the walk passes by."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self.furthest: int = connection.execute(select(func.max(JOURNAL.c.interval_id))).scalar() or 0
        self._ahead: dict[int, str] = {}
        self._read_to = 0

    def agree(self, row_id: int, row_hash: str) -> bool:
        if row_id > self._read_to:
            self._ahead = self._page(row_id)
        seen = self._ahead.pop(row_id, None)
        return seen is None or seen == row_hash

    def _page(self, first: int) -> dict[int, str]:
        t = JOURNAL.c
        self._read_to = first + _PAGE - 1
        query = select(t.interval_id, t.interval_hash).where(t.interval_id.between(first, self._read_to))
        return dict(self._connection.execute(query.distinct()).all())


def sha256(row: Mapping[Any, Any]) -> str:
    """Of a row of the jobs or segments table, as its journal entry holds it."""
    return hashlib.sha256(canonical(row).encode()).hexdigest()


def _jobs_problem(connection: Connection) -> str | None:
    """Jobs are rewritten as they go on and segments are not chained: both must be what the journal said last."""
    for job in connection.execute(select(JOBS)).mappings().all():
        facts = {"sha256": sha256({"submitted": job["submitted"]})} | {
            n: job[n] for n in ("state", "budget_g")
        }
        for field, *kinds in (
            ("sha256", "submitted"),
            ("state", "state"),
            ("budget_g", "budget", "submitted"),
        ):
            said = _last(connection, job["id"], kinds)
            if said is not None and said[field] != facts[field]:
                return f"job {job['id']}: {field} is {facts[field]}, the journal said {said[field]}"
    return None


def _segments_problem(connection: Connection) -> str | None:
    t = SEGMENTS.c
    found = {
        (row["job_id"], row["k"], row["attempt"]): sha256(row)
        for row in connection.execute(select(SEGMENTS).order_by(t.job_id, t.k, t.attempt)).mappings()
    }
    query = (
        select(JOURNAL.c.job_id, JOURNAL.c.detail).where(JOURNAL.c.kind == "segment").order_by(JOURNAL.c.id)
    )
    for job_id, text in connection.execute(query):
        said = json.loads(text)
        key = (job_id, said["k"], said["attempt"])
        if found.pop(key, None) != said["sha256"]:
            return (
                f"job {job_id}: segment {said['k']}, attempt {said['attempt']}, is not as the journal saw it"
            )
    for job_id, k, attempt in found:
        return f"job {job_id}: segment {k}, attempt {attempt}, is not in the journal"
    return None


def _last(connection: Connection, job_id: str, kinds: Sequence[str]) -> dict[str, Any] | None:
    t = JOURNAL.c
    query = select(t.detail).where(and_(t.job_id == job_id, t.kind.in_(kinds))).order_by(t.id.desc()).limit(1)
    text = connection.execute(query).scalar()
    return None if text is None else dict(json.loads(text))


def export(connection: Connection, folder: Path) -> int:
    """Write both chains as lines of `hash, tab, canonical JSON`: intervals.tsv and journal.tsv. Returns the lines.

    SHA-256 of (the hash of the line before, 64 zeros before the first, + the JSON) is the line's hash. Raises OSError.
    """
    lines = 0
    folder.mkdir(parents=True, exist_ok=True)
    for table in (INTERVALS, JOURNAL):
        query = select(table).order_by(table.c.id).execution_options(yield_per=_PAGE)
        with (folder / f"{table.name}.tsv").open("w", encoding="utf-8", newline="\n") as out:
            for row in connection.execute(query).mappings():
                out.write(f"{row['hash']}\t{canonical(row)}\n")
                lines += 1
    return lines
