"""`carbonsched audit verify | export | diff | anchor`: recompute the ledger, export it, and have the heads of its chains signed or stamped."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from carbonsched import text
from carbonsched.cli.flags import MOST_DAYS, between
from carbonsched.cli.options import Debug, Json, Socket, connect, ledger_url
from carbonsched.errors import CarbonschedError, InputError
from carbonsched.units import MJ_PER_J

if TYPE_CHECKING:
    from carbonsched.ledger.archives import Archive
    from carbonsched.ledger.heads import Head
    from carbonsched.ledger.ledger import Ledger
    from carbonsched.model.audit import AuditResult, Exported

LedgerUrl = Annotated[
    str | None,
    typer.Option(
        "--ledger",
        metavar="URL|FILE",
        callback=ledger_url,
        help="Read this ledger yourself instead of asking the daemon, e.g. /var/lib/carbonsched/ledger.db.",
    ),
]
Certificate = Annotated[
    Path | None,
    typer.Option("--ca", metavar="FILE", help="Certificate of the time stamp's authority (PEM)."),
]


Against = Annotated[
    list[Path] | None,
    typer.Option(
        "--against",
        metavar="PATH",
        help="Heads that were noted earlier and must be in the chains still: JSON of audit verify, a folder of audit export "
        "or audit anchor, or lines of the daemon's log; may repeat.",
    ),
]
Since = Annotated[
    Path | None,
    typer.Option(
        "--since",
        metavar="PATH",
        help="Heads, as for --against, of a ledger that verified: the rows up to the last of them are not recomputed.",
    ),
]
ArchiveOption = Annotated[
    Path | None,
    typer.Option(
        "--archive",
        metavar="DIR",
        help="Recompute merged rows from the rows that they stand for, as this archive has them.",
    ),
]
CheckpointFile = Annotated[
    Path | None,
    typer.Option(
        "--checkpoint",
        metavar="FILE",
        help="Keep in this file how far it came, and go on from there where it was ended; removed at its end.",
    ),
]
PublicKey = Annotated[
    Path | None,
    typer.Option("--public-key", metavar="FILE", help="Whose SSH signature a folder of --against must bear."),
]
Export = Annotated[
    Path | None,
    typer.Option(
        "--export",
        metavar="DIR",
        help="Also do what audit export does; wants --ledger.",
    ),
]


def verify(
    ctx: typer.Context,
    ledger: LedgerUrl = None,
    against: Against = None,
    since: Since = None,
    archive: ArchiveOption = None,
    checkpoint: CheckpointFile = None,
    public_key: PublicKey = None,
    ca: Certificate = None,
    export: Export = None,
    json: Json = False,
    socket: Socket = None,
    debug: Debug = False,
) -> None:
    """Check that no row of the ledger was changed, that every gram follows from its row, that every
    counted joule was charged once, and that no time was charged twice.

    Exit code: 0 it verifies, 1 it does not. --ledger needs no daemon and no trust in one.
    """
    from carbonsched.cli.audit_progress import asked, verifying
    from carbonsched.cli.output import emit

    if export is not None and ledger is None:
        raise InputError(
            "--export", "needs the ledger itself", "name it too: --ledger sqlite:////…/ledger.db"
        )
    for flag, path in (("--export", export), ("--checkpoint", checkpoint)):
        if path is not None:
            _check_parent(flag, path)
    earlier, vouched = _earlier(against or [], public_key, ca)
    last = _last_head(since)
    if last is not None and checkpoint is not None:
        raise InputError("--checkpoint", "and --since exclude each other", "leave one away")
    if ledger is None and not earlier and last is None and archive is None and checkpoint is None:
        result = asked(connect(ctx), shown=not json)
    else:
        with _opened(ctx, ledger) as opened:
            if export is not None:
                _export(opened, export)
            months = None if archive is None else _archive(archive)
            shown = last is None and not json
            with verifying(opened, checkpoint, archive=months is not None, shown=shown) as steps:
                result = opened.verify(earlier, last, months, steps).model_copy(update={"vouched": vouched})
    if json:
        emit(result)
    elif result.ok:
        print(
            f"ok: {_rows(result.rows or 0)}{_since(result)}{_merged(result)}{_conserved(result)}{_compared(result)}"
        )
        if not result.rows:
            print(
                "it holds no row: whether there were any, only heads that were noted elsewhere tell (--against)"
            )
    else:
        rows = "rows cannot be counted" if result.rows is None else text.several(result.rows, "row")
        print(f"not ok: {result.problem} ({rows})")
    raise typer.Exit(0 if result.ok else 1)


def export(
    ctx: typer.Context,
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="A new or empty folder.")],
    ledger: LedgerUrl = None,
    json: Json = False,
    socket: Socket = None,
    debug: Debug = False,
) -> None:
    """Write the whole ledger as text, with a manifest of hashes and a script that recomputes the totals without carbonsched."""
    from carbonsched.cli.output import emit

    _check_parent("DIR", folder)
    with _opened(ctx, ledger) as opened:
        manifest = _export(opened, folder)
    if json:
        emit(manifest)
    else:
        print(
            f"{text.several(manifest.rows, 'row')} and {text.several(manifest.entries, 'entry', 'entries')} in {folder}; python3 {folder}/recompute.py"
        )


def diff(
    a: Annotated[Path, typer.Argument(metavar="A", help="A folder of audit export.")],
    b: Annotated[Path, typer.Argument(metavar="B", help="Another one.")],
    json: Json = False,
    socket: Socket = None,
    debug: Debug = False,
) -> None:
    """Show where two exports differ. Exit code: 0 they are equal or one continues the other, 1 they differ."""
    from carbonsched.cli.output import emit
    from carbonsched.ledger.comparison import compare

    found = compare(a, b)
    if json:
        emit(found)
    else:
        for chain in found.chains:
            said = f"{chain.chain}: {chain.common} rows are the same, A has {chain.a}, B {chain.b}"
            if chain.first_different is not None:
                parts = (f"{name} {one!r} and {other!r}" for name, (one, other) in chain.fields.items())
                said += f"; row {chain.first_different} differs: {', '.join(parts)}"
            print(text.one_line(said))
    raise typer.Exit(0 if found.same or found.continued else 1)


LedgerAtRest = Annotated[
    str,
    typer.Option(
        "--ledger",
        metavar="URL|FILE",
        callback=ledger_url,
        help="Of a box whose daemon does not run: it does this itself.",
    ),
]


def roll_up(
    ledger: LedgerAtRest,
    archive: Annotated[
        Path, typer.Option("--archive", metavar="DIR", help="Where the merged rows go, a file a month.")
    ],
    raw_days: Annotated[
        float,
        typer.Option(
            "--raw-days",
            callback=between(3, MOST_DAYS, "days"),
            metavar="DAYS",
            help="So long rows stay as they were written; 3 or more.",
        ),
    ] = 7.0,
    minute_days: Annotated[
        float,
        typer.Option(
            "--minute-days",
            callback=between(3, MOST_DAYS, "days"),
            metavar="DAYS",
            help="So long minutes stay minutes; 3 or more.",
        ),
    ] = 30.0,
    json: Json = False,
    socket: Socket = None,
    debug: Debug = False,
) -> None:
    """Merge old rows into minutes, then hours, as the daemon does once an hour; no sum changes."""
    from carbonsched.cli.output import emit
    from carbonsched.clock import SystemClock
    from carbonsched.ledger.archives import Archive
    from carbonsched.ledger.rollup import MOST_AT_REST, Retention, RollUp

    keep = Retention(raw_days=raw_days, minute_days=max(minute_days, raw_days), rows=MOST_AT_REST)
    with _at_rest(ledger) as opened:
        done = RollUp(opened, keep, Archive(archive), at_rest=True).work(SystemClock().now())
    if json:
        emit(done)
    else:
        print(
            f"{text.several(done.rows, 'row')} merged into {done.merged}; as they were they are in {archive}"
            if done.rows
            else "nothing is due"
        )


def add_up(
    ledger: LedgerAtRest,
    json: Json = False,
    socket: Socket = None,
    debug: Debug = False,
) -> None:
    """Recompute the totals of all hours from the rows. The daemon maintains them; use this if audit verify finds a wrong one."""
    from carbonsched.cli.output import emit
    from carbonsched.clock import SystemClock
    from carbonsched.model.audit import AddedUp

    with _at_rest(ledger) as opened:
        opened.drop_hours()
        done = AddedUp(hours=opened.total_hours(SystemClock().now()))
    if json:
        emit(done)
    else:
        print(f"totals of {text.several(done.hours, 'hour')} were made")


def _rows(n: int) -> str:
    return f"{text.several(n, 'row')} {'verifies' if n == 1 else 'verify'}"


def _at_rest(url: str) -> "Ledger":
    """An existing ledger, to write to: a mistyped name creates no new one. Raises InputError, LedgerError."""
    from carbonsched.cli.ledger_file import open_ledger

    open_ledger(url, read_only=True).close()
    return open_ledger(url)


def anchor(
    ctx: typer.Context,
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="A new folder, best on another machine.")],
    ledger: LedgerUrl = None,
    url: Annotated[
        str | None,
        typer.Option(
            "--url", metavar="URL", help="Have the heads stamped by this RFC 3161 time stamp authority."
        ),
    ] = None,
    ca: Certificate = None,
    sign: Annotated[
        Path | None,
        typer.Option("--sign", metavar="KEY", help="Sign the heads with this private SSH key."),
    ] = None,
    json: Json = False,
    socket: Socket = None,
    debug: Debug = False,
) -> None:
    """Verify the ledger and write the heads of its chains, signed and time-stamped if requested: `audit verify --against DIR`
    later detects rows that were cut off or forged."""
    from carbonsched.cli.output import emit
    from carbonsched.clock import SystemClock
    from carbonsched.ledger.anchors import anchor as write
    from carbonsched.ledger.heads import Head

    _check_parent("DIR", folder)
    if url is not None and not url.lower().startswith(("http://", "https://")):
        raise InputError("--url", f"{url!r} is no address", "write it like https://freetsa.org/tsr")
    if ledger is None:
        result = connect(ctx).audit()
    else:
        with _opened(ctx, ledger) as opened:
            result = opened.verify()
    if not result.ok:
        raise CarbonschedError(f"the ledger does not verify, and nothing was anchored: {result.problem}")
    head = Head.of(result.dump(), "the ledger")
    done = write(head, folder, SystemClock().now(), key=sign, url=url, ca=ca)
    if json:
        emit(done)
    else:
        how = [f"stamped {done.stamped_at:%Y-%m-%d %H:%M:%S} UTC"] if done.stamped_at else []
        how += ["signed"] if done.signed else []
        print(f"row {done.rows} and entry {done.entries} in {folder}{''.join(f', {each}' for each in how)}")


def _check_parent(field: str, path: Path) -> None:
    """A mistyped path makes no row of new folders, and is not found out at the end. Raises InputError."""
    if not path.absolute().parent.is_dir():
        raise InputError(field, f"there is no folder {path.parent}", "make it first, or name another place")


def _export(ledger: "Ledger", folder: Path) -> "Exported":
    from carbonsched.clock import SystemClock

    return ledger.export(folder, SystemClock().now())


@contextmanager
def _opened(ctx: typer.Context, url: str | None) -> "Iterator[Ledger]":
    """The ledger of that URL, or the daemon's own, read directly."""
    from carbonsched.cli.ledger_file import opened
    from carbonsched.ledger.ledger import Ledger

    if url is not None:
        with opened(url, read_only=True) as ledger:
            yield ledger
    else:
        url = connect(ctx).version().ledger
        if url is None:
            raise InputError(
                "--ledger", "the daemon does not tell where its ledger is", "name it: --ledger URL"
            )
        with Ledger.open(url, read_only=True) as ledger:
            yield ledger


