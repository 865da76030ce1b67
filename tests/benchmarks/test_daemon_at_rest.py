"""The benchmark of an idle daemon, run once and briefly: it starts one, measures it and leaves nothing behind."""

import json

import pytest

from benchmarks import daemon_at_rest


def test_a_daemon_is_started_measured_and_stopped(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(daemon_at_rest, "SETTLE_S", 0.1)
    daemon_at_rest.main(["--seconds", "0.5", "--starts", "1"])
    found = json.loads(capsys.readouterr().out)
    assert len(found["start_s"]) == 1
    assert 0 < found["start_median_s"] < 60
    assert 20 < found["rss_mb"] < 1000
    assert found["cpu_percent_of_a_core"] >= 0
