"""Joules of a benchmark's run: by the NVML stand-in's counter, or an estimate that says so."""

import json
import shutil
from pathlib import Path

import pytest
from support.nvml.fake import build_fake_nvml, run_with_fake_nvml

from trainer.bench.meter import BenchMeter

PROGRAM = """
import json, os, time
from carbonsched.model.protocol import Started
from trainer.bench.meter import BenchMeter
def started(device, uuid): return Started(at="2026-11-22T10:00:00Z", pid=1, segments=1, steps=1, params=1, device=device, gpu_uuid=uuid)
with BenchMeter(2) as meter:
    start = time.time()
    time.sleep(0.4)
    middle = time.time()
    time.sleep(0.2)
    end = time.time()
    for device, uuid in json.loads(os.environ["RUNS"]):
        for until in (end, middle):
            print(json.dumps((until - start, *meter.joules([(start, until)], started(device, uuid)))))
"""


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    if shutil.which("gcc") is None:
        pytest.skip("needs gcc to build the stand-in")
    return build_fake_nvml(tmp_path_factory.mktemp("nvml"))


def run(
    library: Path, runs: list[tuple[str, str | None]], **env: str
) -> list[tuple[float, float | None, str]]:
    """(seconds, joules, method) of each run over a whole and a part of the time."""
    out = run_with_fake_nvml(library, PROGRAM, RUNS=json.dumps(runs), FAKE_NVML_WATTS="400", **env)
    return [tuple(json.loads(line)) for line in out.splitlines()]


GPU = "GPU-00000000-fake-0000-0000-00000000000"


def test_joules_are_those_of_the_board_that_the_run_reports(library: Path) -> None:
    """Whatever CUDA_VISIBLE_DEVICES says of this process: in CUDA's order, hidden, or a board that is not there."""
    runs = [("Fake GPU", GPU + "1"), ("Fake GPU", GPU.upper().replace("FAKE", "fake") + "0"), ("cpu", None)]
    for visible in ("7", "1,0"):
        *boards, cpu, _ = run(library, runs, CUDA_VISIBLE_DEVICES=visible, FAKE_NVML_DEVICES="2")
        for seconds, joules, method in boards:
            assert method == "counter"
            assert joules == pytest.approx(400 * seconds, rel=0.1)
        assert cpu[2] == "estimated: 4 W per thread × 2"
        assert cpu[1] == pytest.approx(8 * cpu[0])


def test_a_board_that_is_not_metered_is_unknown_and_never_a_thread(library: Path, tmp_path: Path) -> None:
    unseen = run(library, [("Fake GPU", "GPU-ffff"), ("Fake GPU", None)], FAKE_NVML_DEVICES="2")
    assert {(joules, method) for _, joules, method in unseen} == {
        (None, "unknown: NVML shows no board GPU-ffff"),
        (None, "unknown: NVML shows no board Fake GPU"),
    }
    (tmp_path / "settings").write_text("init_code=9\n")
    _, joules, method = run(library, [("Fake GPU", GPU + "0")], FAKE_NVML_FILE=str(tmp_path / "settings"))[0]
    assert joules is None
    assert "the NVIDIA driver is not loaded" in method


def test_a_mig_instance_has_its_slices_of_the_board(library: Path, tmp_path: Path) -> None:
    (tmp_path / "settings").write_text("mig=1\nslices.100=3\nslices.101=4\n")
    reported = "GPU-00000000-fake-0000-0000-000000000001"  # torch says GPU- of an instance, too
    seconds, joules, method = run(library, [("MIG", reported)], FAKE_NVML_FILE=str(tmp_path / "settings"))[0]
    assert method == "estimated: 0.57 of the board by MIG slices"
    assert joules == pytest.approx(400 * seconds * 4 / 7, rel=0.1)


def test_without_a_driver_it_is_rated_power_times_seconds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("trainer.bench.meter.DEFAULT_POWER_PER_CORE", 5)
    with BenchMeter(3) as meter:
        spans = [(10.0, 12.0), (20.0, 21.0)]
        assert meter.joules(spans, None) == (45.0, "estimated: 5 W per thread × 3")
