"""`carbonsched cancel | pause | resume`: end a job, pause it, or queue it again."""

from typing import Literal

import typer

from carbonsched.cli.options import Debug, JobId, Json, Socket, connect
from carbonsched.text import one_line


def cancel(
    ctx: typer.Context, job: JobId, json: Json = False, socket: Socket = None, debug: Debug = False
) -> None:
    """End a job for good. What it has trained so far stays in its directory.

    Only for the job's owner, root, and the user the daemon runs as.
    """
    _act(ctx, job, "cancel", json)


def pause(
    ctx: typer.Context, job: JobId, json: Json = False, socket: Socket = None, debug: Debug = False
) -> None:
    """Let a job checkpoint and wait until you resume it. Its deadline keeps running.

    Only for the job's owner, root, and the user the daemon runs as.
    """
    _act(ctx, job, "pause", json)


def resume(
    ctx: typer.Context, job: JobId, json: Json = False, socket: Socket = None, debug: Debug = False
) -> None:
    """Queue a paused, failed or stopped job again, from its last checkpoint.

    Only for the job's owner, root, and the user the daemon runs as.
    """
    _act(ctx, job, "resume", json)


def _act(ctx: typer.Context, job: str, verb: Literal["cancel", "pause", "resume"], json: bool) -> None:
    from carbonsched.cli.output import emit

    acted = connect(ctx).act(job, verb)
    if json:
        emit(acted)
    else:
        print(one_line(f"{acted.id} {acted.state}: {acted.reason}"))
