"""Folders as other people have them: a whole set of shards is read, and what could be two things is refused by name."""

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from carbonsched.errors import InputError
from carbonsched.model.job import DataPart
from trainer.data.reading import load_rows
from trainer.data.splits import HELD_OUT_NAMES, TRAIN_NAMES, split_files


def fill(folder: Path, *names: str) -> Path:
    """Files of two rows each, whose source is the file's name; of Parquet and CSV, too."""
    folder.mkdir(exist_ok=True)
    for name in names:
        file = folder / name
        if name.endswith(".parquet"):
            import pyarrow as pa
            from pyarrow import parquet

            parquet.write_table(pa.table({"source": [name, name], "target": ["x", "y"]}), file)
        elif name.lower().endswith(".csv"):
            file.write_text(f"source,target\n{name},x\n{name},y\n")
        else:
            file.write_text("".join(f'{{"source": "{name}", "target": "{t}"}}\n' for t in "xy"))
    return folder


def trained_on(folder: Path) -> list[str]:
    sources = [row.source for row in load_rows(DataPart(name_or_path=str(folder))).train]
    assert sources[::2] == sources[1::2]
    return sources[::2]


SETS = [
    [f"train-{i:05}-of-00003.parquet" for i in range(3)],
    [f"train-{i:05}-of-00002-0123456789abcdef.parquet" for i in range(2)],
    ["train_0.jsonl", "train_1.jsonl"],
    ["train.part1.jsonl", "train.part2.jsonl"],
    [f"train-{i}.csv" for i in range(1, 12)],
    ["train1.jsonl", "train2.jsonl"],
    ["train_1of3.csv", "train_2of3.csv", "train_3of3.csv"],
    ["Train.shard-0.jsonl", "train.shard-1.JSONL"],
    ["dialog.train.0.jsonl", "dialog.train.1.jsonl"],
    ["train-00000-of-00001.parquet"],
    ["Train.jsonl"],
    ["TRAIN.CSV"],
    ["sft_train.jsonl"],
    ["train_2024.jsonl"],
]


@pytest.mark.parametrize("names", SETS, ids=lambda names: names[0])
def test_a_whole_set_is_read_in_the_order_of_its_numbers(tmp_path: Path, names: list[str]) -> None:
    fill(tmp_path, *names, "test.jsonl", "pre-train.jsonl", "._train.jsonl", "notes.md")
    assert trained_on(tmp_path) == names


AMBIGUOUS = [
    ["train.csv", "train.jsonl"],
    ["train.jsonl", "Train.jsonl"],
    ["train_0.jsonl", "train_1.csv"],
    ["a.train.jsonl", "b.train.jsonl"],
    ["train-a.jsonl", "train-b.jsonl"],
    ["train.jsonl", "train-00000-of-00001.jsonl"],
    ["train_100.jsonl", "train_1000.jsonl"],
    ["train_2023.jsonl", "train_2024.jsonl"],
    ["train_0.jsonl", "train_00.jsonl"],
    ["train_0.jsonl", "train_2.jsonl"],
    ["train-00000-of-00002.jsonl", "train-00000-of-00001.jsonl"],
]


@pytest.mark.parametrize("names", AMBIGUOUS, ids=lambda names: " ".join(names))
def test_what_could_be_two_things_is_refused_and_both_are_named(tmp_path: Path, names: list[str]) -> None:
    with pytest.raises(InputError, match="more than one file that could be meant") as caught:
        trained_on(fill(tmp_path, *names))
    for name in names:
        assert name in str(caught.value)
        assert trained_on(tmp_path / name) == [name], "named itself, each can be read"


@pytest.mark.parametrize(
    ("names", "missing"),
    [
        (["train-00000-of-00003.parquet", "train-00002-of-00003.parquet"], 1),
        (["train-00001-of-00003.parquet", "train-00002-of-00003.parquet"], 0),
        (["train-00000-of-00002.parquet"], 1),
        (["train-1-of-4.csv", "train-2-of-4.csv", "train-4-of-4.csv"], 3),
    ],
)
def test_a_missing_shard_is_named(tmp_path: Path, names: list[str], missing: int) -> None:
    with pytest.raises(InputError, match=rf"holds {len(names)} of \d shards of train.* number {missing} "):
        trained_on(fill(tmp_path, *names))


