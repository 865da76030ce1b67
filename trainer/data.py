"""Rows from a file, a folder or the hub, and the tokens, batches and batch shapes made of them.

Every bad row is an InputError that names file and line. Decoders see `prompt + target` and learn from the target's
tokens alone (labels −100 elsewhere); encoder-decoders read the prompt and write the target. Where a row is too long the
source gives way, never the target.
"""

import csv
import json
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from carbonsched.errors import InputError
from carbonsched.model.job import DataPart

TRAIN_NAMES = ("train",)
HELD_OUT_NAMES = ("validation", "dev", "valid", "val", "test")
SUFFIXES = (".jsonl", ".json", ".csv", ".parquet", ".txt")
IGNORED = -100
"""Label of a token that is not learnt from (torch's cross-entropy default)."""
PAD_MULTIPLE = 8

_PROMPTS = {"summarization": ("", "\n\nSummary:"), "qa": ("Question: ", "\nAnswer:"), "causal": ("", "")}
_PREFIXES = {"summarization": "summarize: ", "qa": "question: ", "causal": ""}


@dataclass(frozen=True, slots=True)
class Row:
    source: str
    target: str


@dataclass(frozen=True, slots=True)
class Rows:
    train: list[Row]
    validation: list[Row]


@dataclass(frozen=True, slots=True)
class Encoded:
    """Token ids of one row; for decoders `input_ids` holds prompt and target and `labels` is as long."""

    input_ids: list[int]
    labels: list[int]


class TokenDataset(torch.utils.data.Dataset[dict[str, list[int]]]):
    def __init__(self, rows: Sequence[Encoded]) -> None:
        self.rows = rows

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> dict[str, list[int]]:
        row = self.rows[index]
        return {"input_ids": row.input_ids, "labels": row.labels}


# ---- reading


def load_rows(part: DataPart) -> Rows:
    """Read and check every row. Raises InputError: missing file, broken line, missing field, no rows."""
    path = Path(part.name_or_path).expanduser()
    if path.is_file():
        train = _read(path, part)
        held_out = _read(Path(part.validation).expanduser(), part) if part.validation else []
    elif path.is_dir():
        found = _find(path, TRAIN_NAMES)
        if found is None:
            names = ", ".join(sorted(f.name for f in path.iterdir())) or "none"
            raise InputError(
                "data.name_or_path",
                f"{path} holds no file named train{{{','.join(SUFFIXES)}}} (its files: {names})",
                "name the training file itself",
            )
        train = _read(found, part)
        named = Path(part.validation).expanduser() if part.validation else None
        file = _beside(path, named) if named else _find(path, HELD_OUT_NAMES)
        held_out = _read(file, part) if file else []
    elif _looks_local(part.name_or_path):
        raise InputError(
            "data.name_or_path",
            f"there is no {path}",
            "give a file, a folder or the id of a data set on the hub",
        )
    else:
        train, held_out = _hub(part)
    return Rows(train[: part.train_limit], held_out[: part.validation_limit])


def _looks_local(name: str) -> bool:
    return name.startswith(("/", ".", "~")) or name.count("/") > 1 or Path(name).suffix in SUFFIXES


def _find(folder: Path, stems: tuple[str, ...]) -> Path | None:
    files = sorted(f for f in folder.iterdir() if f.suffix in SUFFIXES)
    for stem in stems:
        exact = [f for f in files if f.stem == stem]
        # data sets in the wild: train-00000-of-00001.parquet, dialogsum.train.jsonl
        found = exact or [f for f in files if stem in re.split(r"[._-]", f.stem)]
        if found:
            return found[0]
    return None


def _beside(folder: Path, named: Path) -> Path:
    return named if named.is_absolute() or named.exists() else folder / named


def _read(file: Path, part: DataPart) -> list[Row]:
    if not file.is_file():
        raise InputError("data.validation", f"there is no {file}", "give the path of a file, or leave it out")
    if file.suffix not in SUFFIXES:
        raise InputError(
            "data.name_or_path", f"{file.name} is of no known kind", f"use one of {', '.join(SUFFIXES)}"
        )
    rows = [_row(record, part, f"{file}: {where}") for where, record in _records(file)]
    if not rows:
        raise InputError("data.name_or_path", f"{file} holds no rows", "give a file with at least one row")
    return rows


