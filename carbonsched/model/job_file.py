"""read_job reads JOB.toml or spec.json into a JobSpec with absolute paths.

It is the one reader of both programs, so `carbonsched submit`, `python -m trainer check` and `bench --job` find the same
files beside the same JOB.toml, from whatever folder they are started in.
"""

import json
import stat
import tomllib
from pathlib import Path
from typing import Any

from pydantic_core import PydanticCustomError

from carbonsched.errors import InputError
from carbonsched.model.base import expanded
from carbonsched.model.job import JobSpec, SubmittedJob

_HINT = "give the path of a JOB.toml or spec.json"


def read_job(file: Path) -> JobSpec:
    """The job that a JOB.toml, a spec.json, or the JSON of a JobSpec describes, its local paths made absolute.

    Raises InputError: not found, not TOML or JSON (with the line), unknown key (with the nearest), bad value, missing
    folder.
    """
    data = _parsed(file)
    if isinstance(data, dict) and "spec" in data:
        spec = SubmittedJob.parse(data, where=file.name).spec
    else:
        spec = JobSpec.parse(data, where=file.name)
    return resolve_paths(spec, file.resolve().parent, where=f"{file.name}: ")


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


def _parsed(file: Path) -> Any:
    is_json = file.suffix == ".json"
    try:
        text = file.read_text(encoding="utf-8-sig")
        return json.loads(text) if is_json else tomllib.loads(text)
    except FileNotFoundError as e:
        raise InputError(file.name, f"there is no file {file}", _HINT) from e
    except (OSError, UnicodeDecodeError) as e:
        problem = e.strerror if isinstance(e, OSError) else "it is not UTF-8 text"
        raise InputError(file.name, f"{file} cannot be read: {problem}", _HINT) from e
    except RecursionError as e:
        raise InputError(file.name, "is nested too deep to be read", "flatten it") from e
    except ValueError as e:
        raise InputError(file.name, f"is not {'JSON' if is_json else 'TOML'}: {e}", "mend that line") from e


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
