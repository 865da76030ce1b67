"""What each method may train and what it gains at each ρ, on the profile of a tiny model."""

import pytest
from support.models import tiny_llama

from carbonsched.model.methods.traits import METHODS
from carbonsched.model.profile import Profile
from trainer.methods.registry import build_method
from trainer.profiling.meta_model import meta_model
from trainer.profiling.profiler import profile


@pytest.fixture(scope="module")
def llama(tmp_path_factory: pytest.TempPathFactory) -> Profile:
    return profile(meta_model(tiny_llama(tmp_path_factory.mktemp("llama"))), 4, 32)


def even(profile: Profile) -> dict[str, float]:
    return {t.name: 1.0 for t in profile.tensors}


@pytest.mark.parametrize(
    "name", sorted({*METHODS} - {"dropbp", "tokens", "greentrainer+tokens", "lora+tokens"})
)
def test_what_is_chosen_costs_what_is_said(llama: Profile, name: str) -> None:
    method = build_method(name, llama)
    curve = method.curve(method.importance(0, even(llama)))
    for rho in (0.0, curve.floor, 0.7, 1.0, 2.0):
        selection = curve.select(rho)
        assert selection.rho_planned == pytest.approx(method.ratio(selection.selected))
        if not METHODS[name].constant_rho:
            assert selection.rho_planned <= max(rho, curve.floor) + 1e-12
    assert curve.points[0].rho == pytest.approx(curve.floor) == pytest.approx(method.floor)


def test_greentrainer_takes_everything_at_one(llama: Profile) -> None:
    curve = build_method("greentrainer", llama).curve({t.name: -1.0 for t in llama.tensors})
    assert len(curve.select(1.0).selected) == len(llama.tensors), "also what would raise the loss"


def test_random_differs_by_segment_and_seed_and_repeats(llama: Profile) -> None:
    first = build_method("random", llama, seed=1)
    assert not first.measures()
    assert first.importance(0, None) == build_method("random", llama, seed=1).importance(0, None)
    assert first.importance(0, None) != first.importance(1, None)
    assert first.importance(0, None) != build_method("random", llama, seed=2).importance(0, None)


def test_fixed_keeps_the_first_measurement(llama: Profile) -> None:
    method = build_method("fixed", llama)
    assert method.measures()
    first = method.importance(0, even(llama))
    assert not method.measures()
    assert method.importance(1, None) == first


def test_only_some_tensors_may_be_trained(llama: Profile) -> None:
    among = frozenset(t.name for t in llama.tensors if "mlp" in t.name)
    curve = build_method("greentrainer", llama, among=among).curve(even(llama))
    assert set(curve.select(1.0).selected) == among
    assert set(curve.select(0.6).selected) < among


def test_everything_is_taken_from_what_it_costs_up(llama: Profile) -> None:
    """Where not all tensors may be trained, adapters say, all of them cost less than 1."""
    among = frozenset(t.name for t in llama.tensors if "mlp" in t.name)
    method = build_method("greentrainer+lora", llama, among=among)
    assert method.ceiling < 0.9
    curve = method.curve({t.name: -1.0 for t in llama.tensors})
    assert set(curve.select(method.ceiling).selected) == among
    assert len(curve.select(method.ceiling - 0.01).selected) == 1
