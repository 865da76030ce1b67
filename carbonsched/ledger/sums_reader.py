"""Queries a ledger's rows, their sums by hour, job and segment, and their settlements."""

import json
from collections.abc import Callable, Iterator, Sequence
from datetime import datetime
from typing import Any, Final

from sqlalchemy import ColumnElement, Connection, Engine, RowMapping, and_, func, select

from carbonsched.ledger import hour_totals, job_pieces, late_energy, totals
from carbonsched.ledger.database_file import DatabaseFile
from carbonsched.ledger.hours import HourSums
from carbonsched.ledger.meter_marks import marks
from carbonsched.ledger.rollup import rolled_to
from carbonsched.ledger.rows import GENESIS, maybe_micros
from carbonsched.ledger.settlements import SETTLED, Settled, Settlement, Stretch, settlements, stretches
from carbonsched.ledger.store import Store
from carbonsched.ledger.tables import HOURS, INTERVALS, JOURNAL
from carbonsched.ledger.totals import Era, Group, Totals
from carbonsched.model.energy import BudgetAccount
from carbonsched.power.base import Mark

_PAGE: Final = 1000
_KNOWN: Final = 256
"""Jobs whose sums are cached."""


class SumsReader(Store):
    """Queries of rows only; `carbonsched.ledger.reader.LedgerReader` adds jobs and the journal.

    Example:
        >>> with SumsReader.open("sqlite://") as ledger:
        ...     ledger.totals().rows
        0
    """

    def __init__(
        self, writer: Engine, reader: Engine | None, where: str, file: DatabaseFile | None = None
    ) -> None:
        super().__init__(writer, reader, where, file)
        self._settled: tuple[int, Settled] | None = None
        self._known: dict[str | None, tuple[int, tuple[Group, ...]]] = {}
        """Job → (last row summed, its groups)."""

    # intervals

    def replaced(self) -> frozenset[int]:
        """Rows of unknown energy that were replaced."""
        with self._reading() as connection:
            return late_energy.replaced(connection)

    def marks(self) -> dict[str, Mark]:
        """Board → where its account ends: the last row's end, and how far its counter is charged in that epoch."""
        with self._reading() as connection:
            return marks(connection)

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

    def each_hour(
        self,
        take: Callable[[HourSums], None],
        job_id: str | None = None,
        start: datetime | None = None,
        end: datetime | None = None,
    ) -> None:
        """Yield the sums of the rows that begin in [start, end), hour by hour (`carbonsched.ledger.hour_totals`). job_id: only hours in
        which the job has rows; they may contain other jobs' rows. `take` must not query the ledger."""
        settled = self.settled()
        span = maybe_micros(start), maybe_micros(end)
        with self._reading() as connection:
            books = hour_totals.Books.of(connection, eras_of(connection), settled)
            hour_totals.each_hour(connection, books, span, job_id, take)

    def each_row(
        self,
        take: Callable[[dict[str, Any]], None],
        job_id: str | None = None,
        start: datetime | None = None,
        end: datetime | None = None,
    ) -> None:
        """Yield the rows that count and begin in [start, end), ordered by start, with only the columns `SLIM`; otherwise as `each_hour`."""
        with self._reading() as connection:
            hour_totals.each_row(connection, totals.where(job_id, start, end), take)

    def each_piece(
        self,
        take: Callable[[dict[str, Any]], None],
        job_id: str,
        start: datetime | None = None,
        end: datetime | None = None,
        *,
        piece_us: int,
    ) -> None:
        """As `each_row` of a job, with rows that differ in time alone joined up to `piece_us` (`carbonsched.ledger.job_pieces`)."""
        with self._reading() as connection:
            chosen = totals.where(job_id, start, end)
            job_pieces.each_piece(connection, job_id, chosen, eras_of(connection), piece_us, take)

    def held(self) -> tuple[int, int]:
        """(number of rows, number of hours with cached sums)."""
        counts = [select(func.count()).select_from(table) for table in (INTERVALS, HOURS)]
        with self._reading() as connection:
            rows, hours = (int(connection.execute(query).scalar_one()) for query in counts)
        return rows, hours

    def merged_rows(self) -> int:
        """How many original rows are in the archive."""
        with self._reading() as connection:
            return rolled_to(connection, 0)[0]

    def steps(self, since: datetime, until: datetime) -> tuple[Stretch, ...]:
        """How the rows that begin in [since, until) and have energy were charged: as `stretches`, whole hours together."""
        with self._reading() as connection:
            return hour_totals.steps(connection, since, until)

    def settled(self) -> Settled:
        """The settlements in force, cached until a new one is written. Do not modify."""
        count = self.count(None, SETTLED)
        if self._settled is None or self._settled[0] != count:
            self._settled = (count, Settled.of(self.settlements()))
        return self._settled[1]

    def groups(
        self, job_id: str | None = None, start: datetime | None = None, end: datetime | None = None
    ) -> tuple[Group, ...]:
        """The smallest sums, by segment, board, method and bridging; `carbonsched.ledger.totals` adds them up."""
        if start is None and end is None and not self._mine:
            return self._groups_so_far(job_id)[1]
        with self._reading() as connection:
            return totals.groups(connection, totals.where(job_id, start, end), eras_of(connection))

    def cost(self, job_id: str) -> float | None:
        """EUR of a job's rows whose price is known; None if there are none."""
        with self._reading() as connection:
            return totals.cost(connection, totals.where(job_id))

    def _groups_so_far(self, job_id: str | None) -> tuple[int, tuple[Group, ...]]:
        """(last row, groups up to it). Rows never change, so only new rows are added."""
        last_id, known = self._known.get(job_id, (0, ()))
        t = INTERVALS.c
        with self._reading() as connection:
            head, _ = chain_end(connection)
            late = and_(t.id > last_id, t.replaces.is_not(None))
            if head > last_id > 0 and connection.execute(select(t.id).where(late).limit(1)).first():
                last_id, known = 0, ()  # rows of unknown energy that were replaced no longer count
            if head > last_id:
                chosen = and_(t.id > last_id, t.id <= head, totals.where(job_id))
                fresh = totals.groups(connection, chosen, eras_of(connection), newest=last_id > 0)
                known = totals.merged(known, fresh)
        if len(self._known) >= _KNOWN:
            self._known.clear()
        self._known[job_id] = (head, known)
        return head, known

    def totals_of(self, jobs: Sequence[str]) -> dict[str, Totals]:
        """Totals of several finished jobs at once, which are cached for good."""
        t = INTERVALS.c
        with self._reading() as connection:
            head, _ = chain_end(connection)
            known = {} if self._mine else {job: self._known[job] for job in jobs if job in self._known}
            since = min((last for last, _ in known.values()), default=head)
            if head > since:
                news = select(t.job_id).where(
                    t.id > since, t.job_id.in_(jobs) | t.replaces.is_not(None)
                )  # rows of unknown energy that were replaced no longer count
                news = news.distinct().with_hint(INTERVALS, "NOT INDEXED", "sqlite")
                changed = set(connection.execute(news).scalars())
                known = {job: sums for job, sums in known.items() if job not in changed}
            missing = [job for job in jobs if job not in known]
            found: dict[str, list[Group]] = {job: [] for job in missing}
            if missing:
                chosen = and_(t.job_id.in_(missing), t.id <= head)
                for group in totals.groups(connection, chosen, eras_of(connection)):
                    found[str(group.job_id)].append(group)
        sums = {job: groups for job, (_, groups) in known.items()}
        sums |= {job: tuple(groups) for job, groups in found.items()}
        if not self._mine and len(jobs) <= _KNOWN // 2:
            if len(self._known) + len(missing) > _KNOWN:
                self._known.clear()
            self._known |= {job: (head, groups) for job, groups in sums.items()}
        return {job: totals.total(sums[job]) for job in jobs}

    def eras(self) -> tuple[Era, ...]:
        """Which account rows are charged by, oldest first; before the first era it is the location."""
        with self._reading() as connection:
            return eras_of(connection)

    def totals(self, job_id: str | None = None) -> Totals:
        """Of one job, or of everything metered."""
        return totals.total(self.groups(job_id))

    def segment_totals(self, job_id: str) -> dict[int | None, Totals]:
        """Segment → its sums; None is loading, waiting and evaluation outside segments."""
        return totals.total_by(self.groups(job_id), lambda group: group.segment)

    # settlements

    def count(self, job_id: str | None, kind: str) -> int:
        """The number of entries of a kind in a job's journal."""
        with self._reading() as connection:
            query = select(func.count()).select_from(JOURNAL).where(of_kind(job_id, kind))
            return int(connection.execute(query).scalar_one())

    def settlements(self, since: datetime | None = None) -> tuple[Settlement, ...]:
        """See `carbonsched.ledger.settlements.settlements`."""
        with self._reading() as connection:
            return settlements(connection, since)

    def stretches(self, since: datetime, until: datetime) -> tuple[Stretch, ...]:
        """See `carbonsched.ledger.settlements.stretches`."""
        with self._reading() as connection:
            return stretches(connection, since, until)


def of_kind(job_id: str | None, kind: str | None) -> ColumnElement[bool]:
    """Journal entries of a kind."""
    mine = JOURNAL.c.job_id.is_(None) if job_id is None else JOURNAL.c.job_id == job_id
    return mine if kind is None else and_(mine, JOURNAL.c.kind == kind)


def eras_of(connection: Connection) -> tuple[Era, ...]:
    """See `SumsReader.eras`."""
    query = select(JOURNAL.c.interval_id, JOURNAL.c.detail).where(of_kind(None, "account"))
    found = []
    for after, text in connection.execute(query.order_by(JOURNAL.c.id)):
        detail = json.loads(text)
        found.append(Era(after, BudgetAccount(detail["budget_account"]), bool(detail["supply"])))
    return tuple(found)


_CHAIN_END: Final = select(INTERVALS.c.id, INTERVALS.c.hash).order_by(INTERVALS.c.id.desc()).limit(1)
"""Asked at every write, so the statement is built once."""


def chain_end(connection: Connection) -> tuple[int, str]:
    """Number and hash of the last interval row; (0, the genesis hash) before any."""
    id_, hash_ = connection.execute(_CHAIN_END).first() or (0, GENESIS)
    return id_, hash_