def _records(file: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """(where, record) of every row; `where` names the line, or the row where the format has no lines."""
    if file.suffix == ".parquet":
        from pyarrow import ArrowException, parquet  # type: ignore[import-untyped]

        try:
            table = parquet.read_table(file)
        except (OSError, ArrowException) as e:
            raise InputError("data.name_or_path", f"{file} is not Parquet: {e}", "write it again") from e
        yield from ((f"row {i}", record) for i, record in enumerate(table.to_pylist(), 1))
        return
    try:
        text = file.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as e:
        raise InputError("data.name_or_path", f"{file} cannot be read: {e}", "save it as UTF-8") from e
    if file.suffix == ".csv":
        reader = csv.DictReader(text.splitlines(keepends=True))
        for record in reader:
            yield f"line {reader.line_num}", record
    elif file.suffix == ".txt":
        for number, line in enumerate(text.split("\n"), 1):
            if line.strip():
                yield f"line {number}", {"text": line}
    elif file.suffix == ".json" and text.lstrip()[:1] == "[":
        yield from ((f"item {i}", item) for i, item in enumerate(_json(text, str(file)), 1))
    else:
        for number, line in enumerate(text.split("\n"), 1):
            if line.strip():
                yield f"line {number}", _json(line, f"{file}: line {number}")


def _json(text: str, where: str) -> Any:
    try:
        return json.loads(text)
    except ValueError as e:
        raise InputError("data.name_or_path", f"{where} is not JSON ({e})", "mend that line") from e


def _row(record: Any, part: DataPart, where: str) -> Row:
    if not isinstance(record, dict):
        raise InputError("data.name_or_path", f"{where} is not an object", "write one {…} a row")
    source_field, target_field = part.source, part.target
    if part.task == "causal":
        # plain text has one field; a source, where there is one, is a prompt that is not learnt from
        if target_field not in record and "text" in record:
            target_field = "text"
        source = _text(record, source_field, where, "data.source") if record.get(source_field) else ""
    else:
        source = _text(record, source_field, where, "data.source")
    target = _text(record, target_field, where, "data.target", first=True)
    return Row(source, target)


def _text(record: dict[str, Any], name: str, where: str, key: str, *, first: bool = False) -> str:
    """A field as text: a list of sentences is joined, of a list of references the first is learnt."""
    if name not in record:
        known = ", ".join(str(k) for k in record) or "none"
        raise InputError(key, f"{where} has no field {name!r}", f"set {key} to one of its fields: {known}")
    value = record[name]
    if isinstance(value, list) and all(isinstance(item, str) for item in value):
        value = (value[0] if value else "") if first else " ".join(value)
    if not isinstance(value, str) or not value.strip():
        raise InputError(key, f"{where}: field {name!r} holds no text", "mend or drop that row")
    return value.strip()


def _hub(part: DataPart) -> tuple[list[Row], list[Row]]:
    import datasets

    try:
        found = datasets.load_dataset(part.name_or_path)
    except Exception as e:  # the library raises a different class for every way a name can be wrong
        first = str(e).strip().splitlines()[0] if str(e).strip() else type(e).__name__
        raise InputError(
            "data.name_or_path",
            f"{part.name_or_path} is no file here and the hub gave: {first}",
            "give a file, a folder, or the id of a data set that this box can reach",
        ) from e

    def split(names: tuple[str, ...]) -> list[Row]:
        name = next((n for n in names if n in found), None)
        if name is None:
            return []
        return [_row(record, part, f"{name} row {i}") for i, record in enumerate(found[name], 1)]

    train = split(TRAIN_NAMES)
    if not train:
        raise InputError("data.name_or_path", f"{part.name_or_path} has no rows in a split named train")
    return train, split((part.validation,) if part.validation else HELD_OUT_NAMES)


# ---- tokens


def encode(rows: Sequence[Row], tokenizer: Any, part: DataPart, *, encoder_decoder: bool) -> list[Encoded]:
    """Token ids of every row, at most `max_length` long, the target kept whole up to `target_length`."""
    if not rows:
        return []
    before, after = _PROMPTS[part.task] if not encoder_decoder else (_PREFIXES[part.task], "")
    sources = _ids(tokenizer, [before + row.source if row.source else before for row in rows])
    targets = _ids(
        tokenizer, [(" " if row.source and not encoder_decoder else "") + row.target for row in rows]
    )
    tail = _ids(tokenizer, [after])[0] if after else []
    end = [tokenizer.eos_token_id] if tokenizer.eos_token_id is not None else []
    start = _start(tokenizer)
    encoded = []
    for source, full_target in zip(sources, targets, strict=True):
        if encoder_decoder:
            target = full_target[: part.target_length - len(end)] + end
            encoded.append(Encoded(start + source[: part.max_length - len(start) - len(end)] + end, target))
            continue
        most = part.max_length - len(start) - len(tail)
        # plain text has no prompt to give way
        target = full_target[: (min(part.target_length, most) if source else most) - len(end)] + end
        prompt = start + source[: most - len(target)] + tail if source else start
        encoded.append(Encoded(prompt + target, [IGNORED] * len(prompt) + target))
    return encoded


def _ids(tokenizer: Any, texts: list[str]) -> list[list[int]]:
    ids: list[list[int]] = tokenizer(texts, add_special_tokens=False)["input_ids"]
    return ids


def _start(tokenizer: Any) -> list[int]:
    """The token this tokenizer itself puts in front of a text, if any."""
    ids = tokenizer("a")["input_ids"]
    bos = tokenizer.bos_token_id
    return [bos] if bos is not None and ids[:1] == [bos] else []


# ---- batches


def collator(
    pad_id: int, part: DataPart, *, encoder_decoder: bool
) -> Callable[[list[Any]], dict[str, torch.Tensor]]:
    """Pads on the right: to `max_length`, or to the longest row rounded up to a multiple of 8."""

    def collate(rows: list[Any]) -> dict[str, torch.Tensor]:
        seq, target_seq = padded(
            [len(row["input_ids"]) for row in rows],
            [len(row["labels"]) for row in rows],
            part,
            encoder_decoder,
        )
        ids = torch.full((len(rows), seq), pad_id)
        mask = torch.zeros((len(rows), seq), dtype=torch.long)
        labels = torch.full((len(rows), target_seq or seq), IGNORED)
        for i, row in enumerate(rows):
            n = len(row["input_ids"])
            ids[i, :n] = torch.tensor(row["input_ids"])
            mask[i, :n] = 1
            labels[i, : len(row["labels"])] = torch.tensor(row["labels"])
        return {"input_ids": ids, "attention_mask": mask, "labels": labels}

    return collate


def padded(
    lengths: Sequence[int], target_lengths: Sequence[int], part: DataPart, encoder_decoder: bool
) -> tuple[int, int | None]:
    """(seq, target_seq) of a batch of rows of these lengths; target_seq is None for decoders."""

    def longest(values: Sequence[int], most: int) -> int:
        if part.pad == "max_length":
            return most
        return min(-(-max(values) // PAD_MULTIPLE) * PAD_MULTIPLE, max(most, max(values)))

    seq = longest(lengths, part.max_length)
    return seq, longest(target_lengths, part.target_length) if encoder_decoder else None


def nominal_shape(
    encoded: Sequence[Encoded], batch: int, part: DataPart, *, encoder_decoder: bool, draws: int = 256
) -> tuple[int, int | None]:
    """(seq, target_seq) of the mean batch of the job, for which it is profiled; drawn with a fixed seed."""
    rng = np.random.default_rng(0)
    batch = min(batch, len(encoded))
    shapes = [
        padded([len(r.input_ids) for r in rows], [len(r.labels) for r in rows], part, encoder_decoder)
        for rows in (
            [encoded[i] for i in rng.choice(len(encoded), batch, replace=False)]
            for _ in range(1 if part.pad == "max_length" else draws)
        )
    ]
    seq = round(sum(s for s, _ in shapes) / len(shapes))
    return seq, round(sum(t or 0 for _, t in shapes) / len(shapes)) if encoder_decoder else None
