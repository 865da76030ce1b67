"""Which readings are believed."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.manual_clock import ManualClock
from support.provider import T0, ZONE, Provider, at, reading, states

from carbonsched.feeds.chain import Chain
from carbonsched.feeds.plausibility import (
    LEAP_G_PER_KWH,
    NEIGHBOURS,
    Sifted,
    intensity_gates,
    quarantine,
    sift,
)
from carbonsched.model.grid import Basis, Reading

GATES = intensity_gates(ZONE.basis)


def believed(*values: float, before: float | None = None) -> list[float]:
    """Of half hours of these values, after one of `before`."""
    answered = [reading(30 * i, value) for i, value in enumerate(values)]
    last = None if before is None else reading(-30, before)
    found = quarantine(sift(answered, T0, GATES), last, None, GATES)
    return [r.g_per_kwh for r in found.believed]


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([100, 900, 110], [100, 110]),
        ([100, 900, 910], [100, 900, 910]),
        ([100, 900], [100]),
        ([100, 900, 100, 900, 100], [100, 100, 100]),
        ([900], [900]),
        ([100, 590, 95], [100, 590, 95]),
        ([1500, 2, 3], [1500, 2, 3]),
    ],
)
def test_a_spike_is_never_believed_and_a_new_level_from_its_second_value_on(
    values: list[float], expected: list[float]
) -> None:
    assert believed(*values) == expected


def test_what_was_known_before_is_a_neighbour_too() -> None:
    assert believed(900, before=100) == []
    assert believed(900, before=450) == [900]


def test_a_leap_over_a_hole_is_none() -> None:
    answered = [reading(0, 100), reading(95, 900)]
    assert len(quarantine(sift(answered, T0, GATES), None, None, GATES).believed) == 2


def test_marginal_values_may_leap() -> None:
    base = [reading(0, 10), reading(30, 900)]
    answered = [
        r.model_copy(update={"source": r.source.model_copy(update={"basis": Basis.MARGINAL_DIRECT})})
        for r in base
    ]
    assert (
        len(
            quarantine(sift(answered, T0, intensity_gates(Basis.MARGINAL_DIRECT)), None, None, GATES).believed
        )
        == 2
    )


@pytest.mark.parametrize("days", [-61, 9])
def test_a_reading_of_another_time_is_refused(days: int) -> None:
    found = sift([reading(days * 1440, 100)], T0, GATES)
    assert found.believed == ()
    assert "that is another time than" in found.refused[0]


def test_a_reading_that_would_hold_for_a_week_is_refused() -> None:
    found = sift([reading(0, 100, length=7 * 1440)], T0, GATES)
    assert found.believed == ()
    assert "refused a reading that lasts until 2026-03-08T12:00Z" in found.refused[0]


@given(st.lists(st.floats(0, 2000), max_size=30))
def test_no_two_neighbours_that_are_believed_leap_but_to_a_level_that_stays(values: list[float]) -> None:
    answered = [reading(30 * i, value) for i, value in enumerate(values)]
    found = quarantine(sift(answered, T0, GATES), None, None, GATES)
    kept = found.believed
    assert [r.start for r in kept] == sorted(r.start for r in kept)
    for i, (a, b) in enumerate(itertools.pairwise(kept)):
        if b.start - a.end <= NEIGHBOURS and abs(a.g_per_kwh - b.g_per_kwh) > LEAP_G_PER_KWH:
            assert i + 2 < len(kept)
            assert abs(kept[i + 2].g_per_kwh - b.g_per_kwh) <= LEAP_G_PER_KWH
    assert len(kept) + len(found.refused) >= len(values)


@given(st.lists(st.floats(0, 2000), min_size=1, max_size=20), st.integers(1, 20))
def test_it_is_the_same_whether_values_come_at_once_or_one_by_one(values: list[float], first: int) -> None:
    answered = [reading(30 * i, value) for i, value in enumerate(values)]
    at_once = quarantine(sift(answered, T0, GATES), None, None, GATES).believed
    kept: list[Reading] = []
    state = Sifted((), ())
    for part in (answered[:first], *([one] for one in answered[first:])):
        before = kept[-1] if kept else None
        state = quarantine(sift(part, T0, GATES), before, state.waiting, GATES)
        kept += state.believed
    assert tuple(kept) == at_once


def test_a_feed_with_a_value_in_quarantine_goes_on_with_the_one_before() -> None:
    clock = ManualClock(T0)
    a = Provider("a", reading(0, 100))
    chain = Chain([a], ZONE, clock)
    chain.poll_due()
    clock.advance(1800)
    a.gives(reading(30, 900))
    chain.poll_due()
    assert at(chain, 31) == 100
    assert states(chain) == ["ok"]
    assert "waits for the next value: no grid leaps from 100" in (chain.status()[0].error or "")
    clock.advance(1800)
    a.gives(reading(60, 905))
    chain.poll_due()
    assert at(chain, 31) == 900
    assert at(chain, 61) == 905
    assert chain.status()[0].error is None
