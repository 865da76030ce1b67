"""Blocks are skipped by their kept states, and the model is as it was afterwards."""

from pathlib import Path

import pytest
import torch
from support.models import tiny_llama
from transformers import AutoModelForCausalLM

from carbonsched.errors import InputError
from trainer.training.skippable_blocks import SkippableBlocks, find_blocks

torch.set_num_threads(1)


def test_what_was_recorded_is_served_instead_of_running(tmp_path: Path) -> None:
    model = AutoModelForCausalLM.from_pretrained(tiny_llama(tmp_path), attn_implementation="eager").eval()
    inputs = {"input_ids": torch.arange(4, 16).reshape(2, 6)}
    with torch.no_grad():
        plain = model(**inputs).logits
        blocks, kept, ran = SkippableBlocks(model), [], []
        hooks = [
            block.self_attn.register_forward_hook(lambda *_, i=i: ran.append(i))
            for i, block in enumerate(blocks.blocks)
        ]
        blocks.depth = 1
        blocks.record(kept.append)
        assert torch.equal(model(**inputs).logits, plain)
        assert ran == list(range(len(blocks.blocks)))
        assert [tuple(states.shape[:2]) for states in kept] == [(2, 6)]
        ran.clear()
        blocks.serve(kept[0])
        assert torch.equal(model(**inputs).logits, plain)
        assert ran == list(range(1, len(blocks.blocks)))
        ran.clear()
        assert torch.equal(model(**inputs).logits, plain), "served once"
        assert ran[0] == 0
        for hook in hooks:
            hook.remove()
        blocks.detach()
        assert "forward" not in vars(blocks.blocks[0])
        assert torch.equal(model(**inputs).logits, plain)


def test_a_model_without_blocks_is_refused() -> None:
    with pytest.raises(InputError, match="no stack of blocks"):
        find_blocks(torch.nn.Linear(2, 2))
