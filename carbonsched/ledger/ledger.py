"""The ledger: it records what was spent, what was decided, and how far each job's events were read.

Writes made inside one `transaction()` are kept together or not at all: the offset up to which a job's events were
consumed moves with the rows that came from them, so a daemon killed at any instant neither loses nor repeats one.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any, Final

from sqlalchemy import ColumnElement, Connection, Engine, RowMapping, and_, func, insert, select, update

from carbonsched.errors import LedgerError, NotFoundError, StateError
from carbonsched.ledger import audit, recovered, totals
from carbonsched.ledger.agreement import sha256
from carbonsched.ledger.chains import HEARTBEAT
from carbonsched.ledger.database_file import DatabaseFile
from carbonsched.ledger.export import export
from carbonsched.ledger.heads import Head, head_of
from carbonsched.ledger.records import JobRecord, SegmentRecord, job_record, segment_record, state_of
from carbonsched.ledger.rows import (
    GENESIS,
    canonical,
    chained,
    flatten,
    maybe_moment,
    micros,
    moment,
)
from carbonsched.ledger.settlements import SETTLED, Settlement, Stretch, stretches
from carbonsched.ledger.store import Store
from carbonsched.ledger.tables import INTERVALS, JOBS, JOURNAL, OFFSETS, SEGMENTS
from carbonsched.ledger.totals import Era, Group, Totals
from carbonsched.model.audit import Exported
from carbonsched.model.base import rfc3339
from carbonsched.model.energy import BudgetAccount, EnergyDelta, Interval
from carbonsched.model.job import JobSpec, SubmittedJob
from carbonsched.model.job_state import JobState, move
from carbonsched.model.protocol import Directive, SegmentDone
from carbonsched.model.views import AuditResult
from carbonsched.power.base import Mark

ALL: Final[Mapping[str, str]] = {}
_PAGE: Final = 1000
_KNOWN: Final = 256
"""Jobs whose sums are remembered."""
_OVER: Final = tuple(str(state) for state in JobState if state.ended)


class Ledger(Store):
    """See `Store.open`, `Store.transaction` and `Store.close` for its life; any thread may call any method.

    Example:
        >>> with Ledger.open("sqlite://") as ledger:
        ...     (ledger.totals().rows, ledger.verify().ok)
        (0, True)
    """

    def __init__(
        self, writer: Engine, reader: Engine | None, where: str, file: DatabaseFile | None = None
    ) -> None:
        super().__init__(writer, reader, where, file)
        self._known: dict[str | None, tuple[int, tuple[Group, ...]]] = {}
        """Job → (last row summed, its groups)."""

    # intervals

    def append(self, intervals: Sequence[Interval]) -> None:
        """Add rows at the end of the chain. Raises LedgerError for one that contradicts itself; none is kept then."""
        if flat := [flatten(interval) for interval in intervals]:
            with self.transaction() as connection:
                _append(connection, flat)

    def recover(self, delta: EnergyDelta) -> tuple[dict[str, Any], ...]:
        """Spread energy that was told late over the rows of its time that were unknown (`carbonsched.ledger.recovered`).

        Returns the new rows; none where no row of that time is unknown: then nothing was written.
        """
        with self.transaction() as connection:
            unknown = recovered.unknown_rows(connection, delta)
            rows = recovered.spread(delta, unknown) if unknown else []
            if rows:
                _append(connection, rows)
        return tuple(rows)

    def replaced(self) -> frozenset[int]:
        """Rows of unknown energy that others stand for."""
        with self._reading() as connection:
            return recovered.replaced(connection)

    def marks(self) -> dict[str, Mark]:
        """Board → where its account ends: the last row's end, and how far its counter was charged in that epoch."""
        t = INTERVALS.c
        # what was told late is written late
        newest = select(func.max(t.id)).where(t.replaces.is_(None)).group_by(t.board)
        with self._reading() as connection:
            last = connection.execute(select(INTERVALS).where(t.id.in_(newest))).mappings().all()
            return {
                row["board"]: Mark(
                    at=moment(row["end_us"]),
                    # not the last row's: that one may be of a reading that failed, and shares of one delta have no order
                    counter_mj=_reach(connection, row["board"], row["counter_epoch"]),
                    counter_epoch=row["counter_epoch"],
                    power_w=row["power_w"],
                    blind_from=_blind_from(connection, row),
                )
                for row in last
            }

    def rows(
        self, job_id: str | None = None, start: datetime | None = None, end: datetime | None = None
    ) -> Iterator[RowMapping]:
        """Rows in order, as flat columns (`carbonsched.ledger.tables`), a page in memory at a time."""
        chosen = totals.where(job_id, start, end)
        after = 0
        while True:
            query = select(INTERVALS).where(and_(INTERVALS.c.id > after, chosen))
            with self._reading() as connection:
                page = connection.execute(query.order_by(INTERVALS.c.id).limit(_PAGE)).mappings().all()
            yield from page
            if len(page) < _PAGE:
                return
            after = page[-1]["id"]

    # sums

    def groups(
        self, job_id: str | None = None, start: datetime | None = None, end: datetime | None = None
    ) -> tuple[Group, ...]:
        """The smallest sums, by segment, board, method and bridging; `carbonsched.ledger.totals` adds them up."""
        if start is None and end is None and not self._mine:
            return self._groups_so_far(job_id)[1]
        with self._reading() as connection:
            return totals.groups(connection, totals.where(job_id, start, end), _eras(connection))

    def cost(self, job_id: str) -> float | None:
        """EUR of a job's rows whose price is known; None where none is."""
        with self._reading() as connection:
            return totals.cost(connection, totals.where(job_id))

    def _groups_so_far(self, job_id: str | None) -> tuple[int, tuple[Group, ...]]:
        """(last row, groups up to it). Rows never change, so what was summed once is only added to."""
        last_id, known = self._known.get(job_id, (0, ()))
        t = INTERVALS.c
        with self._reading() as connection:
            head, _ = _head(connection)
            late = and_(t.id > last_id, t.replaces.is_not(None))
            if head > last_id > 0 and connection.execute(select(t.id).where(late).limit(1)).first():
                last_id, known = 0, ()  # what was unknown no longer counts
            if head > last_id:
                chosen = and_(t.id > last_id, t.id <= head, totals.where(job_id))
                fresh = totals.groups(connection, chosen, _eras(connection), newest=last_id > 0)
                known = totals.merged(known, fresh)
        if len(self._known) >= _KNOWN:
            self._known.clear()
        self._known[job_id] = (head, known)
        return head, known

    def eras(self) -> tuple[Era, ...]:
        """By which account rows are charged, oldest first; before the first one by location."""
        with self._reading() as connection:
            return _eras(connection)

    def totals(self, job_id: str | None = None) -> Totals:
        """Of one job, or of everything metered."""
        return totals.total(self.groups(job_id))

    def segment_totals(self, job_id: str) -> dict[int | None, Totals]:
        """Segment → its sums; None is loading, waiting and evaluation outside segments."""
        return totals.total_by(self.groups(job_id), lambda group: group.segment)

    # jobs

    def add_job(self, job: SubmittedJob) -> None:
        """Raises StateError for an id that is already there."""
        with self.transaction() as connection:
            if connection.execute(select(JOBS.c.id).where(JOBS.c.id == job.id)).first():
                raise StateError(f"job {job.id} is already in the ledger; submit it under a new id")
            submitted = _text(job.dump())
            connection.execute(
                insert(JOBS).values(
                    id=job.id,
                    submitted=submitted,
                    submitted_us=micros(job.submitted_at),
                    state=str(JobState.QUEUED),
                    reason="submitted",
                    budget_g=job.spec.carbon.budget_g,
                )
            )
            detail = {
                "name": job.spec.name,
                "sha256": sha256({"submitted": submitted}),
                "uid": job.owner.uid,
                "budget_g": job.spec.carbon.budget_g,
            }
            self._write(connection, job.id, "submitted", detail, job.owner.user, job.submitted_at)

    def set_state(self, job_id: str, state: JobState, reason: str, actor: str, at: datetime) -> None:
        """Move a job by the table of transitions; the same state again records a new reason. Raises StateError."""
        with self.transaction() as connection:
            row = self._job_row(connection, job_id)
            old = state_of(row["state"])
            if state is not old:
                move(job_id, old, state)
            values: dict[str, Any] = {"state": str(state), "reason": reason}
            if state is JobState.RUNNING and row["started_us"] is None:
                values["started_us"] = micros(at)
            if state.ended != old.ended:
                values["ended_us"] = micros(at) if state.ended else None
            connection.execute(update(JOBS).where(JOBS.c.id == job_id).values(**values))
            detail = {"from": row["state"], "state": str(state), "reason": reason}
            self._write(connection, job_id, "state", detail, actor, at)

    def set_budget(
        self, job_id: str, grams: float, reason: str, actor: str, at: datetime, uid: int | None = None
    ) -> None:
        """Record a new budget with who set it (uid: a person's, by the kernel's word), when, the old and the new grams."""
        with self.transaction() as connection:
            row = self._job_row(connection, job_id)
            connection.execute(update(JOBS).where(JOBS.c.id == job_id).values(budget_g=grams))
            detail: dict[str, Any] = {"from_g": row["budget_g"], "budget_g": grams, "reason": reason}
            if uid is not None:
                detail["uid"] = uid
            self._write(connection, job_id, "budget", detail, actor, at)

    def job(self, job_id: str) -> JobRecord:
        """Raises NotFoundError."""
        with self._reading() as connection:
            return job_record(self._job_row(connection, job_id))

    def ids_like(self, prefix: str) -> tuple[str, ...]:
        """Ids that begin with `prefix`, newest first."""
        t = JOBS.c
        query = select(t.id).where(t.id.startswith(prefix, autoescape=True)).order_by(t.submitted_us.desc())
        with self._reading() as connection:
            # SQLite tells no case apart in such a comparison
            return tuple(i for i in connection.execute(query).scalars() if i.startswith(prefix))

    def latest_of(self, uid: int | None) -> str | None:
        """Id of the job that this user submitted last, None: that anybody did; None where there is none."""
        query = select(JOBS).order_by(JOBS.c.submitted_us.desc(), JOBS.c.id.desc())
        with self._reading() as connection:
            records = map(job_record, connection.execute(query).mappings())
            return next((r.id for r in records if uid is None or r.owner.uid == uid), None)

    def job_ids(self) -> set[str]:
        """Of every job, read or not."""
        with self._reading() as connection:
            return set(connection.execute(select(JOBS.c.id)).scalars())

    @property
    def begun(self) -> bool:
        """Whether anything was ever written into it."""
        with self._reading() as connection:
            return any(
                connection.execute(select(table.c.id).limit(1)).first() for table in (JOURNAL, INTERVALS)
            )

    def jobs(self) -> tuple[JobRecord, ...]:
        """Every job, oldest first."""
        with self._reading() as connection:
            query = select(JOBS).order_by(JOBS.c.submitted_us, JOBS.c.id)
            return tuple(job_record(row) for row in connection.execute(query).mappings())

    def listed(self, over: int | None) -> tuple[tuple[JobRecord, ...], int]:
        """(jobs that are not over and the `over` that ended last, None: all, oldest first; how many are left out)."""
        t = JOBS.c
        ended = t.state.in_(_OVER)
        last = select(t.id).where(ended).order_by(t.ended_us.desc(), t.id).limit(over)
        query = select(JOBS).where(~ended | t.id.in_(last)).order_by(t.submitted_us, t.id)
        with self._reading() as connection:
            found = tuple(job_record(row) for row in connection.execute(query).mappings())
            count = connection.execute(select(func.count()).select_from(JOBS)).scalar_one()
        return found, count - len(found)

    def newest(self, most: int) -> tuple[JobRecord, ...]:
        """The jobs that were begun and submitted last, newest first."""
        t = JOBS.c
        query = select(JOBS).where(t.started_us.is_not(None)).order_by(t.submitted_us.desc(), t.id.desc())
        with self._reading() as connection:
            return tuple(job_record(row) for row in connection.execute(query.limit(most)).mappings())

    # journal

    def note(
        self, job_id: str | None, kind: str, detail: Mapping[str, Any], actor: str, at: datetime
    ) -> None:
        """Record what happened: `directive`, `evaluated` (the event's dump), `note`, …; docs/ledger.md lists all."""
        with self.transaction() as connection:
            self._write(connection, job_id, kind, detail, actor, at)

    def history(
        self,
        job_id: str | None,
        kinds: Sequence[str] = (),
        *,
        newest: int | None = None,
        having: Mapping[str, str] = ALL,
    ) -> tuple[dict[str, Any], ...]:
        """A job's journal, oldest first: `at`, `kind`, `actor` and what `kind` adds; None: the daemon's own.

        newest: of each kind the last so many; having: kind → a key, without which an entry of it is passed over.
        """
        t = JOURNAL.c
        found: list[RowMapping] = []
        with self._reading() as connection:
            for kind in kinds or (None,):
                query = select(JOURNAL).where(_of_kind(job_id, kind))
                if key := having.get(kind or ""):
                    query = query.where(t.detail.contains(f'"{key}":', autoescape=True))
                found += connection.execute(query.order_by(t.id.desc()).limit(newest)).mappings()
        found.sort(key=lambda row: row["id"])
        return tuple(
            {
                **json.loads(row["detail"]),
                "at": rfc3339(moment(row["at_us"])),
                "kind": row["kind"],
                "actor": row["actor"],
            }
            for row in found
        )

    def count(self, job_id: str | None, kind: str) -> int:
        """How many entries of a kind a job's journal has."""
        with self._reading() as connection:
            query = select(func.count()).select_from(JOURNAL).where(_of_kind(job_id, kind))
            return int(connection.execute(query).scalar_one())

    def settlements(self, since: datetime | None = None) -> tuple[Settlement, ...]:
        """What was settled, oldest entry first; since: those that were written then or later."""
        t = JOURNAL.c
        query = select(t.detail).where(_of_kind(None, SETTLED)).order_by(t.id)
        if since is not None:
            query = query.where(t.at_us >= micros(since))
        with self._reading() as connection:
            return tuple(Settlement.of(json.loads(row)) for row in connection.execute(query).scalars())

    def stretches(self, since: datetime, until: datetime) -> tuple[Stretch, ...]:
        """See `carbonsched.ledger.settlements.stretches`."""
        with self._reading() as connection:
            return stretches(connection, since, until)

    # segments

    def save_segment(
        self, job_id: str, done: SegmentDone, start: datetime, end: datetime, directive: Directive | None
    ) -> None:
        """Record a finished segment. Saved once more, it is a new attempt, and the one before counts as lost work."""
        with self.transaction() as connection:
            self._job_row(connection, job_id)
            t = SEGMENTS.c
            here = and_(t.job_id == job_id, t.k == done.k)
            last = connection.execute(select(func.max(t.attempt)).where(here)).scalar()
            row = {
                "job_id": job_id,
                "k": done.k,
                "attempt": 0 if last is None else last + 1,
                "start_us": micros(start),
                "end_us": micros(end),
                "done": _text(done.dump()),
                "directive": None if directive is None else _text(directive.dump()),
            }
            connection.execute(insert(SEGMENTS), row)
            detail = {"k": done.k, "attempt": row["attempt"], "sha256": sha256(row)}
            self._write(connection, job_id, "segment", detail, "trainer", end)

    def segments(
        self, job_id: str, *, lost: bool = False, newest: int | None = None
    ) -> tuple[SegmentRecord, ...]:
        """The attempt that counts of every finished segment, by k; with `lost` all attempts; the `newest` by k alone."""
        t = SEGMENTS.c
        query = select(SEGMENTS).where(t.job_id == job_id)
        if not lost:
            mine = (
                select(t.k, func.max(t.attempt).label("attempt"))
                .where(t.job_id == job_id)
                .group_by(t.k)
                .subquery()
            )
            query = query.join(mine, and_(t.k == mine.c.k, t.attempt == mine.c.attempt))
        with self._reading() as connection:
            found = connection.execute(query.order_by(t.k.desc(), t.attempt.desc()).limit(newest)).mappings()
            return tuple(segment_record(row) for row in reversed(found.all()))

    def count_segments(self, job_id: str) -> int:
        """How many segments of the job have finished, each counted once."""
        query = select(func.count(SEGMENTS.c.k.distinct())).where(SEGMENTS.c.job_id == job_id)
        with self._reading() as connection:
            return int(connection.execute(query).scalar_one())

    def last_segment(self, job_id: str) -> SegmentRecord | None:
        """The furthest that was finished, alone; None before any."""
        t = SEGMENTS.c
        query = select(SEGMENTS).where(t.job_id == job_id).order_by(t.k.desc(), t.attempt.desc()).limit(1)
        with self._reading() as connection:
            row = connection.execute(query).mappings().first()
            return None if row is None else segment_record(row)

    # events

    def offset(self, job_id: str) -> int:
        """Bytes of the job's events.jsonl that were consumed; 0 before the first."""
        with self._reading() as connection:
            found = connection.execute(select(OFFSETS.c.bytes).where(OFFSETS.c.job_id == job_id)).scalar()
        return 0 if found is None else int(found)

    def set_offset(self, job_id: str, offset: int) -> None:
        """Call inside the transaction that holds what the events said."""
        with self.transaction() as connection:
            self._job_row(connection, job_id)
            mine = OFFSETS.c.job_id == job_id
            changed = connection.execute(update(OFFSETS).where(mine).values(bytes=offset))
            if changed.rowcount == 0:
                connection.execute(insert(OFFSETS).values(job_id=job_id, bytes=offset))

    # audit

    def verify(self, earlier: Sequence[Head] = (), since: Head | None = None) -> AuditResult:
        """Every hash and every gram once more, from the rows alone; the first that is wrong is named.

        earlier: heads noted before, which must be in the chains still; since: one whose rows were verified then, and are not again.
        """
        with self._reading() as connection:
            return audit.verify(connection, earlier, since)

    def heartbeat(self, actor: str, at: datetime, *, counted: bool = True) -> Head | None:
        """Note in the journal what the rows come to; the heads with that entry, to be noted elsewhere. None: nothing came since.

        counted: False leaves the sums out, for which all rows are read the first time.
        """
        detail: dict[str, Any] = {}
        if counted:  # outside of the transaction, which others wait for
            rows, groups = self._groups_so_far(None)
            sums = totals.total(groups)
            detail = {"rows": rows, "energy_mj": sums.energy_mj, "grams": sums.location_g}
        with self.transaction() as connection:
            last = (
                connection.execute(select(JOURNAL).order_by(JOURNAL.c.id.desc()).limit(1)).mappings().first()
            )
            if _head(connection)[0] == 0 or (
                last and last["kind"] == HEARTBEAT and last["interval_id"] == _head(connection)[0]
            ):
                return None
            self._write(connection, None, "heartbeat", detail, actor, at)
            return head_of(connection)

    def last_heartbeat(self) -> datetime | None:
        """When the newest was noted."""
        query = select(func.max(JOURNAL.c.at_us)).where(_of_kind(None, HEARTBEAT))
        with self._reading() as connection:
            return maybe_moment(connection.execute(query).scalar())

    def export(self, folder: Path, at: datetime) -> Exported:
        """All that an outsider needs to verify and recompute it without carbonsched (docs/ledger.md)."""
        with self._reading() as connection:
            return export(connection, folder, at, self.schema_version)

    def _job_row(self, connection: Connection, job_id: str) -> RowMapping:
        row = connection.execute(select(JOBS).where(JOBS.c.id == job_id)).mappings().first()
        if row is None:
            raise NotFoundError(f"there is no job {job_id}; `carbonsched ps` lists them")
        return row

    def _write(
        self,
        connection: Connection,
        job_id: str | None,
        kind: str,
        detail: Mapping[str, Any],
        actor: str,
        at: datetime,
    ) -> None:
        try:
            text = _text(detail)
        except (TypeError, ValueError) as e:
            raise LedgerError(f"a journal entry must be plain JSON: {e}") from e
        query = select(JOURNAL.c.id, JOURNAL.c.hash).order_by(JOURNAL.c.id.desc()).limit(1)
        last_id, last_hash = connection.execute(query).first() or (0, GENESIS)
        interval_id, interval_hash = _head(connection)
        entry: dict[str, Any] = {
            "id": last_id + 1,
            "at_us": micros(at),
            "job_id": job_id,
            "kind": kind,
            "actor": actor,
            "detail": text,
            "interval_id": interval_id,
            "interval_hash": interval_hash,
            "prev_hash": last_hash,
        }
        entry["hash"] = chained(last_hash, canonical(entry))
        connection.execute(insert(JOURNAL), entry)


