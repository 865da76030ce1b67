"""requirements.lock: complete, with hashes, the same everywhere; what it must not hold is torch and what comes with its builds."""

import re
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

ROOT = Path(__file__).parents[1]
LOCK = (ROOT / "requirements.lock").read_text()
# a pin, its marker, and the lines of hashes that it goes on with
PINS = re.findall(
    r"^([a-z0-9-]+)==([^ ]+)(?: ; [^\\]+)? \\\n((?:    --hash=sha256:[0-9a-f]{64}(?: \\)?\n)+)", LOCK, re.M
)


def direct() -> list[Requirement]:
    """All that pyproject.toml names, of every extra, of the Makefile's own group, and for the build."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    said = [
        *project["project"]["dependencies"],
        *(line for extra in project["project"]["optional-dependencies"].values() for line in extra),
        *project["dependency-groups"]["make"],
        *project["build-system"]["requires"],
    ]
    found = [Requirement(line) for line in said]
    return [r for r in found if r.name not in ("carbonsched", "torch")]


@pytest.mark.parametrize("needed", direct(), ids=lambda r: r.name)
def test_every_direct_dependency_is_pinned_within_its_range(needed: Requirement) -> None:
    pinned = [Version(version) for name, version, _ in PINS if name == canonicalize_name(needed.name)]
    assert pinned, "run `make lock`"
    assert all(version in needed.specifier for version in pinned), "run `make lock`"


def test_every_line_is_a_pin_with_hashes_or_a_comment() -> None:
    lines = [line for line in LOCK.splitlines() if line and not line.lstrip().startswith("#")]
    assert len(lines) == sum(1 + hashes.count("\n") for _, _, hashes in PINS)


def test_it_names_no_host_and_no_index() -> None:
    assert "://" not in LOCK
    assert not re.search(r"\.(org|com|io|net)\b|--(index|extra-index|find-links|trusted)", LOCK)


def test_torch_and_what_its_builds_bring_stay_out() -> None:
    names = {name for name, _, _ in PINS}
    brought = {n for n in names if re.match(r"(torch|triton|cuda-.*|nvidia-.*)$", n)} - {"nvidia-ml-py"}
    assert not brought
    constraints = (ROOT / "constraints.txt").read_text()
    assert re.search(r"^torch==", constraints, re.M), "then nothing installs torch"
