"""Rows from a file, a folder or the hub, and the tokens, batches and batch shapes made of them.

What a row's fields mean is in `trainer.data.field_layouts`.

Every bad row is an InputError that names file and line. Decoders see `prompt + target` and learn from the target's
tokens alone (labels −100 elsewhere); encoder-decoders read the prompt and write the target. Where a row is too long the
source gives way, never the target.
"""

import csv
import json
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

from carbonsched.errors import InputError
from carbonsched.model.job import DataPart, EvaluatePart
from trainer.data.field_layouts import Row, Task, read_row

TRAIN_NAMES = ("train",)
HELD_OUT_NAMES = ("validation", "dev", "valid", "val", "test")
SUFFIXES = (".jsonl", ".json", ".csv", ".parquet", ".txt")
IGNORED = -100
"""Label of a token that is not learnt from (torch's cross-entropy default)."""
PAD_MULTIPLE = 8
_LABELS = "-labels.lst"
"""PIQA keeps the labels of `train.jsonl` in `train-labels.lst`, one a line."""
_HUB_SUBSETS = {"scitldr": "Abstract"}
"""The configuration meant where a data set on the hub has several and the job names none."""

_PROMPTS = {"summarization": ("", "\n\nSummary:"), "qa": ("Question: ", "\nAnswer:"), "causal": ("", "")}
_PREFIXES = {"summarization": "summarize: ", "qa": "question: ", "causal": ""}


@dataclass(frozen=True, slots=True)
class Rows:
    train: list[Row]
    validation: list[Row]
    test: list[Row] = field(default_factory=list)
    """Empty where the job names no test set."""


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


def load_rows(part: DataPart, evaluate: EvaluatePart | None = None) -> Rows:
    """Read and check every row. Raises InputError: missing file, broken line, missing field, no rows.

    Packed rows are cut into blocks later, so their limits are left to the caller: `encode(…)[:limit]`.
    """
    named_test = evaluate.test if evaluate else None
    path = Path(part.name_or_path).expanduser()
    if path.is_file():
        train = _read(path, part)
        held_out = _read(_beside(path.parent, part.validation), part) if part.validation else []
        test = _read(_beside(path.parent, named_test), part, "evaluate.test") if named_test else []
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
        file = _beside(path, part.validation) if part.validation else _find(path, HELD_OUT_NAMES)
        held_out = _read(file, part) if file else []
        test = _read(_beside(path, named_test), part, "evaluate.test") if named_test else []
    elif _looks_local(part.name_or_path):
        raise InputError(
            "data.name_or_path",
            f"there is no {path}",
            "give a file, a folder or the id of a data set on the hub",
        )
    else:
        train, held_out, test = _hub(part, named_test)
    if part.pack:
        return Rows(train, held_out, test)
    most = evaluate.limit if evaluate else None
    return Rows(train[: part.train_limit], held_out[: part.validation_limit], test[:most])


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


def _beside(folder: Path, name: str) -> Path:
    """The file called `name`, here or in the data's folder; there also by its split's name, as `test`."""
    named = Path(name).expanduser()
    if named.is_absolute() or named.is_file():
        return named
    found = None if (folder / named).is_file() or named.suffix else _find(folder, (name,))
    return found or folder / named


def _read(file: Path, part: DataPart, key: str = "data.validation") -> list[Row]:
    if not file.is_file():
        raise InputError(key, f"there is no {file}", "give the path of a file, or leave it out")
    if file.suffix not in SUFFIXES:
        raise InputError(
            "data.name_or_path", f"{file.name} is of no known kind", f"use one of {', '.join(SUFFIXES)}"
        )
    rows = [read_row(record, part, f"{file}: {where}") for where, record in _labelled(file, part.pack)]
    if not rows:
        raise InputError("data.name_or_path", f"{file} holds no rows", "give a file with at least one row")
    return rows


def _labelled(file: Path, whole: bool) -> Iterator[tuple[str, dict[str, Any]]]:
    """The records, with the labels of the file beside where there is one. Raises InputError: not one label a row."""
    beside = file.with_name(file.stem + _LABELS)
    if not beside.is_file():
        yield from _records(file, whole)
        return
    labels = beside.read_text(encoding="utf-8").split()
    records = list(_records(file, whole))
    if len(labels) != len(records):
        raise InputError(
            "data.name_or_path",
            f"{beside} holds {len(labels)} labels for the {len(records)} rows of {file.name}",
            "give one label a line",
        )
    for (where, record), label in zip(records, labels, strict=True):
        yield where, {**record, "label": label} if isinstance(record, dict) else record


def _records(file: Path, whole: bool = False) -> Iterator[tuple[str, dict[str, Any]]]:
    """(where, record) of every row; `where` names the line, or the row where the format has no lines.

    whole: plain text is one row.
    """
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
    elif file.suffix == ".txt" and whole:
        if text.strip():
            yield "the text", {"text": text}
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


def _hub(part: DataPart, named_test: str | None) -> tuple[list[Row], list[Row], list[Row]]:
    found = _download(part)

    def split(names: tuple[str, ...]) -> list[Row]:
        name = next((n for n in names if n in found), None)
        if name is None:
            return []
        return [read_row(record, part, f"{name} row {i}") for i, record in enumerate(found[name], 1)]

    train = split(TRAIN_NAMES)
    if not train:
        raise InputError("data.name_or_path", f"{part.name_or_path} has no rows in a split named train")
    for key, name in (("data.validation", part.validation), ("evaluate.test", named_test)):
        if name and name not in found:
            raise InputError(
                key, f"{part.name_or_path} has no split {name!r}", f"choose one of {', '.join(found)}"
            )
    held_out = split((part.validation,) if part.validation else HELD_OUT_NAMES)
    return train, held_out, split((named_test,)) if named_test else []


