"""The benchmark of meters, briefly: the library draws what the benchmark takes for the truth, and each tool is started, asked and stopped."""

import json
import shutil
import time
from pathlib import Path

import pytest
from support.nvml.fake import build_fake_nvml, run_with_fake_nvml

from benchmarks import meters

pytestmark = pytest.mark.skipif(shutil.which("gcc") is None, reason="needs gcc to build the stand-in")

READS = """
import json, time, pynvml
pynvml.nvmlInit()
board = pynvml.nvmlDeviceGetHandleByIndex(0)
found = []
for _ in range(30):
    before = time.time()
    mj = pynvml.nvmlDeviceGetTotalEnergyConsumption(board)
    found.append([before, mj, time.time()])
    time.sleep(0.03)
print(json.dumps(found))
"""


def test_the_library_draws_what_is_taken_for_the_truth(tmp_path: Path) -> None:
    base = float(int(time.time())) - 3600
    told = run_with_fake_nvml(
        build_fake_nvml(tmp_path / "nvml"),
        READS,
        FAKE_NVML_BASE=repr(base),
        FAKE_NVML_WATTS=str(meters.IDLE_W),
        FAKE_NVML_BURSTS=str(meters.BURST_W),
    )
    for before, mj, after in json.loads(told):
        assert meters.joules(before - base) - 0.01 <= mj / 1000 <= meters.joules(after - base) + 0.01
    share = sum(meters.is_burst(n) for n in range(10_000)) / 10_000
    assert share == pytest.approx(0.3, abs=0.02)


@pytest.mark.slow
def test_a_command_is_metered_and_a_tool_that_is_not_there_says_so(
    capsys: pytest.CaptureFixture[str],
) -> None:
    meters.main(["accuracy", "--windows", "0.5", "--repeats", "1", "--tools", "alone,zeus"])
    found = json.loads(capsys.readouterr().out)["error_percent"]
    assert set(found) == {"counter", "power alone"}
    assert set(found["counter"]["alone"]) == {"0.5"}
    assert "null" in found["counter"]["zeus"] or "0.5" in found["counter"]["zeus"]


@pytest.mark.slow
def test_a_daemon_that_sees_boards_is_measured(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(meters, "SETTLE_S", 0.1)
    meters.main(["overhead", "--seconds", "0.5", "--tools", "ours at 1 Hz", "--boards", "3"])
    found = json.loads(capsys.readouterr().out)
    assert (found["boards"], found["seconds"]) == (3, 0.5)
    assert found["ours at 1 Hz"]["cpu_s"] >= 0
    assert 20 < found["ours at 1 Hz"]["rss_mb"] < 1000
