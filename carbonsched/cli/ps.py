"""`carbonsched ps`: list the jobs that are not over and those that ended last, one line per job."""

from typing import TYPE_CHECKING, Annotated

import typer

from carbonsched import text
from carbonsched.cli.options import Debug, Json, Socket, connect

if TYPE_CHECKING:
    from rich.table import Table

    from carbonsched.model.views import JobList


def ps(
    ctx: typer.Context,
    every: Annotated[
        bool, typer.Option("--all", "-a", help="List the jobs that ended long ago, too.")
    ] = False,
    json: Json = False,
    socket: Socket = None,
    debug: Debug = False,
) -> None:
    """List the jobs of this box: state, segment, ρ, power, grams of budget, loss, time left.

    Of those that are over the 20 that ended last; all of them with --all or --json.

    An ID begins with the job's name. Grams marked ~ rest on estimated energy; a - is not known.
    """
    from carbonsched.cli.output import LEGEND, console, emit

    listed = connect(ctx).jobs(every or json)  # a script asks for all there are
    if json:
        emit(listed)
        return
    if not listed.jobs:
        print("no jobs; submit one: carbonsched submit JOB.toml")
        return
    out = console()
    out.print(_table(listed))
    if any(job.estimated or job.power_w is None for job in listed.jobs):
        out.print(LEGEND, style="dim")
    if listed.left_out:
        out.print(
            f"{listed.left_out} that ended before are left out; carbonsched ps --all lists them", style="dim"
        )


def _table(listed: "JobList") -> "Table":
    from carbonsched.cli import output as o

    made = o.table(
        "ID", "OWNER", "STATE", "SEG", "ρ", "W", "g/BUDGET", "LOSS", "LEFT",
        right=("SEG", "ρ", "W", "g/BUDGET", "LOSS", "LEFT"), wrap=("ID", "OWNER"),
    )  # fmt: skip
    for job in listed.jobs:
        made.add_row(
            job.id,
            job.owner,
            job.state,
            text.nth(job.segment, job.segments),
            text.rho(job.rho),
            text.about(job.power_w, job.estimated),
            f"{text.about(job.spent_g, job.estimated)}/{text.figure(job.budget_g)}",
            text.figure(job.loss, digits=4),
            text.duration(job.eta_s),
        )
    return made
