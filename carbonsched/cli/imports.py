"""`carbonsched import codecarbon | zeus`: import earlier measurements of other tools, apart from what is metered here."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta, tzinfo
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from carbonsched import text
from carbonsched.cli.flags import between
from carbonsched.cli.options import Debug, Json, Socket, connect, ledger_url
from carbonsched.errors import InputError

if TYPE_CHECKING:
    from carbonsched.model.imported import ImportBody, Imported

LogFile = Annotated[Path, typer.Argument(metavar="FILE", help="The log.")]
LedgerUrl = Annotated[
    str | None,
    typer.Option(
        "--ledger",
        metavar="URL|FILE",
        callback=ledger_url,
        help="Write into this ledger yourself, which no daemon has open, e.g. mine.db.",
    ),
]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Read and check it, and book nothing.")]


def codecarbon(
    ctx: typer.Context,
    file: LogFile,
    timezone: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="Of its time stamps, which are local and do not say so, e.g. Europe/Berlin; this machine's by default.",
        ),
    ] = None,
    ledger: LedgerUrl = None,
    dry_run: DryRun = False,
    json: Json = False,
    socket: Socket = None,
    debug: Debug = False,
) -> None:
    """Import codecarbon's emissions.csv: energy, grams and intensity of every run, with its own figures."""
    from carbonsched.imports import codecarbon as log

    _import(ctx, lambda: log.read(file, _zone(timezone)), ledger, dry_run=dry_run, json=json)


def zeus(
    ctx: typer.Context,
    file: LogFile,
    intensity: Annotated[
        float | None,
        typer.Option(
            "--intensity",
            metavar="G_PER_KWH",
            help="Of the grid then, which the log does not know; without it the grams stay unknown.",
            callback=between(0, 5000, "g/kWh"),
        ),
    ] = None,
    ledger: LedgerUrl = None,
    dry_run: DryRun = False,
    json: Json = False,
    socket: Socket = None,
    debug: Debug = False,
) -> None:
    """Import the log of a ZeusMonitor: the joules of its windows, without those inside another one."""
    from carbonsched.imports import zeus as log

    _import(ctx, lambda: log.read(file, intensity), ledger, dry_run=dry_run, json=json)


def _import(
    ctx: typer.Context, read: Callable[[], "ImportBody"], ledger: str | None, *, dry_run: bool, json: bool
) -> None:
    from carbonsched.cli.output import emit

    body = read()
    booked = _booked(ctx, body, ledger, dry_run=dry_run)
    if json:
        emit(booked)
        return
    for line in _sentences(booked, dry_run=dry_run):
        print(text.one_line(line))


def _booked(ctx: typer.Context, body: "ImportBody", ledger: str | None, *, dry_run: bool) -> "Imported":
    import os

    from carbonsched.cli.ledger_file import opened
    from carbonsched.ledger.ledger import Ledger
    from carbonsched.supervisor.imports import book

    if dry_run:
        with Ledger.open("sqlite://") as nowhere:
            return book(nowhere, body, "dry run", os.getuid(), datetime.now(UTC))
    if ledger is None:
        return connect(ctx).import_log(body)
    with opened(ledger, create=True) as mine:
        return book(mine, body, str(os.getuid()), os.getuid(), datetime.now(UTC))


def _sentences(booked: "Imported", *, dry_run: bool) -> list[str]:
    spent = "grams unknown" if booked.grams is None else f"{text.grams(booked.grams, estimated=True)} CO2e"
    would = "would import" if dry_run else "imported"
    energy = text.energy(booked.energy_j, estimated=True)
    said = [
        f"{would} {text.several(booked.runs, 'run')} of {booked.source}: {energy}, {spent}"
        if booked.runs
        else "nothing in it is new"
    ]
    if booked.known:
        said.append(f"{booked.known} were imported before, and are not again")
    said += [
        f"{where} now says something else than when it was imported: that stands" for where in booked.changed
    ]
    if booked.left_out:
        said.append(f"{text.several(booked.left_out, 'line is', 'lines are')} part of another run or window")
    if booked.metered_beside_j:
        said.append(
            f"in the same hours {text.energy(booked.metered_beside_j)} were metered here: of this very box they are in both"
        )
    return said


def _zone(name: str | None) -> tzinfo:
    from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

    if name is None:
        return _Here()
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError) as e:
        raise InputError("--timezone", f"{name!r} is no time zone", "write it like Europe/Berlin") from e


class _Here(tzinfo):
    """This machine's local time, by its rules for that date."""

    def utcoffset(self, at: datetime | None) -> timedelta | None:
        return None if at is None else at.replace(tzinfo=None).astimezone().utcoffset()

    def dst(self, at: datetime | None) -> timedelta | None:
        return None

    def tzname(self, at: datetime | None) -> str:
        return "local"
