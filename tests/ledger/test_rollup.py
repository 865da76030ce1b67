"""Rows grow old and are merged: no sum changes, and what was done shows."""

import gzip
import hashlib
import json
import re
import subprocess
import sys
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from support.job_history import T0, interval, submitted

from carbonsched.errors import LedgerError
from carbonsched.ledger import Ledger, audit
from carbonsched.ledger.archives import Archive, row_of
from carbonsched.ledger.heads import Head
from carbonsched.ledger.rollup import Retention, RollUp
from carbonsched.ledger.rows import GENESIS
from carbonsched.model.energy import EnergyMethod, Interval
from carbonsched.report import build

DAYS_9 = T0 + timedelta(days=9)
DAYS_40 = T0 + timedelta(days=40)


def rows_of(count: int) -> Iterator[list[Interval]]:
    """10-s rows of a board that two jobs share, of one that is idle, blind for a while, and of the host."""
    for n in range(count):
        at = T0 + timedelta(seconds=10 * n)
        g = 200.0 + n // 90
        shared = "shared by time with another job"
        yield [
            interval(
                at, 10, 400 + n % 7, job_id="j", segment=n // 50, rho=0.6, counter=_before(n), g_per_kwh=g
            )
            if n % 40 < 20
            else interval(at, 10, 400 + n % 7, job_id="j", counter=_before(n), g_per_kwh=g, reason=shared),
            interval(at, 10, None if 70 <= n < 77 else 90 + n % 3, board="GPU-b", g_per_kwh=g),
            interval(
                at, 10, 50, board="host", g_per_kwh=None if 20 <= n < 25 else g, method=EnergyMethod.ESTIMATED
            ),
        ]


def _before(n: int) -> int:
    return sum(400 + m % 7 for m in range(n))


def told(ledger: Ledger, count: int) -> None:
    ledger.add_job(submitted("j"))
    ledger.append([row for together in rows_of(count) for row in together])
    ledger.heartbeat("daemon", T0 + timedelta(hours=2))


@pytest.fixture
def ledger() -> Iterator[Ledger]:
    with Ledger.open("sqlite://") as opened:
        told(opened, 200)
        yield opened


def roll(ledger: Ledger, folder: Path, at: Any, most: int = 2000) -> int:
    return RollUp(ledger, Retention(rows=most), Archive(folder)).work(at).rows


@pytest.mark.parametrize("most", [100, 2000])
def test_sums_and_reports_are_the_same_before_and_after(ledger: Ledger, tmp_path: Path, most: int) -> None:
    before, held = _figures(ledger), _held(ledger)
    for at, fewer in ((DAYS_9, 3), (DAYS_40, 10)):
        assert roll(ledger, tmp_path, at, most) > 0
        assert ledger.verify().model_dump(include={"ok", "problem", "rows"}) == {
            "ok": True,
            "problem": None,
            "rows": 600,
        }
        ledger._known.clear()  # as after a start
        assert _figures(ledger) == before
        assert _held(ledger) < held / fewer
    ledger.append([replace_start(one) for one in next(rows_of(1))])
    assert ledger.verify().ok


def replace_start(one: Interval) -> Interval:
    return interval(T0 + timedelta(days=41), 10, 7, board=one.delta.device)


def _held(ledger: Ledger) -> int:
    return len(list(ledger.rows()))


def _figures(ledger: Ledger) -> Any:
    """Two reports without their curves, which are as fine as the rows are, and the journal's head, in which a roll-up is told."""
    found = [build(ledger, job, now=DAYS_40).model_dump(exclude={"timeline"}) for job in (None, "j")]
    for report in found:
        del report["statement"]["sign_off"]
    return _near(found)


def _near(value: Any) -> Any:
    if isinstance(value, float):
        return pytest.approx(value, rel=1e-12, abs=1e-9)
    if isinstance(value, dict):
        return {key: _near(one) for key, one in value.items()}
    return [_near(one) for one in value] if isinstance(value, list | tuple) else value


def test_an_archive_has_the_rows_as_they_were_and_grows_by_what_is_committed(
    ledger: Ledger, tmp_path: Path
) -> None:
    raw = {row["id"]: dict(row) for row in ledger.rows()}
    archive = Archive(tmp_path)
    rolling = RollUp(ledger, Retention(rows=200), archive)
    rolling.work(DAYS_9, slices=1)
    path = tmp_path / "intervals-2026-11.tsv.gz"
    with path.open("ab") as file:  # by a daemon that died before it could let the rows go
        file.write(gzip.compress(b"0\tnothing\n"))
    rolling.work(DAYS_9)
    kept = [row_of(digest, text) for digest, text in archive.lines(path.name)]
    assert len(kept) > 500
    assert all(row | {"prev_hash": raw[row["id"]]["prev_hash"]} == raw[row["id"]] for row in kept)
    assert [row["id"] for row in kept] == list(range(1, len(kept) + 1))
    for at in (DAYS_9, DAYS_40):
        rolling.work(at)
        merged = ledger.verify(archive=archive).merged
        assert merged is not None
        assert (merged.recomputed, merged.gone) == (merged.rows, 0)
    said = {
        path.read_bytes()[:-300]: "is damaged",
        gzip.compress(
            gzip.decompress(path.read_bytes()).replace(b'"energy_mj":403', b'"energy_mj":404')
        ): "was changed",
        b"": None,
    }
    for content, problem in said.items():
        path.write_bytes(content.ljust(path.stat().st_size, b"\0") if content else b"")
        result = ledger.verify(archive=archive)
        assert result.ok == (problem is None), result.problem
        assert problem is None or problem in (result.problem or "")
    assert result.merged is not None
    assert (result.merged.recomputed, result.merged.gone) == (0, result.merged.rows), "linked, raw gone"


