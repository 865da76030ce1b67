"""Takes the usual loss of causal models a few tokens at a time, so that neither the logits in fp32 nor their softmax lie in memory whole.

The gradient of each chunk is formed together with its loss, in the precision of the logits, and kept for the backward pass: beside logits
and gradient, each as large as the logits, a chunk in fp32 is all it takes. torch's own keeps the logits in fp32, their log-softmax and its gradient.
"""

from typing import Any

import torch
from torch import Tensor

CHUNK_BYTES = 2**26
"""Of logits in fp32 at a time."""


def causal_loss(logits: Tensor, targets: Tensor, items: Any = None, chunk_bytes: int = CHUNK_BYTES) -> Tensor:
    """Cross-entropy of `logits` [tokens, vocabulary] and `targets` [tokens], of which none is ignored.

    items: what the sum is divided by; None: the tokens.

    Example:
        >>> round(float(causal_loss(torch.zeros(3, 4), torch.tensor([0, 1, 2]))), 4)
        1.3863
    """
    loss: Tensor = _ChunkedCrossEntropy.apply(logits, targets, max(chunk_bytes // (4 * logits.shape[1]), 1))  # type: ignore[no-untyped-call]
    if items is None:
        return loss / len(targets)
    return loss / (items.to(loss.device) if isinstance(items, Tensor) else items)


class _ChunkedCrossEntropy(torch.autograd.Function):
    """Sum over tokens."""

    @staticmethod
    def forward(ctx: Any, logits: Tensor, targets: Tensor, chunk: int) -> Tensor:
        needed = ctx.needs_input_grad[0]
        gradient = torch.empty_like(logits) if needed else None
        total = torch.zeros((), dtype=torch.float32, device=logits.device)
        for begin in range(0, len(targets), chunk):
            part, wanted = logits[begin : begin + chunk].float(), targets[begin : begin + chunk, None]
            logs = part.log_softmax(1)
            total -= logs.gather(1, wanted).sum()
            if gradient is not None:
                # the softmax less 1 where the target is
                logs.exp_().scatter_add_(1, wanted, torch.full_like(wanted, -1, dtype=logs.dtype))
                gradient[begin : begin + chunk] = logs
        if gradient is not None:
            ctx.save_for_backward(gradient)
        return total

    @staticmethod
    def backward(ctx: Any, *above: Tensor) -> tuple[Tensor, None, None]:
        (gradient,) = ctx.saved_tensors
        return gradient * above[0].to(gradient.dtype), None, None
