"""Walks the two hash chains of a ledger, one page in memory at a time, and names the first wrong row and its fault.

A row must follow the previous one, have the hash of its content, hold values that its columns allow, and agree with its own grams and
euros. For intervals, each journal entry also states where their chain stood, and each heartbeat what they summed to.
"""

import json
import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Final, Self

from sqlalchemy import Boolean, Connection, Integer, Table, func, select, type_coerce
from sqlalchemy.exc import SQLAlchemyError

from carbonsched.ledger.late_energy import replacement_problem
from carbonsched.ledger.overlap import Overlaps
from carbonsched.ledger.rollup import ROLLED, rolled_to
from carbonsched.ledger.rows import GENESIS, canonical, chained, contradiction, figures_problem
from carbonsched.ledger.tables import INTERVALS, JOURNAL
from carbonsched.ledger.tiers import TierWalk, rolled_links

PAGE: Final = 1000
HEARTBEAT: Final = "heartbeat"
"""Kind of the journal's hourly entry."""
_SUMS_AGREE: Final = 1e-9

Row = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Fault:
    """A fault, and the row of the chain that has it.

    Example:
        >>> Fault(7, "row 7 is missing").row
        7
    """

    row: int | None
    what: str


@dataclass(slots=True)
class Sums:
    """Sums of the intervals up to some row.

    Example:
        >>> Sums(3, 600, 0.25).rows
        3
    """

    rows: int = 0
    energy_mj: int = 0
    grams: float = 0.0

    def add(self, row: Row) -> None:
        self.rows = row["id"]
        self.energy_mj += row["energy_mj"] or 0
        self.grams += row["grams"] or 0.0

    def take(self, said: Mapping[str, Any]) -> bool:
        """Continue from a heartbeat's figures; returns whether it has any."""
        energy, grams = said.get("energy_mj"), said.get("grams")
        if isinstance(energy, int) and isinstance(grams, float | int):
            self.energy_mj, self.grams = energy, float(grams)
            return True
        return False

    def differs(self, said: Mapping[str, Any]) -> str | None:
        """Which of a heartbeat's figures differs, in words."""
        if said.get("rows") != self.rows:
            return f"counted {said.get('rows')} rows where there are {self.rows}"
        if said.get("energy_mj") != self.energy_mj:
            return f"summed {said.get('energy_mj')} mJ where the rows come to {self.energy_mj} mJ"
        grams = said.get("grams")
        if not isinstance(grams, float | int) or not math.isclose(grams, self.grams, rel_tol=_SUMS_AGREE):
            return f"summed {grams} g where the rows come to {self.grams!r} g"
        return None


def links(
    connection: Connection, table: Table, noun: str, after: tuple[int, str] = (0, GENESIS)
) -> Iterator[tuple[Row, str | None]]:
    """Yield the rows of a chain in order, each with the fault of its link; stops at the first fault. after: (number, hash) of a row known
    to be right."""
    least = connection.execute(select(func.min(table.c.id))).scalar()
    if least is not None and least < 1:
        yield {"id": least}, f"{noun} {least} is none of the chain, whose numbers begin at 1"
        return
    expected_id, prev_hash = after[0] + 1, after[1]
    while True:
        page, unread = _page(connection, table, expected_id)
        for row in page:
            problem = _link_problem(row, noun, expected_id, prev_hash)
            yield row, problem
            if problem:
                return
            expected_id, prev_hash = row["id"] + 1, row["hash"]
        if unread:
            yield {"id": expected_id}, f"{noun} {expected_id} cannot be read: {unread}"
            return
        if len(page) < PAGE:
            return


def _link_problem(row: Row, noun: str, expected_id: int, prev_hash: str) -> str | None:
    if row["id"] != expected_id:
        return f"{noun} {expected_id} is missing"
    if row["prev_hash"] != prev_hash:
        return f"{noun} {row['id']} does not follow the one before: the hash it names is another"
    try:
        text = canonical(row)
    except (ArithmeticError, TypeError, ValueError) as e:
        return f"{noun} {row['id']} was changed after it was written: it holds what no row can hold ({e})"
    if row["hash"] != chained(prev_hash, text):
        return f"{noun} {row['id']} was changed after it was written: its hash does not match its fields"
    return None


