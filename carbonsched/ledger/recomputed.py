"""Recomputes merged rows from the archive: every hash of the rows as they were written, and what stands for them.

A month whose file is not there is passed over: its rows are linked by the merged rows' chain, and gone themselves.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from typing import Any, Final

from sqlalchemy import Connection, select

from carbonsched.ledger.archives import Archive, row_of
from carbonsched.ledger.merging import ALIKE
from carbonsched.ledger.rows import GENESIS, chained
from carbonsched.ledger.tables import INTERVALS, ROLLUPS

_PAGE: Final = 1000

Row = Mapping[str, Any]


@dataclass(slots=True)
class _Sum:
    """What the rows that one stands for come to so far."""

    merged: Row
    rows: int = 0
    energy_mj: int | None = None
    end_us: int = 0
    last: str = ""

    def add(self, row: Row) -> None:
        self.rows += 1
        if row["energy_mj"] is not None:
            self.energy_mj = (self.energy_mj or 0) + row["energy_mj"]
        self.end_us, self.last = row["end_us"], row["hash"]

    def problem(self) -> str | None:
        said = tuple(self.merged[name] for name in ("rows", "energy_mj", "end_us", "last_hash"))
        if said == (self.rows, self.energy_mj, self.end_us, self.last):
            return None
        return f"row {self.merged['id']} does not come to what the archive's rows that it stands for do"


@dataclass(slots=True)
class Recomputed:
    """What a walk over the archive found.

    Example:
        >>> Recomputed().rows
        0
    """

    rows: int = 0
    """Of the archive, whose hashes and sums are right."""
    gone: int = 0
    """That are in no file any more."""
    problem: str | None = None
    _open: dict[tuple[Any, ...], list[_Sum]] = field(default_factory=dict)
    _ahead: Row | None = None
    _begun: set[int] = field(default_factory=set)
    """Rows that stand for others of which the first was read."""


def recompute(connection: Connection, archive: Archive) -> Recomputed:
    """From the first row that was merged to the last, a line in memory at a time; up to the first thing that is wrong."""
    found, t = Recomputed(), ROLLUPS.c
    slices = connection.execute(select(ROLLUPS).where(t.tier == 0).order_by(t.through_id)).mappings().all()
    m = INTERVALS.c
    query = select(INTERVALS).where(m.tier.is_not(None)).order_by(m.first_id)
    with connection.execute(query.execution_options(yield_per=_PAGE)) as merged:
        _walk(found, archive, slices, (dict(row) for row in merged.mappings()))
    return found


def _walk(
    found: Recomputed, archive: Archive, slices: Sequence[Any], stands: Iterator[dict[str, Any]]
) -> None:
    before = GENESIS
    for name, group in groupby(slices, key=lambda one: one["archive"]):
        of_file = list(group)
        if name is None or not archive.has(name, max(one["archive_bytes"] for one in of_file)):
            found.gone += sum(one["rows"] for one in of_file)
            found._open.clear()
        else:
            try:
                _file(found, archive.lines(name), of_file, stands, before)
            except (OSError, EOFError, ValueError, KeyError, TypeError) as e:
                found.problem = f"{name} of the archive is damaged: {e}"
        if found.problem:
            return
        before = of_file[-1]["through_hash"]


def _file(
    found: Recomputed,
    lines: Iterator[tuple[str, str]],
    slices: list[Any],
    stands: Iterator[dict[str, Any]],
    before: str,
) -> None:
    for one in slices:
        for _ in range(one["rows"]):
            line = next(lines, None)
            if line is None:
                raise ValueError("it ends too early")
            digest, text = line
            row = row_of(digest, text)
            if chained(before, text) != digest:
                found.problem = (
                    f"row {row['id']} of the archive was changed: its hash does not match its fields"
                )
                return
            before = digest
            found.problem = _take(found, row, stands)
            if found.problem:
                return
            found.rows += 1
        if before != one["through_hash"]:
            found.problem = f"the archive's row {row['id']} is not the one that was merged"
            return


def _take(found: Recomputed, row: dict[str, Any], stands: Iterator[dict[str, Any]]) -> str | None:
    """Add a row to the one that stands for it."""
    while found._ahead is None or found._ahead["first_id"] < row["id"]:
        if found._ahead is not None and not found.gone and found._ahead["id"] not in found._begun:
            return f"row {found._ahead['id']} stands for none of the archive"
        found._ahead = next(stands, None)
        if found._ahead is None:
            break
    key = tuple(row[name] for name in ALIKE)
    mine = found._open.setdefault(key, [])
    if found._ahead is not None and found._ahead["first_id"] == row["id"]:
        sum_ = _Sum(found._ahead)
        if tuple(sum_.merged[name] for name in ALIKE) != key or sum_.merged["start_us"] != row["start_us"]:
            return f"row {sum_.merged['id']} differs from row {row['id']} of the archive, the first that it stands for"
        mine.append(sum_)
        found._begun = {sum_.merged["id"]}
    else:
        after = (each for each in mine if each.end_us == row["start_us"] and row["id"] <= each.merged["id"])
        going = next(after, None)
        if going is None:
            return None if found.gone else f"no row stands for row {row['id']} of the archive"
        sum_ = going
    sum_.add(row)
    if row["id"] != sum_.merged["id"]:
        return None
    mine.remove(sum_)
    if not mine:
        del found._open[key]
    return sum_.problem()
