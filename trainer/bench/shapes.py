"""Gives configurations of well-known models, for profiles and selections that need no weights and no hub."""

from collections.abc import Callable, Mapping
from typing import Any

from carbonsched.errors import InputError


def _opt(hidden: int, layers: int, heads: int) -> Any:
    from transformers import OPTConfig

    return OPTConfig(
        hidden_size=hidden,
        ffn_dim=4 * hidden,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        word_embed_proj_dim=hidden,
    )


def _llama(hidden: int, inner: int, layers: int, heads: int, kv_heads: int, vocab: int, tied: bool) -> Any:
    from transformers import LlamaConfig

    return LlamaConfig(
        hidden_size=hidden,
        intermediate_size=inner,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        num_key_value_heads=kv_heads,
        vocab_size=vocab,
        tie_word_embeddings=tied,
    )


SHAPES: Mapping[str, Callable[[], Any]] = {
    "opt-1.3b": lambda: _opt(2048, 24, 32),
    "opt-2.7b": lambda: _opt(2560, 32, 32),
    "opt-6.7b": lambda: _opt(4096, 32, 32),
    "llama-3-70b": lambda: _llama(8192, 28672, 80, 64, 8, 128256, False),
    "llama-3.2-1b": lambda: _llama(2048, 8192, 16, 32, 8, 128256, True),
    "smollm2-135m": lambda: _llama(576, 1536, 30, 9, 3, 49152, True),
}


def shape(name: str) -> Any:
    """A transformers config. Raises InputError."""
    if name not in SHAPES:
        raise InputError("--shape", f"{name!r} is not known", f"use one of {', '.join(SHAPES)}")
    return SHAPES[name]()
