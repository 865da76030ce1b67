"""JOB.toml as its owner wrote it, made into a spec that means the same from anywhere."""

import tomllib
from pathlib import Path

from carbonsched.errors import InputError
from carbonsched.model.job import JobSpec


def read(path: Path) -> JobSpec:
    """The spec with local model and data paths made absolute from the file's folder; hub ids stay as they are.

    Raises InputError: not found, not TOML (with the line), unknown key (with the nearest), bad value, missing folder.
    """
    try:
        data = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as e:
        raise InputError("JOB.toml", f"there is no file {path}", "give the path of a job file") from e
    except (OSError, UnicodeDecodeError) as e:
        problem = e.strerror if isinstance(e, OSError) else "it is not UTF-8 text"
        raise InputError(
            "JOB.toml", f"{path} cannot be read: {problem}", "give the path of a job file"
        ) from e
    except tomllib.TOMLDecodeError as e:
        raise InputError(path.name, f"is not TOML: {e}", "mend that line") from e
    spec = JobSpec.parse(data, where=path.name)
    base = path.resolve().parent
    model = spec.model.model_copy(
        update={"name_or_path": _resolve(spec.model.name_or_path, base, f"{path.name}: model.name_or_path")}
    )
    data_path = _resolve(spec.data.name_or_path, base, f"{path.name}: data.name_or_path")
    changes = {"name_or_path": data_path}
    held_out = spec.data.validation
    if held_out is not None and (base / Path(held_out).expanduser()).is_file():
        changes["validation"] = str(base / Path(held_out).expanduser())
    evaluate = spec.evaluate
    if evaluate.test is not None and (base / Path(evaluate.test).expanduser()).is_file():
        evaluate = evaluate.model_copy(update={"test": str(base / Path(evaluate.test).expanduser())})
    return spec.model_copy(
        update={"model": model, "data": spec.data.model_copy(update=changes), "evaluate": evaluate}
    )


def _resolve(name: str, base: Path, field: str) -> str:
    local = base / Path(name).expanduser()
    if local.exists():
        return str(local.resolve())
    if name.startswith((".", "/", "~")):
        raise InputError(field, f"there is no {local}", "give an existing folder or file, or a hub id")
    return name
