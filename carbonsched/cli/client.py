"""Sends requests to the daemon over HTTP on its Unix socket; responses are documents, and errors carry the daemon's exit code.

The standard library's client: it loads in a few milliseconds, uses no proxies, and says why a connection failed.
"""

import json
import socket
from collections.abc import Mapping
from dataclasses import dataclass
from email.message import Message
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from typing import Any, Literal, TypeVar
from urllib.parse import quote, urlencode

from carbonsched.errors import CarbonschedError, InputError, UnreachableError
from carbonsched.model.audit import AuditProgress, AuditResult
from carbonsched.model.base import Doc
from carbonsched.model.command import RunEnd, RunRequest, RunStarted, RunStatus, RunTotal
from carbonsched.model.grid import GridView
from carbonsched.model.imported import ImportBody, Imported
from carbonsched.model.job import ACCEPTED, JobSpec
from carbonsched.model.pools import PoolList
from carbonsched.model.profile import CheckResult
from carbonsched.model.upkeep import Drained, Removed
from carbonsched.model.views import (
    Acted,
    Budgeted,
    ErrorBody,
    Explained,
    JobDetail,
    JobList,
    ReportQuery,
    Submitted,
    Version,
)

TIMEOUT_S = 30.0
SLOW_TIMEOUT_S = 600.0
"""A report reads much of the ledger, an explanation plans the whole job several times."""
AUDIT_TIMEOUT_S = 3600.0
"""A year's ledger takes minutes, on a busy box several times as long; the progress is shown meanwhile."""

D = TypeVar("D", bound=Doc)


class RemoteError(CarbonschedError):
    """An error response of the daemon, with its exit code.

    Example:
        >>> RemoteError(ErrorBody(error="there is no job x", exit_code=2)).exit_code
        2
    """

    def __init__(self, problem: ErrorBody) -> None:
        super().__init__(problem.error)
        self.exit_code = problem.exit_code


@dataclass(frozen=True, slots=True)
class LogChunk:
    """A part of a job's log, and the offset of the next.

    Example:
        >>> LogChunk(b"step 1", offset=0, next_offset=6, size=6).data
        b'step 1'
    """

    data: bytes
    offset: int
    next_offset: int
    size: int


class UnixConnection(HTTPConnection):
    """An HTTP connection to a socket in the file system.

    Example::

        UnixConnection(Path("/run/carbonsched/api.sock"), timeout=30.0).request("GET", "/v1/version")
    """

    def __init__(self, path: Path, timeout: float) -> None:
        super().__init__("carbonsched", timeout=timeout)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(str(self._path))


@dataclass(frozen=True, slots=True)
class _Answer:
    status: int
    headers: Message
    body: bytes


