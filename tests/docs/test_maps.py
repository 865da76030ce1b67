"""What a folder says it holds: each package's docstring names every file of it, and none that is gone."""

import importlib
import re
from pathlib import Path

import pytest

MAPPED = ["api", "feeds", "launch", "ledger", "model", "plan", "power", "report", "supervisor"]


@pytest.mark.parametrize("name", MAPPED)
def test_every_file_is_on_the_map(name: str) -> None:
    package = importlib.import_module(f"carbonsched.{name}")
    assert package.__doc__ is not None
    assert package.__file__ is not None
    named = re.findall(r"^([a-z_]+) {2,}\S", package.__doc__, flags=re.M)
    files = [path.stem for path in Path(package.__file__).parent.glob("*.py") if path.stem != "__init__"]
    assert sorted(named) == sorted(files)


def test_every_kind_of_journal_entry_is_documented() -> None:
    """docs/ledger.md lists what is written, and nothing else."""
    root = Path(__file__).parents[2]
    source = "\n".join(path.read_text(encoding="utf-8") for path in (root / "carbonsched").rglob("*.py"))
    calls = re.findall(r"(?:\.note|\b_note|_write)\(\s*(?:connection,\s*)?[\w.]+,\s*\"([a-z]+)\"", source)
    row = re.search(
        r"^\| `journal` \|([^;]*);", (root / "docs" / "ledger.md").read_text(encoding="utf-8"), flags=re.M
    )
    assert row
    assert set(calls) == set(re.findall(r"`([a-z]+)`", row[1]))