def _download(part: DataPart) -> Any:
    """Its splits, by name. Data sets that are scripts, which datasets no longer runs, have a copy as Parquet on the hub."""
    import datasets

    subset = part.subset or _HUB_SUBSETS.get(part.name_or_path.rpartition("/")[2])
    given = (part.name_or_path, subset) if subset else (part.name_or_path,)
    try:
        try:
            return datasets.load_dataset(*given)
        except RuntimeError as e:
            if "script" not in str(e):
                raise
            return datasets.load_dataset(*given, revision="refs/convert/parquet")
    except Exception as e:  # the library raises a different class for every way a name can be wrong
        first = str(e).strip().splitlines()[0] if str(e).strip() else type(e).__name__
        raise InputError(
            "data.name_or_path",
            f"{part.name_or_path} is no file here and the hub gave: {first}",
            "give a file, a folder, or the id of a data set that this box can reach (and data.subset where it has several)",
        ) from e


# ---- tokens


def encode(rows: Sequence[Row], tokenizer: Any, part: DataPart, *, encoder_decoder: bool) -> list[Encoded]:
    """Token ids of every row, at most `max_length` long, the target kept whole up to `target_length`.

    With `pack`: of blocks of `max_length` tokens, which every token of the rows is in. Raises InputError: pack with
    prompts or an encoder-decoder.
    """
    if not rows:
        return []
    if part.pack:
        return _packed(rows, tokenizer, part, encoder_decoder)
    sources = _sources(rows, tokenizer, part, encoder_decoder)
    targets = _ids(
        tokenizer, [(" " if row.source and not encoder_decoder else "") + row.target for row in rows]
    )
    end = _end(tokenizer)
    encoded = []
    for prompt, full_target in zip(sources, targets, strict=True):
        if encoder_decoder:
            target = full_target[: part.target_length - len(end)] + end
            encoded.append(Encoded(prompt.cut(part.max_length - len(end)) + end, target))
            continue
        most = part.max_length - prompt.least
        # plain text has no prompt to give way
        target = full_target[: (min(part.target_length, most) if prompt.source else most) - len(end)] + end
        ids = prompt.cut(part.max_length - len(target))
        encoded.append(Encoded(ids + target, [IGNORED] * len(ids) + target))
    return encoded


def prompts(
    rows: Sequence[Row], tokenizer: Any, part: DataPart, *, encoder_decoder: bool, new_tokens: int
) -> list[list[int]]:
    """Token ids to generate from: what `encode` puts before the target. Where a source is too long for `max_length` it
    gives way to `new_tokens`, but to no more than the longest target or half of the room."""
    end = _end(tokenizer) if encoder_decoder else []
    found = []
    for prompt in _sources(rows, tokenizer, part, encoder_decoder):
        most = part.max_length - prompt.least
        kept = 0 if encoder_decoder else min(new_tokens, part.target_length, most // 2)
        found.append(prompt.cut(part.max_length - len(end) - kept) + end)
    return found


@dataclass(frozen=True, slots=True)
class _Prompt:
    start: list[int]
    source: list[int]
    tail: list[int]

    @property
    def least(self) -> int:
        return len(self.start) + len(self.tail)

    def cut(self, most: int) -> list[int]:
        """All of it in `most` tokens: the source gives way."""
        return self.start + self.source[: max(most - self.least, 0)] + self.tail


def _sources(rows: Sequence[Row], tokenizer: Any, part: DataPart, encoder_decoder: bool) -> list[_Prompt]:
    start = _start(tokenizer)
    tasks: list[Task] = [row.task or part.task or "summarization" for row in rows]
    words = {task: (_PREFIXES[task], "") if encoder_decoder else _PROMPTS[task] for task in set(tasks)}
    tails = {task: _ids(tokenizer, [after])[0] if after else [] for task, (_, after) in words.items()}
    # plain text alone has no words around it
    befores = [words[t][0] if r.source or encoder_decoder else "" for r, t in zip(rows, tasks, strict=True)]
    sources = _ids(tokenizer, [before + row.source for before, row in zip(befores, rows, strict=True)])
    return [
        _Prompt(start, ids, tails[task] if row.source else [])
        for ids, row, task in zip(sources, rows, tasks, strict=True)
    ]


def _packed(rows: Sequence[Row], tokenizer: Any, part: DataPart, encoder_decoder: bool) -> list[Encoded]:
    if encoder_decoder:
        raise InputError(
            "data.pack", "an encoder-decoder has no running text", "leave it out, or take a decoder"
        )
    if any(row.source for row in rows):
        raise InputError("data.pack", "the rows have prompts", 'leave it out, or set data.task = "causal"')
    start, end = _start(tokenizer), _end(tokenizer)
    stream = [
        token for ids in _ids(tokenizer, [row.target for row in rows]) for token in (*start, *ids, *end)
    ]
    blocks = [stream[i : i + part.max_length] for i in range(0, len(stream), part.max_length)]
    # a block of one token has nothing to predict
    return [Encoded(block, list(block)) for block in blocks if len(block) > 1]


def _end(tokenizer: Any) -> list[int]:
    return [tokenizer.eos_token_id] if tokenizer.eos_token_id is not None else []


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
