"""`carbonsched rm | prune`: delete the folders of ended jobs; their ledger rows stay."""

import os
import pwd
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Annotated

import typer

from carbonsched.cli.actions import each
from carbonsched.cli.options import Debug, JobIds, Json, Socket, connect
from carbonsched.text import one_line

if TYPE_CHECKING:
    from carbonsched.cli.client import Client
    from carbonsched.model.upkeep import Removed
    from carbonsched.model.views import JobView

_MOST_S = 100 * 365 * 86_400.0
"""Nothing ended a century ago."""
States = Annotated[
    list[str] | None,
    typer.Option(
        "--state",
        metavar="STATE",
        help="Jobs that ended so; repeatable. Default: finished and cancelled.",
        show_default=False,
    ),
]


def rm(
    ctx: typer.Context, jobs: JobIds, json: Json = False, socket: Socket = None, debug: Debug = False
) -> None:
    """Delete the folders of ended jobs: model, checkpoints, log. `ps` no longer lists them; reports still count them.

    Only for a job's owner, an admin, root, and the user that the daemon runs as.
    """
    from carbonsched.cli.output import emit
    from carbonsched.model.upkeep import RemovedList

    done, code = _remove(connect(ctx), jobs, quiet=json)
    if json and done:
        emit(done[0] if len(jobs) == 1 else RemovedList(jobs=tuple(done)))
    if code:
        raise typer.Exit(code)


def prune(
    ctx: typer.Context,
    older_than: Annotated[
        str, typer.Option("--older-than", metavar="DURATION", help="Jobs that ended longer ago, such as 30d.")
    ],
    states: States = None,
    owner: Annotated[
        str | None,
        typer.Option(
            metavar="USER", help="Of this user; `*`: of everybody. Default: your own.", show_default=False
        ),
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say which, and remove nothing.")] = False,
    json: Json = False,
    socket: Socket = None,
    debug: Debug = False,
) -> None:
    """Delete the folders of jobs that ended long ago, as `rm` does. The daemon does this itself if `retention` is in its config."""
    from carbonsched.cli.output import emit
    from carbonsched.model.upkeep import Removed, RemovedList

    before = datetime.now(UTC) - timedelta(seconds=min(_seconds(older_than), _MOST_S))
    client, wanted = connect(ctx), _states(states)
    of = owner or pwd.getpwuid(os.getuid()).pw_name
    old = [
        job for job in client.jobs(every=True).jobs if of in ("*", job.owner) and _ended(job, wanted, before)
    ]
    ids, code = [job.id for job in old], 0
    if dry_run:
        done = [Removed(id=job_id, freed_bytes=None) for job_id in ids]
        for job in () if json else old:
            print(one_line(f"{job.id} {job.state}, of {job.owner}: would be removed"))
    else:
        done, code = _remove(client, ids, quiet=json)
    if json:
        emit(RemovedList(jobs=tuple(done), dry_run=dry_run))
    elif not ids:
        print("no such jobs")
    if code:
        raise typer.Exit(code)


def _remove(client: "Client", jobs: list[str], *, quiet: bool) -> tuple[list["Removed"], int]:
    return each(jobs, client.remove, None if quiet else _outcome)


def _outcome(removed: "Removed") -> str:
    from carbonsched import text

    freed = text.figure((removed.freed_bytes or 0) / 1e6)
    return f"{removed.id} removed: {freed} MB freed, its rows in the ledger stay"


def _ended(job: "JobView", states: set[str], before: datetime) -> bool:
    return job.state in states and job.ended_at is not None and job.ended_at < before


def _seconds(given: str) -> float:
    from carbonsched.errors import InputError
    from carbonsched.units import seconds

    try:
        return seconds(given)
    except ValueError as e:
        raise InputError("--older-than", f"{given!r} is no duration", "write it like 30d or 12h") from e


def _states(given: list[str] | None) -> set[str]:
    from carbonsched.errors import InputError
    from carbonsched.model.job_state import JobState

    over = [str(state) for state in JobState if state.ended]
    for state in given or ():
        if state not in over:
            raise InputError("--state", f"{state!r} is not how a job ends", f"use one of {', '.join(over)}")
    return set(given or (JobState.FINISHED, JobState.CANCELLED))
