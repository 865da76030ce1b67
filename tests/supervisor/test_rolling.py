"""The daemon rolls its ledger up once an hour, behind what feeds may still revise."""

from datetime import timedelta
from pathlib import Path

import pytest
from support.manual_clock import ManualClock
from support.story import T0, interval

from carbonsched.config import Config
from carbonsched.ledger import Ledger
from carbonsched.supervisor.rolling import EVERY_S, Rolling


def test_once_an_hour_behind_all_settling(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    clock = ManualClock(T0 + timedelta(days=7, minutes=5))
    feed = {"provider": "static", "g_per_kwh": 200, "basis": "average-lifecycle", "source": "test"}
    config = Config.parse({"state_dir": str(tmp_path), "feeds": [feed]})
    with Ledger.open("sqlite://") as ledger:
        ledger.append([interval(T0 + timedelta(seconds=10 * n), 10, 5) for n in range(60)])
        settles = timedelta(days=6, minutes=2)
        rolling = Rolling(config, ledger, clock, lambda: settles)
        rolling.poll()
        assert len(list(ledger.rows())) == 60 - 15, "three minutes, as the feed may revise the others"
        clock.advance(EVERY_S - 1)
        rolling.poll()
        assert len(list(ledger.rows())) == 45, "once an hour"
        settles = timedelta(hours=48)
        (tmp_path / "archive" / "intervals-2026-11.tsv.gz").write_bytes(b"")
        clock.advance(1)
        rolling.poll()
        assert "put it back, or move it away" in caplog.text
        assert ledger.verify().ok
        rolling.close()
        clock.advance(EVERY_S)
        rolling.poll()
        assert len(list(ledger.rows())) == 45
