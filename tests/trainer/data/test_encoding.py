"""Tokens of rows, prompts, batches and batch shapes, for decoders and encoder-decoders."""

import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.models import tiny_tokenizer

from carbonsched.errors import InputError
from carbonsched.model.job import DataPart
from trainer.data.encoding import _PROMPTS, IGNORED, TextEncoder
from trainer.data.field_layouts import Row


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Any:
    return tiny_tokenizer(tmp_path_factory.mktemp("tokenizer"))


def part(path: Path | str, **fields: Any) -> DataPart:
    return DataPart(name_or_path=str(path), **fields)


def encoder(tokenizer: Any, data: DataPart, two_sided: bool = False) -> TextEncoder:
    return TextEncoder(tokenizer, data, two_sided)


def test_a_decoder_learns_the_target_alone(tokenizer: Any) -> None:
    (row,) = encoder(tokenizer, part("x")).encode([Row("w1 w2 w3", "w4 w5")])
    text = tokenizer.decode(row.input_ids)
    assert text.split() == ["w1", "w2", "w3", "Summary", ":", "w4", "w5", "</s>"]
    learnt = [token for token, label in zip(row.input_ids, row.labels, strict=True) if label != IGNORED]
    assert tokenizer.decode(learnt).split() == ["w4", "w5", "</s>"]


def test_an_encoder_decoder_reads_and_writes(tokenizer: Any) -> None:
    (row,) = encoder(tokenizer, part("x"), True).encode([Row("w1 w2", "w4")])
    assert tokenizer.decode(row.input_ids).split() == ["summarize", ":", "w1", "w2", "</s>"]
    assert tokenizer.decode(row.labels).split() == ["w4", "</s>"]


@settings(max_examples=60, deadline=None)
@given(
    source=st.integers(1, 60),
    target=st.integers(1, 60),
    max_length=st.integers(8, 40),
    target_length=st.integers(2, 40),
    two_sided=st.booleans(),
)
def test_truncation_keeps_the_target(
    tokenizer: Any, source: int, target: int, max_length: int, target_length: int, two_sided: bool
) -> None:
    spec = part("x", max_length=max_length, target_length=target_length)
    row = Row(" ".join(["w1"] * source), " ".join(["w2"] * target))
    (found,) = encoder(tokenizer, spec, two_sided).encode([row])
    learnt = [label for label in found.labels if label != IGNORED]
    assert len(found.input_ids) <= max_length
    assert learnt[-1] == tokenizer.eos_token_id
    if two_sided:
        assert len(learnt) == min(target + 1, target_length)
    else:
        assert len(found.labels) == len(found.input_ids)
        assert len(learnt) == min(target + 1, target_length, max_length - 2), "the prompt's own words stay"


def test_plain_text_is_learnt_whole(tokenizer: Any) -> None:
    (row,) = encoder(tokenizer, part("x", task="causal")).encode([Row("", "w1 w2 w3")])
    assert row.labels == row.input_ids


@pytest.mark.parametrize(("pad", "width"), [("longest", 3), ("max_length", 32)])
def test_batches_are_padded_on_the_right(tokenizer: Any, pad: str, width: int) -> None:
    spec = part("x", pad=pad, max_length=32)
    rows = [{"input_ids": [5, 6, 7], "labels": [IGNORED, 6, 7]}, {"input_ids": [5], "labels": [5]}]
    batch = encoder(tokenizer, spec).collate(rows)
    assert batch["input_ids"].shape == batch["labels"].shape == (2, width)
    assert batch["attention_mask"].sum(1).tolist() == [3, 1]
    assert batch["labels"][0].tolist()[:3] == [IGNORED, 6, 7]
    assert batch["labels"][1].tolist()[1:] == [IGNORED] * (width - 1)


