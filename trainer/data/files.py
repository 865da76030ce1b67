"""read_file reads the rows of one file: JSON lines, JSON, CSV, Parquet, Arrow or plain text, text also as .gz or .zst.

It is a reader of our own because errors must name file and line, and a row must never be fixed in silence: the data sets library
skips, casts and fills what does not fit. What that library itself saved, and the hub's, it reads: see hub.py.
"""

import gzip
import io
import json
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from carbonsched.errors import InputError
from carbonsched.model.error_words import syntax_words
from carbonsched.model.job import DATA_SUFFIXES, DataPart, data_suffix
from trainer.data.csv_rows import csv_rows
from trainer.data.field_layouts import Row, read_row

_LABELS = "-labels.lst"
"""PIQA keeps the labels of `train.jsonl` in `train-labels.lst`, one per line."""


def read_file(file: Path, part: DataPart, key: str = "data.name_or_path") -> list[Row]:
    """Every row of one file. Raises InputError that names the file and the line; `key` is the setting that named it."""
    if not file.is_file():
        raise InputError(key, f"there is no {file}", "give the path of a file, or leave it out")
    if data_suffix(file.name) is None:
        raise InputError(
            "data.name_or_path",
            f"{file.name} is of no known kind",
            f"use one of {', '.join(DATA_SUFFIXES)}; text may be .gz or .zst",
        )
    rows = [read_row(record, part, f"{file}: {where}") for where, record in _labelled(file, part.pack)]
    if not rows:
        raise InputError("data.name_or_path", f"{file} holds no rows", "give a file with at least one row")
    return rows


def _labelled(file: Path, whole: bool) -> Iterator[tuple[str, dict[str, Any]]]:
    """The records, with the labels of the file beside it, if there is one. Raises InputError if there is not one label per row."""
    beside = file.with_name(file.name.partition(data_suffix(file.name) or ".")[0] + _LABELS)
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
    kind = data_suffix(file.name)
    if kind in (".parquet", ".arrow"):
        yield from _table(file, "Parquet" if kind == ".parquet" else "Arrow")
        return
    if kind == ".csv":
        yield from csv_rows(_read_text(file, newline=""), str(file))
        return
    text = _read_text(file)
    if kind == ".txt" and whole:
        if text.strip():
            yield "the text", {"text": text}
    elif kind == ".txt":
        for number, line in enumerate(text.split("\n"), 1):
            if line.strip():
                yield f"line {number}", {"text": line}
    elif kind == ".json" and text.lstrip()[:1] == "[":
        yield from ((f"item {i}", item) for i, item in enumerate(_json(text, str(file)), 1))
    else:
        lines = [(number, line) for number, line in enumerate(text.split("\n"), 1) if line.strip()]
        for number, line in lines:
            row = _json(line, f"{file}: line {number}")
            if kind == ".json" and len(lines) == 1:
                _refuse_columns(row, file)
            yield f"line {number}", row


def _refuse_columns(row: Any, file: Path) -> None:
    """A table stored by columns would become one row of joined texts."""
    values = list(row.values()) if isinstance(row, dict) else []
    many = {len(value) if isinstance(value, list) else 0 for value in values}
    if len(values) > 1 and len(many) == 1 and many.pop() > 1:
        raise InputError(
            "data.name_or_path",
            f"{file} holds one object of columns, {len(values[0])} values each, not rows",
            "write one object per row: a line each, or a list of them",
        )


def _read_text(file: Path, newline: str | None = None) -> str:
    """newline: "" leaves line ends as they are, None makes each one a newline. Raises InputError."""
    try:
        with io.TextIOWrapper(io.BytesIO(_read_bytes(file)), "utf-8-sig", newline=newline) as stream:
            return stream.read()
    except OSError as e:
        raise InputError(
            "data.name_or_path", f"{file} cannot be read: {e.strerror or e}", "fix its rights"
        ) from e
    except UnicodeDecodeError as e:
        raise InputError("data.name_or_path", f"{file} cannot be read: {e}", "save it as UTF-8") from e


