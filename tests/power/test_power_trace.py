import itertools
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from carbonsched.power.power_trace import HOLD_S, PowerReading, PowerTrace, trace

T0 = datetime(2026, 3, 1, 12, tzinfo=UTC)


def read(*points: tuple[float, float]) -> PowerTrace:
    first, *between, last = (PowerReading(at_s, watts) for at_s, watts in points)
    found = trace(first, between, last)
    assert found is not None
    return found


def test_a_burst_between_two_samples_is_in_the_mean() -> None:
    burst = read((0.0, 100.0), (0.4, 100.0), (0.5, 400.0), (0.6, 100.0), (1.0, 100.0))
    assert burst.mean_w == pytest.approx(130.0)
    assert burst.coverage == 1.0


def test_a_gap_is_integrated_and_counts_as_sampled_for_as_long_as_a_reading_holds() -> None:
    starved = read((0.0, 100.0), (1.0, 100.0), (31.0, 100.0), (40.0, 100.0))
    assert starved.mean_w == pytest.approx(100.0)
    assert starved.coverage == pytest.approx((1 + HOLD_S + 9) / 40)


def test_what_was_read_outside_of_the_two_samples_is_left_out() -> None:
    odd = trace(
        PowerReading(1.0, 100.0), [PowerReading(0.5, 9e3), PowerReading(2.5, 9e3)], PowerReading(2.0, 100.0)
    )
    assert odd is not None
    assert odd.mean_w == 100.0
    assert trace(PowerReading(1.0, 100.0), [], PowerReading(1.0, 100.0)) is None


def test_the_profile_lies_on_the_wall_times_that_it_is_given() -> None:
    profile = read((5.0, 100.0), (5.5, 300.0), (6.0, 100.0)).profile(T0, T0 + timedelta(seconds=2))
    assert [(at - T0).total_seconds() for at, _ in profile] == [0.0, 1.0, 2.0]
    assert [joules for _, joules in profile] == pytest.approx([0.0, 100.0, 200.0])


@given(
    steps=st.lists(st.floats(0.001, 30.0), min_size=1, max_size=30),
    watts=st.lists(st.floats(0, 700), min_size=31),
)
def test_the_mean_lies_between_the_readings_and_the_profile_never_falls(
    steps: list[float], watts: list[float]
) -> None:
    times = list(itertools.accumulate(steps, initial=0.0))
    points = list(zip(times, watts, strict=False))
    found = read(*points)
    values = [w for _, w in points]
    assert min(values) - 1e-6 <= found.mean_w <= max(values) + 1e-6
    assert 0 < found.coverage <= 1
    profile = found.profile(T0, T0 + timedelta(seconds=found.span_s))
    assert all(a[0] <= b[0] and a[1] <= b[1] for a, b in itertools.pairwise(profile))
    assert profile[-1][1] == pytest.approx(found.mean_w * found.span_s, abs=1e-6)
