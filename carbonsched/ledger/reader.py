"""Queries a ledger for jobs, the journal, segments and event offsets, beside rows and their sums."""

import json
import sys
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, Final

from sqlalchemy import ColumnElement, Connection, Engine, RowMapping, and_, func, or_, select

from carbonsched.errors import NotFoundError
from carbonsched.ledger.chains import HEARTBEAT
from carbonsched.ledger.database_file import DatabaseFile
from carbonsched.ledger.heads import Head, head_of
from carbonsched.ledger.listed import ListedJob, ListedSegment, listed_job, listed_segment
from carbonsched.ledger.records import JobRecord, SegmentRecord, job_record, segment_record
from carbonsched.ledger.rows import (
    maybe_moment,
    micros,
    moment,
)
from carbonsched.ledger.sums_reader import SumsReader, of_kind
from carbonsched.ledger.tables import INTERVALS, JOBS, JOURNAL, OFFSETS, SEGMENTS, WITH_KEY, WITH_POOL
from carbonsched.model.base import rfc3339
from carbonsched.model.job_state import JobState

ALL: Final[Mapping[str, str]] = {}
_PAGE: Final = 1000
_CLOSED: Final = (str(JobState.FINISHED), str(JobState.CANCELLED))
"""States that no job leaves."""
_OVER: Final = tuple(str(state) for state in JobState if state.ended)


