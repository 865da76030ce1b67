"""Walks the merged rows: each tier is a chain of its own, whose first part may have been merged again.

Together the tiers must cover every row up to the first unmerged one, end where the last roll-up left them, and agree with the sums in the
roll-ups. The roll-ups must be those in the journal.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from sqlalchemy import Connection, select

from carbonsched.ledger.rollup import TIERS, rolled_to
from carbonsched.ledger.rows import canonical, chained
from carbonsched.ledger.tables import ROLLUPS

PAGE: Final = 1000
_AGREE: Final = 1e-9

Row = Mapping[str, Any]


@dataclass(slots=True)
class TierWalk:
    """The state of the walk over merged rows.

    Example:
        >>> TierWalk().last
        0
    """

    ends: dict[int, str] = field(default_factory=dict)
    """By tier: the hash reached; empty: nothing was walked yet."""
    stands: int = 0
    energy_mj: int = 0
    grams: float = 0.0
    last: int = 0


def rolled_links(
    pages: Iterator[tuple[Row, str | None]], connection: Connection, walk: TierWalk
) -> Iterator[tuple[Row, str | None]]:
    """Yield the merged rows, by number, each with the fault of its link; stops at the first fault."""
    through, _ = rolled_to(connection, 0)
    walk.ends = walk.ends or {tier: rolled_to(connection, tier)[1] for tier in TIERS}
    for row, unread in pages:
        if row["id"] > through:
            break
        problem = unread or _link_problem(row, walk.ends)
        if problem is None:
            walk.ends[row["tier"]] = row["hash"]
            walk.stands += row["rows"]
            walk.energy_mj += row["energy_mj"] or 0
            walk.grams += row["grams"] or 0.0
            walk.last = row["id"]
        yield row, problem
        if problem:
            return
    if said := _whole_problem(connection, walk.ends, (walk.last, walk.stands, walk.energy_mj, walk.grams)):
        yield {"id": min(walk.last + 1, through)}, said


def _link_problem(row: Row, ends: Mapping[int, str]) -> str | None:
    tier = row["tier"]
    if tier not in ends or not isinstance(row["rows"], int) or isinstance(row["rows"], bool):
        return f"row {row['id']} was merged, by what the journal says, and stands for no others"
    if row["prev_hash"] != ends[tier]:
        return f"row {row['id']} does not follow the one before in its tier: one is missing, or the hash it names is another"
    try:
        text = canonical(row)
    except (ArithmeticError, TypeError, ValueError) as e:
        return f"row {row['id']} was changed after it was written: it holds what no row can hold ({e})"
    if row["hash"] != chained(row["prev_hash"], text):
        return f"row {row['id']} was changed after it was written: its hash does not match its fields"
    return None


def _whole_problem(
    connection: Connection, ends: Mapping[int, str], found: tuple[int, int, int, float]
) -> str | None:
    """What is wrong with all merged rows together."""
    last, stands, energy, grams = found
    t = ROLLUPS.c
    rolled = connection.execute(select(ROLLUPS).order_by(t.id)).mappings().all()
    through = max((one["through_id"] for one in rolled if one["tier"] == 0), default=0)
    if last != through or stands != through:
        return f"merged rows are missing: they stand for {stands} rows up to row {last}, of {through} that were merged"
    for tier in TIERS:
        head = next((one["merged_hash"] for one in reversed(rolled) if one["tier"] == tier - 1), None)
        if head is not None and head != ends[tier]:
            return f"the merged rows of tier {tier} do not end where the last roll-up left them"
    said_mj = sum(one["energy_mj"] for one in rolled if one["tier"] == 0)
    said_g = math.fsum(one["grams"] for one in rolled if one["tier"] == 0)
    if said_mj != energy or not math.isclose(said_g, grams, rel_tol=_AGREE, abs_tol=1e-9):
        return f"the merged rows come to {energy} mJ and {grams!r} g, the roll-ups said {said_mj} mJ and {said_g!r} g"
    return None


def rollups_problem(connection: Connection, told: Sequence[Mapping[str, Any]]) -> str | None:
    """What differs between the table of roll-ups and the journal."""
    found = [dict(row) for row in connection.execute(select(ROLLUPS).order_by(ROLLUPS.c.id)).mappings()]
    for number, (row, said) in enumerate(zip(found, told, strict=False), start=1):
        if row != {**said, "id": number}:
            return f"roll-up {number} is not as the journal told of it"
    if len(found) != len(told):
        return f"there are {len(found)} roll-ups, the journal tells of {len(told)}"
    return None
