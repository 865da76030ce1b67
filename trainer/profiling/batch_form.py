"""Builds batches on the meta device in the form of a Trainer's own, whatever its model reads: tokens, images, sound.

A classifier's labels are one number per row, a question's answer is two, preference pairs come without labels. A profile
that is to be that of the real step traces the forward pass that such a batch gives.
"""

import inspect
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_iter

from carbonsched.errors import InputError

_TOKENS = ("input_ids", "inputs_embeds")
_OTHERS = ("pixel_values", "input_features", "input_values")
_WRITTEN = ("labels", "decoder_input_ids", "decoder_inputs_embeds")
"""Names of inputs with as many tokens as an encoder-decoder writes."""
_LEFT_OUT = ("use_cache", "return_dict", "num_items_in_batch", "output_attentions", "output_hidden_states")


class Sizes(NamedTuple):
    """The sizes of one batch.

    Example:
        >>> sizes_of({"input_ids": torch.ones(4, 9), "labels": torch.ones(4)}, writes=False)
        Sizes(rows=4, length=9, written=None)
    """

    rows: int
    length: int
    """Tokens per row; for other inputs the last dimension: an image's width, frames of sound."""
    written: int | None
    """Tokens that an encoder-decoder writes."""


def sizes_of(batch: Any, writes: bool) -> Sizes:
    """writes: whether an encoder-decoder reads it. Raises InputError if the batch is not made of tensors."""
    name = _main_input(batch)
    read = batch[name]
    length = read.shape[1] if name in _TOKENS else read.shape[-1]
    return Sizes(read.shape[0], length, _written(batch) if writes else None)


def _main_input(batch: Any) -> str:
    tensors = {n: x for n, x in batch.items() if _has_rows(x)} if isinstance(batch, Mapping) else {}
    for name in (*_TOKENS, *_OTHERS):
        if name in tensors:
            return name
    for name, x in tensors.items():
        if x.ndim > 1 and name != "labels":
            return str(name)
    held = ", ".join(map(str, batch)) if isinstance(batch, Mapping) else type(batch).__name__
    raise InputError(
        "trainer",
        f"its batches hold no tensor that a model reads ({held})",
        "use a Trainer whose data_collator makes what the model's forward takes (one that generates its inputs in a step, "
        "as GRPO does, has no cost that is known before)",
    )


def _has_rows(x: Any) -> bool:
    return isinstance(x, Tensor) and x.ndim > 0


def _written(batch: Mapping[str, Any]) -> int | None:
    for name in _WRITTEN:
        if _has_rows(batch.get(name)) and batch[name].ndim > 1:
            return int(batch[name].shape[1])
    return None


@dataclass(frozen=True, slots=True)
class BatchForm:
    """The form of a Trainer's batches: names, types, and which dimension varies with what.

    Example::

        form = BatchForm.of(model, {"input_ids": ids, "labels": torch.zeros(4, dtype=torch.long)}, writes=False)
        inputs = form.build(batch=8, seq=128)
    """

    tensors: tuple[tuple[str, torch.dtype, tuple[int | str, ...]], ...]
    """For each dimension `rows`, `length` or `written`, or its size if that is fixed."""

    @classmethod
    def of(cls, model: nn.Module, batch: Any, writes: bool) -> "BatchForm | None":
        """None for tokens with a label each, which a profile builds by itself. Raises InputError as `sizes_of` does."""
        sizes, main = sizes_of(batch, writes), _main_input(batch)
        labels = batch.get("labels")
        if main == "input_ids" and _labels_tokens(labels, sizes):
            return None
        names = forward_names(model)
        tensors = [
            (name, x.dtype, _dimensions(name, x, sizes))
            for name, x in batch.items()
            if _has_rows(x) and name not in _LEFT_OUT and (names is None or name in names)
        ]
        return cls(tuple(tensors))

    def build(self, batch: int, seq: int, target_seq: int | None = None) -> dict[str, Tensor]:
        """A batch of this form on the meta device."""
        sizes = {"rows": batch, "length": seq, "written": target_seq or seq}
        return {
            name: torch.zeros(
                [sizes[d] if isinstance(d, str) else d for d in dims], dtype=dtype, device="meta"
            )
            for name, dtype, dims in self.tensors
        }


def _labels_tokens(labels: Any, sizes: Sizes) -> bool:
    if not _has_rows(labels) or labels.ndim != 2 or labels.is_floating_point():
        return False
    return int(labels.shape[1]) == (sizes.written or sizes.length)


def _dimensions(name: str, x: Tensor, sizes: Sizes) -> tuple[int | str, ...]:
    written = sizes.written is not None and name.startswith(("labels", "decoder_"))
    fixed = name == "labels" and x.is_floating_point()  # one per class
    follows, length = ("written", sizes.written) if written else ("length", sizes.length)
    first: int | str = "rows" if x.shape[0] == sizes.rows else x.shape[0]
    return first, *(follows if d == length and not fixed else d for d in x.shape[1:])


def forward_names(model: Any) -> list[str] | None:
    """Arguments that the forward pass of `model` (without adapters) names, in order; None: it names none."""
    base = model.get_base_model() if hasattr(model, "get_base_model") else model
    parameters = inspect.signature(type(base).forward).parameters.values()
    named = [p.name for p in parameters if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)]
    return named[1:] or None


def loss_of(outputs: Any) -> Tensor:
    """What the backward pass of these outputs begins at: the model's loss, else the sum of all outputs that a Trainer's loss can use.

    Either gives every element of the logits a gradient, and a loss itself costs no product. Raises InputError if nothing has a gradient.
    """
    loss = outputs.get("loss") if isinstance(outputs, Mapping) else getattr(outputs, "loss", None)
    if loss is None and isinstance(outputs, Mapping) and "logits" in outputs:
        outputs = outputs["logits"]
    elif loss is None and isinstance(outputs, (tuple, list)) and outputs and not _has_rows(outputs[0]):
        loss = outputs[0]  # for a model that returns (loss, logits)
    if isinstance(loss, Tensor):
        return loss.sum()
    parts = [x.sum() for x in tree_iter(outputs) if isinstance(x, Tensor) and x.requires_grad]
    if not parts:
        raise InputError(
            "model", "its forward pass gives nothing that has a gradient", "give it a head and labels"
        )
    return sum(parts[1:], parts[0])
