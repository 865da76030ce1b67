"""The method switch, on the profile of a tiny model."""

from pathlib import Path

import pytest
from support.models import tiny_llama, tiny_t5

from carbonsched.errors import InputError
from carbonsched.model.profile import Profile
from trainer.flops import profile
from trainer.meta import meta_model
from trainer.methods import BUILT, Method, check_method


@pytest.fixture(scope="module")
def llama(tmp_path_factory: pytest.TempPathFactory) -> Profile:
    return profile(meta_model(tiny_llama(tmp_path_factory.mktemp("llama"))), 4, 32)


def even(profile: Profile) -> dict[str, float]:
    return {t.name: 1.0 for t in profile.tensors}


@pytest.mark.parametrize("name", ["lora", "prefix", "dropbp", "greentrainer+lora"])
def test_methods_to_come_are_refused(name: str) -> None:
    with pytest.raises(
        InputError, match=rf"train\.method: '{name.replace('+', '.')}' is not built yet; use one of green"
    ):
        check_method(name)


@pytest.mark.parametrize("name", BUILT)
def test_what_is_chosen_costs_what_is_said(llama: Profile, name: str) -> None:
    method = Method(name, llama)
    choice = method.choice(method.importance(0, even(llama)))
    for rho in (0.0, choice.floor, 0.7, 1.0, 2.0):
        selection = choice.select(rho)
        assert selection.rho_planned == pytest.approx(method.ratio(selection.selected))
        if name not in ("full", "ft-top2"):
            assert selection.rho_planned <= max(rho, choice.floor) + 1e-12
    assert choice.points[0].rho == pytest.approx(choice.floor) == pytest.approx(method.floor)


def test_greentrainer_takes_everything_at_one(llama: Profile) -> None:
    choice = Method("greentrainer", llama).choice({t.name: -1.0 for t in llama.tensors})
    assert len(choice.select(1.0).selected) == len(llama.tensors), "also what would raise the loss"


def test_random_differs_by_segment_and_seed_and_repeats(llama: Profile) -> None:
    first = Method("random", llama, seed=1)
    assert not first.measures()
    assert first.importance(0, None) == Method("random", llama, seed=1).importance(0, None)
    assert first.importance(0, None) != first.importance(1, None)
    assert first.importance(0, None) != Method("random", llama, seed=2).importance(0, None)


def test_fixed_keeps_the_first_measurement(llama: Profile) -> None:
    method = Method("fixed", llama)
    assert method.measures()
    first = method.importance(0, even(llama))
    assert not method.measures()
    assert method.importance(1, None) == first


def test_top2_is_the_last_two_blocks_and_what_lies_above(llama: Profile) -> None:
    names = Method("ft-top2", llama).names
    assert {n.split(".")[2] for n in names if ".layers." in n} == {"2", "3"}
    assert "model.norm.weight" in names
    assert "model.embed_tokens.weight" not in names, "tied: its input side lies at the bottom"


def test_top2_of_an_encoder_decoder_is_in_the_decoder(tmp_path: Path) -> None:
    names = Method("ft-top2", profile(meta_model(tiny_t5(tmp_path, layers=3)), 4, 16, 8)).names
    blocks = {tuple(n.split(".")[:3]) for n in names if ".block." in n}
    assert blocks == {("decoder", "block", "1"), ("decoder", "block", "2")}


def test_only_some_tensors_may_be_trained(llama: Profile) -> None:
    among = frozenset(t.name for t in llama.tensors if "mlp" in t.name)
    choice = Method("greentrainer", llama, among=among).choice(even(llama))
    assert set(choice.select(1.0).selected) == among
    assert set(choice.select(0.6).selected) < among
