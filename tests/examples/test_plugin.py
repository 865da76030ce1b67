"""The example plugin, really installed in a folder of its own, and each of its parts used through the real programs."""

import importlib
import json
import os
import re
import shutil
import subprocess
import sys
import time
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.daemon import COMMAND, OFFLINE, DaemonProcess
from support.models import job_folder, tiny_llama, tiny_spec, word_data

from carbonsched.config import FEEDS
from carbonsched.ledger import Ledger

ROOT = Path(__file__).parents[2]
PLUGIN = ROOT / "examples" / "carbonsched-example-plugin"
CONFIG = """
state_dir = "state"
[zone]
name = "XX"
[[feeds]]
provider = "example-file"
file = "intensity.json"
basis = "average-lifecycle"
every = 30
[[prices]]
provider = "example-tariff"
file = "price.json"
[[supply]]
provider = "example-inverter"
file = "solar.json"
kind = "solar"
[power]
gpu = "none"
host = "example-hwmon"
sensor = "power1_input"
tick_s = 0.2
[ledger]
row_s = 1
[api]
socket = "api.sock"
"""


SPAN = ("--from", "2020-01-01T00:00:00Z", "--to", "2100-01-01T00:00:00Z")


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that holds the installed plugin and nothing else."""
    source = tmp_path_factory.mktemp("source") / "plugin"
    shutil.copytree(PLUGIN, source)  # a build leaves its files beside what it builds
    target = tmp_path_factory.mktemp("site")
    pip = [
        sys.executable,
        "-m",
        "pip",
        "install",
        "--quiet",
        "--no-deps",
        "--no-build-isolation",
        "--no-index",
    ]
    done = subprocess.run(
        [*pip, "--disable-pip-version-check", "--target", str(target), str(source)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return target


@pytest.fixture
def env(site: Path) -> dict[str, str]:
    return {"PYTHONPATH": os.pathsep.join([str(site), str(ROOT)])}


@pytest.fixture
def box(tmp_path: Path, env: dict[str, str]) -> Iterator[DaemonProcess]:
    box = DaemonProcess(tmp_path, config=CONFIG, env=env)
    (tmp_path / "intensity.json").write_text('{"g_per_kwh": 212.5}')
    (tmp_path / "price.json").write_text('{"eur_per_kwh": 0.31}')
    (tmp_path / "solar.json").write_text('{"share": 0.4}')
    (tmp_path / "power1_input").write_text("150000000\n")
    yield box
    if box.process is not None:
        box.stop()


def test_a_job_is_checked_and_trained_with_its_method(tmp_path: Path, env: dict[str, str]) -> None:
    data = tiny_spec(
        tiny_llama(tmp_path / "model"),
        word_data(tmp_path / "data"),
        train={"method": "example-norms", "epochs": 1},
    )
    job = job_folder(tmp_path / "job", data)

    def trainer(*argv: str) -> str:
        done = subprocess.run(
            [sys.executable, "-m", "trainer", *argv],
            capture_output=True,
            text=True,
            env=os.environ | OFFLINE | env,
            cwd=tmp_path,
            timeout=300,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    assert json.loads(trainer("check", str(job / "spec.json"), "--json"))["rho_floor"] < 1
    trainer("run", str(job))
    events = [json.loads(line) for line in (job / "events.jsonl").read_text().splitlines()]
    [done] = [event for event in events if event["event"] == "segment_done"]
    assert done["selected"]
    assert all("norm" in name for name in done["selected"])


def refused(box: DaemonProcess, env: dict[str, str]) -> str:
    """The one line with which the daemon refuses to start."""
    argv = [*COMMAND, "daemon", "--config", str(box.root / "config.toml")]
    done = subprocess.run(
        argv, capture_output=True, text=True, env=os.environ | env, timeout=180, check=False
    )
    assert done.returncode == 2, done.stderr
    assert done.stderr.count("\n") == 1, done.stderr
    return done.stderr


def test_the_daemon_runs_on_its_feed_and_its_meter(box: DaemonProcess) -> None:
    box.start()
    grid = box.json("grid")
    assert grid["now"]["g_per_kwh"] == 212.5
    assert (grid["now"]["kind"], grid["now"]["basis"], grid["now"]["note"]) == (
        "actual",
        "average-lifecycle",
        "from intensity.json",
    )
    assert [(feed["name"], feed["state"]) for feed in grid["feeds"]] == [("example-file", "ok")]
    shown = box.cli("grid").stdout
    assert all(name in shown for name in ("example-file", "example-tariff", "example-inverter"))
    time.sleep(3)
    report = json.loads(box.cli("report", *SPAN, "--format", "json").stdout)
    [host] = [device for device in report["boards"] if device["name"] == "host"]
    assert host["sums"]["energy_j"] == pytest.approx(150 * host["sums"]["seconds"], rel=0.05)
    with Ledger.open(f"sqlite:///{box.root / 'state' / 'ledger.db'}", read_only=True) as ledger:
        row = next(row for row in ledger.rows() if row["eur"] and row["supply_share"])
    assert (row["eur_per_kwh"], row["supply_share"], row["supply_g_per_kwh"]) == (0.31, 0.4, 44.5)
    line = box.cli("report", *SPAN, "--format", "example-line").stdout
    assert re.fullmatch(
        r"all jobs and idle time: \d\.\d{4} gCO2e, \d\.\d{6} kWh \(estimated\)(, \d+ s unknown)?\n|"
        r"all jobs and idle time: \d\.\d{4} gCO2e, \d\.\d{6} kWh\n",
        line,
    ), line
    log = (box.root / "daemon.log").read_text()
    assert "feeds of plugins: example-file" in log
    assert "meters of plugins: example-hwmon" in log


def test_what_its_settings_refuse_is_one_line_that_names_the_key(
    box: DaemonProcess, env: dict[str, str]
) -> None:
    file = box.root / "config.toml"
    file.write_text(CONFIG.replace('basis = "average-lifecycle"\n', ""))
    assert "config.toml: feeds[0].basis: is missing" in refused(box, env)
    file.write_text(CONFIG.replace("every = 30", "evry = 30"))
    assert "config.toml: feeds[0].evry: unknown key; did you mean 'every'?" in refused(box, env)
    file.write_text(CONFIG.replace("sensor =", "senso ="))
    assert "config.toml: power.senso: unknown key; did you mean 'sensor'?" in refused(box, env)
    file.write_text(CONFIG.replace('sensor = "power1_input"', 'sensor = "none"'))
    assert f"power.sensor: there is no file {box.root / 'none'}" in refused(box, env)
    file.write_text(CONFIG.replace('provider = "example-file"', 'provider = "exmple-file"'))
    assert "did you mean 'example-file'?" in refused(box, env)


def test_without_it_the_config_is_refused_with_what_there_is(box: DaemonProcess) -> None:
    line = refused(box, {"PYTHONPATH": str(ROOT)})
    names = [repr(name) for name in FEEDS.built_in]
    assert f"feeds[0].provider: must be {', '.join(names[:-1])} or {names[-1]}, is 'example-file'" in line


def test_the_docs_name_what_there_is() -> None:
    text = (ROOT / "docs" / "plugins.md").read_text()
    groups = tomllib.loads((PLUGIN / "pyproject.toml").read_text())["project"]["entry-points"]
    assert set(re.findall(r"^\| `(carbonsched\.\w+)` \|", text, flags=re.M)) == set(groups)
    for name in set(re.findall(r"`((?:carbonsched|trainer)(?:\.\w+)+)`", text)) - set(groups):
        module, _, attribute = name.rpartition(".")
        assert hasattr(importlib.import_module(module), attribute), name
    for path in re.findall(r"`((?:carbonsched|trainer)/[\w/]+\.py)`", text):
        assert (ROOT / path).is_file(), path
