"""Counts LSTM layers on a CPU, where oneDNN runs each as one operator that torch's counter does not know.

Its backward pass forms every gradient, whichever are asked for. On meta tensors torch would take the layer apart, step by step and
matrix by matrix; a profile therefore runs it as the one operator that it is.
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

_FUSED = (torch.float32, torch.bfloat16, torch.float16)


def formulas() -> dict[Any, Callable[..., int]]:
    """Operator → FLOPs by the shapes of its arguments."""
    aten = torch.ops.aten
    if not hasattr(aten, "mkldnn_rnn_layer"):
        return {}
    return {aten.mkldnn_rnn_layer: _forward, aten.mkldnn_rnn_layer_backward: _backward}


def _forward(x: Sequence[int], ih: Sequence[int], hh: Sequence[int], *args: Any, **kwargs: Any) -> int:
    rows = int(x[0]) * int(x[1])
    return 2 * rows * int(ih[0]) * (int(ih[1]) + int(hh[1]))


def _backward(*args: Any, **kwargs: Any) -> int:
    return 2 * _forward(*args)


class FusedRecurrence(TorchFunctionMode):
    """Within it an LSTM on meta tensors is one operator per layer and direction, as on a CPU.

    Example::

        with FusedRecurrence():
            model(**batch).loss.backward()
    """

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if getattr(func, "__name__", "") == "lstm" and not kwargs and _is_fused(args):
            return _lstm(*args)
        return func(*args, **(kwargs or {}))


def _is_fused(args: Sequence[Any]) -> bool:
    if len(args) != 9 or not isinstance(args[2], (list, tuple)):
        return False  # packed rows of many lengths run step by step
    layers = int(args[4]) * (2 if args[7] else 1)
    projects = len(args[2]) != layers * (4 if args[3] else 2)
    x = args[0]
    return bool(x.is_meta and x.dtype in _FUSED and not projects and torch._C._has_mkldnn)


def _lstm(
    x: Tensor,
    states: Sequence[Tensor],
    weights: Sequence[Tensor],
    has_biases: bool,
    layers: int,
    dropout: float,
    train: bool,
    bidirectional: bool,
    batch_first: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    x = x.transpose(0, 1) if batch_first else x
    directions, each = 1 + bidirectional, 4 if has_biases else 2
    hidden, cells = [], []
    for layer in range(layers):
        outs = []
        for at in range(layer * directions, (layer + 1) * directions):
            mine = weights[at * each : (at + 1) * each]
            out, cell = _Layer.apply(x, states[0][at], states[1][at], *mine)  # type: ignore[no-untyped-call]
            outs.append(out)
            hidden.append(out[-1])
            cells.append(cell)
        x = torch.cat(outs, -1)
    return x.transpose(0, 1) if batch_first else x, torch.stack(hidden), torch.stack(cells)


class _Layer(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, h: Tensor, c: Tensor, *weights: Tensor) -> tuple[Tensor, Tensor]:
        ctx.save_for_backward(x, h, c, *weights)
        out = x.new_empty(*x.shape[:2], h.shape[-1])
        for read, weight in ((x, weights[0]), (out, weights[1])):
            read.flatten(0, 1) @ weight.t()
        return out, torch.empty_like(c)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, ...]:
        x, h, _, *weights = ctx.saved_tensors
        out = x.new_empty(*x.shape[:2], h.shape[-1])
        gates = x.new_empty(x.shape[0] * x.shape[1], weights[0].shape[0])
        for read, weight in ((x, weights[0]), (out, weights[1])):
            gates @ weight
            gates.t() @ read.flatten(0, 1)
        return tuple(torch.empty_like(t) for t in ctx.saved_tensors)
