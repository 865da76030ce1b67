"""The values of a chain over one tick: the same as the chain's own, asked for once."""

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.manual_clock import ManualClock
from support.roof import Roof

from carbonsched.feeds.supply.base import supply_gates
from carbonsched.feeds.supply.chain import SupplyChain
from carbonsched.model.grid import Kind, Source, SupplyReading, SupplyUnit
from carbonsched.supervisor.value_window import ValueWindow, changes

T0 = datetime(2026, 3, 1, 12, tzinfo=UTC)


def at(seconds: float) -> datetime:
    return T0 + timedelta(seconds=seconds)


def chain(lengths: list[int], now_s: float) -> SupplyChain:
    """Values of 0, 1, 2 … kW, that hold for so many seconds each."""
    source = Source(provider="roof", zone="XX", kind=Kind.ACTUAL, fetched_at=T0)
    readings, begin = [], 0
    for n, length in enumerate(lengths):
        shared = {"amount": float(n), "unit": SupplyUnit.KW, "g_per_kwh": 40.0, "source": source}
        readings.append(SupplyReading(start=at(begin), end=at(begin + length), **shared))
        begin += length
    found = SupplyChain([Roof(readings)], ManualClock(at(now_s)), supply_gates())
    found.poll_due()
    return found


@given(
    lengths=st.lists(st.integers(1, 20), min_size=1, max_size=8),
    start=st.integers(0, 60),
    span=st.integers(1, 60),
)
def test_it_says_what_the_chain_says(lengths: list[int], start: int, span: int) -> None:
    known = chain(lengths, start + span)
    window = ValueWindow(known, at(start), at(start + span))
    for second in range(start, start + span):
        assert window.reading_at(at(second)) == known.reading_at(at(second))
        assert window.inside(at(second), at(start + span)) == changes(known, at(second), at(start + span))


def test_the_chain_is_asked_once_for_as_long_as_a_value_holds(monkeypatch: pytest.MonkeyPatch) -> None:
    known, asked = chain([60, 60], 100), []
    window = ValueWindow(known, at(50), at(70))
    real = known.reading_at
    monkeypatch.setattr(known, "reading_at", lambda t: (asked.append(t), real(t))[1])
    values = [window.reading_at(at(second)) for second in (50, 55, 59.9, 60, 65)]
    assert [reading.amount for reading in values if reading] == [0.0, 0.0, 0.0, 1.0, 1.0]
    assert len(asked) == 2
