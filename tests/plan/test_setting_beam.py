"""Plans of few segments by both prices, held against every plan there is."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.settings import best_of_all, instance

from carbonsched.plan.problem import Gap, Slot
from carbonsched.plan.setting_arrays import SettingArrays
from carbonsched.plan.setting_beam import best_by_beam
from carbonsched.plan.setting_search import search_settings
from carbonsched.plan.two_prices import TwoPrices


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 10_000))
def test_where_grams_and_time_both_bind_no_plan_is_better(seed: int) -> None:
    """By a price for grams alone, the deadline a bound, the worst of 149 such were 12% below the best and 11% of them by more than 1%."""
    asked = instance(seed, most=4)
    arrays = SettingArrays(asked, asked.points)
    best, found = best_of_all(arrays, asked.budget_g), search_settings(arrays, asked.budget_g)
    if best is None:
        return
    assert found is not None
    schedule = found.solution.schedule
    assert schedule.spend_g <= asked.budget_g * (1 + 1e-8)
    assert schedule.finish_s <= arrays.latest_s[-1] + 1e-5
    assert float(arrays.gains(found.solution.rho).sum()) >= best * (1 - 1e-9)


@pytest.mark.slow
def test_nor_is_one_of_five_segments() -> None:
    lost = []
    for seed in range(60):
        asked = instance(seed, most=5)
        arrays = SettingArrays(asked, asked.points)
        best, found = best_of_all(arrays, asked.budget_g), search_settings(arrays, asked.budget_g)
        if best is not None:
            assert found is not None
            lost.append(1 - float(arrays.gains(found.solution.rho).sum()) / best)
    assert len(lost) > 40
    assert np.mean(lost) <= 0.001
    assert max(lost) <= 0.01


@settings(max_examples=30, deadline=None)
@given(
    seed=st.integers(0, 10_000),
    pauses=st.booleans(),
    idle_w=st.sampled_from([0.0, 30.0]),
    gap_g=st.sampled_from([0.0, 0.5]),
    waits=st.lists(st.floats(0, 200), min_size=5, max_size=5),
)
def test_what_it_reckons_is_what_the_plan_takes(
    seed: int, pauses: bool, idle_w: float, gap_g: float, waits: list[float]
) -> None:
    """Waits, pauses by allowed hours and the tail included: else it would choose what does not fit."""
    gaps = (Gap(100.0, 0.0, gap_g),) if gap_g else ()
    asked = replace(instance(seed, most=5), may_pause=pauses, idle_w=idle_w, switch_j=10 * idle_w, gaps=gaps)
    asked = replace(asked, energy=replace(asked.energy, tail_j=500.0, tail_s=5.0))
    arrays = SettingArrays(asked, asked.points)
    release = np.cumsum(waits[: arrays.n])
    prices = TwoPrices.of(arrays, arrays.schedule(np.zeros(arrays.n)), asked.budget_g).clear()
    found = best_by_beam(arrays, prices, asked.budget_g, release)
    if found is None:
        return
    schedule = arrays.schedule(found.rho, found.release_s if pauses else None)
    assert schedule.spend_g == pytest.approx(found.schedule.spend_g)
    assert schedule.spend_g <= asked.budget_g * (1 + 1e-8)
    trained = [arrays.point(number) is not None for number in found.rho]
    assert trained == sorted(trained, reverse=True), "what is left out lies at its end"
    assert trained[0]


def test_many_segments_are_no_worse_than_the_bound_allows() -> None:
    """Ninety segments, so that what lies between two prices weighs little."""
    asked = instance(1)
    segments = tuple(replace(asked.segments[0], k=k, steps=10) for k in range(90))
    slots = tuple(Slot(i * 600.0, (i + 1) * 600.0, 300.0, 300.0) for i in range(12))
    asked = replace(
        asked,
        segments=segments,
        slots=slots,
        may_end_early=True,
        budget_g=90 * 10 * 400 * 300 / 3.6e6 * 0.7,
        deadline_s=90 * 10 * 4.0 * 0.8,
    )
    arrays = SettingArrays(asked, asked.points)
    found = search_settings(arrays, asked.budget_g)
    assert found is not None
    market = TwoPrices.of(arrays, found.solution.schedule, asked.budget_g)
    bound = market.bound(market.clear())
    assert bound * 0.985 <= float(arrays.gains(found.solution.rho).sum()) <= bound + 1e-9
