"""The heads of the ledger are noted hourly in the journal and in the log, over restarts, and at the end."""

import logging
import sqlite3
from datetime import timedelta
from pathlib import Path

import pytest
from support.forgery import execute
from support.job_history import T0, interval
from support.manual_clock import ManualClock

from carbonsched.ledger import Ledger
from carbonsched.ledger.heads import read_heads
from carbonsched.supervisor.heartbeat import EVERY_S, Heartbeat


def spend(ledger: Ledger, n: int) -> None:
    ledger.append([interval(T0 + timedelta(seconds=10 * n), 10, 500, counter=500 * n)])


def beats(ledger: Ledger) -> list[int | None]:
    return [entry.get("rows") for entry in ledger.history(None, ("heartbeat",))]


def test_once_an_hour_over_restarts_and_at_the_end(tmp_path: Path) -> None:
    url, clock = f"sqlite:///{tmp_path / 'ledger.db'}", ManualClock(T0)
    with Ledger.open(url) as ledger:
        heartbeat = Heartbeat(ledger, clock)
        spend(ledger, 0)
        heartbeat.poll()
        assert beats(ledger) == [], "an hour has not passed"
        clock.advance(EVERY_S)
        heartbeat.poll()
        heartbeat.poll()
        spend(ledger, 1)
        assert beats(ledger) == [1]
        clock.advance(EVERY_S / 2)
        heartbeat.close()
        heartbeat.close()
        spend(ledger, 2)
        clock.advance(2 * EVERY_S)
        heartbeat.poll()
        assert beats(ledger) == [1, 2], "what came before the end, and nothing after it"
    with Ledger.open(url) as ledger:
        heartbeat = Heartbeat(ledger, clock)
        heartbeat.poll()
        assert beats(ledger) == [1, 2, 3], "the hour began under the daemon before"
        clock.advance(EVERY_S)
        heartbeat.poll()
        assert beats(ledger) == [1, 2, 3], "nothing came since"
        assert ledger.verify().ok


def test_the_log_finds_what_was_cut_off_both_chains(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path, clock = tmp_path / "ledger.db", ManualClock(T0)
    with Ledger.open(f"sqlite:///{path}") as ledger, caplog.at_level(logging.INFO):
        heartbeat = Heartbeat(ledger, clock)
        for n in range(3):
            spend(ledger, n)
            heartbeat.poll()
            clock.advance(EVERY_S)
        heartbeat.close()
    (tmp_path / "log.txt").write_text(caplog.text)
    heads = read_heads(tmp_path / "log.txt")
    assert [head.rows for head in heads] == [2, 3]
    execute(path, "DELETE FROM intervals WHERE id > 2", "DELETE FROM journal WHERE id > 1")
    with Ledger.open(f"sqlite:///{path}") as ledger:
        assert ledger.verify().ok
        result = ledger.verify(heads)
    assert (result.ok, result.first_bad) == (False, 3)
    assert "row 3 is missing: an earlier head saw them" in (result.problem or "")
    assert "log.txt, line 2" in (result.problem or "")


def test_a_ledger_that_refuses_is_asked_again(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path, clock = tmp_path / "ledger.db", ManualClock(T0)
    with Ledger.open(f"sqlite:///{path}") as ledger:
        heartbeat = Heartbeat(ledger, clock)
        spend(ledger, 0)
        heartbeat.poll()
        raw = sqlite3.connect(path)
        raw.execute("ALTER TABLE journal RENAME TO elsewhere")
        clock.advance(EVERY_S)
        heartbeat.poll()
        assert "the heads of the ledger are not noted now" in caplog.text
        raw.execute("ALTER TABLE elsewhere RENAME TO journal")
        raw.close()
        clock.advance(60)
        heartbeat.poll()
        assert beats(ledger) == [1]
