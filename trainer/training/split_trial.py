"""Tries out, before the first step, whether the rows of a model can run in two parts.

Two rows of a first batch, of unlike length, pass forward and backward twice, without dropout: whole, but for what flows through the first part's keys
and values, which are cut off from the gradient one by one; and in two parts. Only where loss and gradient norm agree, and the loss is that
of the untouched model, are rows cut. Nothing of the model is changed by it.
"""

from collections.abc import Mapping
from typing import Any

from torch import Tensor
from torch.nn import functional

from trainer.importance.gradient_pass import Loss
from trainer.profiling.labelled_head import IGNORED, counts_labels, targets_of
from trainer.profiling.prompt_cache import DetachedCache
from trainer.profiling.prompt_split import PromptSplit, SplitError
from trainer.profiling.row_ends import RowEnds, first_part
from trainer.training.head_trial import COARSE, EXACT, loss_and_norm


def try_split(
    model: Any, names: Mapping[Tensor, str], loss: Loss, batch: Any, *, coarse: bool
) -> PromptSplit:
    """The rows of `model` in two parts, not attached. Raises SplitError where that would not do the same.

    names: the parameters that the optimizer holds; batch: a labelled one, on the model's device; coarse: whether the precision is less than
    fp32's.
    """
    split = PromptSplit(model)
    part = _unlike_rows(batch)
    ends = RowEnds.of(part)
    if ends is None or ends.least >= ends.seq:
        raise SplitError("rows of a first batch have no prompt to leave out")
    split.share = 0.0
    first = first_part(part, ends.least)
    # what no token before it has a gradient for is no label any more
    kept = {**part, "labels": part["labels"].masked_fill(functional.pad(first[:, :-1], (1, 0)), IGNORED)}
    cut_off = {split.cache_name: DetachedCache(split.base.config, first), "use_cache": True}
    try:
        own = loss_and_norm(model, names, loss, kept, training=False)
        whole = loss_and_norm(model, names, loss, {**kept, **cut_off}, training=False)
        with split.attached():
            ours = loss_and_norm(model, names, loss, part, training=False)
    except SplitError:
        raise
    except Exception as e:  # of anybody's making: whatever reads what a pass leaves
        said = (str(e).strip().splitlines() or ["no message"])[0][:120]
        raise SplitError(f"a pass in two parts fails ({type(e).__name__}: {said})") from e
    for what, a, b in (
        ("loss of whole rows by way of a cache", own[0], whole[0]),
        ("loss", own[0], ours[0]),
        ("gradient norm", whole[1], ours[1]),
    ):
        if not abs(a - b) <= (COARSE if coarse else EXACT) * abs(a):
            raise SplitError(f"the {what} would be {b:.6g} instead of {a:.6g}")
    return split


def _unlike_rows(batch: Any) -> dict[str, Any]:
    """The shortest and the longest of those that have a label."""
    labels = batch.get("labels") if isinstance(batch, Mapping) else None
    if not counts_labels(labels):
        raise SplitError("its batches have no label for each token")
    learnt = (targets_of(labels, shifted=True) != IGNORED).any(1).nonzero().squeeze(1)
    if not len(learnt):
        raise SplitError("a first batch has no label")
    mask = batch.get("attention_mask")
    lengths = mask.flatten(1).sum(1)[learnt] if isinstance(mask, Tensor) else learnt
    chosen = learnt[sorted({int(lengths.argmin()), int(lengths.argmax())})]
    return {
        name: x[chosen.to(x.device)] if isinstance(x, Tensor) and x.ndim and x.shape[0] == len(labels) else x
        for name, x in batch.items()
    }
