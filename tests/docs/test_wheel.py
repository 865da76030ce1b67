"""The wheel ships what runs: the daemon and the trainer, no benchmarks, no tests."""

import tomllib
from pathlib import Path

from setuptools import find_packages

ROOT = Path(__file__).parents[2]


def test_only_the_two_programs_are_packaged() -> None:
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["packages"]["find"]
    packages = find_packages(str(ROOT), **settings)
    assert {name.split(".")[0] for name in packages} == {"carbonsched", "trainer"}
    assert "carbonsched.plan.simulation" in packages, "rooms are packages"


def test_every_folder_of_code_is_packaged() -> None:
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["packages"]["find"]
    packages = set(find_packages(str(ROOT), **settings))
    folders = {
        ".".join(path.parent.relative_to(ROOT).parts)
        for top in ("carbonsched", "trainer")
        for path in (ROOT / top).rglob("*.py")
    }
    # Alembic loads its migrations by their path
    assert {name for name in folders - packages if "migrations" not in name} == set()
