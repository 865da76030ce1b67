"""What flows in is weighed by its power: by hand, and for any flows."""

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from carbonsched.feeds.consumption_mix import Inflow, consumption
from carbonsched.feeds.generation_mix import Mix

T0 = datetime(2026, 1, 1, tzinfo=UTC)
HOUR, QUARTER = timedelta(hours=1), timedelta(minutes=15)


def mix(g: float, power: float, hour: int = 0, step: timedelta = HOUR) -> Mix:
    return Mix(T0 + hour * step, T0 + (hour + 1) * step, g, power)


def inflow(power: float, hour: int = 0) -> Inflow:
    return Inflow(T0 + hour * HOUR, T0 + (hour + 1) * HOUR, power)


def test_each_kwh_counts_at_what_its_own_zone_generates() -> None:
    flows = {"A": [inflow(30.0)], "B": [inflow(10.0)], "C": [inflow(-50.0)]}
    [found] = consumption([mix(100.0, 60.0)], flows, {"A": [mix(400.0, 1.0)], "B": [mix(20.0, 1.0)]})
    assert found.g_per_kwh == pytest.approx((60 * 100 + 30 * 400 + 10 * 20) / 100)
    assert (found.counted, found.without) == (("A", "B"), ())


def test_an_hours_flow_holds_for_its_quarters() -> None:
    own = [mix(100.0, 10.0, i, QUARTER) for i in range(5)]
    found = consumption(own, {"A": [inflow(10.0)]}, {"A": [mix(300.0, 1.0)]})
    assert [one.g_per_kwh for one in found] == [200.0] * 4, "the fifth quarter's flow is not known"


@pytest.mark.parametrize(("unknown", "known"), [(0.3, True), (30.0, True), (34.0, False)])
def test_a_neighbour_without_a_mix_has_no_weight_and_not_too_much_of_it(unknown: float, known: bool) -> None:
    flows = {"A": [inflow(40.0)], "X": [inflow(unknown)]}
    found = consumption([mix(100.0, 60.0)], flows, {"A": [mix(400.0, 1.0)]})
    assert [one.g_per_kwh for one in found] == ([pytest.approx(220.0)] if known else [])
    assert all(one.without == ("X",) for one in found)


def test_an_hour_without_a_border_that_matters_is_not_known() -> None:
    own = [mix(100.0, 60.0, hour) for hour in range(2)]
    theirs = {"A": [mix(400.0, 1.0, hour) for hour in range(2)]}
    assert len(consumption(own, {"A": [inflow(30.0)]}, theirs)) == 1
    told, untold = consumption(own, {"A": [inflow(0.5)]}, theirs)  # less than a hundredth
    assert (told.untold, untold.untold) == ((), ("A",))
    assert untold.note("production mix") == "consumption mix, one hop,; no imports; flow not told: A"


def test_flows_too_large_to_be_summed_are_not_known() -> None:
    theirs = {"A": [mix(400.0, 1.0)]}
    assert not consumption([mix(100.0, 1e308)], {"A": [inflow(1e308)]}, theirs)
    assert not consumption([mix(100.0, 60.0)], {"X": [inflow(float("inf"))]}, {})


POWER = st.floats(0, 1e300)
INTENSITY = st.floats(0, 2000)


@given(
    own=st.tuples(INTENSITY, st.floats(1e-3, 1e300)),
    others=st.dictionaries(
        st.sampled_from("ABCDE"), st.tuples(st.floats(-1e300, 1e300), INTENSITY | st.none())
    ),
)
def test_the_mean_lies_between_what_is_mixed(
    own: tuple[float, float], others: dict[str, tuple[float, float | None]]
) -> None:
    flows = {name: [inflow(power)] for name, (power, _) in others.items()}
    theirs = {name: [mix(g, 1.0)] for name, (_, g) in others.items() if g is not None}
    found = consumption([mix(*own)], flows, theirs)
    mixed = [own[0], *(g for power, g in others.values() if g is not None and power > 0)]
    for one in found:
        assert min(mixed) * (1 - 1e-9) <= one.g_per_kwh <= max(mixed) * (1 + 1e-9)
    if not any(power > 0 for power, _ in others.values()):
        assert [one.g_per_kwh for one in found] == [pytest.approx(own[0])]
