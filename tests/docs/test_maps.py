"""What a folder says it holds: each package's docstring names every file of it, and none that is gone."""

import importlib
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
ROOMS = sorted(
    path.parent.relative_to(ROOT)
    for top in ("carbonsched", "trainer", "benchmarks")
    for path in (ROOT / top).rglob("__init__.py")
    if len(path.parent.relative_to(ROOT).parts) > 1 and "migrations" not in path.parts
)


@pytest.mark.parametrize("room", ROOMS, ids=str)
def test_every_file_and_folder_is_on_the_map(room: Path) -> None:
    doc = importlib.import_module(".".join(room.parts)).__doc__
    assert doc is not None
    named = re.findall(r"^([a-z0-9_]+/?) {2,}\S", doc, flags=re.M)
    files = [path.stem for path in (ROOT / room).glob("*.py") if not path.stem.startswith("__")]
    folders = [f"{path.parent.name}/" for path in (ROOT / room).glob("*/__init__.py")]
    assert sorted(named) == sorted(files + folders)


def test_every_kind_of_journal_entry_is_documented() -> None:
    """docs/ledger.md lists what is written, and nothing else."""
    root = Path(__file__).parents[2]
    source = "\n".join(path.read_text(encoding="utf-8") for path in (root / "carbonsched").rglob("*.py"))
    calls = re.findall(
        r"(?:\.note|\.note_all|\b_note|_write)\(\s*(?:connection,\s*)?[\w.]+,\s*\"([a-z]+)\"", source
    )
    row = re.search(
        r"^\| `journal` \|([^;]*);", (root / "docs" / "ledger.md").read_text(encoding="utf-8"), flags=re.M
    )
    assert row
    assert set(calls) == set(re.findall(r"`([a-z]+)`", row[1]))
