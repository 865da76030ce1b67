"""`carbonsched audit verify`: recompute every gram and every hash of the ledger."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from carbonsched.cli.options import Debug, Json, Socket, connect
from carbonsched.errors import InputError

if TYPE_CHECKING:
    from carbonsched.model.views import AuditResult


def verify(
    ctx: typer.Context,
    ledger: Annotated[
        str | None,
        typer.Option(
            "--ledger",
            metavar="URL",
            help="Read this ledger yourself instead of asking the daemon, e.g. sqlite:////var/lib/carbonsched/ledger.db.",
        ),
    ] = None,
    export: Annotated[
        Path | None,
        typer.Option(
            "--export",
            metavar="DIR",
            help="Also write every row as text that verifies without carbonsched (docs/ledger.md); wants --ledger.",
        ),
    ] = None,
    json: Json = False,
    socket: Socket = None,
    debug: Debug = False,
) -> None:
    """Check that the ledger's rows still say what was written, and that every gram follows from its row.

    Exit code: 0 it verifies, 1 it does not. With --ledger no daemon is needed, nor trusted.
    """
    from carbonsched.cli.output import emit

    if export is not None and ledger is None:
        raise InputError(
            "--export", "needs the ledger itself", "name it too: --ledger sqlite:////…/ledger.db"
        )
    result = connect(ctx).audit() if ledger is None else _offline(ledger, export)
    if json:
        emit(result)
    elif result.ok:
        print(f"ok: {result.rows} rows verify")
    else:
        print(f"not ok: {result.problem} ({result.rows} rows)")
    raise typer.Exit(0 if result.ok else 1)


def _offline(url: str, export: Path | None) -> "AuditResult":
    from carbonsched.ledger.ledger import Ledger

    with Ledger.open(url, read_only=True) as ledger:
        if export is not None:
            ledger.export(export)
        return ledger.verify()
