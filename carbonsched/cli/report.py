"""`carbonsched report`: write what a job or the box spent, in one of several formats."""

import sys
from pathlib import Path
from typing import Annotated

import typer

from carbonsched.cli.options import Debug, Json, Socket, connect


def report(
    ctx: typer.Context,
    job: Annotated[
        str | None, typer.Option("--job", metavar="ID", help="One job, from start to now.")
    ] = None,
    start: Annotated[
        str | None,
        typer.Option(
            "--from", metavar="TIME", help="Everything from here, e.g. 2026-11-01 or 2026-11-01T08:30:00Z."
        ),
    ] = None,
    end: Annotated[
        str | None, typer.Option("--to", metavar="TIME", help="Up to here, not included. Default: now.")
    ] = None,
    form: Annotated[
        str | None,
        typer.Option(
            "--format",
            metavar="NAME",
            help="json (default), csv, html, codecarbon, model-card, or the name of an installed plugin's.",
            show_default=False,
        ),
    ] = None,
    out: Annotated[
        Path | None, typer.Option("--output", "-o", metavar="FILE", help="Write here instead of to stdout.")
    ] = None,
    json: Json = False,
    socket: Socket = None,
    debug: Debug = False,
) -> None:
    """Report energy and emissions of one job, or of the whole box over a stretch of time.

    csv has a row per interval of the ledger; codecarbon is its emissions.csv; html is for people;
    model-card goes with the model of one job.
    """
    from carbonsched.errors import InputError, UnreachableError

    if job is not None and (start is not None or end is not None):
        raise InputError("--job", "and a time exclude each other: a job's report is whole", "leave one away")
    if job is None and start is None and end is None:
        raise InputError("--job", "say which job, or which time", "give --job ID, or --from TIME")
    if job is None and start is None:
        raise InputError("--from", "is missing", "give --from TIME with --to")
    if json and form not in (None, "json"):
        raise InputError("--format", f"{form} and --json exclude each other", "leave one away")
    try:
        text = connect(ctx).report(job, start, end, form or "json")
    except UnreachableError:
        from carbonsched.report import find

        find(form or "json")  # a wrong name is the user's to correct, whether or not a daemon runs
        raise
    if not text.endswith("\n"):
        text += "\n"
    if out is None:
        sys.stdout.write(text)
        return
    try:
        out.write_text(text, encoding="utf-8", newline="")
    except OSError as e:
        raise InputError("--output", f"{out} cannot be written: {e.strerror}", "choose another file") from e
    print(f"written to {out}", file=sys.stderr)
