"""Recomputes merged rows from the archive: the hash of every original row, and the merged row that stands for it.

A month without a file is skipped: its original rows are gone, and the merged rows' chain links what remains. The walk can resume after any
slice, because the rows of a slice can be read from its file without those before it.
"""

import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from operator import itemgetter
from pathlib import Path
from typing import Any, Final

from sqlalchemy import Connection, false, select
from sqlalchemy.exc import NoResultFound

from carbonsched.ledger.archives import Archive, row_of
from carbonsched.ledger.checkpoint import Checkpoint
from carbonsched.ledger.merging import ALIKE
from carbonsched.ledger.rows import GENESIS, chained
from carbonsched.ledger.tables import INTERVALS, ROLLUPS

_PAGE: Final = 1000

Row = Mapping[str, Any]


@dataclass(slots=True)
class _Sum:
    """The sums of the original rows of one merged row so far."""

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
    """The result of a walk over the archive.

    Example:
        >>> Recomputed().rows
        0
    """

    rows: int = 0
    """Archived rows whose hashes and sums are right."""
    gone: int = 0
    """Rows whose file no longer exists."""
    problem: str | None = None
    _open: dict[tuple[Any, ...], list[_Sum]] = field(default_factory=dict)
    _ahead: Row | None = None
    _begun: set[int] = field(default_factory=set)
    """Original rows of the merged row that is being read."""
    slices: int = 0
    """Slices that are done."""
    before: str = GENESIS
    """Hash of the last row that was read or skipped."""

    def state(self, folder: Path) -> dict[str, Any]:
        """The state between two slices, as JSON."""
        return {
            "folder": str(folder.resolve()),
            "slices": self.slices,
            "rows": self.rows,
            "gone": self.gone,
            "before": self.before,
            "ahead": None if self._ahead is None else self._ahead["first_id"],
            "begun": sorted(self._begun),
            "open": [
                [one.merged["id"], one.rows, one.energy_mj, one.end_us, one.last]
                for mine in self._open.values()
                for one in mine
            ],
        }

    @classmethod
    def of(cls, connection: Connection, state: Mapping[str, Any], folder: Path) -> "Recomputed":
        """Restore from `state`; if it is invalid or of another folder, begin at the first row."""
        t = INTERVALS.c
        try:
            if state["folder"] != str(folder.resolve()):
                return cls()
            found = cls(
                rows=state["rows"], gone=state["gone"], slices=state["slices"], before=state["before"]
            )
            found._begun = set(state["begun"])
            for number, *sums in state["open"]:
                merged = connection.execute(select(INTERVALS).where(t.id == number)).mappings().one()
                found._open.setdefault(_alike(merged), []).append(_Sum(dict(merged), *sums))
        except (KeyError, TypeError, ValueError, NoResultFound):
            return cls()
        return found


def recompute(connection: Connection, archive: Archive, steps: Checkpoint) -> Recomputed:
    """Recompute from the first merged row to the last, or to the first fault, with one line in memory at a time."""
    t, m = ROLLUPS.c, INTERVALS.c
    going = steps.archive or {}
    found = Recomputed.of(connection, going, archive.folder)
    slices = connection.execute(select(ROLLUPS).where(t.tier == 0).order_by(t.through_id)).mappings().all()
    query = select(INTERVALS).where(m.tier.is_not(None)).order_by(m.first_id)
    if found.slices:
        steps.report("archive", found.rows + found.gone)
        ahead = going["ahead"]
        query = query.where(m.first_id >= ahead if ahead is not None else false())
    with connection.execute(query.execution_options(yield_per=_PAGE)) as merged:
        walk = _ArchiveWalk(archive, slices, (dict(row) for row in merged.mappings()), found)
        walk.go(lambda rows: steps.came("archive", rows, archive=lambda: found.state(archive.folder)))
    return found


@dataclass(slots=True)
class _ArchiveWalk:
    """A walk over the merged slices and the rows that stand for them."""

    archive: Archive
    slices: Sequence[Any]
    stands: Iterator[dict[str, Any]]
    found: Recomputed
    _lines: tuple[str, Iterator[tuple[str, str]]] | None = None
    """(file, its remaining lines)."""
    _there: dict[str, bool] = field(default_factory=dict)

    def go(self, came: Callable[[int], None]) -> None:
        """Walk from the first slice that is not done; came: called with the number of rows of each."""
        for n in range(self.found.slices, len(self.slices)):
            one, found = self.slices[n], self.found
            if not self._has(one["archive"]):
                found.gone += one["rows"]
                found._open.clear()
            else:
                try:
                    found.problem = self._slice(n)
                except (OSError, EOFError, ValueError, KeyError, TypeError, zlib.error) as e:
                    found.problem = f"{one['archive']} of the archive is damaged: {e}"
            if found.problem:
                return
            found.slices, found.before = n + 1, one["through_hash"]
            came(one["rows"])

    def _has(self, name: str | None) -> bool:
        """Whether a month's file is there, with at least the bytes that the ledger knows of."""
        if name is None:
            return False
        if name not in self._there:
            size = max(one["archive_bytes"] for one in self.slices if one["archive"] == name)
            self._there[name] = self.archive.has(name, size)
        return self._there[name]

    def _slice(self, n: int) -> str | None:
        """The fault of a slice's rows, in words; None: there is none."""
        one, found, row = self.slices[n], self.found, dict[str, Any]()
        before = found.before
        lines = self._of_file(n)
        for _ in range(one["rows"]):
            line = next(lines, None)
            if line is None:
                raise ValueError("it ends too early")
            digest, text = line
            row = row_of(digest, text)
            if chained(before, text) != digest:
                return f"row {row['id']} of the archive was changed: its hash does not match its fields"
            before = digest
            if problem := _take(found, row, self.stands):
                return problem
            found.rows += 1
        if before != one["through_hash"]:
            return f"the archive's row {row['id']} is not the one that was merged"
        return None

    def _of_file(self, n: int) -> Iterator[tuple[str, str]]:
        """The lines of a slice; continues in the open file if the last slice ended in it."""
        name = self.slices[n]["archive"]
        if self._lines is None or self._lines[0] != name:
            earlier = (one["archive_bytes"] for one in reversed(self.slices[:n]) if one["archive"] == name)
            self._lines = name, self.archive.lines(name, next(earlier, 0))
        return self._lines[1]


_alike: Final = itemgetter(*ALIKE)


def _take(found: Recomputed, row: dict[str, Any], stands: Iterator[dict[str, Any]]) -> str | None:
    """Add an original row to the merged row that stands for it."""
    while found._ahead is None or found._ahead["first_id"] < row["id"]:
        if found._ahead is not None and not found.gone and found._ahead["id"] not in found._begun:
            return f"row {found._ahead['id']} stands for none of the archive"
        found._ahead = next(stands, None)
        if found._ahead is None:
            break
    key = _alike(row)
    mine = found._open.setdefault(key, [])
    if found._ahead is not None and found._ahead["first_id"] == row["id"]:
        sum_ = _Sum(found._ahead)
        if _alike(sum_.merged) != key or sum_.merged["start_us"] != row["start_us"]:
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