class Client:
    """Sends requests to one daemon, over one connection per request. Every method raises UnreachableError or RemoteError.

    Example:
        >>> Client(Path("no-such.sock")).version()
        Traceback (most recent call last):
        carbonsched.errors.UnreachableError: the daemon is not reachable at no-such.sock: no daemon there; start it: ...
    """

    def __init__(self, socket: Path) -> None:
        self.socket = socket

    def submit(self, spec: JobSpec, checked: CheckResult) -> Submitted:
        return self._doc(Submitted, "POST", "/v1/jobs", body=_body(spec, checked))

    def submitted(self, spec: JobSpec) -> Submitted | None:
        """The job with this one's dedupe_key that a submit would return, before anything of it is checked; None: it would be queued."""
        if (key := spec.queue.dedupe_key) is None:
            return None
        try:
            return self._doc(Submitted, "GET", "/v1/submitted", params={"dedupe_key": key})
        except RemoteError:  # there is none; any other error also occurs at the submit
            return None

    def explain(self, spec: JobSpec, checked: CheckResult) -> Explained:
        return self._doc(Explained, "POST", "/v1/explain", body=_body(spec, checked), timeout=SLOW_TIMEOUT_S)

    def jobs(self, every: bool = False) -> JobList:
        return self._doc(JobList, "GET", "/v1/jobs", params={"all": str(every).lower()})

    def show(self, job_id: str) -> JobDetail:
        return self._doc(JobDetail, "GET", _job(job_id))

    def act(self, job_id: str, verb: Literal["cancel", "pause", "resume"]) -> Acted:
        return self._doc(Acted, "POST", f"{_job(job_id)}/{verb}")

    def budget(self, job_id: str, grams: float) -> Budgeted:
        return self._doc(Budgeted, "POST", f"{_job(job_id)}/budget", body={"grams": grams})

    def remove(self, job_id: str) -> Removed:
        return self._doc(Removed, "POST", f"{_job(job_id)}/remove", timeout=SLOW_TIMEOUT_S)

    def drain(self, reason: str) -> Drained:
        return self._doc(Drained, "POST", "/v1/drain", body={"reason": reason})

    def drained(self) -> Drained:
        return self._doc(Drained, "GET", "/v1/drain")

    def undrain(self) -> Drained:
        return self._doc(Drained, "POST", "/v1/undrain")

    def begin_run(self, asked: RunRequest) -> RunStarted:
        return self._doc(RunStarted, "POST", "/v1/runs", body=asked.dump())

    def run_status(self, job_id: str) -> RunStatus:
        return self._doc(RunStatus, "GET", f"/v1/runs/{quote(job_id, safe='')}")

    def end_run(self, job_id: str, told: RunEnd) -> RunTotal:
        return self._doc(RunTotal, "POST", f"/v1/runs/{quote(job_id, safe='')}/end", body=told.dump())

    def import_log(self, body: ImportBody) -> Imported:
        return self._doc(Imported, "POST", "/v1/imports", body=body.dump(), timeout=SLOW_TIMEOUT_S)

    def pools(self) -> PoolList:
        return self._doc(PoolList, "GET", "/v1/pools")

    def log(self, job_id: str, offset: int, since: str | None = None) -> LogChunk:
        """Bytes from `offset` (negative: from the end), or those written since then; as many as the daemon returns at a time."""
        params: dict[str, str | float] = {"offset": offset} if since is None else {"since": since}
        answer = self._send("GET", f"{_job(job_id)}/log", params=params)
        start, after, size = (int(answer.headers[name]) for name in ("X-Offset", "X-Next-Offset", "X-Size"))
        return LogChunk(answer.body, start, after, size)

    def grid(self, forecast_h: float) -> GridView:
        return self._doc(GridView, "GET", "/v1/grid", params={"forecast_h": forecast_h})

    def report(self, asked: ReportQuery, form: str) -> str:
        fields = asked.dump()
        fields["label"] = fields.pop("labels") or None
        params = {name: value for name, value in {**fields, "format": form}.items() if value is not None}
        return self._send("GET", "/v1/report", params=params, timeout=SLOW_TIMEOUT_S).body.decode()

    def audit(self) -> AuditResult:
        return self._doc(AuditResult, "GET", "/v1/audit", timeout=AUDIT_TIMEOUT_S)

    def audit_progress(self) -> AuditProgress:
        """Progress of the most recently requested audit."""
        return self._doc(AuditProgress, "GET", "/v1/audit/progress")

    def version(self) -> Version:
        return self._doc(Version, "GET", "/v1/version")

    def _doc(self, model: type[D], method: str, path: str, **options: Any) -> D:
        answer = self._send(method, path, **options)
        try:
            # so that a job with a method of a plugin in the daemon's environment can also be shown here
            return model.model_validate_json(answer.body, context=ACCEPTED)
        except ValueError as e:
            raise CarbonschedError(
                f"the daemon at {self.socket} answered {path} in a way this carbonsched does not know; "
                "`carbonsched version` shows both versions: use the same"
            ) from e

    def _send(
        self,
        method: str,
        path: str,
        *,
        body: object = None,
        params: Mapping[str, str | float | list[str]] | None = None,
        timeout: float = TIMEOUT_S,
    ) -> _Answer:
        answer = self._exchange(
            method, f"{path}?{urlencode(params, doseq=True)}" if params else path, body, timeout
        )
        if 200 <= answer.status < 300:
            return answer
        try:
            problem = ErrorBody.model_validate_json(answer.body)
        except ValueError:
            problem = ErrorBody(error=f"{self.socket} answered {answer.status} to {path}", exit_code=1)
        raise RemoteError(problem)

    def _exchange(self, method: str, url: str, body: object, timeout: float) -> _Answer:
        connection = UnixConnection(self.socket, timeout)
        try:
            data = None if body is None else json.dumps(body)
            headers = {"Connection": "close"}
            if data is not None:
                headers["Content-Type"] = "application/json"
            connection.request(method, url, data, headers)
            answer = connection.getresponse()
            return _Answer(answer.status, answer.headers, answer.read())
        except TimeoutError as e:
            raise UnreachableError(
                f"the daemon at {self.socket} did not answer within {timeout:g} s; look into its log"
            ) from e
        except (OSError, HTTPException) as e:
            raise self._unreachable(e) from e
        finally:
            connection.close()

    def _unreachable(self, error: Exception) -> UnreachableError:
        why, hint = "the connection broke", "see whether the daemon still runs"
        if isinstance(error, FileNotFoundError | NotADirectoryError):
            why, hint = "no daemon there", "start it: carbonsched daemon --config FILE, or name its --socket"
        elif isinstance(error, ConnectionRefusedError):
            why, hint = "nobody answers", "start it: carbonsched daemon --config FILE"
        elif isinstance(error, PermissionError):
            why, hint = "you may not open it", "join the socket's group or ask its owner"
        elif not isinstance(error, ConnectionError | HTTPException):
            why = str(error)  # e.g. a path that is too long for a socket
        return UnreachableError(f"the daemon is not reachable at {self.socket}: {why}; {hint}")


def _body(spec: JobSpec, checked: CheckResult) -> dict[str, Any]:
    return {"spec": spec.dump(), "checked": checked.dump()}


def _job(job_id: str) -> str:
    if not job_id.strip("./"):  # such a path would mean the list of all jobs, or something else
        raise InputError(
            "ID", f"{job_id!r} is no job", "give an id, the first letters of one, a name, or latest"
        )
    return f"/v1/jobs/{quote(job_id, safe='')}"
