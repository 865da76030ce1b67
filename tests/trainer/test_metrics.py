"""Held-out loss a target token."""

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from support.models import tiny_llama, tiny_t5, word_rows

from carbonsched.model.job import DataPart, ModelPart
from trainer.data import IGNORED, Encoded, Row, collator, encode
from trainer.metrics import evaluate
from trainer.models import load_model, load_tokenizer
from trainer.steering import Stopped

torch.set_num_threads(1)
DATA = DataPart(name_or_path="x", max_length=32, target_length=8)


def setup(folder: Path) -> tuple[Any, list[Encoded], Any]:
    spec = ModelPart(name_or_path=str(folder))
    model, tokenizer = load_model(spec), load_tokenizer(spec)
    two_sided = model.config.is_encoder_decoder
    rows = encode([Row(**r) for r in word_rows(7)], tokenizer, DATA, encoder_decoder=two_sided)
    return model, rows, collator(0, DATA, encoder_decoder=two_sided)


@pytest.mark.parametrize("make", [tiny_llama, tiny_t5])
def test_it_is_the_mean_over_target_tokens(make: Any, tmp_path: Path) -> None:
    model, rows, collate = setup(make(tmp_path))
    rows[0] = Encoded(rows[0].input_ids[:6], rows[0].labels[:6])  # of another length than the rest
    found = evaluate(model, rows, collate, batch_size=3)
    model.eval()
    total = tokens = 0.0
    for row in rows:  # the model's own mean loss, row by row, weighted by its tokens
        batch = collate([{"input_ids": row.input_ids, "labels": row.labels}])
        count = sum(label != IGNORED for label in row.labels)
        if count:
            total += float(model(**batch).loss.detach()) * count
            tokens += count
    assert found.nll == pytest.approx(total / tokens, rel=1e-4)
    assert (found.samples, found.tokens) == (7, tokens)
    assert found.perplexity == pytest.approx(math.exp(found.nll))


def test_mode_and_random_state_stay(tmp_path: Path) -> None:
    model, rows, collate = setup(tiny_t5(tmp_path))
    before = torch.random.get_rng_state()
    first = evaluate(model, rows, collate, 4).nll
    assert model.training
    assert torch.equal(before, torch.random.get_rng_state())
    assert evaluate(model, rows, collate, 4).nll == first, "no dropout"


def test_a_signal_ends_it_between_batches(tmp_path: Path) -> None:
    model, rows, collate = setup(tiny_llama(tmp_path))
    asked = iter([False, False, True])
    with pytest.raises(Stopped):
        evaluate(model, rows, collate, 2, stop=lambda: next(asked))
    assert model.training
