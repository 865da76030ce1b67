"""`carbonsched top`: an overview of the box, updated every two seconds: the grid, the watts, and every live job."""

import math
import time
from typing import TYPE_CHECKING, Annotated

import typer

from carbonsched import text
from carbonsched.cli.flags import between
from carbonsched.cli.options import Debug, Json, Socket, connect

if TYPE_CHECKING:
    from rich.console import RenderableType

    from carbonsched.cli.client import Client
    from carbonsched.model.views import Top


def top(
    ctx: typer.Context,
    interval: Annotated[
        float,
        typer.Option(
            "--interval",
            "-i",
            metavar="SECONDS",
            callback=between(0.2, 86_400, "s"),
            help="Between two looks.",
        ),
    ] = 2.0,
    count: Annotated[
        int | None,
        typer.Option(
            "--count",
            "-n",
            metavar="N",
            callback=between(1, math.inf),
            help="Look this often. Default: until Ctrl-C; once into a pipe.",
            show_default=False,
        ),
    ] = None,
    json: Json = False,
    socket: Socket = None,
    debug: Debug = False,
) -> None:
    """Watch the box: the grid's intensity, power, and the spending of each job that has not ended.

    With --json one line per update.
    """
    from carbonsched.cli.output import console

    client, out = connect(ctx), console()
    left = count if count is not None else (None if json or out.is_terminal else 1)
    if json or not out.is_terminal:
        while True:
            seen = look(client)
            print(seen.model_dump_json(), flush=True) if json else out.print(drawn(seen, out.width))
            left = None if left is None else left - 1
            if left == 0:
                return
            time.sleep(interval)
    from rich.live import Live

    with Live(console=out, auto_refresh=False, screen=True) as live:
        while left is None or left > 0:
            live.update(drawn(look(client), out.width), refresh=True)
            left = None if left is None else left - 1
            time.sleep(interval)


def look(client: "Client") -> "Top":
    """One update. Raises UnreachableError."""
    from carbonsched.model.views import Top

    listed = client.jobs()
    jobs = tuple(job for job in listed.jobs if not job.state.ended)
    return Top(grid=client.grid(0).now, jobs=jobs, drained=listed.drained)


def drawn(seen: "Top", columns: int = 80) -> "RenderableType":
    """For people. columns: of the terminal."""
    from rich.console import Group

    from carbonsched.cli.output import LEGEND
    from carbonsched.cli.progress import intensity
    from carbonsched.cli.ps import table

    known = [job.power_w for job in seen.jobs if job.power_w is not None]
    states = {
        state: sum(job.state == state for job in seen.jobs) for state in sorted({j.state for j in seen.jobs})
    }
    said = ", ".join(f"{number} {state}" for state, number in states.items()) or "no jobs"
    watts = text.figure(sum(known)) if known else text.NOT_KNOWN
    drained = (f"box   {seen.drained}",) if seen.drained else ()
    return Group(
        f"grid  {intensity(seen.grid)}",
        f"jobs  {said}; {watts} W",
        *drained,
        "",
        table(seen.jobs, columns),
        "",
        LEGEND,
    )
