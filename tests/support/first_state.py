"""The state folder as commit ac682f2 left it: tests/fixtures/make_first_state.py made it by that version's own code."""

import json
import sqlite3
from pathlib import Path

_FIXTURES = Path(__file__).parents[1] / "fixtures"


def write_first_state(folder: Path) -> None:
    """Jobs' files and the ledger, below `folder`, which is made where it is not there."""
    for name, text in json.loads((_FIXTURES / "first_state.json").read_text()).items():
        path = folder / "jobs" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    with sqlite3.connect(folder / "ledger.db") as database:
        database.executescript((_FIXTURES / "first_state.sql").read_text())
    database.close()
