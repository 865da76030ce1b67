"""load_rows reads the training, validation and test rows of a job from a file, a folder or the hub.

What a row's fields mean is in field_layouts.py; each kind of file is read in files.py, the hub in hub.py. Every bad row is an
InputError that names file and line.
"""

import re
from dataclasses import dataclass, field
from pathlib import Path

from carbonsched.errors import InputError
from carbonsched.model.job import DATA_SUFFIXES, DataPart, EvaluatePart
from trainer.data.field_layouts import Row
from trainer.data.files import read_file
from trainer.data.hub import read_hub

TRAIN_NAMES = ("train",)
HELD_OUT_NAMES = ("validation", "dev", "valid", "val", "test")


@dataclass(frozen=True, slots=True)
class Rows:
    """The rows of a job, by what they are for.

    Example:
        >>> rows = Rows([Row("a b", "c")], validation=[])
        >>> rows.test
        []
    """

    train: list[Row]
    validation: list[Row]
    test: list[Row] = field(default_factory=list)
    """Empty where the job names no test set."""


def load_rows(part: DataPart, evaluate: EvaluatePart | None = None) -> Rows:
    """Read and check every row. Raises InputError: missing file, broken line, missing field, no rows.

    Packed rows are cut into blocks later, so their limits are left to the caller: `encoder.encode(…)[:limit]`.
    """
    named_test = evaluate.test if evaluate else None
    path = Path(part.name_or_path).expanduser()
    if path.is_file():
        train = read_file(path, part)
        held_out = read_file(_beside(path.parent, part.validation), part) if part.validation else []
        test = read_file(_beside(path.parent, named_test), part, "evaluate.test") if named_test else []
    elif path.is_dir():
        found = _find(path, TRAIN_NAMES)
        if found is None:
            names = ", ".join(sorted(f.name for f in path.iterdir())) or "none"
            raise InputError(
                "data.name_or_path",
                f"{path} holds no file named train{{{','.join(DATA_SUFFIXES)}}} (its files: {names})",
                "name the training file itself",
            )
        train = read_file(found, part)
        file = _beside(path, part.validation) if part.validation else _find(path, HELD_OUT_NAMES)
        held_out = read_file(file, part) if file else []
        test = read_file(_beside(path, named_test), part, "evaluate.test") if named_test else []
    elif _looks_local(part.name_or_path):
        raise InputError(
            "data.name_or_path",
            f"there is no {path}",
            "give a file, a folder or the id of a data set on the hub",
        )
    else:
        train, held_out, test = read_hub(part, named_test, TRAIN_NAMES, HELD_OUT_NAMES)
    if part.pack:
        return Rows(train, held_out, test)
    most = evaluate.limit if evaluate else None
    return Rows(train[: part.train_limit], held_out[: part.validation_limit], test[:most])


def _looks_local(name: str) -> bool:
    return name.startswith(("/", ".", "~")) or name.count("/") > 1 or Path(name).suffix in DATA_SUFFIXES


def _find(folder: Path, stems: tuple[str, ...]) -> Path | None:
    files = sorted(f for f in folder.iterdir() if f.suffix in DATA_SUFFIXES)
    for stem in stems:
        exact = [f for f in files if f.stem == stem]
        # data sets in the wild: train-00000-of-00001.parquet, dialogsum.train.jsonl
        found = exact or [f for f in files if stem in re.split(r"[._-]", f.stem)]
        if found:
            return found[0]
    return None


def _beside(folder: Path, name: str) -> Path:
    """The file called `name`, here or in the data's folder; there also by its split's name, as `test`."""
    named = Path(name).expanduser()
    if named.is_absolute() or named.is_file():
        return named
    found = None if (folder / named).is_file() or named.suffix else _find(folder, (name,))
    return found or folder / named
