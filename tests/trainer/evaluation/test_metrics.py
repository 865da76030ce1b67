"""Held-out loss a target token."""

import math
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from support.models import tiny_llama, tiny_t5, word_rows

from carbonsched.model.job import DataPart, ModelPart
from trainer.data.encoding import IGNORED, Encoded, TextEncoder
from trainer.data.field_layouts import Row
from trainer.data.models import load_model
from trainer.evaluation.metrics import ROUGE, exact_match, measure_loss, normalised, rouge, score, token_f1
from trainer.job.directives import Stopped
from trainer.profiling.labelled_head import LabelledHead
from trainer.profiling.profiler import make_counter

torch.set_num_threads(1)
DATA = DataPart(name_or_path="x", max_length=32, target_length=8)


def setup(folder: Path) -> tuple[Any, list[Encoded], TextEncoder]:
    spec = ModelPart(name_or_path=str(folder))
    encoder = TextEncoder.of(spec, DATA)
    return load_model(spec), encoder.encode([Row(**r) for r in word_rows(7)]), encoder


@pytest.mark.parametrize("make", [tiny_llama, tiny_t5])
def test_it_is_the_mean_over_target_tokens(make: Any, tmp_path: Path) -> None:
    model, rows, encoder = setup(make(tmp_path))
    rows[0] = Encoded(rows[0].input_ids[:6], rows[0].labels[:6])  # of another length than the rest
    found = measure_loss(model, rows, encoder, batch_size=3)
    model.eval()
    total = tokens = 0.0
    each = []
    for row in rows:  # the model's own mean loss, row by row, weighted by its tokens
        batch = encoder.collate([row.dump()])
        count = sum(label != IGNORED for label in row.labels)
        each.append(float(model(**batch).loss.detach()) * count if count else 0.0)
        total += each[-1]
        tokens += count
    assert found.nll == pytest.approx(total / tokens, rel=1e-4)
    assert (found.samples, found.tokens) == (7, tokens)
    assert [nll for nll, _ in found.rows] == pytest.approx(each, rel=1e-4), "in the order given"
    assert [count for _, count in found.rows] == [sum(n != IGNORED for n in r.labels) for r in rows]
    assert found.perplexity == pytest.approx(math.exp(found.nll))


@pytest.mark.parametrize("make", [tiny_llama, tiny_t5])
def test_it_computes_no_padding_and_no_logits_without_a_label(make: Any, tmp_path: Path) -> None:
    """However the job pads: FLOPs are those of each row by itself with the head on its labels, and a trial of two passes."""
    model, _, encoder = setup(make(tmp_path))
    texts = [Row(**word_rows(1, seed=k, length=3 + 5 * (k % 3))[0]) for k in range(6)]
    padded = replace(encoder, data=DATA.model_copy(update={"pad": "max_length"}))
    rows = encoder.encode(texts)
    # equal lengths meet where a batch has two rows
    with make_counter() as counter:
        found = measure_loss(model, rows, padded, batch_size=2)
    plain = measure_loss(model, rows, padded, batch_size=1, labelled_head=False)
    assert found.nll == pytest.approx(plain.nll, rel=1e-5)
    head, each = LabelledHead(model), {}
    for i, row in enumerate(rows):
        batch = encoder.collate([row.dump()])
        for on in (True, False):
            cut = head.attached(without_gradient=True) if on else nullcontext()
            with make_counter() as alone, torch.no_grad(), cut:
                model(**batch)
            each[i, on] = alone.get_total_flops()
    longest = max(range(6), key=lambda i: len(rows[i].input_ids))
    trial = each[longest, True] + each[longest, False]
    assert counter.get_total_flops() == pytest.approx(sum(each[i, True] for i in range(6)) + trial, rel=1e-9)


def test_mode_and_random_state_stay(tmp_path: Path) -> None:
    model, rows, encoder = setup(tiny_t5(tmp_path))
    before = torch.random.get_rng_state()
    first = measure_loss(model, rows, encoder, 4).nll
    assert model.training
    assert torch.equal(before, torch.random.get_rng_state())
    assert measure_loss(model, rows, encoder, 4).nll == first, "no dropout"


def test_a_signal_ends_it_between_batches(tmp_path: Path) -> None:
    model, rows, encoder = setup(tiny_llama(tmp_path))
    asked = iter([False, False, True])
    with pytest.raises(Stopped):
        measure_loss(model, rows, encoder, 2, stop=lambda: next(asked))
    assert model.training


# ---- text


def test_rouge_is_the_librarys_and_the_best_reference_counts_for_each_metric() -> None:
    from rouge_score.rouge_scorer import RougeScorer

    text, references = "the cat sat on the mat", ["a dog sat on the mat", "the cat stood", "unrelated words"]
    (found,) = rouge([text], [references])
    scorer = RougeScorer(ROUGE)
    for name in ROUGE:
        alone = [scorer.score(reference, text)[name].fmeasure for reference in references]
        assert found[name] == max(alone) > 0
    one, other = score([text], [references], ["rouge"]), score([text], [references[:1]], ["rouge"])
    assert all(one[name] >= other[name] for name in ROUGE)
    assert one["rouge1"] == pytest.approx(100 * 8 / 12), "percent: four of six words"


def test_stems_only_where_asked() -> None:
    pair = (["cats running"], [["cat run"]])
    assert score(*pair, ["rouge"])["rouge1"] == 0
    assert score(*pair, ["rouge"], stemmer=True)["rouge1"] == 100


def test_lsum_goes_by_sentences_and_l_does_not() -> None:
    swapped = score(["It works. We test it."], [["We test it. It works."]], ["rouge"])
    assert swapped["rougeLsum"] == pytest.approx(100)
    assert swapped["rougeL"] < 100


@pytest.mark.parametrize(
    ("given", "wanted", "same", "f1"),
    [
        ("The Beatles!", "beatles", 1, 1.0),
        ("in the year 1969", "1969", 0, 2 * 1 / 4),
        ("paris paris", "Paris", 0, 2 / 3),
        ("london", "Paris", 0, 0.0),
        ("", "Paris", 0, 0.0),
        ("the", "a", 1, 1.0),
        ("U.S.A.", "usa", 1, 1.0),
        ("theatre", "atre", 0, 0.0),
    ],
)
def test_squads_rules(given: str, wanted: str, same: int, f1: float) -> None:
    assert exact_match(given, wanted) == same
    assert token_f1(given, wanted) == pytest.approx(f1)


def test_means_are_over_rows_in_percent() -> None:
    found = score(["paris", "rome"], [["Paris", "Lutetia"], ["Milan", "Rome, Italy"]], ["exact_match", "f1"])
    assert found == {"exact_match": 50.0, "f1": pytest.approx(100 * (1 + 2 / 3) / 2)}
    assert score([], [], ["rouge"]) == {}
    assert score(["x"], [["x"]], ["nll"]) == {}


WORDS = st.lists(st.sampled_from(["a", "the", "cat", "dog.", "Dog", "sat", "3"]), max_size=8).map(" ".join)


@given(WORDS, WORDS)
def test_f1_is_symmetric_and_bounded_by_exact_match(one: str, other: str) -> None:
    f1 = token_f1(one, other)
    assert f1 == token_f1(other, one)
    assert exact_match(one, other) <= f1 <= 1
    assert normalised(normalised(one)) == normalised(one)
    assert token_f1(one, one) == 1