def test_the_profiled_shape_is_that_of_a_mean_batch(tokenizer: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    spec = part("x", pad="longest", max_length=64)
    rows = encoder(tokenizer, spec).encode([Row(" ".join(["w1"] * n), "w2") for n in range(1, 50)])
    seq, target, labelled = encoder(tokenizer, spec).nominal_shape(rows, 4)
    assert (target, labelled) == (None, 2)  # the word and the end
    assert 32 < seq < 56
    assert encoder(tokenizer, part("x", pad="max_length", max_length=64)).nominal_shape(rows, 4) == (
        64,
        None,
        labelled,
    )
    two_sided = encoder(tokenizer, spec, True)
    assert two_sided.batch_shape([3, 9], [2, 3]) == (9, 3)
    monkeypatch.setattr("trainer.data.encoding._on_board", lambda: True)
    assert two_sided.batch_shape([3, 9], [2, 3]) == (16, 8)


# ---- generating, packing


def test_a_prompt_is_what_stood_before_the_target(tokenizer: Any) -> None:
    rows = [Row("w1 w2 w3", "w4 w5"), Row("w6", "w7", task="qa")]
    for two_sided in (False, True):
        learnt = encoder(tokenizer, part("x"), two_sided).encode(rows)
        asked = encoder(tokenizer, part("x"), two_sided).prompts(rows, new_tokens=8)
        for row, ids in zip(learnt, asked, strict=True):
            before = sum(label == IGNORED for label in row.labels) if not two_sided else len(row.input_ids)
            assert ids == row.input_ids[:before]


@given(
    counts=st.lists(st.integers(1, 30), min_size=1, max_size=6),
    max_length=st.integers(8, 40),
)
@settings(max_examples=40, deadline=None)
def test_packing_loses_no_token(tokenizer: Any, counts: list[int], max_length: int) -> None:
    rows = [Row("", " ".join(f"w{i}" for i in range(n))) for n in counts]
    spec = part("x", task="causal", pack=True, max_length=max_length)
    blocks = encoder(tokenizer, spec).encode(rows)
    stream = [token for block in blocks for token in block.input_ids]
    whole = [token for row in rows for token in [*tokenizer(row.target)["input_ids"], tokenizer.eos_token_id]]
    assert stream == whole[: len(stream)]
    assert len(whole) - len(stream) <= 1, "a last block of one token has nothing to predict"
    assert all(block.labels == block.input_ids for block in blocks)
    assert all(len(block.input_ids) == max_length for block in blocks[:-1])


def test_prompts_and_encoder_decoders_refuse_packing(tokenizer: Any) -> None:
    rows = [Row("", "w1 w2\n\nw3")]
    spec = part("x", pack=True)
    with pytest.raises(InputError, match=r"data\.pack: the rows have prompts"):
        encoder(tokenizer, spec).encode([Row("a", "b")])
    with pytest.raises(InputError, match=r"data\.pack: an encoder-decoder"):
        encoder(tokenizer, spec, True).encode(rows)


@settings(max_examples=60, deadline=None)
@given(
    max_length=st.integers(8, 60),
    target_length=st.integers(1, 4),
    words=st.integers(0, 60),
    source=st.integers(0, 30),
    two_sided=st.booleans(),
)
def test_rows_are_never_longer_than_max_length(
    tokenizer: Any, max_length: int, target_length: int, words: int, source: int, two_sided: bool
) -> None:
    """Whatever the prompt's own words take: where they leave no room the least length is named, and it does."""
    rows = [Row(" ".join(["w1"] * source), "w2 w3 w4")]

    def read(most: int, target: int) -> tuple[list[int], list[int], list[int]]:
        made = encoder(tokenizer, part("x", max_length=most, target_length=target), two_sided)
        (row,), (prompt,) = made.encode(rows), made.prompts(rows, 4)
        return row.input_ids, [label for label in row.labels if label != IGNORED], prompt

    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(_PROMPTS, "summarization", ("", " w5" * words))
        try:
            ids, learnt, prompt = read(max_length, target_length)
        except InputError as e:
            found = re.search(r"data\.(max|target)_length: .*set it to (\d+) or more", str(e))
            assert found
            least = int(found[2])
            wide = (least, 9) if found[1] == "max" else (80, least)
            assert least > (max_length if found[1] == "max" else target_length)
            ids, learnt, prompt = read(*wide)
            max_length = wide[0]
    assert max(len(ids), len(prompt)) <= max_length
    assert len(learnt) > 1, "a word and the end"
