"""Tests, before the first step, whether a model's output embeddings can run on labelled tokens alone.

Two labelled rows of a first batch pass forward and backward twice, once as the model does it and once with the reduced head, with equal
dropout. The head is used only if loss and gradient norm agree. The model itself is not changed.
"""

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from trainer.distributed.wrapping import local_shard
from trainer.importance.gradient_pass import Loss, restore_after
from trainer.profiling.labelled_head import IGNORED, HeadError, LabelledHead, counts_labels, targets_of

_ROWS = 2
EXACT = 1e-4
"""Relative difference of loss and gradient norm that fp32 rounding may cause."""
COARSE = 0.02
"""The same on a board, and in bf16 or fp16: products of other shapes are summed in another order."""


def try_head(
    model: Any,
    names: Mapping[Tensor, str],
    loss: Loss,
    batch: Any,
    *,
    coarse: bool,
    watch: Callable[[LabelledHead], None] | None = None,
) -> LabelledHead:
    """The head of `model`, not attached. Raises HeadError if it would change the result.

    names: the parameters that the optimizer holds; batch: a labelled one, on the model's device; coarse: whether the precision is below
    fp32; watch: tells whoever takes the loss about the head.
    """
    head = LabelledHead(model)
    part = _few_rows(batch, shifted=head.shifted)
    if watch is not None:
        watch(head)
    own = loss_and_norm(model, names, loss, part)
    try:
        with head.attached():
            ours = loss_and_norm(model, names, loss, part)
            cut = head.targets is not None
    except HeadError:
        raise
    except Exception as e:  # of anybody's making: whatever reads the logits behind the head
        first = (str(e).strip().splitlines() or ["no message"])[0][:120]
        raise HeadError(f"a pass with labelled tokens alone fails ({type(e).__name__}: {first})") from e
    if not cut:
        raise HeadError("what enters them is not one state for each token")
    for what, a, b in zip(("loss", "gradient norm"), own, ours, strict=True):
        if not abs(a - b) <= (COARSE if coarse else EXACT) * abs(a):
            raise HeadError(f"the {what} would be {b:.6g} instead of {a:.6g}")
    return head


def _few_rows(batch: Any, *, shifted: bool) -> dict[str, Any]:
    labels = batch.get("labels") if isinstance(batch, Mapping) else None
    if not counts_labels(labels):
        raise HeadError("its batches have no label for each token")
    learnt = (targets_of(labels, shifted=shifted) != IGNORED).any(1).nonzero().squeeze(1)[:_ROWS]
    if not len(learnt):
        raise HeadError("a first batch has no label")
    return {
        name: x[learnt.to(x.device)] if isinstance(x, Tensor) and x.ndim and x.shape[0] == len(labels) else x
        for name, x in batch.items()
    }


def loss_and_norm(
    model: nn.Module, names: Mapping[Tensor, str], loss: Loss, batch: dict[str, Any], *, training: bool = True
) -> tuple[float, float]:
    """Of one pass that leaves nothing behind. training: with dropout."""
    squares: list[Tensor] = []

    def take(parameter: Tensor) -> None:
        gradient, parameter.grad = parameter.grad, None
        if gradient is not None:
            squares.append(local_shard(gradient).float().pow(2).sum().double())

    with restore_after(model, dict(names), seed=0):
        model.train(training)
        hooks = [p.register_post_accumulate_grad_hook(take) for p in names]  # type: ignore[no-untyped-call]
        try:
            value = loss(model, batch)
            value.backward()  # type: ignore[no-untyped-call]
        finally:
            for hook in hooks:
                hook.remove()
    norm = torch.stack(squares).sum().sqrt() if squares else torch.zeros(())
    return float(value.detach()), float(norm)