TAMPERINGS = {
    "DELETE FROM intervals WHERE id = (SELECT min(id) FROM intervals WHERE tier = 1)": "does not follow",
    "DELETE FROM intervals WHERE id = (SELECT max(id) FROM intervals WHERE tier = 1)": "merged rows are missing",
    "DELETE FROM intervals WHERE tier = 1": "merged rows are missing",
    "UPDATE intervals SET energy_mj = energy_mj / 2, grams = grams / 2 WHERE tier = 1": "was changed",
    "UPDATE intervals SET rows = 1 WHERE tier = 1": "was changed",
    "UPDATE intervals SET tier = NULL WHERE tier = 1": "stands for no others",
    "UPDATE intervals SET rows = NULL WHERE tier = 1": "stands for no others",
    "DELETE FROM rollups": "missing",
    "UPDATE rollups SET archive = 'other'": "roll-up 1 is not as the journal told",
    "UPDATE rollups SET grams = grams / 2": "the roll-ups said",
    "UPDATE rollups SET merged_hash = through_hash": "do not end where the last roll-up left them",
    "INSERT INTO rollups SELECT 99, 0, 299, hash, 1, 1, 1, 1, hash, null, null FROM intervals WHERE id = 300": "was merged|missing|do not end",
}


def test_what_is_changed_in_merged_rows_is_found(tmp_path: Path) -> None:
    with Ledger.open("sqlite://") as ledger:
        told(ledger, 100)
        roll(ledger, tmp_path, DAYS_9)
        with ledger.transaction() as connection:
            for table in ("intervals", "rollups"):
                for verb in ("update", "delete"):
                    connection.exec_driver_sql(f"DROP TRIGGER {table}_no_{verb}")
            assert "trigger intervals_no_delete" in (audit.verify(connection).problem or "")
            for sql, said in TAMPERINGS.items():
                with connection.begin_nested() as back:
                    connection.exec_driver_sql(sql)
                    result = audit.verify(connection)
                    back.rollback()
                assert not result.ok, sql
                assert re.search(said, result.problem or ""), (sql, result.problem)


def test_rows_leave_only_behind_a_roll_up(ledger: Ledger, tmp_path: Path) -> None:
    roll(ledger, tmp_path, T0 + timedelta(days=7, minutes=10))
    for sql in (
        "DELETE FROM intervals WHERE tier IS NULL",
        "DELETE FROM intervals WHERE tier = 1",
        "DELETE FROM rollups",
        "UPDATE rollups SET through_id = 600",
    ):
        with pytest.raises(LedgerError, match="append-only"), ledger.transaction() as connection:
            connection.exec_driver_sql(sql)
    assert ledger.verify().ok


def test_heads_of_before_and_exports_hold_for_what_was_merged(tmp_path: Path) -> None:
    with Ledger.open(f"sqlite:///{tmp_path / 'ledger.db'}") as ledger:
        told(ledger, 200)
        _heads_and_exports(ledger, tmp_path)


def _heads_and_exports(ledger: Ledger, tmp_path: Path) -> None:
    rows = list(ledger.rows())
    beat = ledger.heartbeat("daemon", DAYS_9)
    earlier = [Head(row["hash"], GENESIS, row["id"], 0) for row in rows]
    assert beat is None, "noted by what told it"
    roll(ledger, tmp_path / "archive", DAYS_40)
    assert ledger.verify(earlier[-1:] + earlier[:1]).ok
    assert ledger.verify(since=earlier[300]).ok
    last = rows[-1]
    for number in (last["id"], 600):
        wrong = Head("6f" * 32, GENESIS, number, 0)
        assert not ledger.verify([wrong]).ok
    first = ledger.export(tmp_path / "a", DAYS_40)
    done = subprocess.run(
        [sys.executable, tmp_path / "a" / "recompute.py"], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert sum(one.rows for one in first.totals) == len(rows)
    changed = (tmp_path / "a" / "intervals.tsv").read_text().splitlines(keepends=True)
    manifest = json.loads((tmp_path / "a" / "manifest.json").read_text())
    text = "".join(changed[1:])
    (tmp_path / "a" / "intervals.tsv").write_text(text)
    manifest["files"]["intervals.tsv"]["sha256"] = hashlib.sha256(text.encode()).hexdigest()
    (tmp_path / "a" / "manifest.json").write_text(json.dumps(manifest))
    done = subprocess.run(
        [sys.executable, tmp_path / "a" / "recompute.py"], capture_output=True, text=True, check=False
    )
    assert "intervals, line 1" in done.stderr