def _earlier(
    paths: Sequence[Path], public_key: Path | None, ca: Path | None
) -> "tuple[list[Head], tuple[str, ...]]":
    """(heads, their signatures and stamps in words)."""
    from carbonsched.ledger.anchors import vouched
    from carbonsched.ledger.heads import read_heads

    if not paths and (public_key or ca):
        raise InputError(
            "--public-key" if public_key else "--ca",
            "is of heads that were noted",
            "name them too: --against DIR",
        )
    said = [one for path in paths for one in vouched(path, public_key=public_key, ca=ca)]
    return [head for path in paths for head in read_heads(path)], tuple(said)


def _last_head(path: Path | None) -> "Head | None":
    from carbonsched.ledger.heads import read_heads

    if path is None:
        return None
    if _did_not_verify(path):
        raise InputError(
            "--since", f"{path} is of a ledger that did not verify", "give heads of one that did"
        )
    try:
        return max(read_heads(path), key=lambda head: head.rows or 0)
    except InputError as e:
        raise InputError("--since", e.problem, e.hint) from e


def _did_not_verify(path: Path) -> bool:
    """Whether it is an output of `audit verify --json` that did not verify."""
    import json

    try:
        said = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return False  # any other error is reported where the file is read
    return isinstance(said, dict) and said.get("ok") is False


