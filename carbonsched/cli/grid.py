"""`carbonsched grid`: show the present and the expected intensity, and the state of the feeds; or set the feeds up."""

import itertools
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TypeVar

import typer

from carbonsched import text
from carbonsched.cli.flags import between
from carbonsched.cli.options import Debug, Json, Socket, connect
from carbonsched.errors import InputError

if TYPE_CHECKING:
    from carbonsched.cli.grid_setup import SetupRequest
    from carbonsched.model.grid import GridView

_T = TypeVar("_T")
BLOCKS = "▁▂▃▄▅▆▇█"
ROWS = 24
SETUP = "Setting up"

Hours = Annotated[
    float,
    typer.Option(
        "--forecast", metavar="H", callback=between(0, 336, "h"), help="Hours to look ahead, 0 (none) to 336."
    ),
]
SetUp = Annotated[
    bool,
    typer.Option(
        "--setup",
        help="Propose the feeds for a place, write their lines of the config, and probe them.",
        rich_help_panel=SETUP,
    ),
]
Place = Annotated[
    str | None,
    typer.Option(
        "--place",
        metavar="X",
        help="With --setup: a country, a city, coordinates (52.5,13.4) or a cloud's region. Asked for without it.",
        rich_help_panel=SETUP,
    ),
]
Meaning = Annotated[
    str | None,
    typer.Option(
        "--basis",
        metavar="B",
        help="With --setup: what the intensities mean, e.g. average-direct.",
        rich_help_panel=SETUP,
    ),
]
NoAccount = Annotated[
    bool,
    typer.Option(
        "--no-account", help="With --setup: leave out what needs an account.", rich_help_panel=SETUP
    ),
]
DryRun = Annotated[
    bool,
    typer.Option("--dry-run", help="With --setup: write nothing and ask no network.", rich_help_panel=SETUP),
]
Output = Annotated[
    Path | None,
    typer.Option(
        "--output",
        "-o",
        metavar="FILE",
        help="With --setup: write the lines to a new file instead of to stdout.",
        rich_help_panel=SETUP,
    ),
]
Word = Annotated[
    str | None,
    typer.Option(
        "--zones",
        metavar="WORD",
        help="Find grid zones, offline: by country (name or code), city, cloud's region or coordinates.",
        rich_help_panel=SETUP,
    ),
]
Probe = Annotated[
    bool,
    typer.Option("--probe", help="Ask every configured feed once.", rich_help_panel=SETUP),
]
ConfigFile = Annotated[
    Path | None,
    typer.Option(
        "--config",
        metavar="FILE",
        help="With --probe: whose feeds. Default: /etc/carbonsched/config.toml.",
        rich_help_panel=SETUP,
    ),
]


def grid(
    ctx: typer.Context,
    forecast: Hours = 24.0,
    setup: SetUp = False,
    place: Place = None,
    basis: Meaning = None,
    no_account: NoAccount = False,
    dry_run: DryRun = False,
    out: Output = None,
    zones: Word = None,
    probe: Probe = False,
    config: ConfigFile = None,
    json: Json = False,
    socket: Socket = None,
    debug: Debug = False,
) -> None:
    """Show the grid's carbon intensity, now and expected, and the state of the feeds.

    --setup, --zones and --probe need no daemon. The exit code of --probe is 1 if a feed fails.
    """
    _refuse_mixed(ctx)
    if zones is not None:
        _zones(zones, json)
    elif probe:
        _probe(config, json)
    elif setup:
        from carbonsched.cli.grid_setup import SetupRequest

        _setup(SetupRequest(place, basis, not no_account, dry_run, out, json))
    else:
        _view(ctx, forecast, json)


_BELONGS = {
    "place": "setup",
    "basis": "setup",
    "no_account": "setup",
    "dry_run": "setup",
    "out": "setup",
    "config": "probe",
}
"""Flag → the flag that it needs."""


def _refuse_mixed(ctx: typer.Context) -> None:
    """A flag without effect is an error."""
    given = {name for name, value in ctx.params.items() if value not in (None, False)}
    modes = [name for name in ("setup", "zones", "probe") if name in given]
    if len(modes) > 1:
        raise InputError(f"--{modes[1]}", f"excludes --{modes[0]}", "leave one away")
    for name, mode in _BELONGS.items():
        if name in given and mode not in given:
            flag = "--output" if name == "out" else f"--{name.replace('_', '-')}"
            raise InputError(flag, f"is read with --{mode} alone", f"add --{mode} or leave it away")
    if {"dry_run", "out"} <= given:
        raise InputError("--output", "is a file to write, and --dry-run writes none", "leave one away")
    source = ctx.get_parameter_source("forecast")
    if modes and source is not None and source.name == "COMMANDLINE":
        raise InputError("--forecast", f"excludes --{modes[0]}", "leave one away")


