"""Joules of a benchmark's run: by the NVML stand-in's counter, or an estimate that says so."""

import json
import shutil
import textwrap
from pathlib import Path

import pytest
from support.nvml.fake import build_fake_nvml, run_with_fake_nvml

from trainer.bench.meter import BenchMeter

PROGRAM = """
import json, time
from trainer.bench.meter import BenchMeter
with BenchMeter(2) as meter:
    start = time.time()
    time.sleep(0.7)
    middle = time.time()
    time.sleep(0.3)
    end = time.time()
    print(json.dumps([(end - start, *meter.joules([(start, end)])), (middle - start, *meter.joules([(start, middle)]))]))
"""


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    if shutil.which("gcc") is None:
        pytest.skip("needs gcc to build the stand-in")
    return build_fake_nvml(tmp_path_factory.mktemp("nvml"))


@pytest.mark.parametrize("named", ["", "1", "GPU-00000000-fake-0000-0000-000000000001,0"])
def test_joules_are_the_counters_over_the_spans_asked_for(library: Path, named: str) -> None:
    out = run_with_fake_nvml(
        library,
        textwrap.dedent(PROGRAM),
        CUDA_VISIBLE_DEVICES=named,
        FAKE_NVML_WATTS="400",
        FAKE_NVML_DEVICES="2",
    )
    for seconds, joules, method in json.loads(out):
        assert method == "counter"
        assert joules == pytest.approx(400 * seconds, rel=0.1)


def test_a_device_that_is_not_there_leaves_the_estimate(library: Path) -> None:
    out = run_with_fake_nvml(
        library, textwrap.dedent(PROGRAM), CUDA_VISIBLE_DEVICES="7", FAKE_NVML_WATTS="400"
    )
    (seconds, joules, method), _ = json.loads(out)
    assert method == "estimated: 4 W per thread × 2"
    assert joules == pytest.approx(8 * seconds)


def test_without_a_driver_it_is_rated_power_times_seconds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("trainer.bench.meter.DEFAULT_POWER_PER_CORE", 5)
    with BenchMeter(3) as meter:
        if meter._nvml is not None:
            pytest.skip("this machine has a GPU")
        assert meter.joules([(10.0, 12.0), (20.0, 21.0)]) == (45.0, "estimated: 5 W per thread × 3")
