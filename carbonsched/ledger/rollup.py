"""Rolls a ledger up: old rows become minutes and later hours, one slice at a time, each in a short transaction.

Each tier of rows (0 as written, 1 minutes, 2 hours) is a chain of its own, whose first part may have been merged into the next tier. A row
of `rollups` and a journal entry `rolled` record where that part ends, and the hashes there.
"""

import time
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, Final, Protocol

from sqlalchemy import Connection, and_, delete, func, insert, select

from carbonsched.ledger import late_energy
from carbonsched.ledger.archives import Archive
from carbonsched.ledger.merging import BUCKET_US, HOUR, MINUTE, Limits, chain, merged
from carbonsched.ledger.rows import GENESIS, insert_rows, micros
from carbonsched.ledger.settlements import Settled
from carbonsched.ledger.tables import INTERVALS, JOURNAL, ROLLUPS, SEGMENTS
from carbonsched.ledger.totals import Era
from carbonsched.model.audit import RolledUp

ROLLED: Final = "rolled"
"""Kind of the journal's entry."""
FEWEST: Final = 100
MOST: Final = 2000
"""Rows of a slice."""
MOST_AT_REST: Final = 5000
"""For a ledger that nobody else uses: some 20 MB."""
_LONG_S: Final = 0.05
"""If a transaction takes longer, the next slice is smaller, because a tick waits for it."""


@dataclass(frozen=True, slots=True)
class Retention:
    """How long rows stay in each tier.

    Example:
        >>> Retention().raw_days, Retention().minute_days
        (7.0, 30.0)
    """

    raw_days: float = 7.0
    minute_days: float = 30.0
    rows: int = MOST
    """Rows per slice at most."""


@dataclass(frozen=True, slots=True)
class Slice:
    """Rows of one tier that are merged together, and the rows that replace them; made by `next_slice`.

    Example::

        slice_ = next_slice(connection, 0, until_us, 2000)
    """

    tier: int
    rows: tuple[Mapping[str, Any], ...]
    merged: tuple[dict[str, Any], ...]

    @property
    def through(self) -> tuple[int, str]:
        return self.rows[-1]["id"], self.rows[-1]["hash"]


class Books(Protocol):
    """What rolling up needs to know of a ledger.

    Example::

        def pass_(books: Books) -> None: ...
    """

    def next_slice(self, tier: int, until: datetime, most: int) -> Slice | None: ...
    def replace(self, slice_: Slice, archive: Archive | None, at: datetime) -> float: ...


