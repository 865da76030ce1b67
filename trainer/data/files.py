"""read_file reads the rows of one file: JSON lines, JSON, CSV, Parquet or plain text."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from carbonsched.errors import InputError
from carbonsched.model.job import DATA_SUFFIXES, DataPart
from trainer.data.csv_rows import csv_rows
from trainer.data.field_layouts import Row, read_row

_LABELS = "-labels.lst"
"""PIQA keeps the labels of `train.jsonl` in `train-labels.lst`, one per line."""


def read_file(file: Path, part: DataPart, key: str = "data.name_or_path") -> list[Row]:
    """Every row of one file. Raises InputError that names the file and the line; `key` is the setting that named it."""
    if not file.is_file():
        raise InputError(key, f"there is no {file}", "give the path of a file, or leave it out")
    if file.suffix.lower() not in DATA_SUFFIXES:
        raise InputError(
            "data.name_or_path", f"{file.name} is of no known kind", f"use one of {', '.join(DATA_SUFFIXES)}"
        )
    rows = [read_row(record, part, f"{file}: {where}") for where, record in _labelled(file, part.pack)]
    if not rows:
        raise InputError("data.name_or_path", f"{file} holds no rows", "give a file with at least one row")
    return rows


def _labelled(file: Path, whole: bool) -> Iterator[tuple[str, dict[str, Any]]]:
    """The records, with the labels of the file beside where there is one. Raises InputError: not one label per row."""
    beside = file.with_name(file.stem + _LABELS)
    if not beside.is_file():
        yield from _records(file, whole)
        return
    labels = _read_text(beside).split()
    records = list(_records(file, whole))
    if len(labels) != len(records):
        raise InputError(
            "data.name_or_path",
            f"{beside} holds {len(labels)} labels for the {len(records)} rows of {file.name}",
            "give one label per line",
        )
    for (where, record), label in zip(records, labels, strict=True):
        yield where, {**record, "label": label} if isinstance(record, dict) else record


def _records(file: Path, whole: bool = False) -> Iterator[tuple[str, dict[str, Any]]]:
    """(where, record) of every row; `where` names the line, or the row where the format has no lines.

    whole: plain text is one row.
    """
    if file.suffix.lower() == ".parquet":
        yield from _parquet(file)
        return
    if file.suffix.lower() == ".csv":
        yield from csv_rows(_read_text(file, newline=""), str(file))
        return
    text = _read_text(file)
    if file.suffix.lower() == ".txt" and whole:
        if text.strip():
            yield "the text", {"text": text}
    elif file.suffix.lower() == ".txt":
        for number, line in enumerate(text.split("\n"), 1):
            if line.strip():
                yield f"line {number}", {"text": line}
    elif file.suffix.lower() == ".json" and text.lstrip()[:1] == "[":
        yield from ((f"item {i}", item) for i, item in enumerate(_json(text, str(file)), 1))
    else:
        for number, line in enumerate(text.split("\n"), 1):
            if line.strip():
                yield f"line {number}", _json(line, f"{file}: line {number}")


def _read_text(file: Path, newline: str | None = None) -> str:
    """newline: "" leaves line ends as they are, None makes each one a newline. Raises InputError."""
    try:
        with file.open(encoding="utf-8-sig", newline=newline) as stream:
            return stream.read()
    except OSError as e:
        raise InputError(
            "data.name_or_path", f"{file} cannot be read: {e.strerror or e}", "mend its rights"
        ) from e
    except UnicodeDecodeError as e:
        raise InputError("data.name_or_path", f"{file} cannot be read: {e}", "save it as UTF-8") from e


def _json(text: str, where: str) -> Any:
    try:
        return json.loads(text, object_pairs_hook=_object)
    except ValueError as e:
        raise InputError("data.name_or_path", f"{where} is not JSON ({e})", "mend that line") from e
    except RecursionError as e:
        raise InputError(
            "data.name_or_path", f"{where} is nested too deep to be read", "drop that row, or flatten it"
        ) from e


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Raises ValueError: a field that stands twice, of which json would keep the last in silence."""
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"the field {twice!r} stands {names.count(twice)} times")
    return found


def _parquet(file: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    from pyarrow import ArrowException, parquet  # type: ignore[import-untyped]

    try:
        with parquet.ParquetFile(file) as opened:
            names = opened.schema_arrow.names
            twice = next((name for name in names if names.count(name) > 1), None)
            if twice is not None:
                raise InputError(
                    "data.name_or_path",
                    f"{file} has the column {twice!r} {names.count(twice)} times",
                    "give every column a name of its own",
                )
            table = opened.read()
    except (OSError, ArrowException, UnicodeDecodeError) as e:
        raise InputError("data.name_or_path", f"{file} is not Parquet: {_first(e)}", "write it again") from e
    try:
        records = table.to_pylist()
    except (ArrowException, ValueError, OverflowError, ImportError) as e:
        # text that is not UTF-8, fields of a struct that share a name, times that Python has no date for
        raise InputError(
            "data.name_or_path", f"{file} has values that cannot be read: {_first(e)}", "write it again"
        ) from e
    yield from ((f"row {i}", record) for i, record in enumerate(records, 1))


def _first(error: Exception) -> str:
    text = str(error).strip()
    return text.splitlines()[0] if text else type(error).__name__
