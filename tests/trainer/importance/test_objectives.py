"""What each objective makes of the measured numbers, and the claims they are there for."""

import math
from dataclasses import asdict
from typing import get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from carbonsched.errors import InputError
from carbonsched.model.methods import selection
from carbonsched.model.profile import Profile, TensorCost
from trainer.importance.estimators import ESTIMATORS
from trainer.importance.measure import Importance
from trainer.importance.objectives import OBJECTIVES, TrainingHistory, draw_importance, objective_of
from trainer.selection.frontier import Selector

signed = st.floats(-1e6, 1e6, allow_subnormal=False).filter(lambda x: x == 0 or abs(x) > 1e-6)


def found(
    values: dict[str, float], variance: dict[str, float] | None = None, bend: dict[str, float] | None = None
) -> Importance:
    return Importance(values, (1.0,), 0.1, 0, 0, variance, bend)


def value(name: str, importance: Importance, past: TrainingHistory | None = None) -> dict[str, float]:
    return objective_of(name).value(importance, past or TrainingHistory())


def test_the_spec_offers_what_there_is() -> None:
    assert set(get_args(selection.Importance)) == OBJECTIVES.keys()
    assert {o.estimator for o in OBJECTIVES.values()} - {None} == ESTIMATORS.keys()
    with pytest.raises(InputError, match=r"train\.importance: 'luck' is not known; use one of update, mag"):
        objective_of("luck")


@given(st.dictionaries(st.text(min_size=1), signed, min_size=1))
def test_order_and_sign_stay_where_nothing_else_is_known(values: dict[str, float]) -> None:
    got = value("coverage", found(values))
    for a in values:
        assert math.copysign(1, got[a]) == math.copysign(1, values[a]) or not got[a]
        for b in values:
            assert got[a] <= got[b] or values[a] > values[b]


@given(signed, st.floats(0, 1e6), st.floats(0, 1e6))
def test_noise_never_adds_and_takes_more_where_rows_disagree_more(v: float, less: float, more: float) -> None:
    less, more = sorted((less, more))
    got = value("noise", found({"a": v, "b": v, "sure": v}, {"a": less, "b": more, "sure": 0.0}))
    assert abs(got["b"]) <= abs(got["a"]) * (1 + 1e-12)
    assert abs(got["a"]) <= abs(v) * (1 + 1e-12)
    assert got["sure"] == v


def test_noise_is_the_best_linear_guess() -> None:
    """Twice as uncertain as large: a fifth of it is left."""
    assert value("noise", found({"a": 2.0}, {"a": 16.0}))["a"] == pytest.approx(2 / 5)


def test_curvature_is_the_drop_at_the_best_step() -> None:
    """The loss along an update is −I·s + C·s²/2: the least of it is what comes out."""
    slope, bend = 3.0, 0.7
    best = min(-slope * s / 1000 + bend * (s / 1000) ** 2 / 2 for s in range(10_000))
    got = value(
        "curvature", found({"a": slope, "up": -slope, "off": 0.0}, None, {"a": bend, "up": bend, "off": 0.0})
    )
    assert got["a"] == pytest.approx(-best, rel=1e-6)
    assert got["up"] == -got["a"]
    assert got["off"] == 0


def test_coverage_brings_everything_to_its_turn() -> None:
    """With room for a third of the tensors and importances an order of magnitude apart none is left out for good."""
    names = [f"t{i}" for i in range(9)]
    profile = Profile(
        model="toy",
        params=9,
        forward_flops=9.0,
        full_flops=27.0,
        tensors=tuple(TensorCost(name=n, numel=1, depth_flops=0.0, dw_flops=2.0) for n in names),
        batch=1,
        seq=1,
    )
    selector, past = Selector(profile), TrainingHistory()
    importance = found({n: float(1 + i) for i, n in enumerate(names)})
    for _ in range(200):
        selected = selector.frontier(value("coverage", importance, past)).select(15 / 27).selected
        assert len(selected) == 3
        past.add([(selected, 10)])
    assert past.trained.keys() == set(names)
    assert past.trained["t8"] > past.trained["t0"]
    plain = selector.frontier(value("update", importance, past)).select(15 / 27)
    assert set(plain.selected) == {"t6", "t7", "t8"}


def test_the_past_knows_who_stood_still() -> None:
    past = TrainingHistory()
    assert past.common_steps(["a", "b"]) == 0
    past.add([(["a", "b"], 3), (["a", "b"], 2)])
    assert past.common_steps(["a", "b"]) == 5
    past.add([(["a"], 4), (["b"], 0)])
    assert past.common_steps(["a", "b"]) == 0
    assert past.common_steps(["a"]) == 9
    assert (past.segments_since("a"), past.segments_since("b"), past.segments_since("never")) == (0, 1, 2)
    # equal counts that were had at different times are not one age
    past.add([(["b"], 4)])
    assert past.trained == {"a": 9, "b": 9}
    assert past.common_steps(["a", "b"]) == 0
    assert TrainingHistory(**asdict(past)) == past


def test_a_draw_depends_on_seed_and_segment_alone() -> None:
    sizes = {"a": 1, "b": 10_000}
    assert draw_importance(sizes, 1, 0) == draw_importance(sizes, 1, 0)
    assert draw_importance(sizes, 1, 0) != draw_importance(sizes, 1, 1)
    assert draw_importance(sizes, 1, 0) != draw_importance(sizes, 2, 0)
    assert draw_importance({"a": 4}, 1, 0)["a"] == 2 * draw_importance({"a": 1}, 1, 0)["a"]
