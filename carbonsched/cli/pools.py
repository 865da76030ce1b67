"""`carbonsched pools`: show what each shared budget has left, the gain of one more gram, and each job's part."""

from typing import TYPE_CHECKING

import typer

from carbonsched import text
from carbonsched.cli.options import Debug, Json, Socket, connect

if TYPE_CHECKING:
    from carbonsched.model.pools import PoolView


def pools(ctx: typer.Context, json: Json = False, socket: Socket = None, debug: Debug = False) -> None:
    """Show the budgets that jobs of this box share: granted, spent, left, the price of a gram, each job's part.

    SPENT counts unknown figures at their worst. HOLDS is what a job may still spend, NEEDS its spend at its lowest ρ.
    """
    from carbonsched.cli.output import emit

    listed = connect(ctx).pools()
    if json:
        emit(listed)
    elif not listed.pools:
        print("no pools; add [[pools]] to the daemon's config and send it SIGHUP")
    else:
        for n, pool in enumerate(listed.pools):
            if n:
                print()
            _print(pool)


def _print(pool: "PoolView") -> None:
    from carbonsched.cli import output as o

    grows = "" if pool.g_per_h is None else f", grows by {text.figure(pool.g_per_h)} g/h"
    over = f", {pool.jobs_over} job{'s' * (pool.jobs_over > 1)} over" if pool.jobs_over else ""
    out = o.console()
    out.print(
        f"{pool.name}: {text.grams(pool.left_g)} left of {text.grams(pool.granted_g)}{grows}", style="bold"
    )
    out.print(f"  {text.grams(pool.spent_g)} spent{over}, {text.grams(pool.held_g)} held by its jobs")
    out.print(f"  {pool.price}")
    if not pool.jobs:
        return
    right = ("WEIGHT", "SPENT g", "HOLDS g", "NEEDS g")
    table = o.table("  ID", "OWNER", "STATE", *right, right=right, wrap=("  ID", "OWNER"))
    for job in pool.jobs:
        table.add_row(
            f"  {job.id}",
            job.owner,
            job.state,
            f"{job.weight:g}",
            text.figure(job.spent_g),
            text.figure(job.part_g),
            text.figure(job.floor_g),
        )
    out.print(table)
