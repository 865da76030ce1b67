"""Reading rows of every kind, with errors that name file and line; tokens, batches, shapes."""

import json
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from support.models import tiny_tokenizer, word_data, write_jsonl

from carbonsched.errors import InputError
from carbonsched.model.job import DataPart, EvaluatePart
from trainer.data.field_layouts import Row
from trainer.data.reading import IGNORED, collator, encode, load_rows, nominal_shape, padded, prompts


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Any:
    return tiny_tokenizer(tmp_path_factory.mktemp("tokenizer"))


def part(path: Path | str, **fields: Any) -> DataPart:
    return DataPart(name_or_path=str(path), **fields)


ROWS = [{"source": "a b", "target": "c"}, {"source": "d, e", "target": "f"}]


def write(folder: Path, kind: str) -> Path:
    file = folder / f"train.{kind}"
    if kind == "jsonl":
        return write_jsonl(file, ROWS)
    if kind == "json":
        file.write_text(json.dumps(ROWS))
    elif kind == "csv":
        file.write_text('source,target\na b,c\n"d, e",f\n')
    else:
        import pyarrow as pa
        from pyarrow import parquet

        parquet.write_table(pa.Table.from_pylist(ROWS), file)
    return file


@pytest.mark.parametrize("kind", ["jsonl", "json", "csv", "parquet"])
def test_every_kind_of_file(tmp_path: Path, kind: str) -> None:
    rows = load_rows(part(write(tmp_path, kind)))
    assert rows.train == [Row("a b", "c"), Row("d, e", "f")]
    assert rows.validation == []


def test_a_folder_has_train_and_held_out_files(tmp_path: Path) -> None:
    rows = load_rows(part(word_data(tmp_path), validation_limit=3, train_limit=5))
    assert (len(rows.train), len(rows.validation)) == (5, 3)
    write_jsonl(tmp_path / "extra.jsonl", ROWS)
    assert len(load_rows(part(tmp_path, validation="extra.jsonl")).validation) == 2


def test_names_as_data_sets_have_them(tmp_path: Path) -> None:
    write_jsonl(tmp_path / "dialog.train.jsonl", ROWS)
    write_jsonl(tmp_path / "dialog.dev.jsonl", ROWS[:1])
    write_jsonl(tmp_path / "dialog.test.jsonl", ROWS)
    rows = load_rows(part(tmp_path))
    assert (len(rows.train), len(rows.validation)) == (2, 1), "dev goes before test"


def test_sentences_are_joined_and_of_references_the_first_is_learnt(tmp_path: Path) -> None:
    file = write_jsonl(tmp_path / "x.jsonl", [{"source": ["One.", "Two."], "target": ["first", "second"]}])
    assert load_rows(part(file)).train == [Row("One. Two.", "first", ("first", "second"))]


def test_plain_text_is_causal(tmp_path: Path) -> None:
    file = tmp_path / "x.txt"
    file.write_text("one line\n\nanother\n")
    assert load_rows(part(file, task="causal")).train == [Row("", "one line"), Row("", "another")]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('{"source": "a", "target": "b"}\n{"source": \n', r"train\.jsonl: line 2 is not JSON"),
        (
            '{"source": "a", "target": "b"}\n\n{"source": "a"}\n',
            r"data\.target: .*line 3 has no field 'target'.*source",
        ),
        (
            '{"text": "a", "target": "b"}\n',
            r"data\.source: .*line 1 has no field 'source'; set data\.source to one of",
        ),
        ('{"source": "", "target": "b"}\n', r"line 1: field 'source' holds no text"),
        ('{"source": 3, "target": "b"}\n', r"line 1: field 'source' holds no text"),
        ("[1]\n", r"line 1 is not an object"),
        ("", r"holds no rows"),
    ],
)
def test_errors_name_the_line(tmp_path: Path, content: str, message: str) -> None:
    file = tmp_path / "train.jsonl"
    file.write_text(content)
    with pytest.raises(InputError, match=message):
        load_rows(part(file))


def test_what_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="there is no"):
        load_rows(part(tmp_path / "none.jsonl"))
    with pytest.raises(InputError, match=r"holds no file named train.*its files: none"):
        load_rows(part(tmp_path))
    write_jsonl(tmp_path / "train.jsonl", ROWS)
    with pytest.raises(InputError, match=r"data\.validation"):
        load_rows(part(tmp_path, validation="held.jsonl"))
    bad = tmp_path / "x.parquet"
    bad.write_bytes(b"no")
    with pytest.raises(InputError, match="is not Parquet"):
        load_rows(part(bad))


def test_a_hub_id_goes_through_datasets(monkeypatch: pytest.MonkeyPatch) -> None:
    """The library's own loader is asked; offline, its refusal becomes one line with a hint."""
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    import datasets

    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with pytest.raises(InputError, match=r"data\.name_or_path: nobody/no-such-set .*the hub gave"):
            load_rows(part("nobody/no-such-set"))


def test_a_hub_data_set_is_split_and_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import datasets

    made = datasets.DatasetDict(
        {"train": datasets.Dataset.from_list(ROWS), "validation": datasets.Dataset.from_list(ROWS[:1])}
    )
    monkeypatch.setattr(datasets, "load_dataset", lambda name: made)
    rows = load_rows(part("someone/some-set"))
    assert (len(rows.train), len(rows.validation)) == (2, 1)


# ---- tokens


