"""Emissions by contracts, certificates and residual mix, to the gram."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from carbonsched.ledger.hours import Alike, Cell
from carbonsched.model.accounting import Accounting, Contract
from carbonsched.model.energy import BudgetAccount
from carbonsched.report.market import Hours, market_account

T0 = datetime(2026, 11, 20, tzinfo=UTC)
HOUR_US = 3_600_000_000
KWH_MJ = 3_600_000_000


def cell(energy_mj: float, pue: float, grams: float | None) -> Cell:
    """What the rows of an hour come to."""
    told: list[Any] = [None] * 6 if grams is None else ["neso", "GB", "average-direct", "actual", 1.0, ""]
    values: list[Any] = ["nvml", pue, "stated", grams is not None, *told, None, False]
    alike = Alike(*values, BudgetAccount.LOCATION, False)
    made = Cell("b", "job", "j", 0, "counter", False, True, alike, rows=1, energy_mj=round(energy_mj))
    made.grams = grams or 0.0
    return made


def hours(kwh: float = 1.0, n: int = 4, g: float | None = 300.0) -> Hours:
    made = Hours()
    first = int(T0.timestamp()) * 1_000_000
    for k in range(n):
        start = first + k * HOUR_US
        grams = None if g is None else kwh * g
        made.add(cell(kwh * KWH_MJ, 1.0, grams), start)
    return made


def contract(name: str, hour: int, length: int, g: float, kwh: float | None = None) -> Contract:
    start = T0 + timedelta(hours=hour)
    end = start + timedelta(hours=length)
    return Contract(name=name, start=start, end=end, g_per_kwh=g, kwh=kwh, renewable=g == 0, source="test")


def test_the_shortest_instrument_covers_first_and_the_rest_has_the_residual_mix() -> None:
    bought = [contract("year", -100, 8760, 50, kwh=2.0), contract("hour 1", 1, 1, 0)]
    stated = Accounting(residual_g_per_kwh=600, residual_source="AIB 2025")
    found = market_account(hours(), bought, stated)
    assert {use.name: use.kwh for use in found.contracts} == {"hour 1": 1.0, "year": 2.0}
    assert found.spent_g == pytest.approx(0 + 2 * 50 + 1 * 600)
    assert (found.location_g, found.hourly_kwh, found.renewable_kwh, found.rest_kwh) == (1200, 1.0, 1.0, 1.0)
    assert found.rest_source == "AIB 2025"


def test_without_a_residual_mix_the_grid_stands_in_and_says_so() -> None:
    found = market_account(hours(), [], Accounting())
    assert found.spent_g == found.location_g == 1200
    assert "no residual mix is stated" in found.rest_source


def test_energy_of_unknown_intensity_makes_the_sum_a_least_and_unknown_where_it_is_all() -> None:
    some = hours()
    some.add(cell(KWH_MJ, 1.0, None), 0)
    found = market_account(some, [], Accounting())
    assert (found.spent_g, (found.reason or "")[:8]) == (1200, "at least")
    assert market_account(hours(g=None), [], Accounting()).spent_g is None
    covered = market_account(hours(g=None), [contract("PPA", 0, 4, 10)], Accounting())
    assert (covered.spent_g, covered.reason) == (40, None), "a contract's factor needs no grid"


def test_a_row_over_the_end_of_an_hour_is_spread() -> None:
    made = Hours()
    of_hour = cell(100, 2.0, 10.0)
    of_hour.later = {HOUR_US: (50.0, 5.0)}
    made.add(of_hour, 0)
    assert made.facility_mj == {0: 100.0, 1: 100.0}
    assert made.grams == {0: 5.0, 1: 5.0}
