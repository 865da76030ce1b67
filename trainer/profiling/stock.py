"""Computes what a stock `transformers.Trainer` would do on given rows, and how much of that our batches leave out.

Stock: rows in random order, each batch padded to its longest row, logits for every token. FLOPs are those of full fine-tuning. The order is
random, so several orders are drawn where it matters, and their mean is used.
"""

from collections.abc import Iterable, Mapping, Sequence
from statistics import fmean, pstdev

import numpy as np
from numpy.typing import NDArray

from carbonsched.model.protocol import Waste
from trainer.profiling.flop_counter import FullStepFlops, Shape

Lengths = tuple[int, int | None]
"""Tokens of a row, and those that an encoder-decoder writes for it."""

ORDERS = 16
"""Random orders drawn at most."""
_MOST_ROWS = 2**20
"""Rows ordered at most, over all draws; one draw is always made."""


def padded(rows: Sequence[Lengths]) -> Shape:
    """The shape of a stock batch of these rows: that of the longest.

    Example:
        >>> padded([(7, None), (12, None)])[:3]
        (2, 12, None)
    """
    targets = [target for _, target in rows if target is not None]
    return Shape(len(rows), max(seq for seq, _ in rows), max(targets, default=None))


def all_logits(shape: Shape) -> Shape:
    """The same shapes with logits for every token."""
    return shape._replace(labelled=None)


def split(full: FullStepFlops, stock: Sequence[Shape], ours: Sequence[Shape]) -> Waste:
    """For batches of the same rows: as stock builds them, and as we do."""
    whole, grouped, left = (full.total(shapes) for shapes in (stock, [all_logits(s) for s in ours], ours))
    return Waste(stock_flops=whole, padding_flops=whole - grouped, head_flops=grouped - left)


def random_orders(
    full: FullStepFlops, rows: Mapping[Lengths, int], batch: int, seed: int
) -> tuple[float, float, int]:
    """T_full of stock batches of these rows (how many there are of each length): mean over random orders, its spread, and how many were drawn.

    Example:
        >>> full = FullStepFlops(lambda shape: 1.0 * shape.batch * shape.seq)
        >>> random_orders(full, {(4, None): 2, (6, None): 2}, batch=4, seed=0)[:2]
        (24.0, 0.0)
    """
    if not rows:
        return 0.0, 0.0, 0
    two_sided = any(target is not None for _, target in rows)
    lengths = np.repeat([(seq, target or 0) for seq, target in rows], list(rows.values()), axis=0)
    random = np.random.default_rng(seed)
    draws = int(min(max(_MOST_ROWS // len(lengths), 1), ORDERS))
    orders = [list(_shapes(random.permutation(lengths), batch, two_sided=two_sided)) for _ in range(draws)]
    shapes = list({shape for order in orders for shape, _ in order})
    full.total(shapes)  # trace the longest and the shortest first
    flops = {shape: full.flops(shape) for shape in shapes}
    sums = [sum(flops[shape] * count for shape, count in order) for order in orders]
    return fmean(sums), pstdev(sums), draws


def _shapes(lengths: NDArray[np.int64], batch: int, *, two_sided: bool) -> Iterable[tuple[Shape, int]]:
    """The shapes of the batches that rows of these lengths make in this order, each with its count."""
    whole = len(lengths) // batch * batch
    longest = lengths[:whole].reshape(-1, batch, 2).max(1)
    found, counts = np.unique(longest, axis=0, return_counts=True)
    for (seq, target), count in zip(found.tolist(), counts.tolist(), strict=True):
        yield Shape(batch, seq, target if two_sided else None), count
    if whole < len(lengths):
        seq, target = lengths[whole:].max(0).tolist()
        yield Shape(len(lengths) - whole, seq, target if two_sided else None), 1
