"""The daemon's API from the other side: HTTP over its Unix socket, answers as documents, errors as ours."""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Self, TypeVar
from urllib.parse import quote

import httpx

from carbonsched.errors import CarbonschedError, UnreachableError
from carbonsched.model.base import Doc
from carbonsched.model.grid import GridView
from carbonsched.model.job import JobSpec
from carbonsched.model.view import Acted, AuditResult, JobDetail, JobList, Problem, Submitted, Version

TIMEOUT_S = 30.0
SLOW_TIMEOUT_S = 600.0
"""Reports and audits read the whole ledger."""

D = TypeVar("D", bound=Doc)


class RemoteError(CarbonschedError):
    """What the daemon answered instead of doing it, with the exit code it gave."""

    def __init__(self, problem: Problem) -> None:
        super().__init__(problem.error)
        self.exit_code = problem.exit_code


@dataclass(frozen=True, slots=True)
class LogChunk:
    data: bytes
    offset: int
    next_offset: int
    size: int


class Client:
    """One connection to one daemon. Every method raises UnreachableError or RemoteError."""

    def __init__(self, socket: Path) -> None:
        self.socket = socket
        # verify: no TLS on a Unix socket, and loading certificates takes longer than the whole request
        transport = httpx.HTTPTransport(uds=str(socket), verify=False)
        self._http = httpx.Client(
            transport=transport, base_url="http://carbonsched", timeout=TIMEOUT_S, trust_env=False
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exc: object) -> None:
        self._http.close()

    def submit(self, spec: JobSpec) -> Submitted:
        return self._doc(Submitted, "POST", "/v1/jobs", json={"spec": spec.dump()})

    def jobs(self) -> JobList:
        return self._doc(JobList, "GET", "/v1/jobs")

    def show(self, job_id: str) -> JobDetail:
        return self._doc(JobDetail, "GET", _job(job_id))

    def act(self, job_id: str, verb: Literal["cancel", "pause", "resume"]) -> Acted:
        return self._doc(Acted, "POST", f"{_job(job_id)}/{verb}")

    def log(self, job_id: str, offset: int) -> LogChunk:
        """Bytes from `offset` (negative: from the end); as many as the daemon gives at a time."""
        answer = self._send("GET", f"{_job(job_id)}/log", params={"offset": offset})
        start, after, size = (int(answer.headers[h]) for h in ("X-Offset", "X-Next-Offset", "X-Size"))
        return LogChunk(answer.content, start, after, size)

    def grid(self, forecast_h: float) -> GridView:
        return self._doc(GridView, "GET", "/v1/grid", params={"forecast_h": forecast_h})

    def report(self, job_id: str | None, start: str | None, end: str | None, form: str) -> str:
        asked = {"job": job_id, "start": start, "end": end, "format": form}
        params = {name: value for name, value in asked.items() if value is not None}
        return self._send("GET", "/v1/report", params=params, timeout=SLOW_TIMEOUT_S).text

    def audit(self) -> AuditResult:
        return self._doc(AuditResult, "GET", "/v1/audit", timeout=SLOW_TIMEOUT_S)

    def version(self) -> Version:
        return self._doc(Version, "GET", "/v1/version")

    def _doc(self, model: type[D], method: str, path: str, **how: Any) -> D:
        answer = self._send(method, path, **how)
        try:
            return model.model_validate_json(answer.content)
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
        json: object = None,
        params: Mapping[str, str | float] | None = None,
        timeout: float = TIMEOUT_S,
    ) -> httpx.Response:
        try:
            answer = self._http.request(method, path, json=json, params=params, timeout=timeout)
        except httpx.TimeoutException as e:
            raise UnreachableError(
                f"the daemon at {self.socket} did not answer within {timeout:g} s; look into its log"
            ) from e
        except httpx.TransportError as e:
            raise self._unreachable() from e
        if answer.is_success:
            return answer
        try:
            problem = Problem.model_validate_json(answer.content)
        except ValueError:
            problem = Problem(error=f"{self.socket} answered {answer.status_code} to {path}", exit_code=1)
        raise RemoteError(problem)

    def _unreachable(self) -> UnreachableError:
        if not self.socket.exists():
            why, mend = "no daemon there", "start it: carbonsched daemon --config FILE, or name its --socket"
        elif not os.access(self.socket, os.R_OK | os.W_OK):
            why, mend = "you may not open it", "join the socket's group or ask its owner"
        else:
            why, mend = "nobody answers", "start it: carbonsched daemon --config FILE"
        return UnreachableError(f"the daemon is not reachable at {self.socket}: {why}; {mend}")


def _job(job_id: str) -> str:
    return f"/v1/jobs/{quote(job_id, safe='')}"
