"""`carbonsched budget ID --grams G`: raise or lower a job's budget, while it runs or after it was stopped."""

from typing import Annotated

import typer

from carbonsched import text
from carbonsched.cli.flags import naming_flags
from carbonsched.cli.options import Debug, JobId, Json, Socket, connect


def budget(
    ctx: typer.Context,
    job: JobId,
    grams: Annotated[
        float,
        typer.Option(
            "--grams", metavar="G", help="CO2e the job may emit in all, what it has spent included."
        ),
    ],
    json: Json = False,
    socket: Socket = None,
    debug: Debug = False,
) -> None:
    """Change a job's budget. A running job is planned anew at once, a stopped one is queued again.

    It cannot go below the spent grams. The ledger records the change with who made it, when, the old and the new
    grams. Only for the job's owner, root, and the user that the daemon runs as.
    """
    from carbonsched.cli.output import emit
    from carbonsched.errors import InputError

    if not grams > 0 or grams == float("inf"):
        raise InputError("--grams", f"must be above 0, is {grams:g}", "give the grams in all")
    with naming_flags({"grams": "--grams"}):
        set_to = connect(ctx).budget(job, grams)
    if json:
        emit(set_to)
    else:
        print(
            f"{set_to.id} {set_to.state}: budget {text.grams(set_to.budget_g)}, was "
            f"{text.grams(set_to.from_g)}, spent {text.grams(set_to.spent_g)}"
        )
