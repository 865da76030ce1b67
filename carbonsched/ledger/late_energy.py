"""Spreads energy that a counter reported late over the rows whose energy was unknown, as new rows that name the old ones.

Rows never change. After a failure, a counter's next value tells how much energy was used meanwhile, but not when: it is spread over time
and labelled `estimated`. Each new row has the owner, segment, intensity, price and PUE of the row that it replaces, so every slice is
charged to whoever ran then, at that time's intensity. A replaced row no longer counts.
"""

from collections.abc import Mapping, Sequence
from itertools import groupby
from typing import Any, Final

from sqlalchemy import Connection, and_, select

from carbonsched.ledger.rows import derived, micros
from carbonsched.ledger.tables import INTERVALS
from carbonsched.model.energy import EnergyDelta, EnergyMethod
from carbonsched.units import MJ_PER_J, split_mj

_OWN: Final = ("id", "prev_hash", "hash")
_SAME: Final = (
    *("board", "start_us", "end_us", "account", "job_id", "segment", "rho", "pue"),
    *("g_per_kwh", "provider", "zone", "basis", "kind"),
)
"""Columns that a new row copies from the one it replaces."""


def replaced(connection: Connection) -> frozenset[int]:
    """The rows that were replaced and no longer count."""
    named = INTERVALS.c.replaces
    return frozenset(connection.execute(select(named).where(named.is_not(None))).scalars())


def unknown_rows(connection: Connection, delta: EnergyDelta) -> list[Mapping[str, Any]]:
    """The rows of unknown energy in a delta's time, ascending, without those already replaced."""
    t, other = INTERVALS.c, INTERVALS.alias()
    here = and_(
        t.board == delta.device,
        t.energy_mj.is_(None),
        t.start_us >= micros(delta.start),
        t.end_us <= micros(delta.end),
        t.end_us > t.start_us,
        t.id.not_in(select(other.c.replaces).where(other.c.replaces.is_not(None))),
    )
    found = connection.execute(select(INTERVALS).where(here).order_by(t.start_us, t.id)).mappings()
    return [dict(row) for row in found]


def spread(delta: EnergyDelta, rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The new rows for `rows` (not empty): every millijoule of `delta`, spread by time; jobs that shared a time get equal parts."""
    assert delta.energy_mj is not None and delta.counter_start_mj is not None  # noqa: S101, PT018
    shares = [
        (row["end_us"] - row["start_us"]) / len(together)
        for together in (list(group) for _, group in groupby(rows, key=lambda row: row["start_us"]))
        for row in together
    ]
    found: list[dict[str, Any]] = []
    mark = delta.counter_start_mj
    for row, energy_mj in zip(rows, split_mj(delta.energy_mj, shares), strict=True):
        seconds = (row["end_us"] - row["start_us"]) / 1e6
        new = {name: value for name, value in row.items() if name not in _OWN} | {
            "energy_mj": energy_mj,
            "power_w": energy_mj / MJ_PER_J / seconds,
            "method": str(EnergyMethod.ESTIMATED),
            "counter_epoch": delta.counter_epoch,
            "counter_start_mj": mark,
            "counter_end_mj": mark + energy_mj,
            "coverage": delta.coverage,
            "reason": _reason(delta, row),
            "replaces": row["id"],
        }
        mark += energy_mj
        found.append(new | {name: value for name, value, _ in derived(new)})
    return found


def replacement_problem(connection: Connection, row: Mapping[str, Any]) -> str | None:
    """What is wrong with the row that this one replaces, in words. It must have been of unknown energy, since a replaced row no longer counts."""
    number = row["replaces"]
    if number is None:
        return None
    t = INTERVALS.c
    old = connection.execute(select(INTERVALS).where(t.id == number)).mappings().first()
    if old is None or old["energy_mj"] is not None:
        return f"it replaces row {number}, whose energy is known"
    if any(old[name] != row[name] for name in _SAME):
        return f"it replaces row {number}, which is of another time or owner"
    others = select(t.id).where(t.replaces == number, t.id != row["id"]).limit(1)
    other = connection.execute(others).scalar()
    return None if other is None else f"it replaces row {number}, as row {other} does"


def _reason(delta: EnergyDelta, row: Mapping[str, Any]) -> str:
    """The reason, with the old row's reason, which says how the time was shared."""
    how = str(row["reason"] or "").partition("; ")[2]
    return f"{delta.reason}; {how}" if how else str(delta.reason)
