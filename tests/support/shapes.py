"""Models of many architectures on the meta device, from configs alone: tiny ones, and known ones at their true size."""

from collections.abc import Callable
from typing import Any

from trainer.bench.shapes import shape

_VOCAB = 301  # odd, so that the head's FLOPs share few divisors with the blocks'


def on_meta(config: Any, attn: str = "eager") -> Any:
    import torch
    from transformers import AutoModelForCausalLM, AutoModelForSeq2SeqLM

    factory = AutoModelForSeq2SeqLM if config.is_encoder_decoder else AutoModelForCausalLM
    with torch.device("meta"):
        return factory.from_config(config, attn_implementation=attn, dtype=torch.float32)


def counted(model: Any, selected: list[str], attn: str, shape: tuple[int, int, int | None]) -> int:
    """FLOPs that a FlopCounterMode sees of a step of (batch, seq, target_seq) in which only `selected` require gradients."""
    import torch

    from trainer.profiling.meta_model import traceable
    from trainer.profiling.profiler import make_counter

    batch, seq, target = shape
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(name in selected)
        parameter.grad = None
    ids = torch.zeros(batch, seq, dtype=torch.long, device="meta")
    labels = ids[:, :target].contiguous() if model.config.is_encoder_decoder else ids
    with make_counter() as count:
        with traceable(attn):
            loss = model(input_ids=ids, attention_mask=ids + 1, labels=labels, use_cache=False).loss
        loss.backward()
    return int(count.get_total_flops())


def smollm2_135m() -> Any:
    return shape("smollm2-135m")


def opt_2_7b() -> Any:
    return shape("opt-2.7b")


def t5_small() -> Any:
    from transformers import T5Config

    return T5Config(tie_word_embeddings=True)


def _decoder(name: str, **more: Any) -> Callable[[], Any]:
    def make() -> Any:
        import transformers

        shape = {
            "hidden_size": 64,
            "intermediate_size": 160,
            "num_hidden_layers": 3,
            "num_attention_heads": 4,
        }
        kind = getattr(transformers, f"{name}Config")
        return kind(**{**shape, "vocab_size": _VOCAB, "pad_token_id": 0, **more})

    return make


def _other(name: str, **shape: Any) -> Callable[[], Any]:
    def make() -> Any:
        import transformers

        return getattr(transformers, f"{name}Config")(vocab_size=_VOCAB, **shape)

    return make


_T5 = {"d_model": 64, "d_kv": 16, "d_ff": 128, "num_layers": 3, "num_heads": 4}
_BART = {
    "d_model": 64,
    "encoder_layers": 3,
    "decoder_layers": 3,
    "encoder_attention_heads": 4,
    "decoder_attention_heads": 4,
    "encoder_ffn_dim": 128,
    "decoder_ffn_dim": 128,
}
_MOE = {"num_experts": 6, "num_experts_per_tok": 2, "moe_intermediate_size": 32}

ARCHITECTURES: dict[str, Callable[[], Any]] = {
    "llama": _decoder("Llama", num_key_value_heads=2, tie_word_embeddings=True),
    "mistral": _decoder("Mistral", num_key_value_heads=2),
    "qwen2": _decoder("Qwen2", num_key_value_heads=2),
    "qwen3": _decoder("Qwen3", num_key_value_heads=2, head_dim=16),
    "gemma": _decoder("Gemma", num_key_value_heads=2, head_dim=16),
    "gemma2": _decoder("Gemma2", num_key_value_heads=2, head_dim=16),
    "phi": _decoder("Phi"),
    "phi3": _decoder("Phi3"),
    "stablelm": _decoder("StableLm", num_key_value_heads=4),
    "olmo2": _decoder("Olmo2", num_key_value_heads=4),
    "granite": _decoder("Granite", num_key_value_heads=4),
    "cohere": _decoder("Cohere", num_key_value_heads=4),
    "gpt-neox": _decoder("GPTNeoX"),
    "mixtral": _decoder("Mixtral", num_key_value_heads=2, num_local_experts=4),
    "qwen2-moe": _decoder("Qwen2Moe", num_key_value_heads=2, shared_expert_intermediate_size=48, **_MOE),
    "opt": _other(
        "OPT", hidden_size=64, ffn_dim=256, num_hidden_layers=3, num_attention_heads=4, word_embed_proj_dim=64
    ),
    "opt-350m": _other(
        "OPT",
        hidden_size=64,
        ffn_dim=256,
        num_hidden_layers=3,
        num_attention_heads=4,
        word_embed_proj_dim=32,
        do_layer_norm_before=False,
    ),
    "bloom": _other("Bloom", hidden_size=64, n_layer=3, n_head=4),
    "gpt2": _other("GPT2", n_embd=64, n_layer=3, n_head=4),
    "falcon": _other("Falcon", hidden_size=64, num_hidden_layers=3, num_attention_heads=4),
    "mpt": _other("Mpt", d_model=64, n_heads=4, n_layers=3),
    "t5": _other("T5", **_T5, tie_word_embeddings=True),
    "t5-v1.1": _other("T5", **_T5, feed_forward_proj="gated-gelu", tie_word_embeddings=False),
    "bart": _other("Bart", **_BART),
}

_SSM = {
    "mamba_d_state": 8,
    "mamba_n_heads": 8,
    "mamba_d_head": 16,
    "mamba_n_groups": 2,
    "mamba_chunk_size": 8,
}
_DELTA = {
    "linear_num_key_heads": 2,
    "linear_num_value_heads": 4,
    "linear_key_head_dim": 16,
    "linear_value_head_dim": 16,
}

HYBRIDS: dict[str, Callable[[], Any]] = {
    "mamba": _other("Mamba", hidden_size=64, state_size=8, num_hidden_layers=2),
    "mamba2": _other(
        "Mamba2",
        hidden_size=64,
        state_size=8,
        num_hidden_layers=2,
        num_heads=8,
        head_dim=16,
        n_groups=2,
        chunk_size=8,
    ),
    "jamba": _decoder(
        "Jamba",
        num_hidden_layers=2,
        num_key_value_heads=2,
        attn_layer_period=2,
        attn_layer_offset=1,
        expert_layer_period=2,
        expert_layer_offset=1,
        num_experts=4,
        mamba_d_state=8,
        mamba_dt_rank=8,
        use_mamba_kernels=False,
    ),
    "bamba": _decoder("Bamba", num_hidden_layers=2, num_key_value_heads=2, attn_layer_indices=[1], **_SSM),
    "falcon-h1": _decoder(
        "FalconH1", num_hidden_layers=2, num_key_value_heads=2, head_dim=16, mamba_d_ssm=128, **_SSM
    ),
    "recurrent-gemma": _decoder(
        "RecurrentGemma", num_key_value_heads=1, lru_width=64, attention_window_size=16
    ),
    "lfm2": _decoder("Lfm2", num_key_value_heads=2, layer_types=["conv", "full_attention", "conv"]),
    "qwen3-next": _decoder(
        "Qwen3Next",
        num_hidden_layers=2,
        layer_types=["linear_attention", "full_attention"],
        num_key_value_heads=2,
        head_dim=16,
        shared_expert_intermediate_size=32,
        **_DELTA,
        **_MOE,
    ),
    "olmo-hybrid": _decoder(
        "OlmoHybrid",
        num_hidden_layers=2,
        layer_types=["linear_attention", "full_attention"],
        num_key_value_heads=2,
        **_DELTA,
    ),
}
"""State-space and convolutional ones, a mixer of each kind they have."""
