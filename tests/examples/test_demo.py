"""The demo's own parts; the whole of it runs by `make demo`."""

import importlib
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import ModuleType

import pytest
from support.models import tiny_llama

from carbonsched.cli.client import Client
from carbonsched.errors import UnreachableError

EXAMPLES = Path(__file__).parents[2] / "examples"


@pytest.fixture
def demo(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(EXAMPLES))
    import demo as module

    return module


def of(work: Path, text: str) -> list[int]:
    """Processes whose command line or environment names `work` and `text`."""
    found = []
    for entry in Path("/proc").iterdir():
        try:
            said = (entry / "cmdline").read_bytes() + (entry / "environ").read_bytes()
        except (OSError, ValueError):
            continue
        if entry.name.isdigit() and str(work).encode() in said and text.encode() in said:
            found.append(int(entry.name))
    return found


def test_a_slow_machine_gets_shorter_segments_never_fewer(demo: ModuleType, tmp_path: Path) -> None:
    def steps(step_s: float) -> tuple[int, int]:
        box = demo.Demo(tmp_path, None, 120)
        measured = demo.Measured(watts=30, step_s=step_s, load_s=10, evaluate_s=15, checkpoint_s=5)
        return box.affordable(measured), box.segment

    assert steps(0.05) == (120, 20)
    total, segment = steps(2.0)
    assert total == 6 * segment
    assert demo.SHORTEST <= segment < 20
    assert steps(60.0) == (6 * demo.SHORTEST, demo.SHORTEST)


def test_the_templates_take_the_measured_values(demo: ModuleType, tmp_path: Path) -> None:
    box = demo.Demo(tmp_path, tmp_path / "a model", 120)
    text = box.write_job("job.toml", {"max_steps": 60, "budget_g": "0.25"}).read_text()
    assert "\nmax_steps = 60\n" in text
    assert "\nbudget_g = 0.25\n" in text
    assert f'name_or_path = "{tmp_path / "a model"}"' in text
    assert f'name_or_path = "{EXAMPLES / "debian-pairs"}"' in text
    with pytest.raises(AssertionError, match="nonsense stands 0 times"):
        box.write_job("job.toml", {"nonsense": 1})


def test_the_summary_names_what_each_saving_is_measured_against(demo: ModuleType) -> None:
    effect = {"saved_g": 0.2, "share": 0.25, "reason": None}
    segments = [
        {"g_per_kwh": 100.0 * (k + 1), "rho_realised": 0.9 - 0.1 * k, "rho_planned": 0.9 - 0.1 * k + 0.001}
        for k in range(6)
    ]
    report = {
        "job": {"name": "job", "state": "finished", "budget_g": 1.0},
        "totals": {"estimated": True, "spent_g": 0.6, "energy_j": 6000.0},
        "savings": {
            "waste": effect,
            "flops": effect,
            "timing": {"saved_g": None, "share": None, "reason": "no row"},
        },
        "validation": [{"when": "before", "loss": 4.5}, {"when": "after", "loss": 2.7}],
        "segments": segments,
    }
    text = demo.summary(report, 8.0)
    assert "about 0.6 g of 1 g CO2e" in text
    assert "+0.2 g (+25.0%) against full fine-tuning" in text
    assert "+0.2 g (+25.0%) against a stock Trainer" in text
    assert "not known (no row)" in text
    assert "4.500 before, 2.700 after" in text
    assert "ρ 0.850 in the cleanest third of segments, 150 g/kWh" in text
    assert "ρ 0.450 in the dirtiest third of segments, 550 g/kWh" in text
    assert "at most 0.0010" in text
    assert "synthetic" in text


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_demo_leaves_nothing_running(tmp_path: Path, number: signal.Signals) -> None:
    model, work = tmp_path / "model", tmp_path / "work"
    model.mkdir()
    tiny_llama(model)
    argv = [sys.executable, str(EXAMPLES / "demo.py"), "--work", str(work), "--model", str(model)]
    env = os.environ | {"OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(argv, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    try:
        end = time.monotonic() + 120
        while time.monotonic() < end and not of(work, "CARBONSCHED_JOB_DIR="):
            assert process.poll() is None, process.communicate()[0]
            time.sleep(0.1)
        process.send_signal(number)
        said, _ = process.communicate(timeout=60)
        assert process.returncode == 130
        assert "interrupted" in said
        assert "Traceback" not in said
        assert not of(work, "carbonsched"), "the daemon, the shim and the trainer are gone"
        with pytest.raises(UnreachableError):
            Client(work / "run" / "api.sock").version()
    finally:
        process.kill()
        process.wait()


def test_the_converter_that_the_demo_names_is_there() -> None:
    """The demo imports it in a process of its own, where no linter sees the name."""
    source = (EXAMPLES / "demo.py").read_text(encoding="utf-8")
    found = re.findall(r"from (trainer[\w.]*) import (\w+);", source)
    assert found
    for module, name in found:
        assert hasattr(importlib.import_module(module), name)
