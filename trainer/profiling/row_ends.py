"""Shifts the rows of a batch to the right, so that all end in one column, and says how many of their last tokens need gradient.

Rows that end together can be cut at one column; the tokens after the cut are those nearest to the answers, and no token is computed that
was not computed before.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from trainer.profiling.labelled_head import IGNORED, counts_labels, targets_of

TEXT_LEAST = 0.25
"""Smallest part of a row without a prompt (plain text) that has gradient."""
_EPSILON = 1e-9


@dataclass(frozen=True, slots=True)
class RowEnds:
    """One batch before it is cut: its real tokens, counted from the column in which all rows end.

    Example:
        >>> ids = torch.ones(2, 4, dtype=torch.long)
        >>> labels = torch.tensor([[-100, -100, 5, 6], [-100, -100, -100, 7]])
        >>> ends = RowEnds.of({"input_ids": ids, "labels": labels})
        >>> ends.least, ends.columns(0.8), ends.share(3)
        (3, 3, 0.75)
    """

    rows: int
    seq: int
    least: int
    """Columns that need gradient, because a label depends on them or a row of text must not be all context."""
    counts: tuple[int, ...]
    """Real tokens in the last 1, 2, … columns."""

    @classmethod
    def of(cls, batch: Mapping[str, Any]) -> "RowEnds | None":
        """None if the batch is not tokens with a label each."""
        ids, labels = batch.get("input_ids"), batch.get("labels")
        if not isinstance(ids, Tensor) or not counts_labels(labels) or labels.shape != ids.shape:
            return None
        room = _room(batch)
        real = _push(_real(batch), room, False)
        wanted = _push(targets_of(labels, shifted=True) != IGNORED, room, False)
        seq, begins, answers = ids.shape[1], _first(real), _first(wanted)
        text = wanted.gather(1, begins.clamp(max=seq - 1)[:, None]).squeeze(1)
        needs = torch.where(text, ((seq - begins) * TEXT_LEAST).ceil().long(), seq - answers)
        counts = real.sum(0).flip(0).cumsum(0)
        least, *found = torch.cat([needs.max().clamp(min=1)[None], counts]).tolist()
        return cls(ids.shape[0], seq, least, tuple(found))

    def columns(self, share: float) -> int:
        """The most columns whose tokens are at most `share` of all; never fewer than need gradient."""
        most = share * self.counts[-1] + _EPSILON
        return max(sum(count <= most for count in self.counts), self.least)

    def share(self, columns: int) -> float:
        """The share of real tokens in the last `columns`."""
        return self.counts[columns - 1] / self.counts[-1] if self.counts[-1] else 1.0


def push_right(batch: Mapping[str, Any], *, positions: bool) -> dict[str, Any]:
    """The same rows, all ending in the last column; positions: add the tokens' original positions.

    Example:
        >>> batch = {"input_ids": torch.tensor([[5, 6, 0]]), "attention_mask": torch.tensor([[1, 1, 0]])}
        >>> push_right(batch, positions=True)["position_ids"].tolist()
        [[0, 0, 1]]
    """
    ids, room = batch["input_ids"], _room(batch)
    given = dict(batch)
    if positions and given.get("position_ids") is None:
        given["position_ids"] = torch.arange(ids.shape[1], device=ids.device).expand(ids.shape)
    elif given.get("position_ids") is not None:
        given["position_ids"] = given["position_ids"].expand(ids.shape)
    fill = {"labels": IGNORED, "attention_mask": 0}
    return {name: _push(x, room, fill.get(name)) if is_by_token(x, ids) else x for name, x in given.items()}


def first_part(batch: Mapping[str, Any], columns: int) -> Tensor:
    """Which tokens come before the last `columns` of rows that end together, at their places in the original batch."""
    seq = batch["input_ids"].shape[1]
    at: Tensor = torch.arange(seq, device=batch["input_ids"].device) < (seq - columns - _room(batch))[:, None]
    return at


def is_by_token(x: Any, ids: Tensor) -> bool:
    """Whether it contains something for each token of `ids`."""
    return isinstance(x, Tensor) and x.ndim >= 2 and x.shape[:2] == ids.shape[:2]


def _real(batch: Mapping[str, Any]) -> Tensor:
    mask, ids = batch.get("attention_mask"), batch["input_ids"]
    if isinstance(mask, Tensor) and mask.shape == ids.shape:
        return mask.bool()
    return torch.ones_like(ids, dtype=torch.bool)  # a mask of another kind is refused where rows are cut


def _room(batch: Mapping[str, Any]) -> Tensor:
    """Columns after each row's last real token."""
    real = _real(batch)
    return torch.where(real.any(1), _first(real.flip(1)), 0)


def _first(mask: Tensor) -> Tensor:
    """The first true column of each row; the number of columns if there is none."""
    return torch.where(mask.any(1), mask.int().argmax(1), mask.shape[1])


def _push(x: Tensor, room: Tensor, fill: Any) -> Tensor:
    """fill: what comes in from the left; None: anything."""
    at = torch.arange(x.shape[1], device=x.device) - room[:, None]
    index = at.clamp(min=0).reshape(*at.shape, *[1] * (x.ndim - 2)).expand(x.shape)
    moved = x.gather(1, index)
    return moved if fill is None else moved.masked_fill(at < 0, fill)
