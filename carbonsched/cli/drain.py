"""`carbonsched drain | undrain`: keep the box from starting jobs, for maintenance, and let it start them again."""

import time
from typing import TYPE_CHECKING, Annotated

import typer

from carbonsched.cli.options import Debug, Json, Socket, connect
from carbonsched.text import one_line

if TYPE_CHECKING:
    from carbonsched.cli.client import Client
    from carbonsched.model.upkeep import Drained

POLL_S = 1.0


def drain(
    ctx: typer.Context,
    reason: Annotated[
        str, typer.Option(metavar="TEXT", help="What people whose jobs wait are told.", show_default=False)
    ] = "",
    wait: Annotated[bool, typer.Option("--wait", help="Wait until nothing runs any more.")] = False,
    json: Json = False,
    socket: Socket = None,
    debug: Debug = False,
) -> None:
    """Start no more jobs until `undrain`, also after restarts of the daemon. Running jobs go on, new ones are queued.

    For admins. With --wait, Ctrl-C ends the waiting, not the drain.
    """
    from carbonsched.cli.output import emit

    client = connect(ctx)
    told = client.drain(reason)
    if not json:
        print(one_line(f"{told.reason}; {told.live} run on, {told.queued} wait"), flush=True)
    if wait:
        told = _until_empty(client, told)
        if not json:
            print("nothing runs any more")
    if json:
        emit(told)


def _until_empty(client: "Client", told: "Drained") -> "Drained":
    while told.live:
        time.sleep(POLL_S)
        told = client.drained()
    return told


def undrain(ctx: typer.Context, json: Json = False, socket: Socket = None, debug: Debug = False) -> None:
    """Start jobs again after `drain`. For admins."""
    from carbonsched.cli.output import emit

    told = connect(ctx).undrain()
    if json:
        emit(told)
    else:
        print(f"jobs are started again; {told.queued} wait")
