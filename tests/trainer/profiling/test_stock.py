"""What a stock Trainer computes on given rows, against orders that are worked out one by one."""

from itertools import permutations
from statistics import fmean

import pytest

from trainer.profiling.flop_counter import FullStepFlops, Shape
from trainer.profiling.stock import padded, random_orders, split


def full(per_label: float | None = None) -> FullStepFlops:
    """Each token costs 1, each pair of tokens of a row 0.1, of an encoder-decoder's target 2."""
    return FullStepFlops(lambda s: s.batch * (s.seq + 0.1 * s.seq**2 + 2.0 * (s.target_seq or 0)), per_label)


@pytest.mark.parametrize("two_sided", [False, True])
def test_the_mean_over_random_orders_is_that_over_all_orders(two_sided: bool) -> None:
    rows = [(3, 2), (9, 1), (4, 7), (12, 3), (5, 1)]
    given = [(seq, target if two_sided else None) for seq, target in rows]
    cost = full()
    each = [sum(cost.flops(padded(order[i : i + 2])) for i in (0, 2, 4)) for order in permutations(given)]
    mean, spread, orders = random_orders(cost, dict.fromkeys(given, 1), batch=2, seed=0)
    assert orders == 16
    assert min(each) <= mean <= max(each)
    assert mean == pytest.approx(fmean(each), abs=3 * spread / orders**0.5)
    assert spread > 0
    assert random_orders(full(), {(7, None): 5}, batch=2, seed=0)[:2] == pytest.approx((5 * 11.9, 0.0))
    assert random_orders(cost, {}, batch=2, seed=0) == (0.0, 0.0, 0)


def test_what_is_left_of_stock_is_what_we_run() -> None:
    cost = full(per_label=10.0)
    stock = [padded([(3, None), (9, None)]), padded([(4, None), (8, None)])]
    ours = [Shape(2, 4, None, 3), Shape(2, 9, None, 5)]
    waste = split(cost, stock, ours)
    assert waste.flops == pytest.approx(cost.total(ours), rel=1e-12)
    assert waste.head_flops == pytest.approx(10.0 * (2 * 4 + 2 * 9 - 8))
    assert waste.padding_flops == pytest.approx(cost.total(stock) - cost.total([Shape(2, 4), Shape(2, 9)]))
    assert waste.estimated is False
