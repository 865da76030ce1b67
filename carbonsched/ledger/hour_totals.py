"""Caches the sums of every past hour, and sums any span of time: whole hours from the cache, the rest from the rows.

An hour's sums change only if a row that begins in it is added, or a settlement covers its time. Either drops the cached sums in the same
transaction; they are computed again later. Merging rows changes no sum.
"""

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import groupby
from typing import Any, Final

from sqlalchemy import ColumnElement, Connection, and_, delete, func, insert, or_, select

from carbonsched.ledger import late_energy
from carbonsched.ledger.hours import COLUMNS, HOUR_US, NAMES, HourAdder, HourSums, joined
from carbonsched.ledger.rows import micros, moment
from carbonsched.ledger.settlements import Settled, Stretch, stretches
from carbonsched.ledger.tables import HOURS, INTERVALS
from carbonsched.ledger.totals import Era

BEHIND_US: Final = 600_000_000
"""Delay after an hour's end before it is summed: its last rows have arrived by then."""
_PAGE: Final = 1000

Take = Callable[[HourSums], None]


@dataclass(frozen=True, slots=True)
class Books:
    """What determines how rows are summed.

    Example::

        books = Books(eras, settled, late_energy.replaced(connection))
    """

    eras: Sequence[Era]
    settled: Settled
    gone: Collection[int]
    """Rows that were replaced by others."""

    @classmethod
    def of(cls, connection: Connection, eras: Sequence[Era], settled: Settled) -> "Books":
        return cls(eras, settled, late_energy.replaced(connection))


def each_hour(
    connection: Connection, books: Books, span: tuple[int | None, int | None], job_id: str | None, take: Take
) -> None:
    """Yield the sums of the rows that begin in [start, end), hour by hour; None: from the first row, or to the last. Partial hours, and
    hours that are not cached, are summed from the rows. job_id: hours may contain its rows only; cached sums contain everybody's."""
    at, end = span
    if job_id is not None:
        at, end = _of_job(connection, job_id, at, end)
        if at is None or end is None:
            return
    t = HOURS.c
    query = select(t.hour_us, t.sums).order_by(t.hour_us)
    if at is not None:
        query = query.where(t.hour_us >= at)
    if end is not None:
        query = query.where(t.hour_us <= end - HOUR_US)
    for hour_us, text in connection.execute(query.execution_options(yield_per=_PAGE)):
        if at is None or at < hour_us:
            _raw(connection, books, (at, hour_us), job_id, take)
        take(HourSums.of(text, hour_us))
        at = hour_us + HOUR_US
    _raw(connection, books, (at, end), job_id, take)


def _of_job(
    connection: Connection, job_id: str, start: int | None, end: int | None
) -> tuple[int | None, int | None]:
    """The part of a span in which a job's rows begin; (None, None): there are none."""
    t = INTERVALS.c
    first, last = connection.execute(
        select(func.min(t.start_us), func.max(t.start_us)).where(t.job_id == job_id)
    ).one()
    if first is None:
        return None, None
    # whole hours, so that the first and the last can come from the cache
    first, last = first // HOUR_US * HOUR_US, last // HOUR_US * HOUR_US + HOUR_US
    return max(first, start or first), last if end is None else min(last, end)


def _raw(
    connection: Connection, books: Books, span: tuple[int | None, int | None], job_id: str | None, take: Take
) -> None:
    if None not in span and span[0] == span[1]:
        return
    chosen = [] if job_id is None else [INTERVALS.c.job_id == job_id]
    for sums in _added(rows_between(connection, span, chosen), books):
        take(sums)


def rows_between(
    connection: Connection, span: tuple[int | None, int | None], chosen: Iterable[ColumnElement[bool]] = ()
) -> Iterator[dict[str, Any]]:
    """The rows that begin in [start, end), ordered by start, with the columns that sums need."""
    t = INTERVALS.c
    tests = list(chosen)
    if span[0] is not None:
        tests.append(t.start_us >= span[0])
    if span[1] is not None:
        tests.append(t.start_us < span[1])
    query = select(*COLUMNS).where(and_(t.id > 0, *tests)).order_by(t.start_us, t.id)
    for row in connection.execute(query.execution_options(yield_per=_PAGE)):
        yield dict(zip(NAMES, row, strict=True))