def _setup(request: "SetupRequest") -> None:
    from carbonsched.cli import grid_setup
    from carbonsched.cli.output import emit

    proposed = grid_setup.setup(request)
    if request.json:
        emit(proposed)
    else:
        grid_setup.show(proposed)


def _zones(word: str, json: bool) -> None:
    from carbonsched.cli import grid_zones
    from carbonsched.cli.output import emit

    found = grid_zones.zones(word)
    if json:
        emit(found)
    else:
        grid_zones.show(found)


def _probe(config: Path | None, json: bool) -> None:
    from carbonsched.cli import grid_prices, grid_probe, grid_supply
    from carbonsched.cli.output import console, emit

    probed = grid_probe.probe_file(config)
    if json:
        emit(probed)
    else:
        console().print(grid_probe.table(probed.feeds))
        if probed.prices:
            console().print(grid_prices.table(probed.prices))
        if probed.supply:
            console().print(grid_supply.table(probed.supply))
    raise typer.Exit(0 if probed.ok else 1)


def _view(ctx: typer.Context, forecast_h: float, json: bool) -> None:
    from carbonsched.cli.output import emit

    view = connect(ctx).grid(forecast_h)
    if json:
        emit(view)
    else:
        _print(view)


def _print(view: "GridView") -> None:
    from carbonsched.cli import grid_prices, grid_scores, grid_supply
    from carbonsched.cli import output as o

    out = o.console()
    now = view.now
    facts = o.table("key", "value", wrap=("value",))
    facts.show_header = False
    if now.g_per_kwh is None:
        facts.add_row("Now", f"not known: {now.reason or 'no feed has answered yet'}")
    else:
        said_by = text.source(now.provider, now.kind.shown if now.kind else "of no kind", now.note)
        facts.add_row("Now", f"{text.figure(now.g_per_kwh, 'g/kWh')} ({said_by})")
        facts.add_row("Holds", f"{text.moment(now.start)} to {text.moment(now.end)}")
    facts.add_row("Zone", f"{now.zone}, {now.basis}")
    if now.time_compression != 1.0:
        facts.add_row(
            "Replay",
            f"{now.time_compression:g} grid seconds per second, the trace is at {text.moment(now.grid_start)}",
        )
    if view.supply is not None:
        facts.add_row("Supply", grid_supply.supplied(view.supply))
    out.print(facts)
    if view.forecast_reason is not None:
        out.print()
        out.print(f"FORECAST  {view.forecast_reason}", markup=False, soft_wrap=True)
    if view.forecast:
        values = [point.g_per_kwh for point in view.forecast]
        out.print()
        out.print(
            f"FORECAST  {sparkline(values)}  {text.figure(min(values))} to {text.figure(max(values))} g/kWh"
        )
        if (source := view.forecast_source) is not None:
            note = f"; {source.note}" if source.note else ""
            issued = f", issued {text.moment(source.issued_at)}" if source.issued_at else ""
            out.print(f"by {source.provider}{issued}{note}", markup=False, soft_wrap=True)
        rows = o.table("FROM", "TO", "g/kWh", "LOW", "HIGH", right=("g/kWh", "LOW", "HIGH"))
        for point in every_nth(view.forecast, ROWS):
            rows.add_row(
                text.moment(point.start),
                text.moment(point.end),
                *map(text.figure, (point.g_per_kwh, point.low, point.high)),
            )
        out.print(rows)
    grid_scores.show(view)
    out.print()
    feeds = o.table("FEED", "STATE", "LAST SUCCESS", "ERROR", wrap=("ERROR",))
    for feed in view.feeds:
        feeds.add_row(feed.name, feed.state, text.moment(feed.last_success), feed.error or "")
    for feed in view.supply.feeds if view.supply is not None else ():
        feeds.add_row(f"supply: {feed.name}", feed.state, text.moment(feed.last_success), feed.error or "")
    out.print(feeds)
    if view.prices is not None:
        grid_prices.show(view.prices)


def every_nth(points: tuple[_T, ...], rows: int) -> tuple[_T, ...]:
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
