"""A forger: edits a ledger's file behind carbonsched's back, and makes every number and hash of both chains anew if asked to."""

import json
import sqlite3
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from carbonsched.ledger.rows import GENESIS, canonical, chained, expected_grams

Rows = list[dict[str, Any]]


def unguarded(path: Path) -> sqlite3.Connection:
    """The database without the triggers that refuse changes."""
    raw = sqlite3.connect(path)
    raw.row_factory = sqlite3.Row
    raw.execute("CREATE TEMP TABLE guards AS SELECT sql FROM sqlite_master WHERE type = 'trigger'")
    names = [name for (name,) in raw.execute("SELECT name FROM sqlite_master WHERE type = 'trigger'")]
    for name in names:
        raw.execute(f"DROP TRIGGER {name}")
    return raw


def _close(raw: sqlite3.Connection) -> None:
    """As a careful forger leaves it: with the triggers."""
    for (sql,) in raw.execute("SELECT sql FROM guards").fetchall():
        raw.execute(sql)
    raw.commit()
    raw.close()


def execute(path: Path, *statements: str) -> None:
    raw = unguarded(path)
    for statement in statements:
        raw.execute(statement)
    _close(raw)


def unchanged(rows: Rows) -> None:
    """No edit."""


def remake(
    path: Path,
    edit: Callable[[Rows], object] = unchanged,
    edit_journal: Callable[[Rows], object] = unchanged,
    *,
    journal: bool = True,
    heartbeats: bool = True,
) -> None:
    """Edit rows and make the chains anew from the beginning; `heartbeats`: with what the new rows come to."""
    raw = unguarded(path)
    rows = [dict(row) for row in raw.execute("SELECT * FROM intervals ORDER BY id")]
    edit(rows)
    last = GENESIS
    for n, row in enumerate(rows, start=1):
        row |= {"id": n, "prev_hash": last, "grams": expected_grams(row)}
        last = row["hash"] = chained(last, canonical(row))
    _replace(raw, "intervals", rows)
    if journal:
        entries = [dict(row) for row in raw.execute("SELECT * FROM journal ORDER BY id")]
        edit_journal(entries)
        last = GENESIS
        for n, entry in enumerate(entries, start=1):
            seen = min(entry["interval_id"], len(rows))
            entry |= {
                "id": n,
                "interval_id": seen,
                "interval_hash": rows[seen - 1]["hash"] if seen else GENESIS,
                "prev_hash": last,
            }
            if heartbeats and entry["kind"] == "heartbeat":
                entry["detail"] = _counted(json.loads(entry["detail"]), rows)
            last = entry["hash"] = chained(last, canonical(entry))
        _replace(raw, "journal", entries)
    _close(raw)


def _counted(detail: dict[str, Any], rows: Rows) -> str:
    mine = rows[: min(detail["rows"], len(rows))]
    sums = {
        "rows": len(mine),
        "energy_mj": sum(row["energy_mj"] or 0 for row in mine),
        "grams": sum(row["grams"] or 0.0 for row in mine),
    }
    return json.dumps(detail | sums, sort_keys=True, separators=(",", ":"))


def append_copy(path: Path, row_id: int, **changes: Any) -> None:
    """Put a row behind the last one once more, with a number and hashes that are right."""
    raw = unguarded(path)
    row = dict(raw.execute("SELECT * FROM intervals WHERE id = ?", (row_id,)).fetchone()) | changes
    last_id, last = raw.execute("SELECT id, hash FROM intervals ORDER BY id DESC LIMIT 1").fetchone()
    row |= {"id": last_id + 1, "prev_hash": last}
    row["hash"] = chained(last, canonical(row))
    _insert(raw, "intervals", [row])
    _close(raw)


def _replace(raw: sqlite3.Connection, table: str, rows: Sequence[dict[str, Any]]) -> None:
    raw.execute(f"DELETE FROM {table}")  # noqa: S608
    _insert(raw, table, rows)


def _insert(raw: sqlite3.Connection, table: str, rows: Sequence[dict[str, Any]]) -> None:
    for row in rows:
        marks = ", ".join("?" * len(row))
        raw.execute(f"INSERT INTO {table} ({', '.join(row)}) VALUES ({marks})", list(row.values()))  # noqa: S608
