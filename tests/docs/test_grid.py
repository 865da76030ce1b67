"""docs/grid.md against the code: the table of 60 places is what `grid --setup --dry-run` proposes today, and printed."""

import sys
from pathlib import Path

from carbonsched.cli.grid_places import PLACES, filled, tables

PAGE = Path(__file__).parents[2] / "docs" / "grid.md"


def test_the_tables_are_of_today() -> None:
    sys.stdout.write(tables()["places"])
    assert PAGE.read_text() == filled(PAGE.read_text()), (
        "run: python -m carbonsched.cli.grid_places docs/grid.md"
    )


def test_there_are_sixty_places_and_each_is_in_the_table() -> None:
    rows = [line for line in tables()["places"].splitlines() if line.startswith("|")]
    assert len(set(PLACES)) == 60
    assert len(rows) == 62
