"""Held-out loss: mean negative log-likelihood a target token, natural log."""

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch.nn import functional

from trainer.data import IGNORED, Encoded
from trainer.steering import Stopped


@dataclass(frozen=True, slots=True)
class Loss:
    nll: float
    """Mean over target tokens."""
    samples: int
    tokens: int
    seconds: float

    @property
    def perplexity(self) -> float:
        return math.exp(min(self.nll, 700.0))


def evaluate(
    model: Any,
    rows: list[Encoded],
    collate: Callable[[list[Any]], dict[str, torch.Tensor]],
    batch_size: int,
    stop: Callable[[], bool] = lambda: False,
) -> Loss:
    """Loss on `rows`, longest first so that batches hold little padding; leaves mode and RNG as they were.

    Raises Stopped between two batches once `stop()` holds.
    """
    started = time.monotonic()
    device = next(model.parameters()).device
    ordered = sorted(rows, key=lambda row: -len(row.input_ids))
    total, tokens, training = 0.0, 0, model.training
    model.eval()
    try:
        for i in range(0, len(ordered), batch_size):
            if stop():
                raise Stopped("signal")
            chosen = [{"input_ids": r.input_ids, "labels": r.labels} for r in ordered[i : i + batch_size]]
            batch = {name: tensor.to(device) for name, tensor in collate(chosen).items()}
            with torch.no_grad():
                logits = model(**batch).logits
            labels = batch["labels"]
            if not model.config.is_encoder_decoder:
                logits, labels = logits[:, :-1], labels[:, 1:]
            keep = labels != IGNORED
            total += float(functional.cross_entropy(logits[keep].float(), labels[keep], reduction="sum"))
            tokens += int(keep.sum())
    finally:
        model.train(training)
    return Loss(total / max(tokens, 1), len(rows), tokens, time.monotonic() - started)
