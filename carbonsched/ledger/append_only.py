"""Checks that a database still has the ledger's tables, and the triggers that refuse changes to written rows."""

from typing import Final

from sqlalchemy import Connection, inspect

from carbonsched.ledger.tables import METADATA

_SQLITE: Final = tuple(
    f"{table}_no_{verb}" for table in ("intervals", "journal", "rollups") for verb in ("delete", "update")
)
_POSTGRES: Final = (
    "intervals_append_only",
    "intervals_no_delete",
    "journal_append_only",
    "rollups_append_only",
)


def missing_table(connection: Connection) -> str | None:
    """Which table is missing, in words; None: all are there."""
    have = set(inspect(connection).get_table_names())
    gone = sorted(set(METADATA.tables) - have)
    return f"the table {gone[0]} is missing: restore the ledger from a backup" if gone else None


def missing_trigger(connection: Connection) -> str | None:
    """Which trigger is missing or disabled, in words; None: all work."""
    if connection.dialect.name == "sqlite":
        query = (
            "SELECT name FROM sqlite_master WHERE type = 'trigger' AND sql LIKE '%RAISE(ABORT%append-only%'"
        )
        wanted = _SQLITE
    else:
        query = (
            "SELECT tgname FROM pg_trigger t JOIN pg_class c ON c.oid = t.tgrelid "
            "WHERE c.relnamespace = current_schema()::regnamespace AND t.tgenabled <> 'D'"
        )
        wanted = _POSTGRES
    have = {name for (name,) in connection.exec_driver_sql(query)}
    gone = [name for name in wanted if name not in have]
    return f"the trigger {gone[0]}, which refuses changes, is missing: somebody removed it" if gone else None
