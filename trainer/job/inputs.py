"""Reads a job's files where the daemon has put them: under `inputs/` of its directory, opened with the submitter's rights.

A daemon that is not root opens what a job names and hands it over (docs/protocol.md). The job's own names stay what people are
told: in messages, in the model card and in what is saved with the model.
"""

from collections.abc import Iterator
from pathlib import Path

from carbonsched.model.job import JobSpec
from trainer.job.job_dir import JobDir

FOLDER = "inputs"


def handed_over(job: JobDir, spec: JobSpec) -> JobSpec:
    """`spec` with the paths to read from; as it is where nothing was handed over, or this process is not the daemon's."""
    found = dict(_found(job, spec))
    if not found:
        return spec
    model, data = spec.model.name_or_path, spec.data.name_or_path
    return spec.model_copy(
        update={
            "model": spec.model.model_copy(update={"name_or_path": str(found.get(model, model))}),
            "data": spec.data.model_copy(
                update={
                    "name_or_path": str(found.get(data, data)),
                    "validation": _or_none(found, spec.data.validation),
                }
            ),
            "evaluate": spec.evaluate.model_copy(update={"test": _or_none(found, spec.evaluate.test)}),
        }
    )


def own_names(job: JobDir, spec: JobSpec, text: str) -> str:
    """`text` with the names that the job's owner knows."""
    for name, path in _found(job, spec):
        text = text.replace(str(path), name)
    for name, path in _found(job, spec):  # what lies beside a file of rows: its labels, validation
        text = text.replace(str(path.parent) + "/", str(Path(name).parent).rstrip("/") + "/")
    return text


def _found(job: JobDir, spec: JobSpec) -> Iterator[tuple[str, Path]]:
    """(name in `spec`, where it is) of everything that was handed over."""
    if not job.launched:  # what an earlier process was handed ended with it
        return
    for part, name in (
        ("model", spec.model.name_or_path),
        ("data", spec.data.name_or_path),
        ("validation", spec.data.validation),
        ("test", spec.evaluate.test),
    ):
        folder = job.path / FOLDER / part
        if name is None or not name.startswith("/") or not folder.is_dir():
            continue
        file = folder / Path(name).name
        yield name, file if file.is_file() and part != "model" else folder


def _or_none(found: dict[str, Path], name: str | None) -> str | None:
    return None if name is None else str(found.get(name, name))
