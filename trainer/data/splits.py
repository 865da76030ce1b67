"""split_files finds the files of one split in a folder: a file named for it, or a whole set of shards.

| names | taken for |
|---|---|
| `train.jsonl`, `Train.JSONL` | the split |
| `dialogsum.train.jsonl`, `sft_train.csv` | the split, where no file bears its name alone |
| `train-00000-of-00003.parquet` …, `train_0.jsonl` …, `train.part1.jsonl` … | one split, in the order of the numbers |
| `data/train.parquet`, `train/*.jsonl`, `data/train/*.jsonl` | the same, as folders of the hub have it |
| `pre-train.jsonl`, `train_test.jsonl` | nothing: another set, or two splits at once |

What could be two things is refused by name: two formats of one set, two sets for one split, a set with a shard missing.
"""

import os
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import NoReturn

from carbonsched.errors import InputError
from carbonsched.model.job import data_suffix

TRAIN_NAMES = ("train",)
HELD_OUT_NAMES = ("validation", "dev", "valid", "val")
TEST_NAMES = ("test",)

_SHARD = re.compile(
    r"[._ -]*(?:(?:part|shard|chunk|split)[._ -]*)?(?P<number>\d+)"
    r"(?:[._ -]*of[._ -]*(?P<count>\d+))?(?:-[0-9a-f]{16})?$"
)
"""What stands behind the name of a set in the name of one of its shards; older data sets of the hub end in a fingerprint."""
_NEGATIONS = frozenset({"pre", "post", "non", "not", "no"})
"""`pre-train` is not the training split."""


@dataclass(frozen=True, slots=True)
class _Part:
    file: Path
    base: str
    """The name of its set, in small letters."""
    number: int | None
    count: int | None
    """Of the shards, where its name says so."""

    @classmethod
    def of(cls, file: Path) -> "_Part":
        name = file.name.lower()
        stem = name[: name.rfind(data_suffix(name) or "")]
        shard = _SHARD.search(stem)
        if shard is None or shard.start() == 0:
            return cls(file, stem, None, None)
        count = shard["count"]
        return cls(file, stem[: shard.start()], int(shard["number"]), int(count) if count else None)

    def is_for(self, names: Sequence[str]) -> bool:
        """Whether its set is called one of `names`, or has it as a word and no other split beside it."""
        if self.base in names:
            return True
        words = re.split(r"[._ -]+", self.base)
        if not set(words) & set(names):
            return False
        before = [a for a, b in pairwise(words) if b in names]
        return not self.names_another_split(names) and not _NEGATIONS & set(before)

    def names_another_split(self, names: Sequence[str]) -> bool:
        others = {*TRAIN_NAMES, *HELD_OUT_NAMES, *TEST_NAMES} - set(names)
        return bool(others & set(re.split(r"[._ -]+", self.base)))


def split_files(folder: Path, names: Sequence[str], key: str) -> list[Path]:
    """The files of the split that bears one of `names`, all shards in order; [] where there is none.

    In `folder` itself, in its subfolder `data`, or in one that bears the split's name. key: the setting that would name the
    file itself. Raises InputError that names what is ambiguous or missing.
    """
    names = [name.lower() for name in names]
    places = [folder, *_subfolders(folder, ("data",))]
    found = [_files_here(place, names, key) for place in places]
    found += [_all_files(below, names, key) for place in places for below in _subfolders(place, names)]
    found = [files for files in found if files]
    if len(found) > 1:
        _ambiguous([_Part.of(files[0]) for files in found], key)
    return found[0] if found else []


def _subfolders(folder: Path, names: Sequence[str]) -> list[Path]:
    try:
        return sorted(f for f in folder.iterdir() if f.name.lower() in names and f.is_dir())
    except OSError as e:
        raise InputError(
            "data.name_or_path", f"{folder} cannot be read: {e.strerror or e}", "fix its rights"
        ) from e


def _all_files(folder: Path, names: Sequence[str], key: str) -> list[Path]:
    """Every data file of a folder that bears a split's name: one set of one kind, in the order of numbers or names."""
    parts = [_Part.of(file) for file in data_files(folder)]
    kinds = {_kind(part.file): part for part in parts}
    strangers = [part for part in parts if part.names_another_split(names)]
    if len(kinds) > 1 or strangers:
        _ambiguous(strangers or kinds.values(), key)
    if len({part.base for part in parts}) == 1:
        return [part.file for part in _in_order(parts, key)]
    return [part.file for part in sorted(parts, key=lambda part: (part.base, part.number or 0))]


def _files_here(folder: Path, names: Sequence[str], key: str) -> list[Path]:
    parts = [part for part in map(_Part.of, data_files(folder)) if part.is_for(names)]
    exact = [part for part in parts if part.base in names]
    found = exact or parts
    if not found:
        return []
    one_of_each_set = {part.base: part for part in found}
    one_of_each_kind = {_kind(part.file): part for part in found}
    for different in (one_of_each_set, one_of_each_kind):
        if len(different) > 1:
            _ambiguous(different.values(), key)
    return [part.file for part in _in_order(found, key)]


def data_files(folder: Path) -> list[Path]:
    """The files of a known kind, by name; hidden ones are none of the user's. Raises InputError."""
    try:
        inside = sorted(folder.iterdir())
    except OSError as e:
        raise InputError(
            "data.name_or_path", f"{folder} cannot be read: {e.strerror or e}", "fix its rights"
        ) from e
    # a link to nothing stays, to be missed by name and not in silence
    return [f for f in inside if data_suffix(f.name) is not None and f.name[0] != "." and not f.is_dir()]


def _kind(file: Path) -> str:
    return file.name.lower()[file.name.lower().rfind(data_suffix(file.name) or "") :]


def _in_order(parts: list[_Part], key: str) -> list[_Part]:
    """The shards of one set. Raises InputError: not one whole set, numbered from 0 or 1."""
    if len(parts) == 1 and parts[0].count in (None, 1):
        return parts
    numbers = sorted(-1 if part.number is None else part.number for part in parts)
    counts = {part.count for part in parts}
    if -1 in numbers or len(counts) > 1 or len(set(numbers)) < len(numbers):
        _ambiguous(parts, key)
    count = counts.pop()
    first = 1 if numbers[0] == 1 and (count is None or numbers[-1] == count) else 0
    missing = sorted(set(range(first, first + count if count else numbers[-1] + 1)) - set(numbers))
    if count is None and missing:
        # train_100 and train_1000 are two sizes of one set, train_2023 and train_2024 two years
        _ambiguous(parts, key)
    if missing or (count is not None and numbers[-1] >= first + count):
        raise InputError(
            "data.name_or_path",
            f"{parts[0].file.parent} holds {len(parts)} of {count} shards of {parts[0].base} "
            f"({_names(parts)}); number {missing[0] if missing else numbers[-1]} does not fit or is missing",
            f"bring the whole set, or name one file with {key}",
        )
    return sorted(parts, key=lambda part: part.number or 0)


def _ambiguous(parts: Iterable[_Part], key: str) -> NoReturn:
    parts = list(parts)
    raise InputError(
        "data.name_or_path",
        f"{_folder(parts)} holds more than one file that could be meant: {_names(parts)}",
        f"name one of them with {key}, or put the others elsewhere",
    )


def _folder(parts: Sequence[_Part]) -> Path:
    return Path(os.path.commonpath([part.file.parent for part in parts]))


def _names(parts: Sequence[_Part], most: int = 6) -> str:
    names = sorted(str(part.file.relative_to(_folder(parts))) for part in parts)
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")
