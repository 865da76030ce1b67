"""`carbonsched report`: write the spending of a job, some jobs or the box, in one of several formats."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from carbonsched.cli.options import Debug, Json, Socket, connect, ledger_url

if TYPE_CHECKING:
    from carbonsched.model.views import ReportQuery

_PDF = "pdf"


Job = Annotated[str | None, typer.Option("--job", metavar="ID", help="One job, from start to now.")]
Start = Annotated[
    str | None,
    typer.Option(
        "--from", metavar="TIME", help="Everything from here, e.g. 2026-11-01 or 2026-11-01T08:30:00Z."
    ),
]
End = Annotated[
    str | None, typer.Option("--to", metavar="TIME", help="Up to here, not included. Default: now.")
]
User = Annotated[
    str | None, typer.Option("--user", metavar="NAME", help="The jobs that this user submitted.")
]
Label = Annotated[
    list[str] | None,
    typer.Option(
        "--label",
        "-l",
        metavar="KEY=VALUE",
        help="The jobs with this label, such as cost_centre=4711; repeatable, all must fit.",
    ),
]
Site = Annotated[
    str | None,
    typer.Option("--site", metavar="NAME", help="The whole box, if it stands at this site; refused if not."),
]
Form = Annotated[
    str | None,
    typer.Option(
        "--format",
        metavar="NAME",
        help="json (default), csv, html, pdf, markdown, codecarbon, boamps, model-card, spdx, sci, esrs, scope2, ai-act, or "
        "the name of an installed plugin's.",
        show_default=False,
    ),
]
Out = Annotated[
    Path | None, typer.Option("--output", "-o", metavar="FILE", help="Write here instead of to stdout.")
]
LedgerUrl = Annotated[
    str | None,
    typer.Option(
        "--ledger",
        metavar="URL|FILE",
        callback=ledger_url,
        help="Read this ledger yourself instead of asking the daemon: no daemon is needed.",
    ),
]
ConfigFile = Annotated[
    Path | None,
    typer.Option(
        "--config",
        metavar="FILE",
        help="With --ledger: whose statements reports hold (accounting, contracts, base_models).",
    ),
]


def report(
    ctx: typer.Context,
    job: Job = None,
    start: Start = None,
    end: End = None,
    user: User = None,
    label: Label = None,
    site: Site = None,
    form: Form = None,
    out: Out = None,
    ledger: LedgerUrl = None,
    config: ConfigFile = None,
    json: Json = False,
    socket: Socket = None,
    debug: Debug = False,
) -> None:
    """Report energy and emissions of one job, of the jobs of a user or a label, or of the whole box over a period.

    csv has a row per interval of the ledger; html and pdf are for people, markdown for a wiki; codecarbon is its
    emissions.csv, boamps Boavizta's JSON, spdx an AI package; sci, esrs, scope2 and ai-act are tables of data points;
    model-card goes with the model of one job.
    """
    from carbonsched.errors import InputError, UnreachableError

    asked = _query(job, (start, end), user, tuple(label or ()), site)
    if json and form not in (None, "json"):
        raise InputError("--format", f"{form} and --json exclude each other", "leave one away")
    if form == _PDF and out is None and sys.stdout.isatty():
        raise InputError("--format", "pdf is no text for a terminal", "give --output FILE")
    if ledger is not None:
        _write(_read(ledger, config, asked, form), form, out)
        return
    if config is not None:
        raise InputError("--config", "goes with --ledger: a daemon has its own", "name the ledger, too")
    try:
        text = connect(ctx).report(asked, "html" if form == _PDF else form or "json")
    except UnreachableError:
        from carbonsched.report import find

        if form != _PDF:
            find(form or "json")  # a wrong name is reported whether or not a daemon runs
        raise
    _write(text, form, out)


def _read(url: str, config: Path | None, asked: "ReportQuery", form: str | None) -> str:
    """The report of a ledger, which is only read."""
    from carbonsched.cli.ledger_file import opened
    from carbonsched.clock import SystemClock
    from carbonsched.config import load
    from carbonsched.report.from_ledger import pieces

    stated = None if config is None else load(config).stated
    with opened(url, read_only=True) as ledger, _of_ledger(asked.job):
        found = pieces(ledger, asked, "html" if form == _PDF else form or "json", SystemClock().now(), stated)
        return "".join(found)


@contextmanager
def _of_ledger(job: str | None) -> Iterator[None]:
    """Explains errors about a job without a daemon, whose `ps` would list it."""
    from carbonsched.errors import InputError, NotFoundError

    try:
        yield
    except NotFoundError as e:
        hint = "give a whole id; a report over time (--from 2026-01-01 --format csv) has them in its column job_id"
        raise InputError("--job", f"the ledger has no job {job}", hint) from e


def _query(
    job: str | None,
    times: tuple[str | None, str | None],
    user: str | None,
    labels: tuple[str, ...],
    site: str | None,
) -> "ReportQuery":
    """The query of the flags. Raises InputError that names the flag."""
    from carbonsched.errors import InputError
    from carbonsched.model.base import parse_time
    from carbonsched.model.views import ReportQuery

    for flag, values in (("--job", (job,)), ("--user", (user,)), ("--label", labels), ("--site", (site,))):
        if any(value is not None and not value.strip() for value in values):
            raise InputError(flag, "is empty", "give one; carbonsched ps lists jobs and owners")
    start, end = parse_time("--from", times[0]), parse_time("--to", times[1])
    some = user is not None or bool(labels) or site is not None
    if job is not None and (start is not None or end is not None or some):
        with_what = "a time" if start is not None or end is not None else "--user, --label and --site"
        raise InputError(
            "--job", f"and {with_what} exclude each other: a job's report is whole", "leave one away"
        )
    if job is None and start is None and end is None and not some:
        raise InputError("--job", "say which job, or which time", "give --job ID, or --from TIME")
    if job is None and start is None and end is not None and not some:
        raise InputError("--from", "is missing", "give --from TIME with --to")
    if start is not None and end is not None and end <= start:
        raise InputError("--to", f"{times[1]} is not after --from", "give a later time")
    if start is not None and end is None and start >= datetime.now(UTC):
        raise InputError(
            "--from", f"{times[0]} is to come, and the report ends now", "give a time that is past"
        )
    return ReportQuery(job=job, start=start, end=end, user=user, labels=labels, site=site)


def _write(text: str, form: str | None, out: Path | None) -> None:
    from carbonsched.errors import InputError

    if form == _PDF:
        from carbonsched.report.pdf import pdf

        data = pdf(text)
    else:
        data = (text if text.endswith("\n") else f"{text}\n").encode()
    if out is None:
        sys.stdout.flush()
        if form == _PDF:
            sys.stdout.buffer.write(data)
        else:
            sys.stdout.write(data.decode())
        return
    try:
        out.write_bytes(data)
    except OSError as e:
        raise InputError("--output", f"{out} cannot be written: {e.strerror}", "choose another file") from e
    print(f"written to {out}", file=sys.stderr)
