"""An auditor with the file alone: every edit made behind the ledger's back is found and named."""

import hashlib
import re
import sqlite3
from pathlib import Path

import pytest
from support.job_history import T0, harm, interval, written

from carbonsched.ledger import Ledger
from carbonsched.ledger.rows import GENESIS, canonical


def tampered(path: Path, *statements: str) -> tuple[int | None, str]:
    raw = sqlite3.connect(path)
    names = [name for (name,) in raw.execute("SELECT name FROM sqlite_master WHERE type = 'trigger'")]
    assert names
    for statement in (*(f"DROP TRIGGER {name}" for name in names), *statements):
        raw.execute(statement)
    raw.commit()
    raw.close()
    with Ledger.open(f"sqlite:///{path}") as ledger:
        result = ledger.verify()
    assert not result.ok
    assert result.problem is not None
    return result.first_bad, result.problem


@pytest.mark.parametrize(
    "edit",
    [
        "energy_mj = energy_mj - 1",
        "note = 'x'",
        "end_us = end_us + 1",
        "method = 'estimated'",
        "segment = NULL",
    ],
)
def test_one_changed_field_is_found_in_its_row(tmp_path: Path, edit: str) -> None:
    bad, problem = tampered(written(tmp_path), f"UPDATE intervals SET {edit} WHERE id = 7")  # noqa: S608
    assert (bad, problem) == (7, "row 7 was changed after it was written: its hash does not match its fields")


def test_a_row_taken_out_of_the_middle_is_missed(tmp_path: Path) -> None:
    assert tampered(written(tmp_path), "DELETE FROM intervals WHERE id = 4") == (4, "row 4 is missing")


def test_rows_cut_off_the_end_are_missed_by_the_journal(tmp_path: Path) -> None:
    bad, problem = tampered(written(tmp_path), "DELETE FROM intervals WHERE id > 9")
    assert (bad, problem) == (10, "rows 10 to 12 are missing: the journal saw them")


def test_a_chain_rewritten_with_fresh_hashes_is_not_the_one_the_journal_saw(tmp_path: Path) -> None:
    path = written(tmp_path)
    with Ledger.open(f"sqlite:///{path}") as ledger:
        rows = [dict(row) for row in ledger.rows()]
    prev_hash, statements = GENESIS, []
    for row in rows:
        if row["id"] == 5:
            row["energy_mj"], row["grams"] = 0, 0.0
        row["prev_hash"] = prev_hash
        prev_hash = hashlib.sha256((prev_hash + canonical(row)).encode()).hexdigest()
        statements.append(
            f"UPDATE intervals SET energy_mj = {row['energy_mj']}, grams = {row['grams']!r}, "  # noqa: S608
            f"prev_hash = '{row['prev_hash']}', hash = '{prev_hash}' WHERE id = {row['id']}"
        )
    bad, problem = tampered(path, *statements)
    assert bad == 12
    assert "not the one the journal saw" in problem


def test_grams_that_do_not_follow_are_found_even_under_a_good_hash(tmp_path: Path) -> None:
    path = written(tmp_path, rows=3)
    with Ledger.open(f"sqlite:///{path}") as ledger:
        row = dict(list(ledger.rows())[-1]) | {"grams": 1e-9}
    fresh = hashlib.sha256((row["prev_hash"] + canonical(row)).encode()).hexdigest()
    bad, problem = tampered(path, f"UPDATE intervals SET grams = 1e-9, hash = '{fresh}' WHERE id = 3")  # noqa: S608
    assert bad == 3
    assert "energy × PUE × intensity gives" in problem


@pytest.mark.parametrize(
    ("statement", "said"),
    [
        ("UPDATE journal SET actor = 'somebody' WHERE id = 2", "journal entry 2 was changed"),
        ("DELETE FROM journal WHERE id = 1", "journal entry 1 is missing"),
        ("UPDATE jobs SET state = 'finished'", "state is finished, the journal said running"),
        ("UPDATE jobs SET budget_g = 1e6", "budget_g is 1000000.0, the journal said 120.0"),
        ("UPDATE jobs SET submitted = replace(submitted, 'ada', 'bob')", "the journal said"),
        (
            "UPDATE segments SET done = replace(done, '0.5', '0.9')",
            "segment 0, attempt 0, is not as the journal",
        ),
        ("DELETE FROM segments", "segment 0, attempt 0, is not as the journal"),
    ],
)
def test_decisions_cannot_be_rewritten_either(tmp_path: Path, statement: str, said: str) -> None:
    bad, problem = tampered(written(tmp_path), statement)
    assert bad is None, "no interval is wrong"
    assert said in problem


def test_the_heads_are_the_last_hashes_of_both_chains(tmp_path: Path) -> None:
    path = written(tmp_path)
    with Ledger.open(f"sqlite:///{path}") as ledger:
        heads, last = ledger.verify().heads, list(ledger.rows())[-1]["hash"]
    (journal,) = sqlite3.connect(path).execute("SELECT hash FROM journal ORDER BY id DESC LIMIT 1").fetchone()
    assert (heads.intervals, heads.journal) == (last, journal)
    with Ledger.open("sqlite://") as empty:
        assert empty.verify().heads.intervals == GENESIS


@pytest.mark.parametrize("table", ["intervals", "journal", "jobs", "segments", "offsets"])
def test_a_damaged_page_is_named(tmp_path: Path, table: str) -> None:
    path = written(tmp_path)
    page = harm(path, table)
    with Ledger.open(f"sqlite:///{path}", read_only=True) as ledger:
        result = ledger.verify()
    assert (result.ok, result.first_bad) == (False, None)
    assert re.search(
        rf"database file is damaged: .*age {page}\b.*; restore it from a backup", result.problem or ""
    )
    assert (result.heads.intervals, result.heads.journal) == (None, None), "unknown, not the first"
    assert result.rows in (None, 12)


@pytest.mark.parametrize(
    ("statement", "said"),
    [
        ("DROP TRIGGER intervals_no_delete", "trigger intervals_no_delete"),
        ("DROP TRIGGER rollups_no_update", "trigger rollups_no_update"),
        ("DROP TABLE offsets", "table offsets is missing"),
        ("DROP TABLE rollups", "table rollups is missing"),
    ],
)
def test_a_table_or_trigger_that_is_gone_is_told(statement: str, said: str) -> None:
    with Ledger.open("sqlite://") as ledger:
        ledger.append([interval(T0, 10, 500)])
        with ledger.transaction() as connection:
            connection.exec_driver_sql(statement)
        result = ledger.verify()
        assert not result.ok
        assert said in (result.problem or "")
