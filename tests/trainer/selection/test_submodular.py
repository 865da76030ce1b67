"""Diminishing returns within a block: against every selection there is, and as a curve."""

import itertools
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from carbonsched.errors import InputError
from carbonsched.model.profile import Profile, TensorCost
from trainer.selection.cost_model import CostModel
from trainer.selection.frontier import Selector
from trainer.selection.submodular import SubmodularFrontier


def chain(rng: random.Random, count: int) -> Profile:
    """Tensors along a chain, the deepest first, of few distinct costs, as in a transformer."""
    depth, tensors = 0, []
    for i in range(count):
        depth += rng.choice([0, 2, 4])
        tensors.append(TensorCost(name=f"t{i}", numel=1, depth_flops=depth, dw_flops=rng.choice([2, 4, 8])))
    full = 10.0 + depth + sum(t.dw_flops for t in tensors)
    return Profile(
        model="toy",
        params=count,
        forward_flops=10.0,
        full_flops=full,
        tensors=tuple(reversed(tensors)),
        batch=1,
        seq=1,
    )


def instance(seed: int) -> tuple[Profile, dict[str, float], dict[str, str], SubmodularFrontier]:
    rng = random.Random(seed)
    profile = chain(rng, rng.randint(2, 9))
    importance = {
        t.name: rng.choice([-1.0, 0.0, 1.0, 1.0, 1.0]) * rng.lognormvariate(0, 1) for t in profile.tensors
    }
    blocks = {name: str(rng.randrange(3)) for name in importance if rng.random() < 0.9}
    return profile, importance, blocks, SubmodularFrontier(Selector(profile), importance, blocks)


def best_there_is(profile: Profile, curve: SubmodularFrontier, rho: float) -> float:
    names, costs = [t.name for t in profile.tensors], CostModel.of(profile)
    subsets = itertools.chain.from_iterable(
        itertools.combinations(names, k) for k in range(1, len(names) + 1)
    )
    return max(curve.value(s) for s in subsets if costs.flops(s) <= rho * profile.full_flops + 1e-9)


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10**6), st.floats(0, 1))
def test_it_keeps_the_budget_and_beats_the_plain_sum(seed: int, share: float) -> None:
    profile, importance, _, curve = instance(seed)
    rho = curve.rho_floor + share * (1 - curve.rho_floor)
    found = curve.select(rho)
    assert CostModel.of(profile).flops(found.selected) <= rho * profile.full_flops * (1 + 1e-12)
    assert found.importance == pytest.approx(curve.value(found.selected))
    plain = Selector(profile).frontier(importance).select(rho)
    assert found.importance >= curve.value(plain.selected) - 1e-12


def test_it_is_near_the_best_there_is() -> None:
    """300 random cases: the optimum in most, and never far from it."""
    reached = []
    for seed in range(300):
        profile, _, _, curve = instance(seed)
        rho = random.Random(seed).uniform(curve.rho_floor, 1)
        best = best_there_is(profile, curve, rho)
        reached.append(curve.select(rho).importance / best if best else 1.0)
    assert sum(r > 1 - 1e-9 for r in reached) >= 0.9 * len(reached)
    assert sum(reached) / len(reached) > 0.995
    assert min(reached) > 0.8


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10**6))
def test_the_curve_offered_is_what_selecting_gives(seed: int) -> None:
    profile, importance, _, curve = instance(seed)
    points = curve.points()
    assert points[0].rho == pytest.approx(curve.rho_floor)
    assert [p.rho for p in points] == sorted(p.rho for p in points)
    assert [p.importance for p in points] == sorted(p.importance for p in points)
    for point in points:
        assert curve.select(point.rho).importance >= point.importance - 1e-12
    assert curve.select(1.0).importance == pytest.approx(curve.value(importance))
    # and the same again, whatever was asked in between
    again = SubmodularFrontier(Selector(profile), importance, curve._block)
    assert [again.select(p.rho) for p in points] == [curve.select(p.rho) for p in points]


def test_a_second_block_is_worth_more_than_more_of_the_first() -> None:
    """Four tensors of equal cost: by the sum the two of block a, by diminishing returns one of each."""
    profile = Profile(
        model="toy",
        params=4,
        forward_flops=10.0,
        full_flops=18.0,
        tensors=tuple(TensorCost(name=n, numel=1, depth_flops=0.0, dw_flops=2.0) for n in "abcd"),
        batch=1,
        seq=1,
    )
    importance, selector = {"a": 5.0, "b": 4.0, "c": 3.0, "d": 1.0}, Selector(profile)
    blocks = {"a": "1", "b": "1", "c": "2", "d": "2"}
    assert set(selector.frontier(importance).select(14 / 18).selected) == {"a", "b"}
    assert set(SubmodularFrontier(selector, importance, blocks).select(14 / 18).selected) == {"a", "c"}


def test_below_the_floor_there_is_nothing() -> None:
    _, _, _, curve = instance(1)
    with pytest.raises(InputError, match="is below the floor"):
        curve.select(curve.rho_floor * 0.9)
