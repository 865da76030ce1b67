"""What a run needs of a model before its first step; here: which tensors may be chosen at all."""

import pytest
from support.models import tiny_llama

from carbonsched.errors import InputError
from trainer.flopcount import Shape
from trainer.meta import meta_model
from trainer.prepare import prepare


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> object:
    return meta_model(str(tiny_llama(tmp_path_factory.mktemp("llama"), layers=8)), "eager", "fp32")


def test_the_earliest_are_left_out_by_depth(model: object) -> None:
    whole = prepare(model, "greentrainer", Shape(2, 16)).method
    upper = prepare(model, "greentrainer", Shape(2, 16), skip_earliest=0.25).method
    left = [name for name in whole.names if name not in upper.names]
    blocks = {int(name.split(".")[2]) for name in left if ".layers." in name}
    assert blocks == {0, 1}, "a quarter of eight blocks"
    assert "model.embed_tokens.weight" in left, "tied: it is the bottom too"
    assert upper.floor == whole.floor
    importance = dict.fromkeys([t.name for t in whole.profile.tensors], 1.0)
    everything = upper.choice(importance).select(1.0)
    assert set(everything.selected) == set(upper.names)
    assert everything.rho_planned < 1


def test_nothing_is_left_out_by_default(model: object) -> None:
    method = prepare(model, "greentrainer", Shape(2, 16)).method
    assert len(method.names) == len(method.profile.tensors)


@pytest.mark.parametrize("method", ["full", "ft-top2", "dropbp"])
def test_methods_that_choose_nothing_have_nothing_to_leave_out(model: object, method: str) -> None:
    with pytest.raises(InputError, match=r"train\.skip_earliest: method .* chooses no tensors"):
        prepare(model, method, Shape(2, 16), skip_earliest=0.25)
