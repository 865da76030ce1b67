"""Measures the loss on held-out rows, and how near generated text comes to its references.

Loss: negative log-likelihood per target token, natural log. ROUGE-1, -2, -L and -Lsum are rouge-score's F1 (Lin 2004; for Lsum
a sentence a line, split behind . ! ?). Exact match and token F1 are SQuAD's (Rajpurkar et al. 2016): lower case, no
punctuation, no articles. Of several references the best counts, for each row and each metric by itself. Text metrics are means
over rows in percent.
"""

import math
import re
import string
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch.nn import functional

from trainer.data.encoding import Encoded, TextEncoder
from trainer.device import device_seconds
from trainer.job.directives import Stopped
from trainer.profiling.labelled_head import IGNORED, HeadError, LabelledHead, targets_of

ROUGE = ("rouge1", "rouge2", "rougeL", "rougeLsum")


@dataclass(frozen=True, slots=True)
class Loss:
    """The loss on held-out rows, in nats per target token.

    Example:
        >>> round(Loss(nll=2.0, samples=4, tokens=80, seconds=1.0).perplexity, 3)
        7.389
    """

    nll: float
    """Mean over target tokens."""
    samples: int
    tokens: int
    seconds: float
    rows: tuple[tuple[float, int], ...] = ()
    """(NLL summed over the target tokens, target tokens) of each row, in the order given."""

    @property
    def perplexity(self) -> float:
        return math.exp(min(self.nll, 700.0))


def measure_loss(
    model: Any,
    rows: Sequence[Encoded],
    encoder: TextEncoder,
    batch_size: int,
    stop: Callable[[], bool] = lambda: False,
    *,
    labelled_head: bool = True,
) -> Loss:
    """Loss on `rows`, longest first and padded no further than that, so that batches hold little padding; leaves mode and RNG as they were.

    labelled_head: run the output embeddings on the target's tokens alone, where the model is built so. Raises Stopped between two batches once `stop()` holds.
    """
    started = device_seconds()
    device = next(model.parameters()).device
    order = sorted(range(len(rows)), key=lambda i: (-len(rows[i].input_ids), -len(rows[i].labels)))
    found: list[tuple[float, int]] = [(0.0, 0)] * len(rows)
    training, head = model.training, None
    model.eval()
    try:
        for at in range(0, len(order), batch_size):
            if stop():
                raise Stopped("signal")
            chosen = order[at : at + batch_size]
            batch = encoder.collate([rows[i].dump() for i in chosen], longest=True)
            batch = {name: tensor.to(device) for name, tensor in batch.items()}
            if labelled_head and not at:
                head = _find_head(model, batch)
            for i, row in zip(chosen, _row_losses(model, batch, head), strict=True):
                found[i] = row
    finally:
        model.train(training)
    tokens = sum(count for _, count in found)
    total = math.fsum(nll for nll, _ in found)
    return Loss(total / max(tokens, 1), len(rows), tokens, device_seconds() - started, tuple(found))


_SAME = 0.02
"""Relative difference of a row's loss that less precise arithmetic may make."""


def _find_head(model: Any, batch: dict[str, torch.Tensor]) -> LabelledHead | None:
    """The output embeddings, where they may run on the labelled tokens alone: tried out on the first row of `batch`."""
    first = {name: tensor[:1] for name, tensor in batch.items()}
    try:
        head = LabelledHead(model)
        (own, _), (ours, _) = *_row_losses(model, first, None), *_row_losses(model, first, head)
    except (HeadError, IndexError, RuntimeError, ValueError, TypeError):  # whatever stands behind the head
        return None
    return head if abs(own - ours) <= _SAME * abs(own) else None


def _row_losses(
    model: Any, batch: dict[str, torch.Tensor], head: LabelledHead | None
) -> list[tuple[float, int]]:
    with torch.no_grad(), nullcontext() if head is None else head.attached(without_gradient=True):
        logits = model(**batch).logits
        packed = head is not None and head.targets is not None
    labels = targets_of(batch["labels"], shifted=not model.config.is_encoder_decoder)
    keep = labels != IGNORED
    losses = torch.zeros(labels.shape, dtype=torch.float64, device=labels.device)
    learnt = logits[0] if packed else logits[keep]
    losses[keep] = functional.cross_entropy(learnt.float(), labels[keep], reduction="none").double()
    return list(zip(losses.sum(1).tolist(), keep.sum(1).tolist(), strict=True))


# ---- text


def score(
    predictions: Sequence[str],
    references: Sequence[Sequence[str]],
    metrics: Iterable[str],
    *,
    stemmer: bool = False,
) -> dict[str, float]:
    """Means over rows in percent: rouge1, rouge2, rougeL, rougeLsum for `rouge`, exact_match, f1. Empty without rows.

    references: of each prediction, one or more.
    """
    found: dict[str, float] = {}
    if not predictions:
        return found
    pairs = list(zip(predictions, references, strict=True))
    if "rouge" in metrics:
        each = rouge(predictions, references, stemmer=stemmer)
        found |= {name: _percent([row[name] for row in each]) for name in ROUGE}
    if "exact_match" in metrics:
        found["exact_match"] = _percent([best(exact_match, text, among) for text, among in pairs])
    if "f1" in metrics:
        found["f1"] = _percent([best(token_f1, text, among) for text, among in pairs])
    return found


def rouge(
    predictions: Sequence[str], references: Sequence[Sequence[str]], *, stemmer: bool = False
) -> list[dict[str, float]]:
    """ROUGE F1 of each row, 0 to 1, the best over its references."""
    from rouge_score.rouge_scorer import RougeScorer

    scorer = RougeScorer(ROUGE, use_stemmer=stemmer)
    rows = []
    for text, among in zip(predictions, references, strict=True):
        found = scorer.score_multi([_sentences(reference) for reference in among], _sentences(text))
        rows.append({name: float(found[name].fmeasure) for name in ROUGE})
    return rows


def best(metric: Callable[[str, str], float], prediction: str, references: Sequence[str]) -> float:
    return max(metric(prediction, reference) for reference in references)


def exact_match(prediction: str, reference: str) -> float:
    return float(normalised(prediction) == normalised(reference))


def token_f1(prediction: str, reference: str) -> float:
    """Harmonic mean of precision and recall over the multiset of words; 1 where neither has any."""
    given, wanted = normalised(prediction).split(), normalised(reference).split()
    if not given or not wanted:
        return float(given == wanted)
    common = (Counter(given) & Counter(wanted)).total()
    return 2 * common / (len(given) + len(wanted))


_ARTICLES = re.compile(r"\b(a|an|the)\b")
_PUNCTUATION = str.maketrans("", "", string.punctuation)
_SENTENCE_END = re.compile(r"(?<=[.!?])\s+")


def normalised(text: str) -> str:
    """Lower case, without punctuation and articles, single spaces."""
    return " ".join(_ARTICLES.sub(" ", text.lower().translate(_PUNCTUATION)).split())


def _sentences(text: str) -> str:
    return _SENTENCE_END.sub("\n", text)


def _percent(values: list[float]) -> float:
    return 100 * math.fsum(values) / len(values)
