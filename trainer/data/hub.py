"""read_hub downloads a data set of the Hugging Face hub, read_saved opens one that was saved; both read the rows of its splits."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from carbonsched.errors import InputError
from carbonsched.model.job import DataPart
from trainer import hub_reach
from trainer.data.field_layouts import Row, read_row

_HUB_SUBSETS = {"scitldr": "Abstract"}
"""The configuration to use if a data set on the hub has several and the job names none."""


def read_hub(
    part: DataPart, named_test: str | None, train_names: Sequence[str], held_out_names: Sequence[str]
) -> tuple[list[Row], list[Row], list[Row]]:
    """Rows of the splits for training, validation and test: the first of the given names that the data set has.

    named_test: the split that `evaluate.test` names. Raises InputError.
    """
    return _splits(_download(part), part, named_test, train_names, held_out_names)


def is_saved(folder: Path) -> bool:
    """Whether a folder was written by `save_to_disk` of the data sets library: one split, or several."""
    return (folder / "dataset_dict.json").is_file() or (
        (folder / "state.json").is_file() and (folder / "dataset_info.json").is_file()
    )


def read_saved(
    folder: Path,
    part: DataPart,
    named_test: str | None,
    train_names: Sequence[str],
    held_out_names: Sequence[str],
) -> tuple[list[Row], list[Row], list[Row]]:
    """The same of a folder that `save_to_disk` wrote; where it has no splits, all rows are for training. Raises InputError."""
    import datasets

    try:
        saved = datasets.load_from_disk(str(folder))
        found = saved if isinstance(saved, datasets.DatasetDict) else {train_names[0]: saved}
        return _splits(found, part, named_test, train_names, held_out_names)
    except InputError:
        raise
    except Exception as e:  # the library and those below it may raise anything
        raise InputError(
            "data.name_or_path", f"{folder} cannot be read as a saved data set: {_first(e)}", "save it again"
        ) from e


def _splits(
    found: Any,
    part: DataPart,
    named_test: str | None,
    train_names: Sequence[str],
    held_out_names: Sequence[str],
) -> tuple[list[Row], list[Row], list[Row]]:
    def split(names: Sequence[str]) -> list[Row]:
        name = next((n for n in names if n in found), None)
        if name is None:
            return []
        return [
            read_row(record, part, f"{part.name_or_path}: {name} row {i}")
            for i, record in enumerate(found[name], 1)
        ]

    for key, name in (("data.validation", part.validation), ("evaluate.test", named_test)):
        if name and name not in found:
            raise InputError(
                key, f"{part.name_or_path} has no split {name!r}", f"choose one of {', '.join(found)}"
            )
    train = split(train_names)
    if not train:
        raise InputError(
            "data.name_or_path",
            f"{part.name_or_path} has no rows in a split named train",
            f"its splits: {', '.join(map(str, found)) or 'none'}",
        )
    held_out = split((part.validation,) if part.validation else held_out_names)
    return train, held_out, split((named_test,)) if named_test else []


def _download(part: DataPart) -> Any:
    """Its splits, by name. Data sets that are scripts, which datasets no longer runs, have a copy as Parquet on the hub."""
    hub_reach.prepare(part.name_or_path)
    import datasets

    subset = part.subset or _HUB_SUBSETS.get(part.name_or_path.rpartition("/")[2])
    given = (part.name_or_path, subset) if subset else (part.name_or_path,)
    try:
        try:
            return datasets.load_dataset(*given, trust_remote_code=False)
        except RuntimeError as e:
            if "script" not in str(e):
                raise
            return datasets.load_dataset(*given, revision="refs/convert/parquet", trust_remote_code=False)
    except Exception as e:  # the library raises a different class for every way a name can be wrong
        raise hub_reach.refusal("data.name_or_path", part.name_or_path, "a data set") or InputError(
            "data.name_or_path",
            f"{part.name_or_path} is no file here and the hub gave: {_first(e)}",
            "give a file, a folder, or the id of a data set that this box can reach (and data.subset where it has several)",
        ) from e


def _first(error: Exception) -> str:
    text = str(error).strip()
    return text.splitlines()[0] if text else type(error).__name__
