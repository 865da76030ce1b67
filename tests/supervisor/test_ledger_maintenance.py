"""The daemon rolls its ledger up once an hour, behind what feeds may still revise."""

from datetime import timedelta
from pathlib import Path

import pytest
from support.job_history import T0, interval
from support.manual_clock import ManualClock

from carbonsched.config import Config
from carbonsched.ledger import Ledger
from carbonsched.supervisor.ledger_maintenance import ADD_UP_EVERY_S, EVERY_S, LedgerMaintenance

FEED = {"provider": "static", "g_per_kwh": 200, "basis": "average-lifecycle", "source": "test"}


def test_once_an_hour_behind_all_settling(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    clock = ManualClock(T0 + timedelta(days=7, minutes=5))
    config = Config.parse({"state_dir": str(tmp_path), "feeds": [FEED]})
    with Ledger.open("sqlite://") as ledger:
        ledger.append([interval(T0 + timedelta(seconds=10 * n), 10, 5) for n in range(60)])
        settles = timedelta(days=6, minutes=2)
        maintenance = LedgerMaintenance(config, ledger, clock, lambda: settles)
        maintenance.poll()
        assert len(list(ledger.rows())) == 60 - 15, "three minutes, as the feed may revise the others"
        clock.advance(EVERY_S - 1)
        maintenance.poll()
        assert len(list(ledger.rows())) == 45, "once an hour"
        settles = timedelta(hours=48)
        (tmp_path / "archive" / "intervals-2026-11.tsv.gz").write_bytes(b"")
        clock.advance(1)
        maintenance.poll()
        assert "put it back, or move it away" in caplog.text
        assert ledger.verify().ok
        maintenance.close()
        clock.advance(EVERY_S)
        maintenance.poll()
        assert len(list(ledger.rows())) == 45


def test_hours_that_are_over_are_added_up_a_minute_at_a_time(tmp_path: Path) -> None:
    clock = ManualClock(T0 + timedelta(hours=30))
    config = Config.parse({"state_dir": str(tmp_path), "feeds": [FEED], "ledger": {"roll_up": False}})
    with Ledger.open("sqlite://") as ledger:
        ledger.append([interval(T0 + timedelta(hours=n), 10, 5) for n in range(30)])
        maintenance = LedgerMaintenance(config, ledger, clock, lambda: timedelta(0))
        found = []
        for _ in range(3):
            maintenance.poll()
            with ledger.transaction() as connection:
                found.append(connection.exec_driver_sql("SELECT count(*) FROM hours").scalar())
            clock.advance(ADD_UP_EVERY_S)
        assert found == [24, 29, 29], "the last hour is not over for ten minutes"
        assert ledger.verify().ok
