"""`carbonsched ps`: list the jobs that have not ended and those that ended last, one line per job."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated

import typer

from carbonsched import text
from carbonsched.cli.options import Debug, Json, Socket, connect

LONG = 200
"""A list of more jobs is printed as plain lines."""

if TYPE_CHECKING:
    from rich.table import Table

    from carbonsched.model.views import JobView


def ps(
    ctx: typer.Context,
    every: Annotated[
        bool, typer.Option("--all", "-a", help="List the jobs that ended long ago, too.")
    ] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Print ids alone, one a line.")] = False,
    filters: Annotated[
        list[str] | None,
        typer.Option(
            "--filter",
            metavar="KEY=VALUE",
            help="Only those with state=…, owner=…, name=… or label=KEY[=VALUE]; repeatable.",
        ),
    ] = None,
    owner: Annotated[
        str | None, typer.Option(metavar="USER", help="Only this user's; as --filter owner=USER.")
    ] = None,
    json: Json = False,
    socket: Socket = None,
    debug: Debug = False,
) -> None:
    """List the jobs of this box: state, segment, ρ, power, grams of budget, loss, time left.

    Of ended jobs the last 20; all of them with --all or --json.

    An ID begins with the job's name. Grams marked ~ are from estimated energy; - is unknown.
    """
    from carbonsched.cli.output import LEGEND, console, emit

    wanted = _wanted([*(filters or ()), *([f"owner={owner}"] if owner else ())])
    listed = connect(ctx).jobs(every or json or bool(wanted))  # a script, or a filter, needs all of them
    if wanted:
        kept = tuple(job for job in listed.jobs if all(_meets(job, key, v) for key, v in wanted.items()))
        listed = listed.model_copy(update={"jobs": kept})
    if json:
        emit(listed)
        return
    if quiet:
        for job in listed.jobs:
            print(job.id)
        return
    if not listed.jobs and wanted:
        print("no such jobs")
        return
    if not listed.jobs:
        print("no jobs; submit one: carbonsched submit JOB.toml")
        return
    out = console()
    if len(listed.jobs) > LONG:
        print("\n".join(lines(listed.jobs, out.width)))
    else:
        out.print(table(listed.jobs, out.width))
    if any(job.estimated or job.power_w is None for job in listed.jobs):
        out.print(LEGEND, style="dim")
    if listed.drained:
        out.print(f"no job is started: {listed.drained}")
    if listed.left_out:
        out.print(
            f"{listed.left_out} that ended before are left out; carbonsched ps --all lists them", style="dim"
        )


def _wanted(filters: list[str]) -> dict[str, set[str]]:
    """The accepted values by key; several of one key are alternatives, labels must all match. Raises InputError."""
    from carbonsched.errors import InputError
    from carbonsched.model.job_state import JobState

    found: dict[str, set[str]] = {}
    for text_given in filters:
        key, equals, value = text_given.partition("=")
        if not equals or key not in ("state", "owner", "name", "label"):
            hint = "give state=…, owner=…, name=… or label=KEY=VALUE"
            raise InputError("--filter", f"{text_given!r} is no filter", hint)
        if key == "state" and value not in set(JobState):
            raise InputError("--filter", f"{value!r} is no state", f"use one of {', '.join(JobState)}")
        found.setdefault(key, set()).add(value)
    return found


def _meets(job: "JobView", key: str, values: set[str]) -> bool:
    if key == "label":
        from carbonsched.model.labels import fits

        return all(fits(job.labels, value) for value in values)
    return str(getattr(job, key)) in values


def table(jobs: "Iterable[JobView]", columns: int = 80) -> "Table":
    """One row per job, for people. columns: of the terminal; a narrow one omits columns before it wraps ids."""
    from carbonsched.cli import output as o

    rows, names = _kept(jobs, columns)
    made = o.table(*names, right=_COLUMNS[3:], wrap=("ID",))
    for row in rows:
        made.add_row(*(row[name] for name in names))
    return made


def lines(jobs: "Iterable[JobView]", columns: int = 80) -> Iterator[str]:
    """The same layout as `table`, for a long list: a thousand rows of a table take half a second."""
    rows, names = _kept(jobs, columns)
    widths = {name: max(len(name), *(len(row[name]) for row in rows)) for name in names}
    others = sum(widths[name] for name in names[1:]) + _BETWEEN * (len(names) - 1)
    widths["ID"] = max(min(widths["ID"], columns - others), 1)
    for row in (dict(zip(names, names, strict=True)), *rows):
        whole = row["ID"] or " "
        for at in range(0, len(whole), widths["ID"]):
            cells = row if at == 0 else dict.fromkeys(names, "")
            parts = [whole[at : at + widths["ID"]].ljust(widths["ID"])]
            parts += [
                cells[name].rjust(widths[name]) if name in _COLUMNS[3:] else cells[name].ljust(widths[name])
                for name in names[1:]
            ]
            yield (" " * _BETWEEN).join(parts)


def _kept(jobs: "Iterable[JobView]", columns: int) -> tuple[list[dict[str, str]], list[str]]:
    """One row per job, and the columns that fit."""
    rows = [_row(job) for job in jobs]
    left_out = _too_many([dict.fromkeys(_COLUMNS, ""), *rows], columns)
    return rows, [name for name in _COLUMNS if name not in left_out]


_COLUMNS = ("ID", "OWNER", "STATE", "SEG", "ρ", "W", "g/BUDGET", "LOSS", "LEFT")
_LEAST_NEEDED = ("OWNER", "LOSS", "W", "ρ", "SEG", "LEFT")
"""Columns that a narrow terminal omits, in this order."""
_BETWEEN = 2
"""Blanks between two columns."""


def _too_many(rows: Sequence[Mapping[str, str]], columns: int) -> set[str]:
    """The columns that do not fit."""
    widths = {name: max(len(name), *(len(row[name]) for row in rows)) for name in _COLUMNS}
    widths["ID"] = min(widths["ID"], columns // 3)  # a longer one is wrapped: the figures matter, too
    left_out: set[str] = set()
    for name in (*_LEAST_NEEDED, ""):
        kept = [width for key, width in widths.items() if key not in left_out]
        if sum(kept) + _BETWEEN * (len(kept) - 1) <= columns:
            break
        left_out.add(name)
    return left_out


def _row(job: "JobView") -> dict[str, str]:
    cells = (
        text.visible(job.id),
        text.visible(job.owner),
        job.state.value,
        text.nth(job.segment, job.segments, job.segments_over),
        text.rho(job.rho),
        text.about(job.power_w, job.estimated),
        f"{text.about(job.spent_g, job.estimated)}/{text.figure(job.budget_g)}",
        text.figure(job.loss, digits=4),
        left(job),
    )
    return dict(zip(_COLUMNS, cells, strict=True))


def left(job: "JobView") -> str:
    """The expected remaining time, or for a queued job the time until its start."""
    if job.starts_at is None:
        return text.duration(job.eta_s)
    return f"in {text.duration(until(job.starts_at))}"


def until(at: datetime) -> float:
    """Seconds from now, 0 if it is past."""
    return max((at - datetime.now(UTC)).total_seconds(), 0.0)


def starts(job: "JobView") -> str:
    """When a queued job should start and why, or why that is unknown."""
    if job.starts_at is None:
        return f"not known: {job.starts_why}"
    return f"in about {text.duration(until(job.starts_at))} (estimated), {job.starts_why}"
