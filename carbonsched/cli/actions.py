"""`carbonsched cancel | pause | resume`: end jobs, pause them, or queue them again; `hold` and `release` are slurm's names of the last two."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Literal, TypeVar

import typer

from carbonsched.cli.options import Debug, JobIds, Json, Socket, connect
from carbonsched.text import one_line

if TYPE_CHECKING:
    from carbonsched.model.views import Acted

_T = TypeVar("_T")


def cancel(
    ctx: typer.Context, jobs: JobIds, json: Json = False, socket: Socket = None, debug: Debug = False
) -> None:
    """End jobs permanently. Their results so far stay in their directories.

    Only for a job's owner, root, and the user the daemon runs as.
    """
    _act(ctx, jobs, "cancel", json)


def pause(
    ctx: typer.Context, jobs: JobIds, json: Json = False, socket: Socket = None, debug: Debug = False
) -> None:
    """Let jobs checkpoint and wait for `resume`. Their deadlines keep running.

    Only for a job's owner, root, and the user the daemon runs as.
    """
    _act(ctx, jobs, "pause", json)


def resume(
    ctx: typer.Context, jobs: JobIds, json: Json = False, socket: Socket = None, debug: Debug = False
) -> None:
    """Queue paused, failed or stopped jobs again, each from its last checkpoint.

    Only for a job's owner, root, and the user the daemon runs as.
    """
    _act(ctx, jobs, "resume", json)


def hold(
    ctx: typer.Context, jobs: JobIds, json: Json = False, socket: Socket = None, debug: Debug = False
) -> None:
    """Keep queued jobs from starting until `release`. It is another name of `pause`, so it pauses a running job.

    Only for a job's owner, root, and the user the daemon runs as.
    """
    _act(ctx, jobs, "pause", json)


def release(
    ctx: typer.Context, jobs: JobIds, json: Json = False, socket: Socket = None, debug: Debug = False
) -> None:
    """Let held jobs start. It is another name of `resume`.

    Only for a job's owner, root, and the user the daemon runs as.
    """
    _act(ctx, jobs, "resume", json)


def _outcome(acted: "Acted") -> str:
    """The job's state, or its next one once its process has made a checkpoint and ended."""
    from carbonsched.model.job_state import JobState

    told = acted.reason.partition(" by ")[0]
    before = told in (JobState.PAUSED, JobState.CANCELLED) and told != acted.state
    return f"{acted.state}, to be {acted.reason}" if before else f"{acted.state}: {acted.reason}"


def _act(ctx: typer.Context, jobs: list[str], verb: Literal["cancel", "pause", "resume"], json: bool) -> None:
    from carbonsched.cli.output import emit
    from carbonsched.model.views import ActedList

    client = connect(ctx)

    def say(acted: "Acted") -> str:
        return f"{acted.id} {_outcome(acted)}"

    done, code = each(jobs, lambda job: client.act(job, verb), None if json else say)
    if json:
        emit(done[0] if len(jobs) == 1 else ActedList(jobs=tuple(done)))
    if code:
        raise typer.Exit(code)


def each(jobs: list[str], do: Callable[[str], _T], say: Callable[[_T], str] | None) -> tuple[list[_T], int]:
    """(results, the worst exit code of a job that refused): if one of several jobs refuses, the others are still done.

    say: text to print for each; None: print nothing. Raises CarbonschedError if there is one job, or no daemon.
    """
    from carbonsched.cli.output import complain
    from carbonsched.errors import CarbonschedError, UnreachableError

    done: list[_T] = []
    code = 0
    for job in dict.fromkeys(jobs):
        try:
            done.append(do(job))
        except UnreachableError:
            raise
        except CarbonschedError as e:
            if len(jobs) == 1:
                raise
            complain(e)
            code = max(code, e.exit_code)
        else:
            if say is not None:
                print(one_line(say(done[-1])))
    return done, code
