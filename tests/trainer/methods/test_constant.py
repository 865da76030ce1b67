"""Methods that train the same tensors whatever is asked: which tensors those are."""

from pathlib import Path

import pytest
from support.models import tiny_llama, tiny_t5

from carbonsched.errors import InputError
from carbonsched.model.profile import Profile
from trainer.methods.registry import build_method
from trainer.profiling.meta_model import meta_model
from trainer.profiling.profiler import profile


@pytest.fixture(scope="module")
def llama(tmp_path_factory: pytest.TempPathFactory) -> Profile:
    return profile(meta_model(tiny_llama(tmp_path_factory.mktemp("llama"))), 4, 32)


def test_top2_is_the_last_two_blocks_and_what_lies_above(llama: Profile) -> None:
    names = build_method("ft-top2", llama).names
    assert {n.split(".")[2] for n in names if ".layers." in n} == {"2", "3"}
    assert "model.norm.weight" in names
    assert "model.embed_tokens.weight" not in names, "tied: its input side lies at the bottom"


def test_top2_of_an_encoder_decoder_is_in_the_decoder(tmp_path: Path) -> None:
    names = build_method("ft-top2", profile(meta_model(tiny_t5(tmp_path, layers=3)), 4, 16, 8)).names
    blocks = {tuple(n.split(".")[:3]) for n in names if ".block." in n}
    assert blocks == {("decoder", "block", "1"), ("decoder", "block", "2")}


def test_top2_wants_two_blocks(llama: Profile) -> None:
    one = frozenset(t.name for t in llama.tensors if ".layers.0." in t.name)
    with pytest.raises(InputError, match="'ft-top2' finds no stack of blocks"):
        build_method("ft-top2", llama, among=one)
