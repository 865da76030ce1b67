"""Models whose activations cannot be kept, though nothing in their config says so, are found out before a row is kept."""

from pathlib import Path
from typing import Any

import pytest
import torch
from support.models import tiny_llama
from transformers import AutoModelForCausalLM

from carbonsched.errors import InputError
from trainer.training.activation_cache import ActivationCache

torch.set_num_threads(1)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_llama(tmp_path_factory.mktemp("llama"), layers=6)


def load(folder: Path) -> Any:
    return AutoModelForCausalLM.from_pretrained(folder, attn_implementation="eager")


def test_draws_that_no_config_tells_of_are_found_by_trial(folder: Path) -> None:
    model = load(folder)
    model.model.layers[0].mlp.act_fn = torch.nn.Sequential(
        model.model.layers[0].mlp.act_fn, torch.nn.Dropout(0.2)
    )
    with pytest.raises(InputError, match="not the same twice"):
        ActivationCache("memory").attach(model)


@pytest.mark.parametrize("forgotten", [False, True])
def test_a_block_that_looks_at_what_a_skipped_one_left_is_found_by_trial(
    folder: Path, forgotten: bool
) -> None:
    model = load(folder)
    left: dict[str, torch.Tensor] = {}
    layers = model.model.layers
    layers[0].mlp.register_forward_hook(lambda module, args, out: left.update(x=out))
    if forgotten:
        model.register_forward_pre_hook(lambda *_: left.clear())
    layers[5].register_forward_hook(lambda module, args, out: out + left["x"])
    with pytest.raises(InputError, match="need more of those beneath"):
        ActivationCache("memory").attach(model)
