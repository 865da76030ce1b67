"""Reading rows of every kind, with errors that name file and line."""

import json
import warnings
from pathlib import Path
from typing import Any

import pytest
from support.models import word_data, write_jsonl

from carbonsched.errors import InputError
from carbonsched.model.job import DataPart, EvaluatePart
from trainer import hub_reach
from trainer.data.field_layouts import Row
from trainer.data.reading import load_rows


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
    monkeypatch.setattr(hub_reach, "_unreached", None)
    import datasets

    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with pytest.raises(
            InputError, match=r"data\.name_or_path: nobody/no-such-set .*HF_HUB_OFFLINE is set"
        ):
            load_rows(part("nobody/no-such-set"))


def test_a_hub_data_set_is_split_and_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import datasets

    made = datasets.DatasetDict(
        {"train": datasets.Dataset.from_list(ROWS), "validation": datasets.Dataset.from_list(ROWS[:1])}
    )
    monkeypatch.setattr(datasets, "load_dataset", lambda name, **_: made)
    rows = load_rows(part("someone/some-set"))
    assert (len(rows.train), len(rows.validation)) == (2, 1)


def test_packed_text_is_read_whole(tmp_path: Path) -> None:
    file = tmp_path / "x.txt"
    file.write_text("w1 w2\n\nw3\n")
    rows = load_rows(part(file, task="causal", pack=True)).train
    assert rows == [Row("", "w1 w2\n\nw3")]


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
