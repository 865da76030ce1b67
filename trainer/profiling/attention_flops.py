"""Counts the FLOPs of fused attention by formulas of our own: those of torch 2.6 to 2.11 refuse grouped-query models.

There they assert as many key and value heads as query heads (fixed by pytorch#177188); transformers drops the mask of a batch
without padding, and a kernel then takes the fewer heads as they are. Every query head meets every key, whoever shares it. Causal
masks are left out, as torch does; a backward pass forms the scores again: 2.5 times the forward, eager attention's 2.
"""

from collections.abc import Callable, Sequence
from typing import Any, Final

import torch

_FUSED: Final = ("flash", "efficient", "cudnn")


def formulas() -> dict[Any, Callable[..., int]]:
    """Operator → FLOPs by the shapes of its arguments, for every fused kernel that this torch has."""
    found: dict[Any, Callable[..., int]] = {}
    for kind in _FUSED:
        for end in ("", "_for_cpu"):
            name = f"_scaled_dot_product_{kind}_attention{end}"
            for operator, count in ((name, forward_flops), (f"{name}_backward", backward_flops)):
                if hasattr(torch.ops.aten, operator):
                    found[getattr(torch.ops.aten, operator)] = count
    return found


def forward_flops(
    query: Sequence[int], key: Sequence[int], value: Sequence[int], *args: Any, **kwargs: Any
) -> int:
    """Scores, and their product with the values. Shapes are (rows, heads, tokens, width)."""
    return _scores(query, key) * (int(query[-1]) + int(value[-1]))


def backward_flops(
    gradient: Sequence[int],
    query: Sequence[int],
    key: Sequence[int],
    value: Sequence[int],
    *args: Any,
    **kwargs: Any,
) -> int:
    """Scores again, then the gradients of scores, values, queries and keys."""
    return _scores(query, key) * (3 * int(query[-1]) + 2 * int(value[-1]))


def _scores(query: Sequence[int], key: Sequence[int]) -> int:
    rows, heads, tokens = (int(size) for size in query[:3])
    return 2 * rows * heads * tokens * int(key[-2])
