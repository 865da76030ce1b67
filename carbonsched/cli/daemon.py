"""`carbonsched daemon`: serve this box until stopped."""

import gc
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from carbonsched.cli.options import Debug, Json, Settings, Socket


class LogForm(StrEnum):
    """The form of the daemon's log.

    Example:
        >>> LogForm("json")
        <LogForm.JSON: 'json'>
    """

    AUTO = "auto"
    TEXT = "text"
    JOURNAL = "journal"
    JSON = "json"


def daemon(
    ctx: typer.Context,
    config: Annotated[Path, typer.Option("--config", metavar="FILE", help="The configuration, TOML.")],
    new_ledger: Annotated[
        bool,
        typer.Option(
            "--new-ledger",
            help="Go on though the ledger knows less than the job folders (it vanished, or is an older copy); noted in it.",
        ),
    ] = False,
    log: Annotated[
        LogForm,
        typer.Option(
            "--log",
            help="What the log is written as: text with the time, journal with priorities, or JSON lines. auto: journal where "
            "systemd reads it, else text.",
        ),
    ] = LogForm.AUTO,
    json: Json = False,
    socket: Socket = None,
    debug: Debug = False,
) -> None:
    """Serve this box until stopped (SIGTERM, Ctrl-C); logs go to stderr.

    Jobs that run when it stops go on within their lease, and the next daemon adopts them.
    With --json the only document, `{"exit_code": N}`, is printed after it has stopped.
    """
    # objects of the start stay: repeated searches of them for reference cycles take a tenth of the start; `run` ends this
    gc.disable()
    from carbonsched.cli.output import emit
    from carbonsched.daemon import run
    from carbonsched.model.views import Ended

    code = run(config, ctx.ensure_object(Settings).socket, new_ledger=new_ledger, log_form=log.value)
    if json:
        emit(Ended(exit_code=code))
    raise typer.Exit(code)
