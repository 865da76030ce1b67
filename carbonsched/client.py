"""The daemon from Python, for notebooks and scripts: `from carbonsched import Client`.

Every answer is the document that the command prints with --json, as a typed object; every error is one of `carbonsched.errors`, in
the words of the command.
"""

import os
import time
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from carbonsched.address import socket_path
from carbonsched.cli.client import Client as _HttpClient
from carbonsched.cli.trainer_check import check
from carbonsched.errors import InputError, StateError
from carbonsched.model.base import parse_time, rfc3339
from carbonsched.model.grid import GridView
from carbonsched.model.job import JobSpec
from carbonsched.model.job_file import job_of, read_job
from carbonsched.model.pools import PoolView
from carbonsched.model.upkeep import Drained, Removed
from carbonsched.model.views import (
    Acted,
    Budgeted,
    Explained,
    JobDetail,
    JobView,
    ReportQuery,
    Submitted,
    Version,
)

Job = JobSpec | Mapping[str, Any] | str | os.PathLike[str]
"""A job: its file, what its file would say, or the same as a checked object."""
POLL_S = 0.5


class Client:
    """Asks one daemon, as the user who runs this. Every call is a connection of its own: use one from any thread.

    Example:
        >>> Client("/no/such.sock").version()
        Traceback (most recent call last):
        carbonsched.errors.UnreachableError: the daemon is not reachable at /no/such.sock: no daemon there; start it: ...
    """

    def __init__(self, socket: str | os.PathLike[str] | None = None) -> None:
        """socket: the daemon's. None: $CARBONSCHED_SOCKET, $XDG_RUNTIME_DIR/carbonsched/api.sock, or the one in /run."""
        self._http = _HttpClient(socket_path(None if socket is None else os.fspath(socket)))

    def __repr__(self) -> str:
        return f"Client({str(self._http.socket)!r})"

    def submit(self, job: Job) -> Submitted:
        """Check a job as the trainer would, and queue it. Relative paths: from the file's folder, else from the working one."""
        spec = _spec(job)
        return self._http.submitted(spec) or self._http.submit(
            spec, check(spec, self.version().trainer_python)
        )

    def explain(self, job: Job) -> Explained:
        """What the job would do and cost, were it submitted now. Queues nothing."""
        spec = _spec(job)
        return self._http.explain(spec, check(spec, self.version().trainer_python))

    def jobs(self, *, every: bool = False) -> tuple[JobView, ...]:
        """Those that are not over and the 20 that ended last; every: all."""
        return self._http.jobs(every).jobs

    def show(self, job: str) -> JobDetail:
        """job: an id, the first letters of one, a name, or `latest`; here and below."""
        return self._http.show(job)

    def cancel(self, job: str) -> Acted:
        return self._http.act(job, "cancel")

    def pause(self, job: str) -> Acted:
        return self._http.act(job, "pause")

    def resume(self, job: str) -> Acted:
        return self._http.act(job, "resume")

    def budget(self, job: str, grams: float) -> Budgeted:
        """grams: that the job may emit in all, what it has spent included."""
        return self._http.budget(job, grams)

    def remove(self, job: str) -> Removed:
        """Delete the folder of a job that is over, its model and its log; what the ledger knows of it stays."""
        return self._http.remove(job)

    def wait(self, job: str, timeout_s: float | None = None) -> JobDetail:
        """Return the job once it has ended, however it ended. Raises StateError after `timeout_s`; the job goes on."""
        deadline = None if timeout_s is None else time.monotonic() + timeout_s
        job = self.show(job).id  # a name may be given to another job meanwhile
        while not (found := self.show(job)).state.ended:
            if deadline is not None and time.monotonic() >= deadline:
                raise StateError(f"job {job} is still {found.state} after {timeout_s:g} s: {found.reason}")
            time.sleep(POLL_S)
        return found

    def log(self, job: str) -> str:
        """All that is kept of what the job's process wrote."""
        return b"".join(self._pieces(self.show(job).id)).decode("utf-8", "replace")

    def _pieces(self, job: str) -> Iterator[bytes]:
        offset = 0
        while True:
            chunk = self._http.log(job, offset)
            offset = chunk.next_offset
            yield chunk.data
            if offset >= chunk.size:
                return

    def report(
        self,
        job: str | None = None,
        *,
        start: datetime | str | None = None,
        end: datetime | str | None = None,
        user: str | None = None,
        labels: Sequence[str] = (),
        form: str = "json",
    ) -> str:
        """The report of one job, of a user's or a label's (`key=value`) jobs, or of everything in [start, end), as text."""
        if job is None and start is None and user is None and not labels:
            raise InputError("report", "says neither which job nor when", "give job, or start")
        asked = ReportQuery(
            job=job,
            start=parse_time("start", _time(start)),
            end=parse_time("end", _time(end)),
            user=user,
            labels=tuple(labels),
        )
        return self._http.report(asked, form)

    def grid(self, forecast_h: float = 24.0) -> GridView:
        """The intensity now, its forecast, and how the feeds are."""
        return self._http.grid(forecast_h)

    def pools(self) -> tuple[PoolView, ...]:
        return self._http.pools().pools

    def drain(self, reason: str = "") -> Drained:
        """Have the box start no more jobs, until `undrain`; for admins. Those that run go on."""
        return self._http.drain(reason)

    def undrain(self) -> Drained:
        return self._http.undrain()

    def version(self) -> Version:
        return self._http.version()


def _spec(job: Job) -> JobSpec:
    if isinstance(job, JobSpec):
        return job
    if isinstance(job, Mapping):
        return job_of(dict(job), Path.cwd(), "")
    return read_job(Path(job))


def _time(value: datetime | str | None) -> str | None:
    if not isinstance(value, datetime):
        return value
    if value.tzinfo is None:
        raise InputError("start", f"{value} has no time zone", "give an aware datetime")
    return rfc3339(value)
