"""What rows count with as settled, against sums made second by second."""

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from carbonsched.errors import LedgerError
from carbonsched.ledger.settlements import Settled, Settlement
from carbonsched.model.grid import Basis, Kind
from carbonsched.units import MJ_PER_J, grams

S = 1_000_000
LONG = 24
ONE = Settlement(
    start_us=0,
    end_us=S,
    g_per_kwh=100.0,
    provider="a",
    zone="XX",
    zones=("XX",),
    basis=Basis.AVERAGE_DIRECT,
    kind=Kind.ACTUAL,
    note="",
    issued_at=None,
    fetched_at="2026-03-01T12:00:00.000000Z",
    body_sha256=None,
    was=(None, None, None),
)


def settlement(start: int, seconds: int, g_per_kwh: float, zone: str) -> Settlement:
    return replace(
        ONE, start_us=start * S, end_us=(start + seconds) * S, g_per_kwh=g_per_kwh, zone=zone, zones=(zone,)
    )


SETTLEMENTS = st.lists(
    st.builds(
        settlement,
        st.integers(0, LONG),
        st.integers(0, 9),
        st.sampled_from([0.0, 50.0, 120.5]),
        st.sampled_from(["XX", "XX", "YY"]),
    ),
    max_size=8,
)


def row(start: int, seconds: int, energy_mj: int | None, g_per_kwh: float | None) -> dict[str, Any]:
    known = energy_mj is not None and g_per_kwh is not None
    spent = grams((energy_mj or 0) / MJ_PER_J, g_per_kwh or 0.0, 1.2) if known else None
    return {
        "start_us": start * S,
        "end_us": (start + seconds) * S,
        "energy_mj": energy_mj,
        "g_per_kwh": g_per_kwh,
        "zone": None if g_per_kwh is None else "XX",
        "basis": None if g_per_kwh is None else "average-direct",
        "pue": 1.2,
        "grams": spent,
    }


ROWS = st.builds(
    row,
    st.integers(0, LONG),
    st.integers(0, 12),
    st.none() | st.integers(0, 10**9),
    st.none() | st.sampled_from([0.0, 80.0, 500.0]),
)


@given(SETTLEMENTS, ROWS)
def test_the_newest_entry_holds_for_its_part_of_a_row_and_the_rows_own_value_for_the_rest(
    entries: list[Settlement], row: dict[str, Any]
) -> None:
    seconds = range(row["start_us"] // S, max(row["end_us"] // S, row["start_us"] // S + 1))
    values: list[float | None] = []
    covered = False
    for second in seconds:
        newest = next((e for e in reversed(entries) if e.start_us <= second * S < e.end_us), None)
        if newest is not None and (row["g_per_kwh"] is None or newest.zone == row["zone"]):
            values.append(newest.g_per_kwh)
            covered = True
        else:
            values.append(row["g_per_kwh"])
    energy = row["energy_mj"]
    known = [g for g in values if g is not None]
    found = Settled.of(entries).charge(row)
    assert found.covered is (covered and energy is not None)
    if energy is None or not known:
        assert found.grams is None
    elif not covered:
        assert found.grams == row["grams"], "to the last bit"
    else:
        spent = sum(grams(energy / MJ_PER_J / len(values), g, 1.2) for g in known)
        assert found.grams == pytest.approx(spent, rel=1e-12, abs=1e-15)
        assert found.g_per_kwh == pytest.approx(sum(known) / len(known))


@given(SETTLEMENTS, st.integers(0, LONG))
def test_an_old_time_can_be_forgotten(entries: list[Settlement], before: int) -> None:
    whole, later = Settled.of(entries), Settled.of(entries)
    later.forget(before * S)
    for second in range(before, LONG + 10):
        assert later.at(second * S) == whole.at(second * S)
    spans = later.edges()
    assert spans == sorted(spans)


@pytest.mark.parametrize(
    "broken", [{}, {"was": None}, {"start": "soon"}, {"basis": "fair"}, {"g_per_kwh": None}, {"start": 7}]
)
def test_an_entry_that_is_none_is_refused_in_one_line(broken: dict[str, Any]) -> None:
    entry = ONE.detail() | broken if broken else {}
    with pytest.raises(LedgerError, match="an entry 'settled' of the journal cannot be read"):
        Settlement.of(entry)


def test_an_entry_reads_back_as_it_was_written() -> None:
    for one in (
        ONE,
        replace(ONE, was=(3.5, "b", Kind.STATIC), replayed=(S, 2 * S), note="x", issued_at=ONE.fetched_at),
    ):
        assert Settlement.of(one.detail()) == one