def _added(rows: Iterable[Mapping[str, Any]], books: Books) -> Iterator[HourSums]:
    for hour, mine in groupby(rows, key=lambda row: int(row["start_us"]) // HOUR_US):
        adder = HourAdder(hour * HOUR_US, books.eras, books.settled)
        for row in mine:
            if row["id"] not in books.gone:
                adder.add(row)
        yield adder.sums()


SLIM: Final = (
    *("id", "board", "job_id", "segment", "rho", "start_us", "end_us", "energy_mj", "g_per_kwh", "pue"),
    *("grams", "on_site_grams"),
)
"""Columns needed for a curve and for a job's time."""


def each_row(
    connection: Connection, chosen: ColumnElement[bool], take: Callable[[dict[str, Any]], None]
) -> None:
    """Yield the rows that count, ordered by start, with the columns `SLIM`."""
    t, gone = INTERVALS.c, late_energy.replaced(connection)
    query = select(*(t[name] for name in SLIM)).where(chosen).order_by(t.start_us, t.id)
    for row in connection.execute(query.execution_options(yield_per=_PAGE)):
        if row[0] not in gone:
            take(dict(zip(SLIM, row, strict=True)))


def steps(connection: Connection, since: datetime, until: datetime) -> tuple[Stretch, ...]:
    """How the rows that begin in [since, until) were charged; whole hours from the cache."""
    at, end, found = micros(since), micros(until), list[Stretch]()
    t = HOURS.c
    query = select(t.hour_us, t.sums).where(t.hour_us >= at, t.hour_us <= end - HOUR_US)
    for hour_us, text in connection.execute(query.order_by(t.hour_us)):
        if at < hour_us:
            found += stretches(connection, moment(at), moment(hour_us))
        found += HourSums.of(text, hour_us).steps
        at = hour_us + HOUR_US
    if at < end:
        found += stretches(connection, moment(at), moment(end))
    return joined(found)


def next_hour(connection: Connection, after_us: int, until_us: int) -> int | None:
    """The first past hour after `after_us` that has rows and no cached sums; None if there is none."""
    t, h = INTERVALS.c, HOURS.c
    while True:
        first = connection.execute(select(func.min(t.start_us)).where(t.start_us >= after_us)).scalar()
        if first is None:
            return None
        hour = int(first) // HOUR_US * HOUR_US
        if hour + HOUR_US + BEHIND_US > until_us:
            return None
        if connection.execute(select(h.hour_us).where(h.hour_us == hour)).first() is None:
            return hour
        after_us = hour + HOUR_US


def sums_of(connection: Connection, books: Books, hour_us: int) -> HourSums:
    """The sums of one hour, from its rows."""
    found = list(_added(rows_between(connection, (hour_us, hour_us + HOUR_US)), books))
    return found[0] if found else HourSums(hour_us)


def keep(connection: Connection, sums: HourSums, text: str) -> None:
    """Call inside a transaction; text: the sums' own."""
    connection.execute(delete(HOURS).where(HOURS.c.hour_us == sums.hour_us))
    row = {"hour_us": sums.hour_us, "end_us": sums.end_us, "rows": sums.rows, "energy_mj": sums.energy_mj}
    connection.execute(insert(HOURS), row | {"sums": text})


def forget_rows(connection: Connection, rows: Iterable[Mapping[str, Any]]) -> int:
    """Drop the cached sums of the hours in which added rows begin; returns the first such hour."""
    hours = sorted({row["start_us"] // HOUR_US * HOUR_US for row in rows})
    for n in range(0, len(hours), _PAGE):
        connection.execute(delete(HOURS).where(HOURS.c.hour_us.in_(hours[n : n + _PAGE])))
    return int(hours[0])


def forget_settled(connection: Connection, start_us: int, end_us: int) -> int:
    """Drop the cached sums of the hours that a settlement touches; returns the first hour that may be affected."""
    t, hour_us = HOURS.c, start_us // HOUR_US * HOUR_US
    touched = and_(t.hour_us < max(end_us, start_us + 1), or_(t.end_us > start_us, t.hour_us >= hour_us))
    first = connection.execute(select(func.min(t.hour_us)).where(touched)).scalar()
    connection.execute(delete(HOURS).where(touched))
    return hour_us if first is None else min(int(first), hour_us)


def forget_all(connection: Connection) -> None:
    """Drop all cached sums; they are computed again from the rows."""
    connection.execute(delete(HOURS))
