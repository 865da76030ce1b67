"""Joins a job's rows that differ in time alone, inside the database: a week of 8 boards has half a million rows.

A piece stands for consecutive rows of one board and segment that were charged alike; its energy is their exact sum in millijoules. Where
such rows have gaps or overlaps, they are returned one by one.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from sqlalchemy import ColumnElement, Connection, and_, case, func, select

from carbonsched.ledger import late_energy
from carbonsched.ledger.hour_totals import SLIM
from carbonsched.ledger.tables import INTERVALS, SEGMENTS
from carbonsched.ledger.totals import Era

_SUMMED: Final = ("energy_mj", "grams", "on_site_grams")
_SAME: Final = ("board", "segment", "g_per_kwh", "pue")
"""Columns in which the rows of a piece are equal."""


def each_piece(
    connection: Connection,
    job_id: str,
    chosen: ColumnElement[bool],
    eras: Sequence[Era],
    piece_us: int,
    take: Callable[[dict[str, Any]], None],
) -> None:
    """Yield what counts of a job, ordered by start, with the columns `SLIM`; a piece covers at most one `piece_us` of the clock. It never
    spans the beginning of the attempt that counts, nor a change of the budget account."""
    t = INTERVALS.c
    gone = late_energy.replaced(connection)
    counts = and_(chosen, t.id.not_in(select(t.replaces).where(t.replaces.is_not(None)))) if gone else chosen
    bucket = t.start_us // piece_us
    found, loose = list[dict[str, Any]](), list[tuple[str, int]]()
    for row in connection.execute(_query(job_id, counts, eras, bucket)).mappings():
        if row["span_us"] == row["end_us"] - row["start_us"]:
            piece = {name: row[name] for name in SLIM}
            if piece["energy_mj"] is not None:  # PostgreSQL returns sums of integers as decimals
                piece["energy_mj"] = int(piece["energy_mj"])
            found.append(piece)
        else:
            loose.append((row["board"], row["bucket"]))
    if loose:
        wanted = set(loose)
        found = [piece for piece in found if (piece["board"], piece["start_us"] // piece_us) not in wanted]
        spans = and_(
            t.start_us >= min(n for _, n in wanted) * piece_us,
            t.start_us < (max(n for _, n in wanted) + 1) * piece_us,
        )
        rows = connection.execute(select(*(t[name] for name in SLIM)).where(and_(counts, spans))).mappings()
        found += [dict(row) for row in rows if (row["board"], row["start_us"] // piece_us) in wanted]
    for piece in sorted(found, key=_order):
        take(piece)


def _query(job_id: str, counts: ColumnElement[bool], eras: Sequence[Era], bucket: ColumnElement[int]) -> Any:
    """The query. In a piece, `rho` only says whether there was one, and `id` is the last row's."""
    t, s = INTERVALS.c, SEGMENTS.c
    begun = (
        select(s.k, func.max(s.attempt).label("attempt")).where(s.job_id == job_id).group_by(s.k).subquery()
    )
    counted = (
        select(s.k, s.start_us)
        .join(begun, and_(s.k == begun.c.k, s.attempt == begun.c.attempt))
        .where(s.job_id == job_id)
        .subquery()
    )
    keys: list[ColumnElement[Any]] = [
        *(t[name] for name in _SAME),
        *(t[name].is_(None) for name in ("rho", *_SUMMED)),
        *(t.end_us <= counted.c.start_us, bucket),
    ]
    if eras:
        newest_first = reversed(list(enumerate(eras, start=1)))
        keys.append(case(*((t.id > era.after, n) for n, era in newest_first), else_=0))
    sums = (func.sum(t[name]).label(name) for name in _SUMMED)
    return (
        select(
            *(t[name].label(name) for name in _SAME),
            *sums,
            func.max(t.id).label("id"),
            func.max(t.job_id).label("job_id"),
            func.max(t.rho).label("rho"),
            func.min(t.start_us).label("start_us"),
            func.max(t.end_us).label("end_us"),
            func.sum(t.end_us - t.start_us).label("span_us"),
            bucket.label("bucket"),
        )
        .select_from(INTERVALS.outerjoin(counted, counted.c.k == t.segment))
        .where(counts)
        .group_by(*keys)
    )


def _order(row: Mapping[str, Any]) -> tuple[int, int]:
    return row["start_us"], row["id"]
