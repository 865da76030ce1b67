"""`carbonsched audit verify`: recompute every hash and gram of the ledger, and balance every energy counter."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from carbonsched import text
from carbonsched.cli.options import Debug, Json, Socket, connect
from carbonsched.errors import InputError
from carbonsched.units import MJ_PER_J

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
    """Check that the ledger's rows still say what was written, that every gram follows from its row, and that every
    joule a counter counted was charged once.

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
        print(f"ok: {result.rows} rows verify{_conserved(result)}")
    else:
        rows = "rows cannot be counted" if result.rows is None else f"{result.rows} rows"
        print(f"not ok: {result.problem} ({rows})")
    raise typer.Exit(0 if result.ok else 1)


def _conserved(result: "AuditResult") -> str:
    counters = len(result.conservation)
    if counters == 0:
        return ""
    joules = sum(balance.charged_mj for balance in result.conservation) / MJ_PER_J
    return f"; {text.energy(joules)} on {counters} counter{'s' * (counters > 1)}, each joule charged once"


def _offline(url: str, export: Path | None) -> "AuditResult":
    from carbonsched.ledger.ledger import Ledger

    with Ledger.open(url, read_only=True) as ledger:
        if export is not None:
            ledger.export(export)
        return ledger.verify()