@dataclass(slots=True)
class Walk:
    """The state of the walk over the intervals.

    Example:
        >>> Walk.of(Walk().state()) == Walk()
        True
    """

    after: tuple[int, str] = (0, GENESIS)
    """(number, hash) of the last row that is right."""
    sums: Sums = field(default_factory=Sums)
    overlaps: Overlaps = field(default_factory=Overlaps)
    overlap: Fault | None = None
    """The first time that was charged twice."""
    tiers: TierWalk = field(default_factory=TierWalk)

    def state(self) -> dict[str, Any]:
        """The state as JSON."""
        twice = None if self.overlap is None else [self.overlap.row, self.overlap.what]
        tiers = asdict(self.tiers) | {"ends": sorted(self.tiers.ends.items())}
        return {
            "after": list(self.after),
            "sums": asdict(self.sums),
            "overlaps": self.overlaps.state(),
            "overlap": twice,
            "tiers": tiers,
        }

    @classmethod
    def of(cls, state: Any) -> Self:
        """Restore from `state`. Raises KeyError, ValueError, TypeError or IndexError if it is invalid."""
        number, digest = state["after"]
        twice, tiers = state["overlap"], state["tiers"]
        return cls(
            (int(number), str(digest)),
            Sums(**state["sums"]),
            Overlaps.of(state["overlaps"]),
            None if twice is None else Fault(*twice),
            TierWalk(**{**tiers, "ends": dict(tiers["ends"])}),
        )


def interval_links(connection: Connection, walk: Walk) -> Iterator[tuple[Row, str | None]]:
    """As `links`; begins with the merged rows if the walk has not passed them."""
    through, after = rolled_to(connection, 0), walk.after
    if after[0] < through[0]:
        yield from rolled_links(_pages(connection, INTERVALS, after[0] + 1), connection, walk.tiers)
        after = through
    yield from links(connection, INTERVALS, "row", after)


def _pages(connection: Connection, table: Table, first: int) -> Iterator[tuple[Row, str | None]]:
    """Yield every row from `first` on, or why it cannot be read."""
    while True:
        page, unread = _page(connection, table, first)
        for row in page:
            yield row, None
            first = row["id"] + 1
        if unread:
            yield {"id": first}, f"row {first} cannot be read: {unread}"
        if unread or len(page) < PAGE:
            return


def _page(connection: Connection, table: Table, first: int) -> tuple[list[Row], str | None]:
    """(rows from `first` on, why the next one cannot be read)."""
    # truth values as stored: 2 would be read as true, and be grouped separately
    columns = [
        type_coerce(c, Integer).label(c.name) if isinstance(c.type, Boolean) else c for c in table.columns
    ]
    query = select(*columns).where(table.c.id >= first).order_by(table.c.id)
    try:
        names = table.columns.keys()
        return [dict(zip(names, row, strict=True)) for row in connection.execute(query.limit(PAGE))], None
    except SQLAlchemyError:
        pass
    found: list[Row] = []
    for row_id in range(first, first + PAGE):  # one of these rows is at fault
        try:
            one = connection.execute(query.where(table.c.id == row_id)).mappings().first()
        except SQLAlchemyError as e:
            return found, str(getattr(e, "orig", None) or e).splitlines()[0]
        if one is not None:
            found.append(dict(one))
    return found, None


def intervals_fault(
    connection: Connection,
    heartbeats: Mapping[int, Mapping[str, Any]],
    after: tuple[int, str] = (0, GENESIS),
    going: Walk | None = None,
    came: Callable[[Walk, int], None] = lambda _walk, _rows: None,
) -> tuple[Fault | None, Fault | None]:
    """Return (what is wrong with the chain, which rows charge the same time twice).

    heartbeats: last row that one counted → its figures. after: (number, hash) of a row known to be right; of the rows before it only the
    charged time is read. going: the state of an earlier walk from the first row. came: called every thousand rows.
    """
    through = rolled_to(connection, 0)[0]
    if after[0] < through:
        after = (0, GENESIS)
    walk = going or Walk(after, Sums(after[0]))
    anchors, sums = _Anchors(connection), walk.sums
    counts = going is not None or after[0] == 0
    """Otherwise the first heartbeat gives the sums of the rows before it."""
    for row in _tail(connection, after[0]):
        walk.overlaps.add(row)
    for number, (row, problem) in enumerate(interval_links(connection, walk), start=1):
        problem = problem or _row_problem(connection, row, anchors)
        if not problem:
            sums.add(row)
            # a merged row may extend beyond what a heartbeat counted
            beat = heartbeats.get(row["id"]) if row["id"] >= through else None
            if beat is not None and not counts:
                counts = sums.take(beat)
            elif beat is not None and (off := sums.differs(beat)):
                problem = f"row {row['id']}: the journal's heartbeat of that row {off}"
        if problem:
            return Fault(min(row["id"], sums.rows + 1), problem), walk.overlap
        if (twice := walk.overlaps.add(row)) and walk.overlap is None:
            walk.overlap = Fault(row["id"], twice)
        walk.after = row["id"], row["hash"]
        if number % PAGE == 0:
            came(walk, PAGE)
    if anchors.furthest > sums.rows:
        first = sums.rows + 1
        missing = f"rows {first} to {anchors.furthest} are missing: the journal saw them"
        return Fault(first, missing), walk.overlap
    return None, walk.overlap


