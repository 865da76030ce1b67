"""The flags of every command, and the client that they configure."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from carbonsched.cli.client import Client


@dataclass(slots=True)
class Settings:
    """The values of the shared flags, before or after the command's name.

    Example:
        >>> Settings(socket="/run/carbonsched/api.sock").debug
        False
    """

    socket: str | None = None
    debug: bool = False
    json: bool = False


def _keep_socket(ctx: typer.Context, value: str | None) -> str | None:
    if value is not None:
        ctx.ensure_object(Settings).socket = value
    return value


def _keep_debug(ctx: typer.Context, value: bool) -> bool:
    if value:
        ctx.ensure_object(Settings).debug = True
    return value


def _keep_json(ctx: typer.Context, value: bool) -> bool:
    settings = ctx.ensure_object(Settings)
    settings.json = settings.json or value
    return settings.json


def ledger_url(ledger: str | None) -> str | None:
    """The URL of `--ledger`: a URL unchanged, a SQLite file as its URL."""
    return ledger if ledger is None or "://" in ledger else f"sqlite:///{Path(ledger).absolute()}"


Socket = Annotated[
    str | None,
    typer.Option(
        "--socket",
        metavar="PATH",
        callback=_keep_socket,
        help="The daemon's socket. Default: $CARBONSCHED_SOCKET, $XDG_RUNTIME_DIR/carbonsched/api.sock or "
        "/run/carbonsched/api.sock.",
        rich_help_panel="Everywhere",
    ),
]
Debug = Annotated[
    bool,
    typer.Option(
        "--debug",
        callback=_keep_debug,
        help="Show the traceback of an error.",
        rich_help_panel="Everywhere",
    ),
]
Json = Annotated[
    bool,
    typer.Option(
        "--json",
        callback=_keep_json,
        help="One JSON document on stdout and nothing else.",
        rich_help_panel="Everywhere",
    ),
]
_WHICH = (
    "as `carbonsched ps` lists it: its id or the first letters of it, its name, or `latest` for your newest."
)
JobId = Annotated[str, typer.Argument(metavar="ID", help=f"The job, {_WHICH}")]
JobIds = Annotated[list[str], typer.Argument(metavar="ID...", help=f"One job or several, each {_WHICH}")]


def connect(ctx: typer.Context, configured: str | None = None) -> "Client":
    """A client for the daemon that --socket, the environment, a config or the defaults name."""
    from carbonsched.address import socket_path
    from carbonsched.cli.client import Client

    return Client(socket_path(ctx.ensure_object(Settings).socket, configured))
