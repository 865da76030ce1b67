"""`carbonsched doctor` and `carbonsched config check`: check everything that the daemon needs, and say how to fix each fault."""

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from carbonsched import text
from carbonsched.cli.options import Debug, Json, Socket, connect
from carbonsched.errors import CarbonschedError, InputError

if TYPE_CHECKING:
    from carbonsched.model.checks import Check


ConfigFile = Annotated[
    Path | None,
    typer.Option(
        "--config",
        metavar="FILE",
        help="The daemon's config. Default: /etc/carbonsched/config.toml.",
        show_default=False,
    ),
]


def doctor(
    ctx: typer.Context,
    config: ConfigFile = None,
    json: Json = False,
    socket: Socket = None,
    debug: Debug = False,
) -> None:
    """Check everything that the daemon needs, as the user who runs this: its config, socket, disk, ledger, meters, feeds, clock, trainer.

    Feeds are polled once. Exit code: 0 nothing fails, 1 something does. Run it as the daemon's user to see that user's permissions.
    """
    from carbonsched.cli import checks
    from carbonsched.config import load
    from carbonsched.model.checks import Check

    def found() -> "Iterator[Check]":
        path = config or _default()
        try:
            loaded = load(path)
        except CarbonschedError as e:
            yield Check(name="config", ok=False, found=str(e), hint="carbonsched grid --setup writes one")
            loaded = None
        else:
            yield Check(name="config", ok=True, found=str(path))
        yield checks.daemon(connect(ctx, loaded.api.socket if loaded else None))
        if loaded is not None:
            yield checks.disk(loaded)
            yield checks.ledger(loaded)
            yield from checks.meters(loaded)
            yield from checks.clocks(loaded)
            yield from checks.feeds(loaded)
        yield checks.clock()
        if loaded is not None:
            yield checks.trainer(loaded.launch.python)

    _show(found(), json)


def check(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="The daemon's config.")],
    json: Json = False,
    socket: Socket = None,
    debug: Debug = False,
) -> None:
    """Read a config as the daemon would, and build its feeds without polling them; each fault has its own line.

    Exit code: 0 it has no fault, 2 it has."""
    from carbonsched.cli import checks
    from carbonsched.config import load
    from carbonsched.model.checks import Check

    def found() -> "Iterator[Check]":
        try:
            config = load(file)
        except InputError as e:
            for fault in (e, *e.others):
                yield Check(name="config", ok=False, found=str(fault))
            return
        yield Check(
            name="config",
            ok=True,
            found=f"{file}: {text.several(len(config.feeds), 'feed')}, zone {config.zone.name}",
        )
        yield from checks.built(config)

    _show(found(), json, failed=InputError.exit_code)


def _default() -> Path:
    from carbonsched.cli.grid_probe import DEFAULT_CONFIG

    return DEFAULT_CONFIG


def _show(checks: "Iterator[Check]", json: bool, failed: int = 1) -> None:
    """For people each one at once; for a script all together."""
    from carbonsched.cli.output import emit
    from carbonsched.model.checks import CheckList

    found: list[Check] = []
    for one in checks:
        found.append(one)
        if not json:
            mark = {True: "ok", False: "FAILS", None: "-"}[one.ok]
            print(text.one_line(f"{mark:<6}{one.name:<10}{one.found}"))
            if one.hint:
                print(text.one_line(f"{'':<16}{one.hint}"))
    result = CheckList(checks=tuple(found))
    if json:
        emit(result)
    if not result.ok:
        raise typer.Exit(failed)