@dataclass(slots=True)
class RollUp:
    """Rolls up a ledger, pass by pass.

    Example::

        rolled = RollUp(ledger, Retention(), Archive(folder)).work(now)
    """

    books: Books
    retention: Retention
    archive: Archive | None
    """None: merged rows are not archived."""
    stop: Callable[[], bool] = lambda: False
    pause_s: float = 0.0
    """Pause between two slices, so that others can write."""
    at_rest: bool = False
    """Nobody else writes, so slices may be as large as possible and take any time."""
    _most: int = field(default=MOST // 4)

    def work(self, now: datetime, slices: int | None = None) -> RolledUp:
        """Merge what is due, `slices` at most. Raises LedgerError if the ledger or the archive refuses."""
        done = RolledUp()
        for tier, days in ((0, self.retention.raw_days), (MINUTE, self.retention.minute_days)):
            until = now - timedelta(days=days)
            while not self.stop() and (slices is None or done.slices < slices):
                most = max(1, self.retention.rows if self.at_rest else min(self._most, self.retention.rows))
                slice_ = self.books.next_slice(tier, until, most)
                if slice_ is None:
                    break
                took_s = self.books.replace(slice_, None if tier else self.archive, now)
                self._adapt(took_s)
                done = RolledUp(
                    rows=done.rows + len(slice_.rows),
                    merged=done.merged + len(slice_.merged),
                    slices=done.slices + 1,
                    longest_s=max(done.longest_s, took_s),
                )
                time.sleep(self.pause_s)
        return done

    def _adapt(self, took_s: float) -> None:
        if took_s > _LONG_S:
            self._most = max(FEWEST, self._most // 2)
        elif took_s < _LONG_S / 4:
            self._most = min(MOST, self._most * 5 // 4)


def next_slice(
    connection: Connection, tier: int, until: datetime, most: int, eras: Sequence[Era], settled: Settled
) -> Slice | None:
    """The oldest rows of a tier that ended by `until`, up to whole minutes or hours if possible; None if none is due. The last unmerged row
    stays, because the chain continues from it."""
    t = INTERVALS.c
    after = rolled_to(connection, tier)[0]
    # merged rows end where unmerged ones begin, so later rows need not be searched
    mine = t.tier.is_(None) if tier == 0 else and_(t.tier == tier, t.id <= rolled_to(connection, tier - 1)[0])
    query = select(INTERVALS).where(and_(t.id > after, mine)).order_by(t.id).limit(most + 1)
    names = INTERVALS.columns.keys()
    page = [dict(zip(names, row, strict=True)) for row in connection.execute(query)]
    more = len(page) > most
    until_us, bucket_us = micros(until), BUCKET_US[tier + 1]
    due = next((n for n, row in enumerate(page) if row["end_us"] > until_us), len(page))
    if not more or due < len(page):
        full = False
        cut = _whole(page[:due], until_us // bucket_us * bucket_us)
    else:
        full = True
        last_us = max(row["start_us"] for row in page)
        cut = _whole(page[:-1], last_us // bucket_us * bucket_us) or len(page) - 1
    if tier == 0 and not full:
        cut = min(cut, len(page) - 1)
    if cut < 1:
        return None
    rows = page[:cut]
    span = min(row["start_us"] for row in rows), max(row["end_us"] for row in rows)
    limits = Limits(
        edges=sorted({*_inside(settled.edges(), span), *_events(connection, rows, span)}),
        eras=tuple(era.after for era in eras),
        kept=late_energy.replaced(connection),
    )
    return Slice(tier, tuple(rows), tuple(merged(rows, tier + 1, limits)))


def _inside(edges: Sequence[int], span: tuple[int, int]) -> Sequence[int]:
    """Ascending times inside a stretch."""
    return edges[bisect_left(edges, span[0]) : bisect_right(edges, span[1])]


def _events(connection: Connection, rows: Sequence[Mapping[str, Any]], span: tuple[int, int]) -> set[int]:
    """Times in a stretch at which an attempt of a job with rows in it began or ended, or its state or clock changed: reports distinguish
    the two sides."""
    s, j = SEGMENTS.c, JOURNAL.c
    jobs = sorted({row["job_id"] for row in rows if row["job_id"] is not None})
    if not jobs:
        return set()
    found = set[int]()
    for column in (s.start_us, s.end_us):
        mine = and_(s.job_id.in_(jobs), column.between(*span))
        found.update(connection.execute(select(column).where(mine)).scalars())
    changes = and_(j.job_id.in_(jobs), j.kind.in_(("state", "clocks")), j.at_us.between(*span))
    return found | set(connection.execute(select(j.at_us).where(changes)).scalars())


def _whole(rows: Sequence[Mapping[str, Any]], edge_us: int) -> int:
    """How many, from the first, begin before a time."""
    return next((n for n, row in enumerate(rows) if row["start_us"] >= edge_us), len(rows))


def rolled_to(connection: Connection, tier: int) -> tuple[int, str]:
    """(last row of a tier that was merged, its hash)."""
    t = ROLLUPS.c
    query = select(t.through_id, t.through_hash).where(t.tier == tier).order_by(t.through_id.desc()).limit(1)
    found = connection.execute(query).first()
    return (0, GENESIS) if found is None else (found[0], found[1])


def tier_end(connection: Connection, tier: int) -> str:
    """The hash at the end of a tier's chain of merged rows, by the last roll-up into it."""
    t = ROLLUPS.c
    query = select(t.merged_hash).where(t.tier == tier - 1).order_by(t.through_id.desc()).limit(1)
    found = connection.execute(query).scalar()
    return GENESIS if found is None else str(found)


def archived(connection: Connection, name: str) -> int:
    """Bytes of an archive's file that the ledger knows of; a file only grows."""
    t = ROLLUPS.c
    query = select(t.archive_bytes).where(t.archive == name).order_by(t.id.desc()).limit(1)
    return int(connection.execute(query).scalar() or 0)


def record(connection: Connection, slice_: Slice, archive: str | None, size: int | None) -> dict[str, Any]:
    """Replace the rows by the merged ones; returns the journal entry. Call inside a transaction."""
    through_id, through_hash = slice_.through
    head = chain(slice_.merged, tier_end(connection, slice_.tier + 1))
    said = {
        "tier": slice_.tier,
        "through_id": through_id,
        "through_hash": through_hash,
        "rows": len(slice_.rows),
        "energy_mj": sum(row["energy_mj"] or 0 for row in slice_.merged),
        "grams": float(sum(row["grams"] or 0.0 for row in slice_.merged)),
        "merged_rows": len(slice_.merged),
        "merged_hash": head,
        "archive": archive,
        "archive_bytes": size,
    }
    number = connection.execute(select(func.coalesce(func.max(ROLLUPS.c.id), 0))).scalar_one() + 1
    connection.execute(insert(ROLLUPS), said | {"id": number})
    t = INTERVALS.c
    mine = t.tier.is_(None) if slice_.tier == 0 else t.tier == slice_.tier
    connection.execute(delete(INTERVALS).where(and_(t.id.between(slice_.rows[0]["id"], through_id), mine)))
    insert_rows(connection, slice_.merged)
    return said


TIERS: Final = (MINUTE, HOUR)
