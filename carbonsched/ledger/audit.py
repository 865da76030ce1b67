"""The auditor's two questions: do the rows still say what was written, and was every counted joule charged once?

`verify` walks both chains and recomputes every gram. `conservation` is the law of DESIGN 4 in integer millijoules:
per board and counter epoch, Σ jobs + idle + unknown = Σ counter differences.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, and_, func, select

from carbonsched.ledger.rows import GENESIS, canonical, chained, grams_problem
from carbonsched.ledger.tables import INTERVALS, JOBS, JOURNAL, SEGMENTS
from carbonsched.model.views import AuditResult

_PAGE = 1000


@dataclass(frozen=True, slots=True)
class Balance:
    """One life of one board's counter."""

    board: str
    counter_epoch: str
    charged_mj: int
    """Σ energy of the rows that carry a counter's start and end."""
    counted_mj: int
    """How far the counter moved over the stretches those rows cover, each stretch once."""
    holes_mj: int
    """How far it moved between them: energy that no row accounts for."""

    @property
    def ok(self) -> bool:
        return self.charged_mj == self.counted_mj


def verify(connection: Connection) -> AuditResult:
    """Walk the chains in order, a page in memory at a time; stops at the first thing that is wrong."""
    anchors = _Anchors(connection)
    expected_id, prev_hash = 1, GENESIS
    after = 0
    while True:
        t = INTERVALS.c
        query = select(INTERVALS).where(t.id > after).order_by(t.id).limit(_PAGE)
        page = connection.execute(query).mappings().all()
        for row in page:
            problem = None
            if row["id"] != expected_id:
                problem = f"row {expected_id} is missing"
            elif row["prev_hash"] != prev_hash:
                problem = f"row {row['id']} does not follow row {row['id'] - 1}: the hash it names is another"
            elif row["hash"] != chained(prev_hash, canonical(row)):
                problem = (
                    f"row {row['id']} was changed after it was written: its hash does not match its fields"
                )
            elif said := grams_problem(row):
                problem = f"row {row['id']}: {said}"
            elif not anchors.agree(row["id"], row["hash"]):
                problem = f"row {row['id']} is not the one the journal saw when it was the last: rows were rewritten"
            if problem:
                return AuditResult(ok=False, rows=_count(connection), first_bad=expected_id, problem=problem)
            expected_id, prev_hash = row["id"] + 1, row["hash"]
        if len(page) < _PAGE:
            break
        after = page[-1]["id"]
    rows = expected_id - 1
    if anchors.furthest > rows:
        problem = f"rows {rows + 1} to {anchors.furthest} are missing: the journal saw them"
        return AuditResult(ok=False, rows=rows, first_bad=rows + 1, problem=problem)
    problem = _journal_problem(connection)
    return AuditResult(ok=problem is None, rows=rows, first_bad=None, problem=problem)


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


def _journal_problem(connection: Connection) -> str | None:
    t = JOURNAL.c
    expected_id, prev_hash, after = 1, GENESIS, 0
    while True:
        page = (
            connection.execute(select(JOURNAL).where(t.id > after).order_by(t.id).limit(_PAGE))
            .mappings()
            .all()
        )
        for row in page:
            if row["id"] != expected_id:
                return f"journal entry {expected_id} is missing"
            if row["prev_hash"] != prev_hash:
                return (
                    f"journal entry {row['id']} does not follow the one before: the hash it names is another"
                )
            if row["hash"] != chained(prev_hash, canonical(row)):
                return f"journal entry {row['id']} was changed after it was written"
            expected_id, prev_hash = row["id"] + 1, row["hash"]
        if len(page) < _PAGE:
            return _jobs_problem(connection)
        after = page[-1]["id"]


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
    return _segments_problem(connection)


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


def conservation(connection: Connection) -> tuple[Balance, ...]:
    """Shares of one counter difference carry its start and end, so stretches are counted as a union, not a sum."""
    t = INTERVALS.c
    query = (
        select(t.board, t.counter_epoch, t.counter_start_mj, t.counter_end_mj, t.energy_mj)
        .where(and_(t.counter_start_mj.is_not(None), t.counter_end_mj.is_not(None), t.energy_mj.is_not(None)))
        .order_by(t.board, t.counter_epoch, t.counter_start_mj, t.counter_end_mj)
    )
    balances: list[Balance] = []
    key: tuple[str, str] | None = None
    charged = counted = holes = reach = 0
    for board, epoch, start, end, energy in connection.execute(query.execution_options(yield_per=_PAGE)):
        if (board, epoch) != key:
            if key is not None:
                balances.append(Balance(*key, charged, counted, holes))
            key, charged, counted, holes, reach = (board, epoch), 0, 0, 0, start
        charged += energy
        holes += max(0, start - reach)
        counted += max(0, end - max(start, reach))
        reach = max(reach, end)
    if key is not None:
        balances.append(Balance(*key, charged, counted, holes))
    return tuple(balances)


def _count(connection: Connection) -> int:
    return connection.execute(select(func.count()).select_from(INTERVALS)).scalar() or 0
