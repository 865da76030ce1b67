"""The benchmark of an idle daemon, run once and briefly: it starts one, measures it and leaves nothing behind."""

import json
from collections.abc import Iterator

import pytest

from benchmarks import daemon_at_rest


@pytest.fixture(autouse=True)
def no_settling(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(daemon_at_rest, "SETTLE_S", 0.1)
    yield


def test_a_daemon_is_started_measured_and_stopped(capsys: pytest.CaptureFixture[str]) -> None:
    daemon_at_rest.main(["--seconds", "0.5", "--starts", "1"])
    found = json.loads(capsys.readouterr().out)
    assert len(found["start_s"]) == 1
    assert 0 < found["start_median_s"] < 60
    assert 20 < found["rss_mb"] < 1000
    assert found["cpu_percent_of_a_core"] >= 0
