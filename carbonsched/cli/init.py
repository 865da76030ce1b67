"""`carbonsched init`: write an initial JOB.toml with its usual keys explained."""

import json as json_text
from pathlib import Path
from typing import Annotated

import typer

from carbonsched.cli.options import Debug, Json, Socket
from carbonsched.errors import InputError

TEMPLATE = """\
# A job for `carbonsched submit {file}`. What stands behind a # is the default or an example;
# docs/configuration.md has every key.
name = {name}
# labels = {{ project = "thesis", cost_centre = 4711 }}   # any keys; reports group by them

[model]
name_or_path = {model}          # hub id, or a folder; a relative one is read from where this file lies
# dtype = "fp32"                # or bf16, fp16 (adapters alone)

[data]
name_or_path = {data}           # hub id, folder or file (.jsonl, .csv, .parquet, ...)
# source = "source"             # field that is read; formats with other fields are recognised
# target = "target"             # field that is learnt
# task = "summarization"        # or qa, causal
# validation = "dev.jsonl"      # held out: its loss is told before and after
# max_length = 512              # tokens a row

[train]
# method = "auto"               # or full, lora, tokens, greentrainer, ...: docs/training.md
# epochs = 1
# batch_size = 4
# gradient_accumulation = 1
# lr = 2e-5
# segment = "epoch"             # what lies between two directives: an epoch, or a number of steps
# seed = 0

[evaluate]
# metrics = ["nll"]             # also rouge, exact_match, f1: they generate text
# test = "test.jsonl"

[carbon]
budget_g = {budget}                # grams CO2e that the job may emit in all
# deadline = "36h"              # after submission; without one it may wait for clean hours as long as it likes
# may_pause = true
# rho_min = 0.5                 # never less of a full step than this; default: the model's floor
# rho_max = 1.0
# allowed_hours = ["22:00-06:00"]
# timezone = "UTC"
"""


_FLAGS = {"model.name_or_path": "--model", "data.name_or_path": "--data", "carbon.budget_g": "--budget-g"}


def _check_name(file: Path) -> None:
    """Raises InputError for a name that `submit` would read as something else."""
    if str(file) == "-":  # submit reads that from stdin
        raise InputError("JOB.toml", "'-' is no name of a file", "give one, such as job.toml")
    if file.suffix.lower() == ".json":
        hint = f"give a name such as {file.with_suffix('.toml')}"
        raise InputError(str(file), "would be read as JSON, and init writes TOML", hint)
    if not file.name or file.is_dir():
        raise InputError(str(file), "is a folder", f"give a file, such as {file / 'job.toml'}")


def _quoted(text: str) -> str:
    """As a string of TOML: JSON's, but for the characters that only JSON writes as two escapes, or as they are."""
    return json_text.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")


def _write(file: Path, text: str, *, force: bool) -> None:
    """The whole file or none. Raises InputError."""
    from carbonsched.model import files

    try:
        if force and file.is_file():
            files.replace(file.resolve(), text)
            return
        with file.open("w" if force else "x", encoding="utf-8") as out:
            try:
                out.write(text)
                out.flush()
            except OSError:
                if not force:
                    file.unlink()
                raise
    except FileExistsError as e:
        raise InputError(str(file), "is there already", "give another name, or --force") from e
    except OSError as e:
        raise InputError(str(file), f"cannot be written: {e.strerror}", "choose another place") from e


def init(
    file: Annotated[Path, typer.Argument(metavar="JOB.toml", help="The file to write.")] = Path("job.toml"),
    model: Annotated[str, typer.Option(help="Hub id or folder of the model.")] = "HuggingFaceTB/SmolLM2-135M",
    data: Annotated[str, typer.Option(help="Hub id, folder or file of the rows.")] = "train.jsonl",
    budget_g: Annotated[
        float, typer.Option("--budget-g", metavar="GRAMS", help="Grams CO2e the job may emit.")
    ] = 100.0,
    force: Annotated[bool, typer.Option("--force", help="Write over a file that is there.")] = False,
    json: Json = False,
    socket: Socket = None,
    debug: Debug = False,
) -> None:
    """Write an initial job file: the usual keys with their defaults and meanings.

    Try it without queueing anything: carbonsched submit job.toml --explain
    """
    from carbonsched.cli.flags import naming_flags
    from carbonsched.cli.job_options import default_name
    from carbonsched.cli.output import emit
    from carbonsched.model.job import JobSpec
    from carbonsched.model.job_file import parsed
    from carbonsched.model.views import Written

    text = TEMPLATE.format(
        file=file.name,
        name=_quoted(default_name(model, data)),
        model=_quoted(model),
        data=_quoted(data),
        budget=f"{budget_g:g}",
    )
    _check_name(file)
    with naming_flags(_FLAGS):
        JobSpec.parse(
            parsed(text, file.name, is_json=False)
        )  # a file that cannot be submitted is not written
    _write(file, text, force=force)
    if json:
        emit(Written(file=str(file)))
    else:
        print(f"written to {file}; look at it, then: carbonsched submit {file} --explain")
