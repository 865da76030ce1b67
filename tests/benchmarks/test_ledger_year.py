"""The benchmark of a ledger that has lasted: it goes on where it was cut short, and says what it measured of how much."""

import json
from pathlib import Path

import pytest

from benchmarks import ledger_year


def test_it_goes_on_and_says_what_is_measured_and_what_is_carried_on(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    small = [str(tmp_path), "--boards", "2", "--row-s", "3600"]
    ledger_year.main([*small, "--days", "1"])
    ledger_year.main([*small, "--days", "8"])
    text = capsys.readouterr().out
    found = json.loads(text[text.rindex("\n{") :])
    assert (found["days"], found["rows"]) == (8, 8 * 24 * 3), "the first day was there"
    assert found["full_verify_s"]["carried_on_to_a_year"] == pytest.approx(
        found["full_verify_s"]["here"] * 365 / 8 * 9 / 3, rel=0.02, abs=0.15
    )
    assert found["incremental_verify_s"]["carried_on_to_a_year"] is None, "it does not grow with the rows"


def test_held_writes_as_many_rows_as_the_roll_up_leaves(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    ledger_year.main(
        [
            *(str(tmp_path), "--boards", "1", "--row-s", "60", "--days", "3", "--raw-days", "1"),
            *("--minute-days", "1", "--held"),
        ]
    )
    text = capsys.readouterr().out
    found = json.loads(text[text.index("{") :])
    assert (found["rows_held"], found["hours"]) == (2 * (1440 + 48 + 48), 72)
