"""`carbonsched version`: show the versions of this command and of its daemon."""

import platform

import typer

from carbonsched import __version__
from carbonsched.cli.options import Debug, Json, Socket, connect


def version(ctx: typer.Context, json: Json = False, socket: Socket = None, debug: Debug = False) -> None:
    """Show the versions of this command and of the daemon.

    It works without a daemon; with --json it prints the daemon's version, or this command's with `pid: null`.
    """
    from carbonsched.cli.output import emit
    from carbonsched.errors import UnreachableError
    from carbonsched.model.views import Version

    own = Version(version=__version__, python=platform.python_version())
    trouble = ""
    try:
        theirs = connect(ctx).version()
    except UnreachableError as e:
        theirs, trouble = own, str(e)
    if json:
        emit(theirs)
        return
    print(f"carbonsched {own.version}, Python {own.python}")
    if trouble:
        print(f"daemon      {trouble}")
        return
    print(f"daemon      {theirs.version}, Python {theirs.python}, pid {theirs.pid}")
    for label, value in (
        ("trainer", theirs.trainer_python),
        ("state", theirs.state_dir),
        ("ledger", theirs.ledger_schema),
    ):
        if value is not None:
            print(f"  {label:<9} {value}")
