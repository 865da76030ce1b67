"""`carbonsched grid`: show the intensity now and to come, and the state of the feeds."""

import itertools
from typing import TYPE_CHECKING, Annotated

import typer

from carbonsched import text
from carbonsched.cli.options import Debug, Json, Socket, connect

if TYPE_CHECKING:
    from carbonsched.model.grid import ForecastPoint, GridView

BLOCKS = "▁▂▃▄▅▆▇█"
ROWS = 24


def grid(
    ctx: typer.Context,
    forecast: Annotated[
        float,
        typer.Option("--forecast", metavar="H", min=0, max=336, help="Hours to look ahead; 0 for none."),
    ] = 24.0,
    json: Json = False,
    socket: Socket = None,
    debug: Debug = False,
) -> None:
    """Show the grid's carbon intensity now and to come, and how the feeds are."""
    from carbonsched.cli.output import emit

    view = connect(ctx).grid(forecast)
    if json:
        emit(view)
    else:
        _print(view)


def _print(view: "GridView") -> None:
    from carbonsched.cli import output as o

    out = o.console()
    now = view.now
    facts = o.table("key", "value", wrap=("value",))
    facts.show_header = False
    if now.g_per_kwh is None:
        facts.add_row("Now", f"not known: {now.reason or 'no feed has answered yet'}")
    else:
        note = f", {now.note}" if now.note else ""
        facts.add_row("Now", f"{text.figure(now.g_per_kwh, 'g/kWh')} ({now.provider}, {now.kind}{note})")
        facts.add_row("Holds", f"{text.moment(now.start)} to {text.moment(now.end)}")
    facts.add_row("Zone", f"{now.zone}, {now.basis}")
    if now.time_compression != 1.0:
        facts.add_row(
            "Replay",
            f"{now.time_compression:g} grid seconds per second, the trace is at {text.moment(now.grid_start)}",
        )
    out.print(facts)
    if view.forecast:
        values = [point.g_per_kwh for point in view.forecast]
        out.print()
        out.print(
            f"FORECAST  {sparkline(values)}  {text.figure(min(values))} to {text.figure(max(values))} g/kWh"
        )
        rows = o.table("FROM", "TO", "g/kWh", "LOW", "HIGH", right=("g/kWh", "LOW", "HIGH"))
        for point in every_nth(view.forecast, ROWS):
            rows.add_row(
                text.moment(point.start),
                text.moment(point.end),
                *map(text.figure, (point.g_per_kwh, point.low, point.high)),
            )
        out.print(rows)
    out.print()
    feeds = o.table("FEED", "STATE", "LAST SUCCESS", "ERROR", wrap=("ERROR",))
    for feed in view.feeds:
        feeds.add_row(feed.name, feed.state, text.moment(feed.last_success), feed.error or "")
    out.print(feeds)


def every_nth(points: "tuple[ForecastPoint, ...]", rows: int) -> "tuple[ForecastPoint, ...]":
    """At most `rows` of the points, evenly spaced from the first."""
    return points[:: -(-len(points) // rows)]


def sparkline(values: list[float], cells: int = 48) -> str:
    """The values as blocks, lowest to highest; longer series are averaged to `cells`."""
    if not values:
        return ""
    n = min(cells, len(values))
    edges = [len(values) * i // n for i in range(n + 1)]
    means = [sum(values[a:b]) / (b - a) for a, b in itertools.pairwise(edges)]
    low, high = min(means), max(means)
    span = high - low or 1.0
    return "".join(BLOCKS[round((mean - low) / span * (len(BLOCKS) - 1))] for mean in means)