def test_a_decoder_learns_the_target_alone(tokenizer: Any) -> None:
    (row,) = encode([Row("w1 w2 w3", "w4 w5")], tokenizer, part("x"), encoder_decoder=False)
    text = tokenizer.decode(row.input_ids)
    assert text.split() == ["w1", "w2", "w3", "Summary", ":", "w4", "w5", "</s>"]
    learnt = [token for token, label in zip(row.input_ids, row.labels, strict=True) if label != IGNORED]
    assert tokenizer.decode(learnt).split() == ["w4", "w5", "</s>"]


def test_an_encoder_decoder_reads_and_writes(tokenizer: Any) -> None:
    (row,) = encode([Row("w1 w2", "w4")], tokenizer, part("x"), encoder_decoder=True)
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
    (found,) = encode([row], tokenizer, spec, encoder_decoder=two_sided)
    learnt = [label for label in found.labels if label != IGNORED]
    assert len(found.input_ids) <= max_length
    assert learnt[-1] == tokenizer.eos_token_id
    if two_sided:
        assert len(learnt) == min(target + 1, target_length)
    else:
        assert len(found.labels) == len(found.input_ids)
        assert len(learnt) == min(target + 1, target_length, max_length - 2), "the prompt's own words stay"


def test_plain_text_is_learnt_whole(tokenizer: Any) -> None:
    (row,) = encode([Row("", "w1 w2 w3")], tokenizer, part("x", task="causal"), encoder_decoder=False)
    assert row.labels == row.input_ids


@pytest.mark.parametrize(("pad", "width"), [("longest", 8), ("max_length", 32)])
def test_batches_are_padded_on_the_right(tokenizer: Any, pad: str, width: int) -> None:
    spec = part("x", pad=pad, max_length=32)
    rows = [{"input_ids": [5, 6, 7], "labels": [IGNORED, 6, 7]}, {"input_ids": [5], "labels": [5]}]
    batch = collator(0, spec, encoder_decoder=False)(rows)
    assert batch["input_ids"].shape == batch["labels"].shape == (2, width)
    assert batch["attention_mask"].sum(1).tolist() == [3, 1]
    assert torch.equal(batch["labels"][0, :4], torch.tensor([IGNORED, 6, 7, IGNORED]))


def test_the_profiled_shape_is_that_of_a_mean_batch(tokenizer: Any) -> None:
    spec = part("x", pad="longest", max_length=64)
    rows = encode(
        [Row(" ".join(["w1"] * n), "w2") for n in range(1, 50)], tokenizer, spec, encoder_decoder=False
    )
    seq, target = nominal_shape(rows, 4, spec, encoder_decoder=False)
    assert target is None
    assert 32 < seq < 56
    assert nominal_shape(rows, 4, part("x", pad="max_length", max_length=64), encoder_decoder=False) == (
        64,
        None,
    )
    assert padded([3, 9], [2, 3], spec, True) == (16, 8)


# ---- generating, packing


def test_a_prompt_is_what_stood_before_the_target(tokenizer: Any) -> None:
    rows = [Row("w1 w2 w3", "w4 w5"), Row("w6", "w7", task="qa")]
    for two_sided in (False, True):
        learnt = encode(rows, tokenizer, part("x"), encoder_decoder=two_sided)
        asked = prompts(rows, tokenizer, part("x"), encoder_decoder=two_sided, new_tokens=8)
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
    blocks = encode(rows, tokenizer, spec, encoder_decoder=False)
    stream = [token for block in blocks for token in block.input_ids]
    whole = [token for row in rows for token in [*tokenizer(row.target)["input_ids"], tokenizer.eos_token_id]]
    assert stream == whole[: len(stream)]
    assert len(whole) - len(stream) <= 1, "a last block of one token has nothing to predict"
    assert all(block.labels == block.input_ids for block in blocks)
    assert all(len(block.input_ids) == max_length for block in blocks[:-1])


def test_packed_text_is_read_whole_and_prompts_refuse_it(tokenizer: Any, tmp_path: Path) -> None:
    file = tmp_path / "x.txt"
    file.write_text("w1 w2\n\nw3\n")
    rows = load_rows(part(file, task="causal", pack=True)).train
    assert rows == [Row("", "w1 w2\n\nw3")]
    spec = part("x", pack=True)
    with pytest.raises(InputError, match=r"data\.pack: the rows have prompts"):
        encode([Row("a", "b")], tokenizer, spec, encoder_decoder=False)
    with pytest.raises(InputError, match=r"data\.pack: an encoder-decoder"):
        encode(rows, tokenizer, spec, encoder_decoder=True)


# ---- test rows


def test_test_rows_by_file_and_by_split(tmp_path: Path) -> None:
    write_jsonl(tmp_path / "d.train.jsonl", ROWS)
    write_jsonl(tmp_path / "d.test.jsonl", ROWS * 2)
    for name in ("test", "d.test.jsonl", str(tmp_path / "d.test.jsonl")):
        found = load_rows(part(tmp_path), EvaluatePart(test=name, limit=3))
        assert len(found.test) == 3
        assert len(load_rows(part(tmp_path / "d.train.jsonl"), EvaluatePart(test=name)).test) == 4
    assert load_rows(part(tmp_path), EvaluatePart()).test == []
    with pytest.raises(InputError, match=r"evaluate\.test: there is no"):
        load_rows(part(tmp_path), EvaluatePart(test="held"))
