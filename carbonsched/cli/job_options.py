"""Reads the job of a submit: from a file, from stdin, or from options alone; `--set` overrides all of them."""

import re
import sys
import tomllib
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TypeVar

from carbonsched.cli.flags import naming_flags
from carbonsched.errors import InputError
from carbonsched.model.job import JobSpec
from carbonsched.model.job_file import job_of, parsed, read_job
from carbonsched.units import plain_number

STDIN = Path("-")
_POINTED = re.compile(r"[+-]?(\.\d+|\d+\.)([eE][+-]?\d+)?", re.ASCII)
_KEY = re.compile(r"labels\.[^=]+|[a-z_]+(\.[a-z_]+)+|name")


def read(
    file: Path | None, options: dict[str, object], assignments: Sequence[str], labels: Sequence[str] = ()
) -> JobSpec:
    """The job of `file` (`-`: stdin, None: none), overridden by the options that are not None and then by the assignments.

    options: by dotted key. labels: KEY=VALUE each. Raises InputError.
    """
    changes = {key: value for key, value in options.items() if value is not None}
    changes |= {f"labels.{key}": value for key, value in labels_of(labels).items()}
    changes |= _once("--set", map(assignment, assignments))
    with naming_flags(flags_of(options, assignments)):
        return _read(file, changes)


def flags_of(options: Mapping[str, object], assignments: Sequence[str]) -> dict[str, str]:
    """Key → the flag that set its value."""
    flags = {key: _FLAGS.get(key, f"--{key}") for key, value in options.items() if value is not None}
    flags["labels"] = "--label"
    return flags | {key: f"--set {key}" for key, _ in map(assignment, assignments)}


def _read(file: Path | None, changes: dict[str, object]) -> JobSpec:
    if file is not None and file != STDIN:
        return read_job(file, changes)
    if file == STDIN:
        text = sys.stdin.read()
        data = parsed(text, "stdin", is_json=text.lstrip().startswith("{"))
        return job_of(data, Path.cwd(), "stdin", changes)
    missing = [flag for key, flag in _NEEDED.items() if key not in changes]
    if missing:
        raise InputError(
            "JOB.toml", f"is not given, nor {' and '.join(missing)}", "give the file, or these options"
        )
    changes.setdefault(
        "name", default_name(str(changes["model.name_or_path"]), str(changes["data.name_or_path"]))
    )
    return job_of({}, Path.cwd(), "", changes)


_NEEDED = {"model.name_or_path": "--model", "data.name_or_path": "--data"}
_FLAGS = _NEEDED | {
    "train.method": "--method",
    "carbon.budget_g": "--budget-g",
    "carbon.deadline": "--deadline",
    "queue.after": "--after",
    "queue.priority": "--priority",
    "queue.hold": "--hold",
}
_T = TypeVar("_T")


def _once(flag: str, given: Iterable[tuple[str, _T]]) -> dict[str, _T]:
    """Raises InputError for a key that is given twice: one of the two would be lost silently."""
    found: dict[str, _T] = {}
    for key, value in given:
        if key in found:
            problem = f"{key} is given twice, as {found[key]!r} and {value!r}"
            raise InputError(flag, problem, "give it once")
        found[key] = value
    return found


def assignment(text: str) -> tuple[str, object]:
    """Key and value of `train.lr=1e-4`; the value is TOML, or plain text. Raises InputError.

    Example:
        >>> assignment("train.lr=1e-4"), assignment("carbon.deadline=36h")
        (('train.lr', 0.0001), ('carbon.deadline', '36h'))
    """
    key, equals, value = text.partition("=")
    key = key.strip()
    if not equals or not _KEY.fullmatch(key):
        raise InputError("--set", f"{text!r} is no KEY=VALUE", "write it like train.lr=1e-4")
    try:
        return key, tomllib.loads(f"value = {value}")["value"]
    except (
        ValueError
    ):  # not TOML, or a number of more than 4,300 digits: an error says that the key does not take this text
        pass
    # TOML has no .5 and no 5., which are usual in a shell
    return key, plain_number(value) if _POINTED.fullmatch(value.strip()) else value.strip()


def labels_of(given: Sequence[str]) -> dict[str, str]:
    """The labels of all `--label KEY=VALUE`. Raises InputError."""
    return _once("--label", map(label_of, given))


def label_of(text: str) -> tuple[str, str]:
    """(key, value) of KEY=VALUE. Raises InputError."""
    key, equals, value = text.partition("=")
    if not equals or not key.strip():
        raise InputError("--label", f"{text!r} is no KEY=VALUE", "write it like project=thesis")
    return key.strip(), value.strip()


def default_name(model: str, data: str) -> str:
    """Name of a job without one: those of its model and its data."""
    parts = [re.sub(r"[^A-Za-z0-9._-]+", "-", Path(part).stem).strip("-.") for part in (data, model)]
    return "-".join(part for part in parts if part)[:40].lower() or "job"
