"""read_job reads JOB.toml or spec.json into a JobSpec with absolute paths.

It is the one reader of both programs, so `carbonsched submit`, `python -m trainer check` and `bench --job` find the same
files beside the same JOB.toml, from whatever folder they are started in.
"""

import json
import stat
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic_core import PydanticCustomError

from carbonsched.errors import InputError
from carbonsched.model.base import expanded
from carbonsched.model.error_words import syntax_words
from carbonsched.model.job import JobSpec, SubmittedJob
from carbonsched.model.strict_types import check_types

_PATHS = ("model.name_or_path", "data.name_or_path", "data.validation", "evaluate.test")
_HINT = "give the path of a JOB.toml or spec.json"


def read_job(file: Path, changes: Mapping[str, object] | None = None) -> JobSpec:
    """The job that a JOB.toml, a spec.json, or the JSON of a JobSpec describes, its local paths made absolute.

    changes: values that replace those of the file, by dotted key (`train.lr`); local paths among them are read from the working
    directory. Raises InputError: not found, not TOML or JSON (with the line), unknown key (with the nearest), bad value,
    missing folder.
    """
    return job_of(_parsed(file), file.resolve().parent, file.name, changes)


def job_of(data: Any, folder: Path, where: str, changes: Mapping[str, object] | None = None) -> JobSpec:
    """As `read_job`, of what was read already. folder: what relative paths in it are read from; where: its name in errors.

    Example:
        >>> given = {"model.name_or_path": "org/model", "data.name_or_path": "org/rows", "carbon.budget_g": 80}
        >>> job_of({"name": "a"}, Path("."), "stdin", given).carbon.budget_g
        80.0
    """
    if isinstance(data, dict) and "spec" in data:
        data = SubmittedJob.parse(data, where=where).spec.dump()
    if changes:
        data = _changed(data, changes)
    spec = JobSpec.parse(data, where=where)
    check_types(spec, data, where)
    return resolve_paths(spec, folder, where=f"{where}: " if where else "")


def _changed(data: Any, changes: Mapping[str, object]) -> Any:
    if not isinstance(data, dict):
        return data  # refused as it is
    made: dict[str, Any] = json.loads(json.dumps(data, default=str))
    for key, value in changes.items():
        # a label's key may have dots of its own
        *parents, last = key.split(".", 1) if key.startswith("labels.") else key.split(".")
        place = made
        for parent in parents:
            place = place.setdefault(parent, {})
            if not isinstance(place, dict):
                raise InputError(key, f"{parent} is no table", "see docs/configuration.md for the keys")
        if isinstance(value, str) and key in _PATHS and (found := _found(value)) is not None:
            value = str(found)
        place[last] = value
    return made


def _found(name: str) -> Path | None:
    """The file or folder of this name; None: there is none, or `_local` says why not."""
    try:
        return Path(name).expanduser().resolve(strict=True)
    except (OSError, RuntimeError, ValueError):
        return None


def resolve_paths(spec: JobSpec, folder: Path, where: str = "") -> JobSpec:
    """`spec` with every path that exists under `folder` made absolute; hub ids and names of splits stay as they are.

    `where` precedes the field in errors. Raises InputError for a path that is no hub id and does not exist.
    """
    model = _resolve(spec.model.name_or_path, folder, f"{where}model.name_or_path")
    data = _resolve(spec.data.name_or_path, folder, f"{where}data.name_or_path")
    validation = _resolve_file(spec.data.validation, folder, f"{where}data.validation")
    test = _resolve_file(spec.evaluate.test, folder, f"{where}evaluate.test")
    return spec.model_copy(
        update={
            "model": spec.model.model_copy(update={"name_or_path": model}),
            "data": spec.data.model_copy(update={"name_or_path": data, "validation": validation}),
            "evaluate": spec.evaluate.model_copy(update={"test": test}),
        }
    )


def parsed(text: str, where: str, *, is_json: bool) -> Any:
    """TOML or JSON as it stands. Raises InputError that names the line."""
    try:
        return json.loads(text) if is_json else tomllib.loads(text)
    except RecursionError as e:
        raise InputError(where, "is nested too deep to be read", "flatten it") from e
    except ValueError as e:
        problem, hint = syntax_words(text, e)
        raise InputError(where, f"is not {'JSON' if is_json else 'TOML'}: {problem}", hint) from e


def _parsed(file: Path) -> Any:
    try:
        text = file.read_text(encoding="utf-8-sig")
    except FileNotFoundError as e:
        raise InputError(file.name, f"there is no file {file}", _HINT) from e
    except (OSError, UnicodeDecodeError) as e:
        problem = e.strerror if isinstance(e, OSError) else "it is not UTF-8 text"
        raise InputError(file.name, f"{file} cannot be read: {problem}", _HINT) from e
    return parsed(text, file.name, is_json=file.suffix == ".json")


def _resolve(name: str, folder: Path, field: str) -> str:
    local = _local(name, folder, field)
    if local.exists():
        return str(local.resolve())
    if name.startswith((".", "/", "~")):
        raise InputError(field, f"there is no {local}", "give an existing folder or file, or a hub id")
    return name


def _resolve_file(name: str | None, folder: Path, field: str) -> str | None:
    if name is None:
        return None
    local = _local(name, folder, field)
    # only a file: the name of a split, such as `validation`, may also be that of a folder
    return str(local) if local.is_file() else name


def _local(name: str, folder: Path, field: str) -> Path:
    """`name` as a path under `folder`, which may be looked at. Raises InputError: no path, too long, a loop, no rights."""
    hint = "give an existing folder or file, or a hub id"
    try:
        local = folder / expanded(name)
        mode = local.stat().st_mode
    except (FileNotFoundError, NotADirectoryError):
        return local
    except PydanticCustomError as e:
        raise InputError(field, *(str((e.context or {})[part]) for part in ("problem", "hint"))) from e
    except (OSError, UnicodeError) as e:
        why = e.strerror if isinstance(e, OSError) else "no file system holds such a name"
        raise InputError(field, f"{_short(name)} cannot be looked at: {why}", hint) from e
    if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
        # a pipe would be waited for without end, and can be read once
        raise InputError(
            field, f"{_short(name)} is neither a file nor a folder but a pipe, socket or device", hint
        )
    return local


def _short(name: str) -> str:
    return repr(name if len(name) <= 80 else f"{name[:80]}…")
