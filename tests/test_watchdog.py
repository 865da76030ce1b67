"""When the watchdog is pinged: on a real notification socket, with parts that stop and go on."""

import logging
import socket
import time
from pathlib import Path

import pytest

from carbonsched.systemd_notify import Notifier
from carbonsched.watchdog import Part, Watchdog


@pytest.mark.parametrize("stuck", ["scheduler", "sampler", "ledger"])
def test_one_part_that_stands_still_is_enough(
    stuck: str, tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    rounds = {"scheduler": 0, "sampler": 0, "ledger": 0}
    now_s = 1000.0
    monkeypatch.setattr(time, "monotonic", lambda: now_s)
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listener:
        listener.bind(str(tmp_path / "notify"))
        listener.setblocking(False)
        watchdog = Watchdog(
            Notifier(str(tmp_path / "notify"), watchdog_s=60.0),
            [Part(name, lambda name=name: rounds[name], every_s=60.0) for name in rounds],  # type: ignore[misc]
        )

        def pinged(seconds: float, stands: str = "") -> bool:
            nonlocal now_s
            now_s += seconds
            for name in rounds:
                rounds[name] += name != stands
            watchdog.poll()
            try:
                return listener.recv(64) == b"WATCHDOG=1"
            except BlockingIOError:
                return False

        assert pinged(15)
        assert pinged(60, stuck), "one round a minute is its pace"
        assert pinged(29, stuck)
        with caplog.at_level(logging.WARNING):
            assert not pinged(2, stuck)
            assert not pinged(15, stuck)
            assert pinged(15)
        assert [f"the {stuck} has stood still" in record.getMessage() for record in caplog.records] == [
            True,
            False,
        ]
        assert f"the {stuck} goes on" in caplog.text
