"""The method switch, on the profile of a tiny model."""

from pathlib import Path
from typing import get_args

import pytest
from support.models import tiny_llama, tiny_t5

from carbonsched.errors import InputError
from carbonsched.model import job
from carbonsched.model.profile import Profile
from trainer.methods.dropbp import Branches
from trainer.methods.method import BUILT, CONSTANT, Method, check_method
from trainer.profiling.meta_model import meta_model
from trainer.profiling.profiler import profile


@pytest.fixture(scope="module")
def llama(tmp_path_factory: pytest.TempPathFactory) -> Profile:
    return profile(meta_model(tiny_llama(tmp_path_factory.mktemp("llama"))), 4, 32)


def even(profile: Profile) -> dict[str, float]:
    return {t.name: 1.0 for t in profile.tensors}


def test_there_is_no_other_method() -> None:
    with pytest.raises(
        InputError, match=r"train\.method: 'galore' is not known; use one of greentrainer, full"
    ):
        check_method("galore")


def test_the_spec_knows_the_same_methods() -> None:
    assert set(get_args(job.Method)) == set(BUILT)


@pytest.mark.parametrize("name", sorted({*BUILT} - {"dropbp"}))
def test_what_is_chosen_costs_what_is_said(llama: Profile, name: str) -> None:
    method = Method(name, llama)
    choice = method.choice(method.importance(0, even(llama)))
    for rho in (0.0, choice.floor, 0.7, 1.0, 2.0):
        selection = choice.select(rho)
        assert selection.rho_planned == pytest.approx(method.ratio(selection.selected))
        if name not in CONSTANT:
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


def test_dropbp_offers_a_straight_line_and_trains_everything(llama: Profile) -> None:
    method = Method("dropbp", llama, branches=Branches(("a", "b"), (0.2, 0.3), 1.0))
    assert not method.measures()
    choice = method.choice(method.importance(0, None))
    assert choice.floor == method.floor == pytest.approx(0.5)
    for rho, planned, gain in (
        (0.1, 0.5, 0),
        (0.5, 0.5, 0),
        (0.75, 0.75, 0.5),
        (1.0, 1.0, 1.0),
        (2.0, 1.0, 1.0),
    ):
        selection = choice.select(rho)
        assert (selection.rho_planned, selection.importance) == pytest.approx((planned, gain))
        assert len(selection.selected) == len(llama.tensors)
    assert [(p.rho, p.importance) for p in (choice.points[0], choice.points[-1])] == [(0.5, 0.0), (1.0, 1.0)]


def test_everything_is_taken_from_what_it_costs_up(llama: Profile) -> None:
    """Where not all tensors may be trained, adapters say, all of them cost less than 1."""
    among = frozenset(t.name for t in llama.tensors if "mlp" in t.name)
    method = Method("greentrainer+lora", llama, among=among)
    assert method.ceiling < 0.9
    choice = method.choice({t.name: -1.0 for t in llama.tensors})
    assert set(choice.select(method.ceiling).selected) == among
    assert len(choice.select(method.ceiling - 0.01).selected) == 1