class LedgerReader(SumsReader):
    """Read-only queries; `carbonsched.ledger.ledger.Ledger` adds the writes.

    Example:
        >>> with LedgerReader.open("sqlite://") as ledger:
        ...     (ledger.jobs(), ledger.totals().rows)
        ((), 0)
    """

    def __init__(
        self, writer: Engine, reader: Engine | None, where: str, file: DatabaseFile | None = None
    ) -> None:
        super().__init__(writer, reader, where, file)
        self._removed: tuple[int, frozenset[str]] = (0, frozenset())
        """(last entry read, jobs whose folders were removed by then)."""

    # jobs

    def job(self, job_id: str) -> JobRecord:
        """Raises NotFoundError."""
        with self._reading() as connection:
            return job_record(self._job_row(connection, job_id))

    def has_job(self, job_id: str) -> bool:
        """Whether a job has exactly this id; removed jobs count."""
        with self._reading() as connection:
            return connection.execute(select(JOBS.c.id).where(JOBS.c.id == job_id)).first() is not None

    def removed_ids(self) -> frozenset[str]:
        """Ids of jobs whose folders were removed; no list shows them any more."""
        with self._reading() as connection:
            return self._removed_by(connection)

    def _removed_by(self, connection: Connection) -> frozenset[str]:
        """Entries never change, so each is read once."""
        t, (after, known) = JOURNAL.c, self._removed
        last = connection.execute(select(func.max(t.id))).scalar() or 0
        if last > after:
            removed = and_(t.kind == "removed", t.job_id.is_not(None), t.id > after, t.id <= last)
            query = select(t.job_id).where(removed).with_hint(JOURNAL, "NOT INDEXED", "sqlite")
            known |= frozenset(connection.execute(query).scalars())
            if not self._mine:  # this thread's writes may still be rolled back
                self._removed = (last, known)
        return known

    def ids_like(self, prefix: str) -> tuple[str, ...]:
        """Ids that begin with `prefix`, newest first; a removed job only by its full id."""
        t = JOBS.c
        query = select(t.id).where(t.id.startswith(prefix, autoescape=True)).order_by(t.submitted_us.desc())
        with self._reading() as connection:
            if (
                connection.dialect.name == "sqlite"
            ):  # LIKE would walk all jobs; this pair of comparisons uses the index
                query = query.where(t.id >= prefix, t.id < prefix + chr(sys.maxunicode))
            gone = self._removed_by(connection) - {prefix}
            # SQLite's comparison here ignores case
            return tuple(
                i for i in connection.execute(query).scalars() if i.startswith(prefix) and i not in gone
            )

    def latest_of(self, uid: int | None) -> str | None:
        """Id of the job that this user (None: anybody) submitted last; None if there is none."""
        query = select(JOBS).order_by(JOBS.c.submitted_us.desc(), JOBS.c.id.desc())
        with self._reading() as connection:
            gone = self._removed_by(connection)
            kept = (row for row in connection.execute(query).mappings() if row["id"] not in gone)
            return next((r.id for r in map(job_record, kept) if uid is None or r.owner.uid == uid), None)

    def job_ids(self) -> set[str]:
        """Ids of all jobs, readable or not."""
        with self._reading() as connection:
            return set(connection.execute(select(JOBS.c.id)).scalars())

    @property
    def begun(self) -> bool:
        """Whether anything was ever written."""
        with self._reading() as connection:
            return any(
                connection.execute(select(table.c.id).limit(1)).first() for table in (JOURNAL, INTERVALS)
            )

    def jobs(self) -> tuple[JobRecord, ...]:
        """Every job, oldest first."""
        with self._reading() as connection:
            query = select(JOBS).order_by(JOBS.c.submitted_us, JOBS.c.id)
            return tuple(job_record(row) for row in connection.execute(query).mappings())

    def jobs_since(self, at: datetime) -> tuple[JobRecord, ...]:
        """Jobs that are not over, or ended since then."""
        t = JOBS.c
        query = select(JOBS).where(~t.state.in_(_OVER) | (t.ended_us >= micros(at)))
        with self._reading() as connection:
            return tuple(job_record(row) for row in connection.execute(query).mappings())

    def over_before(self, at: datetime) -> tuple[str, ...]:
        """Ids of the jobs that ended before then, oldest first; without their specs, which take megabytes."""
        t = JOBS.c
        query = select(t.id).where(t.state.in_(_OVER), t.ended_us < micros(at))
        with self._reading() as connection:
            return tuple(connection.scalars(query.order_by(t.submitted_us, t.id)))

    def unclosed(self) -> tuple[JobRecord, ...]:
        """Jobs that may still have a process, oldest first: all but the finished and cancelled ones."""
        t = JOBS.c
        query = select(JOBS).where(t.state.not_in(_CLOSED)).order_by(t.submitted_us, t.id)
        with self._reading() as connection:
            return tuple(job_record(row) for row in connection.execute(query).mappings())

    def of_pools(self) -> tuple[JobRecord, ...]:
        """Jobs that are over and draw on a pool, oldest first."""
        t = JOBS.c
        with self._reading() as connection:
            drawn = select(JOBS).where(WITH_POOL[connection.dialect.name]).order_by(t.submitted_us, t.id)
            rows = connection.execute(drawn).mappings()
            # not in the query: SQLite would then take the index by state, and walk the ten thousand that are over
            return tuple(job_record(row) for row in rows if row["state"] in _OVER)

    def with_key(self, key: str) -> tuple[JobRecord, ...]:
        """Jobs that were submitted with this `queue.dedupe_key`, newest first."""
        t = JOBS.c
        text = f'"dedupe_key":{json.dumps(key, ensure_ascii=False)}'
        query = select(JOBS).where(t.submitted.contains(text, autoescape=True))
        with self._reading() as connection:
            query = query.where(WITH_KEY[connection.dialect.name]).order_by(t.submitted_us.desc(), t.id)
            found = tuple(job_record(row) for row in connection.execute(query).mappings())
        return tuple(row for row in found if row.spec.queue.dedupe_key == key)

    def started_ids(self) -> frozenset[str]:
        """Jobs that may still have a process, and had one by the journal."""
        ids = select(JOBS.c.id).where(JOBS.c.state.not_in(_CLOSED))
        t = JOURNAL.c
        query = select(t.job_id).distinct().where(t.job_id.in_(ids), t.kind == "started")
        with self._reading() as connection:
            return frozenset(connection.execute(query).scalars())

    def listed(self, over: int | None) -> tuple[tuple[str, ...], int]:
        """(ids of the unfinished jobs and of the `over` that ended last, None: all, oldest first; how many are left out). Removed jobs are
        neither."""
        t = JOBS.c
        ended, order = t.state.in_(_OVER), (t.submitted_us, t.id)
        with self._reading() as connection:
            gone = self._removed_by(connection)
            last = select(t.id, *order).where(ended).order_by(t.ended_us.desc(), t.id)
            most = None if over is None else over + len(gone)
            over_ids = [row for row in connection.execute(last.limit(most)) if row.id not in gone][:over]
            rest = connection.execute(select(t.id, *order).where(~ended)).all()
            count = connection.execute(select(func.count()).select_from(JOBS)).scalar_one()
        shown = sorted([*rest, *over_ids], key=lambda row: (row.submitted_us, row.id))
        return tuple(row.id for row in shown), count - len(gone | {row.id for row in shown})

    def records(self, ids: Sequence[str]) -> tuple[ListedJob, ...]:
        """The jobs with these ids, in their order, as a list shows them; unknown ids are skipped."""
        with self._reading() as connection:
            rows = connection.execute(select(JOBS).where(JOBS.c.id.in_(ids))).mappings()
            found = {row["id"]: listed_job(row) for row in rows}
        return tuple(found[each] for each in ids if each in found)

    def newest(self, most: int) -> tuple[JobRecord, ...]:
        """The jobs that have started and were submitted last, newest first."""
        t = JOBS.c
        query = select(JOBS).where(t.started_us.is_not(None)).order_by(t.submitted_us.desc(), t.id.desc())
        with self._reading() as connection:
            return tuple(job_record(row) for row in connection.execute(query.limit(most)).mappings())

    # journal

    def history(
        self,
        job_id: str | None,
        kinds: Sequence[str] = (),
        *,
        newest: int | None = None,
        having: Mapping[str, str] = ALL,
    ) -> tuple[dict[str, Any], ...]:
        """A job's journal, oldest first: `at`, `kind`, `actor` and what `kind` adds; None: the daemon's own. newest: at most so many of
        each kind, the last ones. having: kind → a key; entries of that kind without it are skipped."""
        t = JOURNAL.c
        found: list[RowMapping] = []
        chosen = [_having(of_kind(job_id, kind), having.get(kind or "")) for kind in kinds or (None,)]
        with self._reading() as connection:
            for part in chosen if newest is not None else [or_(*chosen)]:
                query = select(JOURNAL).where(part).order_by(t.id.desc()).limit(newest)
                found += connection.execute(query).mappings()
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

    def last_boards(self, jobs: Sequence[str]) -> dict[str, tuple[str, ...]]:
        """The boards that each job ran on when it last started; jobs that never did are left out."""
        t = JOURNAL.c
        last = (
            select(func.max(t.id)).where(t.job_id.in_(jobs), t.kind == "started").group_by(t.job_id)
        ).scalar_subquery()
        with self._reading() as connection:
            found = connection.execute(select(t.job_id, t.detail).where(t.id.in_(last)))
            return {job_id: tuple(json.loads(detail)["boards"]) for job_id, detail in found}

    # segments

    def segments(
        self, job_id: str, *, lost: bool = False, newest: int | None = None
    ) -> tuple[SegmentRecord, ...]:
        """The attempt that counts of every finished segment, by k; with `lost` all attempts; only the `newest` by k."""
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

    def last_segments(self, jobs: Sequence[str]) -> dict[str, ListedSegment]:
        """The last finished segment of each job; jobs without one are left out."""
        t = SEGMENTS.c
        order = func.row_number().over(partition_by=t.job_id, order_by=(t.k.desc(), t.attempt.desc()))
        keys = select(t.job_id, t.k, t.attempt, order.label("place")).where(t.job_id.in_(jobs)).subquery()
        here = and_(t.job_id == keys.c.job_id, t.k == keys.c.k, t.attempt == keys.c.attempt)
        query = select(SEGMENTS).join(keys, here).where(keys.c.place == 1)
        with self._reading() as connection:
            rows = connection.execute(query).mappings()
            return {row["job_id"]: listed_segment(row) for row in rows}

    # events

    def offset(self, job_id: str) -> int:
        """Bytes of the job's events.jsonl that were consumed; 0 at first."""
        with self._reading() as connection:
            found = connection.execute(select(OFFSETS.c.bytes).where(OFFSETS.c.job_id == job_id)).scalar()
        return 0 if found is None else int(found)

    def head(self) -> Head:
        """The heads of both chains."""
        with self._reading() as connection:
            return head_of(connection)

    def last_heartbeat(self) -> datetime | None:
        """When the newest heartbeat was recorded."""
        query = select(func.max(JOURNAL.c.at_us)).where(of_kind(None, HEARTBEAT))
        with self._reading() as connection:
            return maybe_moment(connection.execute(query).scalar())

    def _job_row(self, connection: Connection, job_id: str) -> RowMapping:
        row = connection.execute(select(JOBS).where(JOBS.c.id == job_id)).mappings().first()
        if row is None:
            raise NotFoundError(f"there is no job {job_id}; `carbonsched ps` lists them")
        return row


def _having(chosen: ColumnElement[bool], key: str | None) -> ColumnElement[bool]:
    return and_(chosen, JOURNAL.c.detail.contains(f'"{key}":', autoescape=True)) if key else chosen