def spec_sha256(spec: JobSpec) -> str:
    """Of the spec's canonical JSON, in hex."""
    return spec.sha256


def _text(data: Mapping[str, Any]) -> str:
    return json.dumps(data, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)


def _of_kind(job_id: str | None, kind: str | None) -> ColumnElement[bool]:
    mine = JOURNAL.c.job_id.is_(None) if job_id is None else JOURNAL.c.job_id == job_id
    return mine if kind is None else and_(mine, JOURNAL.c.kind == kind)


def _eras(connection: Connection) -> tuple[Era, ...]:
    query = select(JOURNAL.c.interval_id, JOURNAL.c.detail).where(_of_kind(None, "account"))
    found = []
    for after, text in connection.execute(query.order_by(JOURNAL.c.id)):
        detail = json.loads(text)
        found.append(Era(after, BudgetAccount(detail["budget_account"]), bool(detail["supply"])))
    return tuple(found)


def _append(connection: Connection, rows: Sequence[dict[str, Any]]) -> None:
    last_id, last_hash = _head(connection)
    for n, row in enumerate(rows, start=last_id + 1):
        row["id"], row["prev_hash"] = n, last_hash
        row["hash"] = last_hash = chained(last_hash, canonical(row))
    connection.execute(insert(INTERVALS), rows)


def _blind_from(connection: Connection, last: Mapping[Any, Any]) -> datetime | None:
    """Since when a board's energy was unknown to the end; None: its last row knows it, or no row before does."""
    if last["energy_mj"] is not None:
        return None
    t = INTERVALS.c
    known = and_(t.board == last["board"], t.energy_mj.is_not(None), t.replaces.is_(None))
    newest = select(t.end_us).where(known).order_by(t.id.desc()).limit(1)
    return maybe_moment(connection.execute(newest).scalar())


def _head(connection: Connection) -> tuple[int, str]:
    t = INTERVALS.c
    found = connection.execute(select(t.id, t.hash).order_by(t.id.desc()).limit(1)).first()
    return found or (0, GENESIS)


def _reach(connection: Connection, board: str, epoch: str) -> int | None:
    t = INTERVALS.c
    here = and_(t.board == board, t.counter_epoch == epoch)
    return connection.execute(select(func.max(t.counter_end_mj)).where(here)).scalar()
