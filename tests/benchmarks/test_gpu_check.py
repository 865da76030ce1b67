"""The check of a real board, where there is none: it says so, and each of its parts runs on stand-ins or on the CPU."""

import json
import shutil
import time
from pathlib import Path

import pytest
import torch
from support.nvml.fake import build_fake_nvml, run_with_fake_nvml

from benchmarks import gpu_check
from benchmarks.gpu_check import Report, Size, count_step, limited, train_at

TINY = Size(layers=3, hidden=64, batch=2, seq=24, steps=20, load_s=0.4)


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a board")
def test_without_a_board_it_says_so_in_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert gpu_check.main(["--json"]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.count("\n") == 1
    assert captured.err.startswith("gpu_check: no board to check: torch")


@pytest.mark.parametrize("attn", ["eager", "sdpa"])
@pytest.mark.parametrize("dtype", ["bf16", "fp32"])
@pytest.mark.parametrize("masked", [True, False])
def test_a_counted_step_is_the_profiles(attn: str, dtype: str, masked: bool) -> None:
    counted, known = count_step(TINY, attn, dtype, masked=masked)
    assert counted == pytest.approx(known, rel=1e-3)


def test_a_job_meets_its_rho_and_says_how_it_was_measured() -> None:
    row = train_at(0.7, TINY)
    assert row["realised"] == pytest.approx(row["planned"], abs=0.02)
    assert row["seconds"] > 0
    assert row["method"].startswith("estimated: 4 W per thread")


def test_meter_and_energy_are_checked_by_uuid(tmp_path: Path) -> None:
    if shutil.which("gcc") is None:
        pytest.skip("needs gcc to build the stand-in")
    program = """
import json, sys, trainer.device
from benchmarks.gpu_check import Report, Size, check_energy, check_meter
trainer.device.board_uuid = lambda _: "GPU-00000000-fake-0000-0000-000000000001"
report = Report(Size(hidden=16, load_s=0.4))
check_meter(report); check_energy(report)
trainer.device.board_uuid = lambda _: "GPU-of-another-box"
check_meter(report)
print(json.dumps(report.found))
"""
    out = run_with_fake_nvml(build_fake_nvml(tmp_path), program, FAKE_NVML_DEVICES="2")
    meter, energy, stranger = json.loads(out)
    assert meter["ok"]
    assert "Fake GPU, rated bf16" in meter["found"]
    assert energy["ok"], energy
    assert energy["counter_j"] == pytest.approx(250 * 0.4, rel=0.3)
    assert not stranger["ok"]


def test_a_check_that_fails_or_takes_too_long_is_a_line_of_the_report() -> None:
    report = Report()

    def fail(_: Report) -> None:
        raise RuntimeError("no\nsuch thing")

    report.run("job", fail, 0.0)
    report.run("energy", lambda _: time.sleep(5), gpu_check.LIMIT_S - 0.1)
    report.run("daemon", lambda _: None, gpu_check.LIMIT_S + 1)
    assert [row["ok"] for row in report.found] == [False] * 3
    assert report.found[0]["found"] == "RuntimeError: no such thing"
    assert all("no time left" in row["found"] for row in report.found[1:])
    with limited(1.0):
        pass


@pytest.mark.slow
def test_the_daemon_pauses_resumes_and_adopts(tmp_path: Path) -> None:
    (tmp_path / "watts.csv").write_text("seconds,watts\n0,100\n")
    report = Report(TINY)
    power = f'gpu = "replay"\nhost = "none"\nreplay_file = "{tmp_path / "watts.csv"}"'
    with limited(400):  # a loaded machine
        gpu_check.check_daemon(report, power)
    (found,) = report.found
    assert found["ok"], found
    assert found["boards"] == ["cpu"]