@pytest.mark.parametrize("name", ["pre-train.jsonl", "pretrain.jsonl", "train_test.jsonl", "non_train.csv"])
def test_another_set_is_not_taken_for_the_training_set(tmp_path: Path, name: str) -> None:
    with pytest.raises(InputError, match=rf"holds no file named train.*{name}"):
        trained_on(fill(tmp_path, name))


def test_the_test_set_is_never_held_out_unasked(tmp_path: Path) -> None:
    fill(tmp_path, "train.jsonl", "test.jsonl")
    assert load_rows(DataPart(name_or_path=str(tmp_path))).validation == []
    asked = load_rows(DataPart(name_or_path=str(tmp_path), validation="test"))
    assert {row.source for row in asked.validation} == {"test.jsonl"}
    fill(tmp_path, "dev_1.jsonl", "dev_0.jsonl")
    held_out = load_rows(DataPart(name_or_path=str(tmp_path))).validation
    assert [row.source for row in held_out[::2]] == ["dev_0.jsonl", "dev_1.jsonl"]
    fill(tmp_path, "validation.jsonl")
    with pytest.raises(InputError, match=r"dev_1\.jsonl, validation\.jsonl; name one of them with data\.val"):
        load_rows(DataPart(name_or_path=str(tmp_path)))


def test_a_shard_that_is_a_broken_link_is_missed(tmp_path: Path) -> None:
    fill(tmp_path, "train_0.jsonl")
    (tmp_path / "train_1.jsonl").symlink_to(tmp_path / "gone")
    with pytest.raises(InputError, match=r"there is no .*train_1\.jsonl"):
        trained_on(tmp_path)


STEMS = st.lists(
    st.sampled_from(
        ["train", "test", "dev", "pre", "part", "of", "-", "_", ".", " ", "0", "1", "2", "00", "x"]
    ),
    min_size=1,
    max_size=6,
).map("".join)


@settings(deadline=None)
@given(stems=st.sets(STEMS, max_size=4), kinds=st.lists(st.sampled_from([".csv", ".jsonl"]), min_size=4))
def test_a_split_is_one_file_or_a_set_that_shares_its_kind(
    tmp_path_factory: pytest.TempPathFactory, stems: set[str], kinds: list[str]
) -> None:
    folder = tmp_path_factory.mktemp("data")
    for stem, kind in zip(sorted(stems), kinds, strict=False):
        (folder / (stem + kind)).touch()
    for names in (TRAIN_NAMES, HELD_OUT_NAMES):
        try:
            found = split_files(folder, names, "data.name_or_path")
        except InputError:
            continue
        assert len({file.suffix for file in found}) <= 1
        assert all(any(name in file.name for name in names) for file in found)
        assert not any(file.stem.endswith(("pre-train", "pre_train")) for file in found)


# ---- folders of the hub


def put(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text("{}\n")


@pytest.mark.parametrize(
    "names",
    [
        ["data/train-00000-of-00002.jsonl", "data/train-00001-of-00002.jsonl"],
        ["train/0.jsonl", "train/1.jsonl"],
        ["Train/a.jsonl", "Train/b.jsonl"],
        ["data/train/part-0.jsonl.gz", "data/train/part-1.jsonl.gz"],
    ],
)
def test_splits_in_subfolders_are_found_whole(tmp_path: Path, names: list[str]) -> None:
    put(tmp_path, *names, "test/0.jsonl", "other/train.jsonl")
    assert split_files(tmp_path, TRAIN_NAMES, "k") == [tmp_path / name for name in names]


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["train.jsonl", "data/train.jsonl"], "data/train.jsonl, train.jsonl"),
        (["train/a.jsonl", "train/b.csv"], "a.jsonl, b.csv"),
        (["train/a.jsonl", "data/train/a.jsonl"], "data/train/a.jsonl, train/a.jsonl"),
        (["train/a.jsonl", "train/test.jsonl"], "test.jsonl"),
        (["train/x-0-of-3.jsonl", "train/x-1-of-3.jsonl"], "holds 2 of 3 shards"),
    ],
)
def test_subfolders_that_could_mean_two_things_are_refused(
    tmp_path: Path, names: list[str], message: str
) -> None:
    put(tmp_path, *names)
    with pytest.raises(InputError, match=message):
        split_files(tmp_path, TRAIN_NAMES, "k")
