"""A price for grams and one for time: no plan passes the bound that they give, and none gives a lower one."""

import itertools
import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from support.settings import FULL_S, best_of_all, instance

from carbonsched.plan.setting_arrays import SettingArrays
from carbonsched.plan.two_prices import Prices, TwoPrices


def market_of(arrays: SettingArrays, budget_g: float) -> TwoPrices:
    return TwoPrices.of(arrays, arrays.schedule(np.zeros(arrays.n)), budget_g)


@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 10_000), scale_g=st.floats(0.1, 3.0), scale_s=st.floats(0.1, 3.0))
def test_no_plan_gains_more_than_the_bound_and_no_prices_give_a_lower_one(
    seed: int, scale_g: float, scale_s: float
) -> None:
    problem = instance(seed, most=4, flat=True)
    arrays = SettingArrays(problem, problem.points)
    market = market_of(arrays, problem.budget_g)
    prices = market.clear()
    best = best_of_all(arrays, problem.budget_g)
    assume(best is not None)
    assert best is not None
    assert best <= market.bound(prices) + 1e-9
    others = Prices(prices.per_g * scale_g, prices.per_s * scale_s)
    assert best <= market.bound(others) + 1e-9, "at any prices"
    assert market.bound(prices) <= market.bound(others) + 1e-6, "those that clear give the least"


@pytest.mark.parametrize(("share", "binds"), [(10.0, False), (0.6, True)])
def test_a_deadline_that_leaves_time_enough_has_no_price_and_a_close_one_has(
    share: float, binds: bool
) -> None:
    asked = instance(3, flat=True)
    full_s = sum(s.steps for s in asked.segments) * FULL_S
    timed = replace(asked, budget_g=1e3, deadline_s=share * full_s, may_end_early=True)
    prices = market_of(SettingArrays(timed, timed.points), 1e3).clear()
    assert (prices.per_s > 0, prices.per_g) == (binds, 0.0)


def test_without_a_deadline_grams_alone_are_priced() -> None:
    asked = replace(instance(4, flat=True), deadline_s=None, may_end_early=True)
    market = market_of(SettingArrays(asked, asked.points), 0.3 * asked.budget_g)
    prices = market.clear()
    assert prices.per_g > 0
    assert prices.per_s == 0
    assert math.isfinite(market.bound(prices))


def test_by_hand() -> None:
    """Two alike segments; each may take nothing, a cheap and slow choice, or a dear and quick one."""
    gains = np.array([[0.0, 0.4, 0.5]] * 2)
    market = TwoPrices(
        gains, np.array([[0.0, 1.0, 4.0]] * 2), np.array([[0.0, 10.0, 2.0]] * 2), budget_g=2.0, time_s=30.0
    )
    assert market.choices(market.clear()).tolist() == [1, 1]
    assert market.clear().per_g == pytest.approx(0.1 / 3, rel=1e-3), "what keeps them from the dear one"
    best = max(
        sum(gains[0, list(pick)])
        for pick in itertools.product(range(3), repeat=2)
        if market.takes(np.array(pick))[0] <= 2.0
    )
    assert best == pytest.approx(0.8)