def _archive(folder: Path) -> "Archive":
    from carbonsched.ledger.archives import Archive

    if not folder.is_dir():
        raise InputError("--archive", f"{folder} is no folder", "name the one that [ledger] archive names")
    return Archive(folder)


def _merged(result: "AuditResult") -> str:
    merged = result.merged
    if merged is None:
        return ""
    if merged.recomputed is None:
        return f", {merged.rows} of them merged: linked, their archive not looked at (--archive DIR)"
    said = f", {merged.rows} of them merged: {merged.recomputed} recomputed from the archive"
    return said + (f", {merged.gone} linked, raw gone" if merged.gone else "")


def _since(result: "AuditResult") -> str:
    return "" if result.since is None else f", those behind row {result.since} recomputed"


def _compared(result: "AuditResult") -> str:
    if not result.compared:
        return ""
    said = f"; they hold what {result.compared} earlier head{'s' * (result.compared > 1)} saw"
    return said + "".join(f", {who}" for who in result.vouched)


def _conserved(result: "AuditResult") -> str:
    counters = len(result.conservation)
    if counters == 0:
        return ""
    joules = sum(balance.charged_mj for balance in result.conservation) / MJ_PER_J
    return f"; {text.energy(joules)} on {counters} counter{'s' * (counters > 1)}, each joule charged once"
