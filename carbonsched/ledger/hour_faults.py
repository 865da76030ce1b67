"""Compares the cached sums of hours with the rows, and names the first wrong one."""

import math
from collections.abc import Callable, Mapping
from typing import Any, Final

from sqlalchemy import Connection, func, select

from carbonsched.ledger.hour_totals import Books, sums_of
from carbonsched.ledger.hours import HOUR_US, HourSums
from carbonsched.ledger.rows import stamp
from carbonsched.ledger.tables import HOURS, INTERVALS

_AGREE: Final = 1e-9
HINT: Final = "carbonsched audit add-up makes them anew from the rows"


def hours_fault(
    connection: Connection,
    books: Books,
    after: int = 0,
    behind_us: int = 0,
    came: Callable[[int], None] = lambda _hour_us: None,
) -> str | None:
    """The first hour whose sums differ from its rows, in words. after: only hours with rows after this one. behind_us: only hours after
    this one. came: called for each hour that is right."""
    t = HOURS.c
    query = select(t.hour_us, t.rows, t.energy_mj, t.end_us, t.sums).order_by(t.hour_us)
    query = query.where(t.hour_us > behind_us)
    if after:
        i = INTERVALS.c
        first = connection.execute(
            select(func.min(i.start_us)).where(i.id > after).with_hint(INTERVALS, "NOT INDEXED", "sqlite")
        ).scalar()
        if first is None:
            return None
        query = query.where(t.hour_us > first - HOUR_US)
    for hour_us, *said in connection.execute(query).all():
        problem = _problem(hour_us, said, sums_of(connection, books, hour_us))
        if problem:
            return f"the totals of the hour from {stamp(hour_us)} {problem}; {HINT}"
        came(hour_us)
    return None


def _problem(hour_us: int, said: list[Any], want: HourSums) -> str | None:
    *counts, text = said
    try:
        have = HourSums.of(text, hour_us)
    except (ValueError, TypeError, KeyError, IndexError) as e:
        return f"cannot be read: {e}"
    if counts != [want.rows, want.energy_mj, want.end_us]:
        return f"say {counts[0]} rows and {counts[1]} mJ, its rows are {want.rows} and come to {want.energy_mj} mJ"
    mine, theirs = _by_key(have), _by_key(want)
    for key in mine.keys() | theirs.keys():
        off = _differs(mine.get(key), theirs.get(key))
        if off:
            board, _, job = key[:3]
            return f"are wrong on board {board}, {f'job {job}' if job else 'no job'}: {off}"
    for name, a, b in (
        ("gaps and cover", have.runs, want.runs),
        ("intensities", have.steps, want.steps),
    ):
        if not _same(_listed(a), _listed(b)):
            return f"tell other {name} than its rows"
    return None


def _by_key(sums: HourSums) -> dict[tuple[Any, ...], Mapping[str, Any]]:
    return {
        cell.key: {
            name: getattr(cell, name)
            for name in cell.__slots__
            if name not in ("board", "account", "job_id", "segment", "method", "alike")
        }
        for cell in sums.cells
    }


def _differs(have: Mapping[str, Any] | None, want: Mapping[str, Any] | None) -> str | None:
    if have is None or want is None:
        return "its rows are not in them" if have is None else "they have rows that are not there"
    for name, value in want.items():
        if not _same(have[name], value):
            return f"{name} is {have[name]!r} where its rows come to {value!r}"
    return None


def _listed(parts: list[Any]) -> list[list[Any]]:
    found = [[getattr(part, name) for name in part.__slots__] for part in parts]
    return sorted(found, key=repr)


def _same(a: Any, b: Any) -> bool:
    if isinstance(a, float) or isinstance(b, float):
        numbers = isinstance(a, float | int) and isinstance(b, float | int)
        return numbers and math.isclose(a, b, rel_tol=_AGREE, abs_tol=1e-12)
    if isinstance(a, dict) and isinstance(b, dict):
        return a.keys() == b.keys() and all(_same(a[key], b[key]) for key in a)
    if isinstance(a, list | tuple) and isinstance(b, list | tuple):
        return len(a) == len(b) and all(_same(x, y) for x, y in zip(a, b, strict=True))
    return bool(a == b)