def _row_problem(connection: Connection, row: Row, anchors: "_Anchors") -> str | None:
    """The fault of a row whose link is right."""
    if said := contradiction(row) or figures_problem(row) or replacement_problem(connection, row):
        return f"row {row['id']}: {said}"
    if not anchors.agree(row["id"], row["last_hash"] or row["hash"]):
        return f"row {row['id']} is not the one the journal saw when it was the last: rows were rewritten"
    return None


def _tail(connection: Connection, last: int) -> list[Row]:
    """The rows up to `last` whose time a later row might charge again."""
    if last == 0:
        return []
    t = INTERVALS.c
    keys = (t.id, t.board, t.job_id, t.start_us, t.end_us, t.energy_mj, t.reason)
    query = select(*keys).where(t.id <= last, t.id > last - PAGE).order_by(t.id)
    return [dict(row) for row in connection.execute(query).mappings()]


@dataclass(slots=True)
class JournalWalk:
    """What the journal states about jobs, segments and heartbeats, and its first fault.

    Example::

        walk = walk_journal(connection)
        print(walk.problem, len(walk.heartbeats))
    """

    problem: str | None = None
    told: dict[str, list[tuple[str, int, dict[str, Any]]]] = field(default_factory=dict)
    """Job → (kind, time, detail) of each entry that determines its row in the jobs table."""
    segments: list[tuple[str, dict[str, Any]]] = field(default_factory=list)
    rolled: list[dict[str, Any]] = field(default_factory=list)
    """What each roll-up stated."""
    heartbeats: dict[int, dict[str, Any]] = field(default_factory=dict)
    """Last row that a heartbeat counted → its figures."""


def walk_journal(connection: Connection) -> JournalWalk:
    """Walk up to the first faulty entry."""
    walk = JournalWalk()
    for entry, problem in links(connection, JOURNAL, "journal entry"):
        walk.problem = problem or _entry_problem(entry)
        if walk.problem:
            return walk
        kind, job_id = entry["kind"], entry["job_id"]
        if kind not in ("submitted", "state", "budget", "segment", HEARTBEAT, ROLLED):
            continue
        detail = json.loads(entry["detail"])
        if kind == HEARTBEAT:
            if isinstance(detail.get("rows"), int):
                walk.heartbeats[detail["rows"]] = detail
        elif kind == ROLLED:
            walk.rolled.append(detail)
        elif kind == "segment":
            walk.segments.append((job_id, detail))
        else:
            walk.told.setdefault(job_id, []).append((kind, entry["at_us"], detail))
    return walk


def _entry_problem(entry: Row) -> str | None:
    try:
        detail = json.loads(entry["detail"])
    except (TypeError, ValueError, RecursionError):
        detail = None
    return None if isinstance(detail, dict) else f"journal entry {entry['id']}: its detail is no JSON object"


class _Anchors:
    """Where the journal recorded the head of the interval chain; compared as the walk passes."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        furthest = connection.execute(select(func.max(JOURNAL.c.interval_id))).scalar()
        # a value that is no number is a fault of the journal, and is found there
        self.furthest: int = furthest if isinstance(furthest, int) else 0
        self._ahead: dict[int, set[str]] = {}
        self._read_to = 0

    def agree(self, row_id: int, row_hash: str) -> bool:
        if row_id > self._read_to:
            self._ahead = self._page(row_id)
        seen = self._ahead.pop(row_id, None)
        return seen is None or seen == {row_hash}

    def _page(self, first: int) -> dict[int, set[str]]:
        t = JOURNAL.c
        self._read_to = first + PAGE - 1
        query = select(t.interval_id, t.interval_hash).where(t.interval_id.between(first, self._read_to))
        found: dict[int, set[str]] = {}
        for row_id, row_hash in self._connection.execute(query.distinct()):
            found.setdefault(row_id, set()).add(row_hash)
        return found
