"""`carbonsched wait ID`: wait until a job has ended, through restarts of the daemon."""

import sys
import time
from typing import TYPE_CHECKING

import typer

from carbonsched.cli import standard_streams
from carbonsched.cli.options import Debug, JobId, Json, Socket, connect
from carbonsched.text import one_line

if TYPE_CHECKING:
    from carbonsched.cli.client import Client
    from carbonsched.cli.progress import Progress
    from carbonsched.model.views import JobDetail

EXIT_CODES = {"finished": 0, "failed": 4, "cancelled": 5, "stopped": 6}
POLL_S = 0.5
PATIENCE_S = 300.0
"""Longest absence of the daemon (a restart, an upgrade) before waiting ends with exit code 3."""


def wait(
    ctx: typer.Context, job: JobId, json: Json = False, socket: Socket = None, debug: Debug = False
) -> None:
    """Wait until a job has ended, and show its progress.

    Exit code: 0 finished, 4 failed, 5 cancelled, 6 stopped on budget. Ctrl-C ends the waiting, not the job. If the daemon
    restarts meanwhile, the command waits for it, up to five minutes.
    """
    raise typer.Exit(follow(connect(ctx), job, json))


def follow(client: "Client", job_id: str, json: bool) -> int:
    """Wait and show the progress; print the outcome and return its exit code."""
    from carbonsched.cli.output import as_json
    from carbonsched.cli.progress import progress
    from carbonsched.model.views import Acted

    terminal = sys.stdout.isatty()
    try:
        with progress(json=json, terminal=terminal) as shown:
            job = until_ended(client, job_id, shown)
    except KeyboardInterrupt:
        print(f"carbonsched: job {job_id} goes on; carbonsched wait {job_id}", file=sys.stderr)
        raise
    if json:
        said = Acted(id=job.id, state=job.state, reason=job.reason, output=job.output)
        standard_streams.say(as_json(said))
    else:
        if terminal:
            standard_streams.say(one_line(f"{job.id} {job.state}: {job.reason.removeprefix('stop: ')}"))
        if job.output:
            standard_streams.say(one_line(f"the model is in {job.output}"))
    return EXIT_CODES[job.state]


def until_ended(client: "Client", job_id: str, shown: "Progress") -> "JobDetail":
    """Poll until the job has ended. Raises UnreachableError at once if the daemon never answered, else after
    `PATIENCE_S` of silence."""
    from carbonsched.errors import UnreachableError

    last_answer: float | None = None
    while True:
        try:
            job = client.show(job_id)
            shown.update(job, client.grid(0).now)
        except UnreachableError as e:
            if last_answer is None or time.monotonic() - last_answer > PATIENCE_S:
                raise
            shown.trouble(f"{e} (the job goes on; waiting for the daemon)")
        else:
            last_answer = time.monotonic()
            if job.state.ended:
                return job
        time.sleep(POLL_S)
