"""Every joule that a counter counted is charged once, and what was charged twice or to nobody breaks the audit."""

from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from support.forgery import Rows, remake
from support.job_history import GPU, T0, directive, done, interval, submitted

from carbonsched.ledger import Ledger
from carbonsched.model.audit import AuditResult
from carbonsched.model.energy import EnergyMethod
from carbonsched.model.job_state import JobState


def test_shares_of_one_stretch_are_counted_once(tmp_path: Path) -> None:
    with Ledger.open(f"sqlite:///{tmp_path / 'l.db'}") as ledger:
        whole = interval(T0, 10, 60, counter=1000, job_id="i", reason="shared equally by 2 jobs")
        both = whole.delta.model_copy(update={"counter_end_mj": 1100})
        ledger.append(
            [
                # two shares of one counter difference that carry its full span
                whole.model_copy(update={"delta": both}),
                interval(T0, 10, 40, counter=1000, job_id="k", reason="shared equally by 2 jobs").model_copy(
                    update={
                        "delta": both.model_copy(update={"energy_mj": 40}),
                        "grams": 40 / 60 * (whole.grams or 0),
                    }
                ),
                interval(T0 + timedelta(seconds=10), 10, 50, counter=1100),
            ]
        )
        found = ledger.verify()
        (balance,) = found.conservation
        assert (balance.charged_mj, balance.counted_mj, balance.holes_mj, balance.ok) == (150, 150, 0, True)
        assert found.ok
        ledger.append([interval(T0 + timedelta(seconds=30), 10, 50, counter=1130)])
        found = ledger.verify()
        (balance,) = found.conservation
        assert (balance.charged_mj, balance.counted_mj, balance.holes_mj, balance.ok) == (200, 180, 0, False)
        assert found.problem is not None
        assert "200 mJ were charged, the counter moved by 180 mJ" in found.problem, "20 mJ were charged twice"


@pytest.mark.parametrize(
    ("between", "holes"),
    [
        ([], 30),
        # the meter could read the power alone, or nothing at all: the rows say so, and stand for the time
        ([interval(T0 + timedelta(seconds=10), 10, 29, method=EnergyMethod.INTEGRATED)], 0),
        ([interval(T0 + timedelta(seconds=10), 4, None), interval(T0 + timedelta(seconds=14), 6, None)], 0),
        ([interval(T0 + timedelta(seconds=10), 4, None)], 30),
        ([interval(T0 + timedelta(seconds=10), 10, None, board="host")], 30),
    ],
    ids=["no row", "power alone", "unknown", "unknown for a part", "another board"],
)
def test_a_counter_moves_unseen_only_where_a_row_says_so(
    tmp_path: Path, between: list[Any], holes: int
) -> None:
    with Ledger.open(f"sqlite:///{tmp_path / 'l.db'}") as ledger:
        after = interval(T0 + timedelta(seconds=20), 10, 50, counter=1090)
        ledger.append([interval(T0, 10, 60, counter=1000), *between, after])
        found = ledger.verify()
    balance = next(each for each in found.conservation if each.board == GPU)
    assert (balance.holes_mj, balance.ok, found.ok) == (holes, holes == 0, holes == 0)
    assert balance.charged_mj == balance.counted_mj == 110


def forged(path: Path, edit: Callable[[Rows], None]) -> AuditResult:
    """A ledger whose interval rows were edited by somebody who then made every number and hash of both chains anew."""
    url = f"sqlite:///{path / 'ledger.db'}"
    with Ledger.open(url) as ledger:
        ledger.add_job(submitted("j"))
        ledger.append(
            [
                interval(
                    T0 + timedelta(seconds=n),
                    1,
                    100 + n,
                    job_id="j",
                    segment=0,
                    counter=sum(range(100, 100 + n)),
                )
                for n in range(12)
            ]
        )
        ledger.save_segment("j", done(0, T0, 0.5), T0, T0 + timedelta(seconds=9), directive(0, T0, 0.5))
        ledger.set_state("j", JobState.RUNNING, "started", "daemon", T0)
        sound = ledger.verify()
        assert sound.ok
        assert [balance.charged_mj for balance in sound.conservation] == [sum(range(100, 112))]
    remake(path / "ledger.db", edit)
    with Ledger.open(url) as ledger:
        return ledger.verify()


def test_a_ledger_forged_without_an_edit_still_verifies(tmp_path: Path) -> None:
    assert forged(tmp_path, lambda rows: None).ok, "the forger knows how"


def test_a_row_that_was_taken_out_shows_in_conservation_alone(tmp_path: Path) -> None:
    found = forged(tmp_path, lambda rows: rows.pop(4))
    assert (found.ok, found.rows, found.first_bad) == (False, 11, None)
    assert found.problem == (
        f"conservation is broken on board {GPU}, counter epoch boot-1:0: the counter moved by 104 mJ while no row "
        "accounts for it"
    )
    (balance,) = found.conservation
    assert (balance.charged_mj, balance.counted_mj, balance.holes_mj) == (1162, 1162, 104)


def test_energy_that_was_made_smaller_shows_in_conservation_alone(tmp_path: Path) -> None:
    def shrink(rows: Rows) -> None:
        rows[6]["energy_mj"] = 1

    found = forged(tmp_path, shrink)
    assert (found.ok, found.first_bad) == (False, None)
    assert found.problem is not None
    assert "1161 mJ were charged, the counter moved by 1266 mJ" in found.problem
