"""Fused attention is counted alike by every torch, for equal heads as torch does it, for fewer key heads without its assertion."""

from typing import Any

import pytest
import torch
from torch.utils import flop_counter
from transformers import LlamaConfig, LlamaForCausalLM

from trainer.profiling.attention_flops import backward_flops, formulas, forward_flops
from trainer.profiling.flop_counter import StepCounter
from trainer.profiling.meta_model import meta_from_config
from trainer.profiling.profiler import make_counter, profile


@pytest.fixture(autouse=True)
def old_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    """As torch 2.6 to 2.11: its own formula refuses what is grouped."""

    def refuse(*shapes: Any) -> int:
        assert len({shape[1] for shape in shapes}) == 1, "heads must be equal"
        return 0

    for name in ("sdpa_flop_count", "sdpa_backward_flop_count"):
        monkeypatch.setattr(flop_counter, name, refuse)


def test_equal_heads_count_as_torch_counts_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    q, k, v = (2, 16, 10, 64), (2, 16, 12, 64), (2, 16, 12, 32)
    assert forward_flops(q, k, v) == flop_counter.sdpa_flop_count(q, k, v)
    grad = (2, 16, 10, 32)
    assert backward_flops(grad, q, k, v) == flop_counter.sdpa_backward_flop_count(grad, q, k, v)


def test_each_fused_kernel_of_this_torch_has_a_formula() -> None:
    fused = {op for op in flop_counter.flop_registry if "_scaled_dot_product_" in str(op)}
    assert fused <= set(formulas())


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("kind", ["flash", "efficient", "cudnn"])
def test_fewer_key_heads_cost_as_many_as_query_heads(kind: str, dtype: torch.dtype) -> None:
    """The kernels themselves, on meta tensors: nothing else of a GPU is needed to count them."""
    operator = getattr(torch.ops.aten, f"_scaled_dot_product_{kind}_attention")
    more = {"flash": (), "efficient": (None, True), "cudnn": (None, True)}[kind]
    counted = []
    for heads in (16, 4):
        query = torch.empty(2, 16, 32, 64, device="meta", dtype=dtype)
        key = torch.empty(2, heads, 32, 64, device="meta", dtype=dtype)
        with make_counter() as count:
            operator(query, key, key, *more)
        counted.append(count.get_total_flops())
    assert counted == [2 * 2 * 16 * 32 * 32 * (64 + 64)] * 2


@pytest.mark.parametrize("attn", ["eager", "sdpa"])
@pytest.mark.parametrize("masked", [True, False])
@pytest.mark.parametrize("dtype", ["fp32", "bf16"])
def test_a_grouped_query_model_is_counted_as_it_is_profiled(attn: str, masked: bool, dtype: str) -> None:
    config = LlamaConfig(
        vocab_size=50,
        hidden_size=64,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=16,
        num_key_value_heads=4,
        pad_token_id=0,
    )
    known = profile(meta_from_config(config, attn, dtype), 2, 24)
    config._attn_implementation = attn
    model = LlamaForCausalLM(config).to(torch.bfloat16 if dtype == "bf16" else torch.float32)
    ids = torch.ones(2, 24, dtype=torch.long)
    mask = torch.ones_like(ids)
    mask[0, -4:] = 0 if masked else 1  # transformers drops the mask of a batch without padding
    with StepCounter() as counter:
        model(input_ids=ids, attention_mask=mask, labels=ids, use_cache=False).loss.backward()
    assert counter.flops == pytest.approx(known.full_flops, rel=1e-3)
