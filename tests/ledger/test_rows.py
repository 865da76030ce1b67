"""How a row is written and hashed."""

from datetime import timedelta
from pathlib import Path

import pytest
from sqlalchemy import create_engine
from support.intervals import interval_of
from support.job_history import T0, interval

from carbonsched.ledger import Ledger
from carbonsched.ledger.rows import GENESIS, canonical, chained, figures_problem, flatten
from carbonsched.ledger.store import upgrade
from carbonsched.model.grid import Kind, Price, Source, Supply

WRITTEN_BY_0002 = "e24eff477ef10bdaded71a50ab82dc96e9a9e8d5014f11a702ebb4552dbb3ab3"
"""Hash of the row below as the first of a ledger, as the schema before wrote it."""


def old_row() -> dict[str, object]:
    return {"id": 1, **flatten(interval(T0, 10, 500, job_id="j", segment=0, rho=0.5, note="x"))}


def with_supply_and_price() -> dict[str, object]:
    source = Source(provider="roof", zone="GB", kind=Kind.ACTUAL, fetched_at=T0, note="solar")
    priced = Price(start=T0, end=T0 + timedelta(hours=1), eur_per_kwh=-0.02, source=source)
    supply = Supply(share=0.25, g_per_kwh=40.0, source=source)
    row = interval(T0, 10, 3_600_000, g_per_kwh=200.0)
    return flatten(row.model_copy(update={"supply": supply, "price": priced}))


def test_a_row_that_knows_neither_supply_nor_price_hashes_as_it_did_before_there_were_any() -> None:
    assert chained(GENESIS, canonical(old_row())) == WRITTEN_BY_0002


def test_a_ledger_of_the_schema_before_is_migrated_and_still_verifies(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'ledger.db'}"
    engine = create_engine(url)
    row = {name: value for name, value in old_row().items() if value is not None}
    row |= {"prev_hash": GENESIS, "hash": WRITTEN_BY_0002}
    with engine.begin() as connection:
        upgrade(connection, to="0002")
        columns = ", ".join(row)
        values = tuple(row.values())
        marks = ", ".join("?" * len(values))
        connection.exec_driver_sql(f"INSERT INTO intervals ({columns}) VALUES ({marks})", values)  # noqa: S608
    engine.dispose()
    before = (tmp_path / "ledger.db").read_bytes()
    with Ledger.open(url, read_only=True) as ledger:  # an auditor changes nothing of what is audited
        assert (ledger.verify().ok, ledger.verify().rows) == (True, 1)
        assert ledger.where == url
    assert (tmp_path / "ledger.db").read_bytes() == before
    assert [file.name for file in tmp_path.iterdir()] == ["ledger.db"]
    with Ledger.open(url) as ledger:
        ledger.append([interval(T0 + timedelta(seconds=10), 10, 500)])
        assert ledger.verify().ok
        assert ledger.verify().rows == 2


def test_supply_and_price_make_grams_and_euros_that_follow_from_the_row() -> None:
    row = with_supply_and_price()
    assert row["grams"] == pytest.approx(0.2 * row["pue"])
    assert row["on_site_grams"] == pytest.approx((0.75 * 200 + 0.25 * 40) / 1000 * row["pue"])
    assert row["eur"] == pytest.approx(-0.02 / 1000 * row["pue"])
    assert figures_problem(row) is None


@pytest.mark.parametrize("column", ["grams", "on_site_grams", "eur", "supply_share", "eur_per_kwh"])
@pytest.mark.parametrize("value", [None, 0.5])
def test_a_figure_that_does_not_follow_is_named(column: str, value: float | None) -> None:
    said = figures_problem(with_supply_and_price() | {column: value})
    assert said is not None
    assert "gives" in said


@pytest.mark.parametrize("column", ["supply_source", "price_source", "supply_share"])
def test_what_is_taken_out_of_a_row_changes_its_hash(column: str) -> None:
    row = with_supply_and_price()
    assert canonical(row | {column: None}) != canonical(row)


def test_an_interval_comes_back_from_the_ledger(tmp_path: Path) -> None:
    one = interval(T0, 10, 500)
    with Ledger.open(f"sqlite:///{tmp_path / 'ledger.db'}") as ledger:
        ledger.append([one])
        assert interval_of(next(iter(ledger.rows()))) == one
