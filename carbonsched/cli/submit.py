"""`carbonsched submit JOB.toml`: check a job as the user who owns it, then hand it to the daemon."""

import sys
from pathlib import Path
from typing import Annotated

import typer

from carbonsched.cli.options import Debug, Json, Socket, connect
from carbonsched.text import one_line


def submit(
    ctx: typer.Context,
    job: Annotated[
        Path, typer.Argument(metavar="JOB.toml", help="The job; docs/configuration.md has every key.")
    ],
    wait: Annotated[
        bool, typer.Option("--wait", help="Wait until it has ended; exit codes as `wait`.")
    ] = False,
    explain: Annotated[
        bool,
        typer.Option(
            "--explain",
            help="Queue nothing: say when it would run, at which ρ, for how many grams, what binds and what more would buy.",
        ),
    ] = False,
    json: Json = False,
    socket: Socket = None,
    debug: Debug = False,
) -> None:
    """Check a job and queue it.

    The trainer looks at model, data, batch shapes and the floor of ρ first, as you; nothing is queued when it finds a
    fault. Paths in JOB.toml are read from its own folder.
    """
    from carbonsched.cli.output import emit
    from carbonsched.cli.trainer_check import check
    from carbonsched.cli.wait import follow
    from carbonsched.errors import InputError
    from carbonsched.model.job_file import read_job

    if wait and explain:
        raise InputError("--explain", "queues nothing that --wait could wait for", "give one of the two")
    spec = read_job(job)
    client = connect(ctx)
    checked = check(spec, client.version().trainer_python)
    if explain:
        from carbonsched.cli.explain import show

        answer = client.explain(spec, checked)
        emit(answer) if json else show(answer, checked)
        return
    submitted = client.submit(spec, checked)
    if not json:
        if sys.stdout.isatty():
            print(
                f"checked {checked.params / 1e6:.1f} M parameters, {checked.rows} rows, {checked.steps} steps in "
                f"{checked.segments} segments, ρ from {checked.rho_floor:.3f}"
            )
        for note in checked.notes:
            print(one_line(f"note: {note}"), file=sys.stderr)
        print(f"{submitted.id} {submitted.state}", flush=True)
    if wait:
        raise typer.Exit(follow(client, submitted.id, json))
    if json:
        emit(submitted)
