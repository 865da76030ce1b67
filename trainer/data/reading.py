"""load_rows reads the training, validation and test rows of a job from a file, a folder or the hub.

What a row's fields mean is in field_layouts.py; each kind of file is read in files.py, the hub in hub.py. Every bad row is an
InputError that names file and line.
"""

from dataclasses import dataclass, field
from pathlib import Path

from carbonsched.errors import InputError
from carbonsched.model.job import DATA_SUFFIXES, DataPart, EvaluatePart, data_suffix
from trainer.data.field_layouts import Row
from trainer.data.files import read_file
from trainer.data.hub import is_saved, read_hub, read_saved
from trainer.data.splits import HELD_OUT_NAMES, TRAIN_NAMES, split_files


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
        held_out = _named(path.parent, part.validation, part, "data.validation")
        test = _named(path.parent, named_test, part, "evaluate.test")
    elif is_saved(path):
        train, held_out, test = read_saved(path, part, named_test, TRAIN_NAMES, HELD_OUT_NAMES)
    elif path.is_dir():
        found = split_files(path, TRAIN_NAMES, "data.name_or_path")
        if not found:
            names = ", ".join(sorted(f.name for f in path.iterdir())) or "none"
            raise InputError(
                "data.name_or_path",
                f"{path} holds no file named train{{{','.join(DATA_SUFFIXES)}}} (its files: {names})",
                "name the training file itself",
            )
        train = _read(found, part, "data.name_or_path")
        if part.validation:
            held_out = _named(path, part.validation, part, "data.validation")
        else:
            held_out = _read(split_files(path, HELD_OUT_NAMES, "data.validation"), part, "data.validation")
        test = _named(path, named_test, part, "evaluate.test")
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
    return name.startswith(("/", ".", "~")) or name.count("/") > 1 or data_suffix(name) is not None


def _read(files: list[Path], part: DataPart, key: str) -> list[Row]:
    return [row for file in files for row in read_file(file, part, key)]


def _named(folder: Path, name: str | None, part: DataPart, key: str) -> list[Row]:
    """The rows of the file called `name`, here or in the data's folder; there also by its split's name, as `test`."""
    if not name:
        return []
    named = Path(name).expanduser()
    if named.is_absolute() or named.is_file():
        return read_file(named, part, key)
    found = [] if (folder / named).is_file() or named.suffix else split_files(folder, (name,), key)
    return _read(found or [folder / named], part, key)
