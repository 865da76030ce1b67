"""What a run needs of a model before its first step; here: which tensors may be chosen at all, and at what cost."""

import random
from typing import Any

import pytest
import torch
from support.models import tiny_llama
from transformers import LlamaConfig, LlamaForCausalLM, T5Config, T5ForConditionalGeneration

from carbonsched.errors import InputError
from trainer.distributed.wrapping import train_only
from trainer.methods.dropbp import DropBP
from trainer.methods.prepare import prepare
from trainer.profiling.flop_counter import Shape, StepCounter
from trainer.profiling.meta_model import meta_model


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
    everything = upper.curve(importance).select(1.0)
    assert set(everything.selected) == set(upper.names)
    assert everything.rho_planned < 1


def test_nothing_is_left_out_by_default(model: object) -> None:
    method = prepare(model, "greentrainer", Shape(2, 16)).method
    assert len(method.names) == len(method.profile.tensors)


@pytest.mark.parametrize("method", ["full", "ft-top2", "dropbp"])
def test_methods_that_choose_nothing_have_nothing_to_leave_out(model: object, method: str) -> None:
    with pytest.raises(InputError, match=r"train\.skip_earliest: method .* chooses no tensors"):
        prepare(model, method, Shape(2, 16), skip_earliest=0.25)


def sdpa(kind: str, dropout: float) -> Any:
    sizes = {"vocab_size": 50, "pad_token_id": 0}
    if kind == "t5":
        config: Any = T5Config(
            d_model=32, d_kv=8, d_ff=64, num_layers=2, num_heads=4, dropout_rate=dropout,
            decoder_start_token_id=0, **sizes,
        )  # fmt: skip
        return T5ForConditionalGeneration._from_config(config, attn_implementation="sdpa").train()
    config = LlamaConfig(
        hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2,
        attention_dropout=dropout, **sizes,
    )  # fmt: skip
    return LlamaForCausalLM._from_config(config, attn_implementation="sdpa").train()


@pytest.mark.parametrize("dropout", [0.0, 0.1])
@pytest.mark.parametrize("kind", ["t5", "llama"])
def test_fused_attention_costs_on_a_cpu_what_torch_makes_of_it(kind: str, dropout: float) -> None:
    """With dropout it is taken apart, and its backward pass costs 2 times the forward one, not 2.5 times."""
    model, shape = sdpa(kind, dropout), Shape(2, 40, 24 if kind == "t5" else None)
    state = torch.random.get_rng_state()
    method = prepare(model, "greentrainer", shape).method
    assert torch.equal(state, torch.random.get_rng_state())
    inputs = {"input_ids": torch.randint(1, 50, (2, 40)), "attention_mask": torch.ones(2, 40).long()}
    inputs["labels"] = torch.randint(1, 50, (2, 24)) if kind == "t5" else inputs["input_ids"]
    names = [t.name for t in method.profile.tensors]
    rng = random.Random(0)
    for k in range(12):
        selected = tuple(rng.sample(names, k + 1)) if k < 11 else tuple(names)
        train_only(model, selected, names)
        with StepCounter() as counter:
            model(**inputs).loss.backward()
        counted = counter.flops / method.profile.full_flops
        if dropout or not any("bias" in name for name in selected):
            assert counted == pytest.approx(method.ratio(selected), rel=1e-6)
        else:  # a mask that needs a gradient takes it apart too
            assert 0.9 * method.ratio(selected) < counted < method.ratio(selected)


def test_dropbp_is_priced_by_the_same_attention() -> None:
    method = prepare(sdpa("t5", 0.1), "dropbp", Shape(2, 40, 24)).method
    assert isinstance(method, DropBP)
    assert method.branches is not None
    assert method.branches.whole == pytest.approx(1)