def _read_bytes(file: Path) -> bytes:
    """Decompressed if the name says that it is compressed. Raises OSError, InputError."""
    packed = file.suffix.lower()
    if packed not in _UNPACK:
        return file.read_bytes()
    with file.open("rb"):  # tells missing rights from damaged content
        pass
    try:
        return _UNPACK[packed](file)
    except (OSError, EOFError, zlib.error) as e:
        raise InputError(
            "data.name_or_path", f"{file} cannot be unpacked: {_first(e)}", "pack it again"
        ) from e


def _gunzip(file: Path) -> bytes:
    with gzip.open(file) as stream:
        return stream.read()


def _unzstd(file: Path) -> bytes:
    import pyarrow as pa  # type: ignore[import-untyped]

    with pa.input_stream(str(file), compression="zstd") as stream:
        data: bytes = stream.read()
        return data


_UNPACK = {".gz": _gunzip, ".zst": _unzstd}


def _json(text: str, where: str) -> Any:
    try:
        return json.loads(text, object_pairs_hook=_object)
    except ValueError as e:
        problem = syntax_words(text, e)[0].removeprefix("line 1 ")
        raise InputError("data.name_or_path", f"{where} is not JSON ({problem})", "fix that line") from e
    except RecursionError as e:
        raise InputError(
            "data.name_or_path", f"{where} is nested too deep to be read", "drop that row, or flatten it"
        ) from e


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Raises ValueError for a repeated field, of which json would silently keep the last."""
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"the field {twice!r} stands {names.count(twice)} times")
    return found


def _table(file: Path, kind: str) -> Iterator[tuple[str, dict[str, Any]]]:
    from pyarrow import ArrowException

    try:
        names, read = _parquet(file) if kind == "Parquet" else _arrow(file)
        twice = next((name for name in names if names.count(name) > 1), None)
        if twice is not None:
            raise InputError(
                "data.name_or_path",
                f"{file} has the column {twice!r} {names.count(twice)} times",
                "give every column a name of its own",
            )
        table = read()
    except (OSError, ArrowException, UnicodeDecodeError) as e:
        raise InputError("data.name_or_path", f"{file} is not {kind}: {_first(e)}", "write it again") from e
    try:
        records = table.to_pylist()
    except (ArrowException, ValueError, OverflowError, ImportError) as e:
        # text that is not UTF-8, fields of a struct that share a name, times that Python has no date for
        raise InputError(
            "data.name_or_path", f"{file} has values that cannot be read: {_first(e)}", "write it again"
        ) from e
    yield from ((f"row {i}", record) for i, record in enumerate(records, 1))


def _parquet(file: Path) -> tuple[list[str], Callable[[], Any]]:
    """Names of the columns, and what reads the table."""
    from pyarrow import ArrowInvalid, parquet

    opened = parquet.ParquetFile(io.BytesIO(file.read_bytes()))

    def read() -> Any:
        table, said = opened.read(), opened.metadata.num_rows
        if table.num_rows != said:  # a reader trusts its row groups, which may be damaged
            raise ArrowInvalid(f"it says that it has {said} rows, and holds {table.num_rows}")
        return table

    return opened.schema_arrow.names, read


def _arrow(file: Path) -> tuple[list[str], Callable[[], Any]]:
    """Either of the two forms of Arrow's IPC: a file, or a stream, as the data sets library keeps."""
    import pyarrow as pa

    data = pa.py_buffer(file.read_bytes())
    whole = data.to_pybytes()[:6] == b"ARROW1"
    opened = pa.ipc.open_file(data) if whole else pa.ipc.open_stream(data)

    def read() -> Any:
        table = opened.read_all()
        table.validate(full=True)  # offsets of a damaged file may point anywhere
        return table

    return opened.schema.names, read


def _first(error: Exception) -> str:
    text = str(error).strip()
    return text.splitlines()[0] if text else type(error).__name__
