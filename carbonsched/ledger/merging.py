"""Merges consecutive rows that are alike into one per minute or hour, without changing any sum.

Rows are alike if they agree in every column but time, energy, counter and what follows from these: board, owner, segment, ρ, method,
reason, intensity with provenance, PUE, price. Rows that replace another one, or are replaced, are never merged. Rows are not merged across
a gap in time or counter, across the edge of a settlement, or across a change of the budget account.
"""

from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from operator import itemgetter
from typing import Any, Final

from carbonsched.ledger.rows import ROW_SCHEMA, canonical, chained, derived
from carbonsched.ledger.tables import INTERVALS
from carbonsched.units import MJ_PER_J

_OWN: Final = frozenset(
    (
        *(
            "id",
            "start_us",
            "end_us",
            "energy_mj",
            "power_w",
            "counter_start_mj",
            "counter_end_mj",
            "coverage",
        ),
        *("grams", "on_site_grams", "eur", "replaces", "schema", "tier", "rows", "first_id", "first_hash"),
        *("last_hash", "prev_hash", "hash"),
    )
)
ALIKE: Final = tuple(column.name for column in INTERVALS.columns if column.name not in _OWN)
"""Columns in which rows must be equal to be merged."""
_ALIKE: Final = itemgetter(*ALIKE)
MINUTE: Final = 1
HOUR: Final = 2
BUCKET_US: Final = {MINUTE: 60_000_000, HOUR: 3_600_000_000}
"""Tier of merged rows → microseconds of one."""

Row = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Limits:
    """Boundaries that rows are not merged across.

    Example:
        >>> Limits().place({"id": 7, "start_us": 0, "end_us": 10})
        ((0, 0), 0)
    """

    edges: Sequence[int] = ()
    """Ascending times at which a settlement begins or ends."""
    eras: Sequence[int] = ()
    """Rows, ascending, after which budgets are charged by another account."""
    kept: frozenset[int] = frozenset()
    """Rows that were replaced by others."""

    def place(self, row: Row) -> tuple[tuple[int, int], int]:
        first, last = bisect_right(self.edges, row["start_us"]), bisect_left(self.edges, row["end_us"])
        return (first, last), bisect_left(self.eras, row["id"])

    def alone(self, row: Row, place: tuple[tuple[int, int], int]) -> bool:
        (first, last), _ = place
        return row["replaces"] is not None or row["id"] in self.kept or last > first


@dataclass(slots=True)
class _Counters:
    """How far each counter is charged, and the number of its current unbroken stretch."""

    reach: dict[tuple[str, str], tuple[int, int]] = field(default_factory=dict)

    def stretch(self, row: Row) -> int | None:
        """Shares of one difference follow each other, whoever owns them."""
        start, end = row["counter_start_mj"], row["counter_end_mj"]
        if start is None or end is None or row["energy_mj"] is None:
            return None
        key = (row["board"], row["counter_epoch"])
        reach, number = self.reach.get(key, (start, 0))
        if start != reach or end - start != row["energy_mj"]:
            number += 1
        self.reach[key] = (end, number)
        return number


def merged(rows: Iterable[Row], tier: int, limits: Limits) -> list[dict[str, Any]]:
    """Merge the rows of a slice into rows of a tier, by number, without their own hashes."""
    bucket_us, counters = BUCKET_US[tier], _Counters()
    open_: dict[tuple[Any, ...], list[Row]] = {}
    found: list[list[Row]] = []
    for row in rows:
        stretch = counters.stretch(row)
        place = limits.place(row)
        if limits.alone(row, place):
            found.append([row])
            continue
        known = row["energy_mj"] is None, row["counter_start_mj"] is None, row["counter_end_mj"] is None
        key = (
            *_ALIKE(row),
            known,
            row["start_us"] // bucket_us,
            place,
            stretch,
        )
        group = open_.get(key)
        if group is None or group[-1]["end_us"] != row["start_us"]:
            group = open_[key] = []
            found.append(group)
        group.append(row)
    return sorted((_one(group, tier) for group in found), key=lambda row: int(row["id"]))


def _one(group: Sequence[Row], tier: int) -> dict[str, Any]:
    """The merged row. A single row keeps every figure it has."""
    first, last = group[0], group[-1]
    made = dict(first) | {
        "id": last["id"],
        "schema": ROW_SCHEMA,
        "tier": tier,
        "rows": sum(row["rows"] or 1 for row in group),
        "first_id": first["first_id"] or first["id"],
        "first_hash": first["first_hash"] or first["hash"],
        "last_hash": last["last_hash"] or last["hash"],
    }
    if len(group) == 1:
        return made
    span = last["end_us"] - first["start_us"]
    energy = None if first["energy_mj"] is None else sum(row["energy_mj"] for row in group)
    known = energy is not None and all(row["power_w"] is not None for row in group)
    made |= {
        "end_us": last["end_us"],
        "energy_mj": energy,
        "counter_end_mj": last["counter_end_mj"],
        "power_w": energy / MJ_PER_J / span * 1e6 if known and energy is not None and span else None,
        "coverage": weighted_coverage(group, span),
    }
    return made | {name: value for name, value, _ in derived(made)}


def weighted_coverage(group: Sequence[Row], span: int) -> float:
    """By time."""
    first: float = group[0]["coverage"]
    if not span or all(row["coverage"] == first for row in group):
        return first
    return float(sum(row["coverage"] * (row["end_us"] - row["start_us"]) for row in group) / span)


def chain(rows: Iterable[dict[str, Any]], before: str) -> str:
    """Compute the hashes of a tier's rows; returns the last one."""
    for row in rows:
        row["prev_hash"] = before
        row["hash"] = before = chained(before, canonical(row))
    return before
