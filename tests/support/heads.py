"""Tiny models with other heads than a language model's, and one batch for each as its collator would give it."""

from collections.abc import Callable
from typing import Any

_TEXT = {
    "vocab_size": 101,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "max_position_embeddings": 64,
    "pad_token_id": 0,
}
_IMAGE = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4}
ROWS, LENGTH = 4, 12


def text_batch(**more: Any) -> dict[str, Any]:
    import torch

    ids = torch.randint(3, 101, (ROWS, LENGTH), generator=torch.Generator().manual_seed(0))
    mask = torch.ones_like(ids)
    mask[0, -3:] = 0
    return {"input_ids": ids, "attention_mask": mask, **more}


def _head(name: str, config: str, batch: Callable[[], dict[str, Any]], **shape: Any) -> Callable[[], Any]:
    def make() -> tuple[Any, dict[str, Any]]:
        import torch
        import transformers

        torch.manual_seed(0)
        return getattr(transformers, name)(getattr(transformers, f"{config}Config")(**shape)), batch()

    return make


def _classes(count: int = 2) -> dict[str, Any]:
    import torch

    return text_batch(labels=torch.arange(ROWS) % count)


def _many_labels() -> dict[str, Any]:
    import torch

    return text_batch(labels=torch.ones(ROWS, LENGTH))  # as many classes as tokens


def _tokens() -> dict[str, Any]:
    import torch

    return text_batch(labels=torch.ones(ROWS, LENGTH, dtype=torch.long))


def _answers() -> dict[str, Any]:
    import torch

    return text_batch(start_positions=torch.ones(ROWS).long(), end_positions=torch.full((ROWS,), 4))


def _images() -> dict[str, Any]:
    import torch

    return {"pixel_values": torch.randn(ROWS, 3, 16, 16), "labels": torch.arange(ROWS) % 2}


def _sound() -> dict[str, Any]:
    import torch

    return {"input_values": torch.randn(ROWS, 400), "labels": torch.arange(ROWS) % 2}


def own_module() -> tuple[Any, dict[str, Any]]:
    """Of nobody's library: no config, and a tuple for an answer."""
    import torch
    from torch import nn

    class Own(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.second, self.last = nn.Linear(8, 32), nn.Linear(32, 32), nn.Linear(32, 3)

        def forward(self, features: Any, labels: Any = None) -> Any:
            found = self.last(torch.relu(self.second(torch.relu(self.first(features)))))
            return nn.functional.cross_entropy(found, labels), found

    torch.manual_seed(0)
    return Own(), {"features": torch.randn(ROWS, 8), "labels": torch.arange(ROWS) % 3}


_VIT = {**_IMAGE, "image_size": 16, "patch_size": 4}
_WAV = {
    **_IMAGE,
    "conv_dim": (16, 16),
    "conv_stride": (5, 4),
    "conv_kernel": (10, 4),
    "num_feat_extract_layers": 2,
    "num_conv_pos_embeddings": 8,
    "num_conv_pos_embedding_groups": 4,
    "classifier_proj_size": 16,
    "mask_time_prob": 0.0,
    "layerdrop": 0.0,
}

HEADS: dict[str, Callable[[], tuple[Any, dict[str, Any]]]] = {
    "bert-classes": _head("BertForSequenceClassification", "Bert", _classes, **_TEXT),
    "bert-many-labels": _head(
        "BertForSequenceClassification",
        "Bert",
        _many_labels,
        **_TEXT,
        num_labels=LENGTH,
        problem_type="multi_label_classification",
    ),
    "llama-classes": _head("LlamaForSequenceClassification", "Llama", _classes, **_TEXT),
    "llama-reward": _head("LlamaForSequenceClassification", "Llama", text_batch, **_TEXT, num_labels=1),
    "bert-tokens": _head("BertForTokenClassification", "Bert", _tokens, **_TEXT, num_labels=3),
    "bert-answers": _head("BertForQuestionAnswering", "Bert", _answers, **_TEXT),
    "llama-answers": _head("LlamaForQuestionAnswering", "Llama", _answers, **_TEXT),
    "llama-pairs": _head("LlamaForCausalLM", "Llama", text_batch, **_TEXT),
    "vit": _head("ViTForImageClassification", "ViT", _images, **_VIT),
    "convnext": _head(
        "ConvNextForImageClassification",
        "ConvNext",
        _images,
        hidden_sizes=[16, 32],
        depths=[1, 1],
        num_stages=2,
    ),
    "wav2vec2": _head("Wav2Vec2ForSequenceClassification", "Wav2Vec2", _sound, **_WAV),
    "own-module": own_module,
}
