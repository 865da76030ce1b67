"""Defines what one pass measures of a tensor, from its weight w, its gradient g and its coming update u = −Δw at rate 1.

update       Σ g·u: the loss that the update takes off. With several batches g is from one and u from the one before, so
             that noise common to both does not count as gain
rows         the same with a batch's rows for batches, so that one batch already has a spread
curvature    the same, and Σ (g·u)², the curvature along u with the diagonal empirical Fisher g² for the Hessian
magnitude    Σ |u|, the size of the update (the ablation's |Δw|)
grad-norm    √Σ g²
fisher       Σ g², the trace of the empirical Fisher
snip         Σ |w·g|, what setting the weights to 0 would do (Lee, Ajanthan, Torr: SNIP, arXiv 1810.02340)

Each is a sum over chunks of one number or two, so that nothing the size of a tensor is formed.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, slots=True)
class Estimator:
    """What is summed over a tensor's chunks.

    Example:
        >>> w, g, u = torch.tensor([1.0, 2.0]), torch.tensor([0.5, -1.0]), torch.tensor([0.1, 0.1])
        >>> [round(float(x), 6) for x in ESTIMATORS["update"].fold(w, g, u)]
        [-0.05]
    """

    fold: Callable[[Tensor, Tensor, Tensor], tuple[Tensor, ...]]
    """(w, g, u), flat float32 chunks, to what is summed: the value and, of `curvature`, the second number."""
    updates: bool = True
    """Whether u is wanted; else it comes empty and any optimizer will do."""
    crosses: bool = False
    """Whether, with several batches, u comes from the batch before."""
    by_rows: bool = False
    """Whether a single batch is taken apart into its rows."""
    root: bool = False
    """Whether the value is the root of the sum."""


def _gain(w: Tensor, g: Tensor, u: Tensor) -> tuple[Tensor, ...]:
    return (torch.dot(g, u),)


def _gain_and_curvature(w: Tensor, g: Tensor, u: Tensor) -> tuple[Tensor, ...]:
    product = g * u
    return product.sum(), torch.dot(product, product)


def _square(w: Tensor, g: Tensor, u: Tensor) -> tuple[Tensor, ...]:
    return (torch.dot(g, g),)


def _size(w: Tensor, g: Tensor, u: Tensor) -> tuple[Tensor, ...]:
    return (u.abs().sum(),)


def _saliency(w: Tensor, g: Tensor, u: Tensor) -> tuple[Tensor, ...]:
    return ((w * g).abs_().sum(),)


ESTIMATORS = {
    "update": Estimator(_gain, crosses=True),
    "rows": Estimator(_gain, crosses=True, by_rows=True),
    "curvature": Estimator(_gain_and_curvature, crosses=True),
    "magnitude": Estimator(_size),
    "grad-norm": Estimator(_square, updates=False, root=True),
    "fisher": Estimator(_square, updates=False),
    "snip": Estimator(_saliency, updates=False),
}
