"""Every joule in its place through 10,000 s in which the daemon is killed 50 times, the driver reloaded, boards lost, meters blind and
reads wild: Σ jobs + idle = last − first confirmed read of each epoch, unknown beside that, and no job is charged outside its time.

One seed in the suite, and one whose daemon is a real process; `CARBONSCHED_EXAMPLES=200` (`make conservation`) tries so many.
"""

import json
import os
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from support.nvml.fake import build_fake_nvml, fake_nvml_env

SEEDS = int(os.environ.get("CARBONSCHED_EXAMPLES", "1"))
ROOT = Path(__file__).parents[1]

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(shutil.which("gcc") is None, reason="needs gcc to build the stand-in"),
]


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_fake_nvml(tmp_path_factory.mktemp("nvml"))


def told(library: Path, folder: Path, seed: int, *options: str) -> dict[str, Any]:
    """What the series of a seed found; its folder is kept where it found something."""
    folder = folder / str(seed)
    folder.mkdir()
    env = fake_nvml_env(
        library,
        FAKE_NVML_SCRIPT=str(folder / "world"),
        FAKE_NVML_LOG=str(folder / "answers"),
        FAKE_NVML_DEVICES="8",
        PYTHONPATH=os.pathsep.join((str(ROOT), str(ROOT / "tests"))),
    )
    done = subprocess.run(
        [sys.executable, "-W", "error", "-m", "support.fault_injection", str(seed), str(folder), *options],
        env=env,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    if not found["wrong"]:
        shutil.rmtree(folder)
    return found


def check(found: dict[str, Any], deaths: int = 51) -> None:
    """deaths: the end is one, too."""
    assert found["wrong"] == [], f"seed {found['seed']}: {found['wrong']}"
    assert (found["jobs"], found["asked"]) == (20, 0), "all ran, and none was ended by the daemon"
    assert found["deaths"] == deaths
    assert found["rows"] > 5000
    assert found["epochs"] > 24


@pytest.mark.timeout(0 if SEEDS > 10 else 1800)
def test_every_joule_is_in_its_place(library: Path, tmp_path: Path) -> None:
    with ThreadPoolExecutor(max(os.cpu_count() or 1, 1) if SEEDS > 1 else 1) as pool:
        for found in pool.map(lambda seed: told(library, tmp_path, seed), range(SEEDS)):
            check(found)


@pytest.mark.timeout(3600)
def test_every_joule_is_in_its_place_when_a_real_process_is_killed(library: Path, tmp_path: Path) -> None:
    """Fifty times by `make conservation`; each begin of a process takes seconds, so the suite does with ten."""
    deaths = 50 if SEEDS > 1 else 10
    check(told(library, tmp_path, 1_000_000, "--kill", "--deaths", str(deaths)), deaths + 1)
