"""The routes under /v1. Each is one call of the `Service`, and every error is returned as one JSON `ErrorBody`.

Handlers are plain `def`: they wait for locks and disks, so they run in a small pool of threads beside the event loop.
"""

import contextlib
import itertools
import logging
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Annotated, Any, TypeVar

import anyio.to_thread
from fastapi import Body, Depends, FastAPI, Query, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import StreamingResponse
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from carbonsched.api.logs import offset_since, read_chunk
from carbonsched.api.request_limit import RequestLimit
from carbonsched.api.service import Service
from carbonsched.api.tcp import TcpGate, Token
from carbonsched.errors import (
    CarbonschedError,
    DeniedError,
    FeedError,
    InputError,
    NotFoundError,
    StateError,
    UnreachableError,
)
from carbonsched.model.audit import AuditProgress, AuditResult
from carbonsched.model.base import Doc, Grams, parse_time
from carbonsched.model.command import RunEnd, RunRequest, RunStarted, RunStatus, RunTotal
from carbonsched.model.error_words import first_words, key_path
from carbonsched.model.grid import GridView
from carbonsched.model.imported import ImportBody, Imported
from carbonsched.model.job import JobSpec
from carbonsched.model.pools import PoolList
from carbonsched.model.profile import CheckResult
from carbonsched.model.strict_types import check_types
from carbonsched.model.upkeep import DrainBody, Drained, Removed
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
from carbonsched.supervisor.access import Caller
from carbonsched.text import one_line

logger = logging.getLogger(__name__)

THREADS = 8
"""Slow requests are limited (`carbonsched.api.request_limit`), so that others are answered meanwhile: an operator can cancel and drain."""
BODY_BYTES = 1024 * 1024
"""A job spec takes a few kilobytes."""
IMPORT_BYTES = 64 * BODY_BYTES
"""The log of many runs takes more."""
FORECAST_HOURS = 24.0
METRICS_TYPE = "text/plain; version=0.0.4; charset=utf-8"
"""Prometheus's text exposition format."""

_D = TypeVar("_D", bound=Doc)
_STATUS: tuple[tuple[type[CarbonschedError], int], ...] = (
    (InputError, 400),
    (NotFoundError, 404),
    (StateError, 409),
    (DeniedError, 403),
    (FeedError, 503),
    (UnreachableError, 503),
    (CarbonschedError, 500),
)


class SubmitBody(Doc):
    """Body of POST /v1/jobs and POST /v1/explain.

    Example:
        >>> SubmitBody.parse({"spec": {}})
        Traceback (most recent call last):
        carbonsched.errors.InputError: spec.name: is missing; add it
    """

    spec: JobSpec
    checked: CheckResult | None = None
    """The result of `python -m trainer check`; `explain` needs it, and the pool uses it for a pool's job."""


class BudgetBody(Doc):
    """Body of POST /v1/jobs/{job_id}/budget.

    Example:
        >>> BudgetBody.parse({"grams": 150}).grams
        150.0
    """

    grams: Grams
    """Total CO2e that the job may emit, including grams already spent."""


def create_app(service: Service, token: Token | None = None) -> FastAPI:
    """The ASGI application; `carbonsched.api.server` puts the caller into `request.state.caller`."""
    app = FastAPI(
        title="carbonsched",
        openapi_url=None,  # a route like all others: `openapi`
        docs_url=None,
        redoc_url=None,
        lifespan=_lifespan,
        dependencies=[Depends(_allowed(service))],
    )
    app.add_middleware(_BodyLimit, service=service)
    app.add_middleware(TcpGate, token=token)
    _errors(app)
    app.state.service = service
    slow = Depends(_in_turn("reports, audits, explanations and imports"))
    _submission_routes(app, service, slow)
    _job_routes(app, service)
    _run_routes(app, service)
    _ledger_routes(app, service, slow)
    _box_routes(app, service)
    return app


def _read(kind: type[_D], body: Any) -> _D:
    """The document, its types taken by their word as in a file. Raises InputError."""
    doc = kind.parse(body)
    check_types(doc, body, points=True)
    return doc


def _in_turn(what: str) -> Callable[[Caller], AsyncIterator[None]]:
    """A dependency that limits the number of requests that run at a time."""
    limit = RequestLimit(what)

    async def turn(actor: Actor) -> AsyncIterator[None]:
        async with limit.place(actor.uid):
            yield

    return turn


def _submission_routes(app: FastAPI, service: Service, slow: Any) -> None:
    @app.post(
        "/v1/jobs",
        status_code=201,
        response_model=Submitted,
        dependencies=[Depends(_in_turn("submissions"))],
    )
    def submit(body: Annotated[Any, Body()], owner: Actor) -> Response:
        asked = _read(SubmitBody, body)
        done = service.submit(asked.spec, owner.owner, asked.checked)
        # as it is: FastAPI would check it and write it in two more threads, and a sweep submits hundreds
        return Response(done.model_dump_json(), 201, media_type="application/json")

    @app.get("/v1/submitted")
    def submitted(actor: Actor, dedupe_key: str) -> Submitted:
        return service.submitted(dedupe_key, actor)

    @app.post("/v1/explain", dependencies=[slow])
    def explain(body: Annotated[Any, Body()], owner: Actor) -> Explained:
        asked = _read(SubmitBody, body)
        if asked.checked is None:
            raise InputError("checked", "is missing", "give what `python -m trainer check SPEC --json` says")
        return service.explain(asked.spec, owner.owner, asked.checked)


def _job_routes(app: FastAPI, service: Service) -> None:
    @app.get("/v1/jobs", response_model=JobList)
    def jobs(actor: Actor, every: Annotated[bool, Query(alias="all")] = False) -> Response:
        # passed on as written: FastAPI would parse each of thousands of jobs first
        return _streamed(service.job_list(actor, every), "application/json")

    @app.get("/v1/jobs/{job_id}")
    def show(job: JobId, actor: Actor) -> JobDetail:
        return service.show(job, actor)

    @app.post("/v1/jobs/{job_id}/cancel")
    def cancel(job: JobId, actor: Actor) -> Acted:
        return service.cancel(job, actor)

    @app.post("/v1/jobs/{job_id}/pause")
    def pause(job: JobId, actor: Actor) -> Acted:
        return service.pause(job, actor)

    @app.post("/v1/jobs/{job_id}/resume")
    def resume(job: JobId, actor: Actor) -> Acted:
        return service.resume(job, actor)

    @app.post("/v1/jobs/{job_id}/remove")
    def remove(job: JobId, actor: Actor) -> Removed:
        return service.remove(job, actor)

    @app.post("/v1/jobs/{job_id}/budget")
    def budget(job: JobId, body: Annotated[Any, Body()], actor: Actor) -> Budgeted:
        return service.budget(job, _read(BudgetBody, body).grams, actor)

    @app.get("/v1/jobs/{job_id}/log", response_class=Response)
    def log(job: JobId, actor: Actor, offset: int = 0, since: str | None = None) -> Response:
        path, at = service.log_path(job, actor), parse_time("since", since)
        if at is not None:
            offset = offset_since(path, at.timestamp())
        chunk = read_chunk(path, offset)
        headers = {
            "X-Offset": str(chunk.offset),
            "X-Next-Offset": str(chunk.next_offset),
            "X-Size": str(chunk.size),
        }
        return Response(chunk.data, media_type="application/octet-stream", headers=headers)


def _run_routes(app: FastAPI, service: Service) -> None:
    @app.post("/v1/runs", status_code=201)
    def begin_run(body: Annotated[Any, Body()], owner: Actor) -> RunStarted:
        return service.begin_run(_read(RunRequest, body), owner.owner)

    @app.get("/v1/runs/{job_id}")
    def run_status(job: JobId, actor: Actor) -> RunStatus:
        return service.run_status(job, actor)

    @app.post("/v1/runs/{job_id}/end")
    def end_run(job: JobId, body: Annotated[Any, Body()], actor: Actor) -> RunTotal:
        return service.end_run(job, _read(RunEnd, body), actor)


def _ledger_routes(app: FastAPI, service: Service, slow: Any) -> None:
    @app.get("/v1/report", response_class=Response, dependencies=[slow])
    def report(
        actor: Actor,
        job: str | None = None,
        start: str | None = None,
        end: str | None = None,
        user: str | None = None,
        label: Annotated[tuple[str, ...], Query()] = (),
        site: str | None = None,
        form: Annotated[str, Query(alias="format")] = "json",
    ) -> Response:
        if job is None and start is None and user is None and not label and site is None:
            raise InputError("report", "says neither which job nor when", "give job, or start")
        if job is not None and (user is not None or label or site is not None):
            raise InputError("job", "goes with no user, label or site", "leave one away")
        asked = ReportQuery(
            job=None if job is None else service.resolve(job, actor),
            start=parse_time("start", start),
            end=parse_time("end", end),
            user=user,
            labels=label,
            site=site,
        )
        return _streamed(*service.render_report(asked, form, actor))

    @app.post("/v1/imports", dependencies=[slow])
    def import_log(body: Annotated[Any, Body()], actor: Actor) -> Imported:
        return service.import_log(_read(ImportBody, body), actor)

    @app.get("/v1/audit", dependencies=[slow])
    def audit() -> AuditResult:
        return service.audit()

    @app.get("/v1/audit/progress")
    def audit_progress() -> AuditProgress:
        return service.audit_progress()


def _box_routes(app: FastAPI, service: Service) -> None:
    @app.post("/v1/drain")
    def drain(body: Annotated[Any, Body()], actor: Actor) -> Drained:
        return service.drain(_read(DrainBody, body).reason, actor)

    @app.get("/v1/drain")
    def drained() -> Drained:
        return service.drained()

    @app.post("/v1/undrain")
    def undrain(actor: Actor) -> Drained:
        return service.undrain(actor)

    @app.get("/v1/grid")
    def grid(forecast_h: Annotated[float, Query(ge=0, le=336)] = FORECAST_HOURS) -> GridView:
        return service.grid(forecast_h)

    @app.get("/v1/pools")
    def pools(actor: Actor) -> PoolList:
        return service.pools(actor)

    @app.get("/v1/version")
    def version() -> Version:
        return service.version()

    @app.get("/metrics", response_class=Response)
    def metrics(actor: Actor) -> Response:
        return Response(service.metrics(actor), headers={"Content-Type": METRICS_TYPE})

    @app.get("/v1/openapi.json", include_in_schema=False)
    def openapi() -> dict[str, Any]:
        return app.openapi()  # built at the first request


def _streamed(pieces: Iterator[str], media_type: str) -> Response:
    """The first piece is made before the response begins: its errors can still be returned as an ErrorBody."""
    first = next(pieces, "")
    return StreamingResponse(itertools.chain([first], pieces), media_type=media_type)


async def _actor(request: Request) -> Caller:
    """Asynchronous: FastAPI would ask it in another thread otherwise, at each request."""
    return _caller(request)


def _caller(request: Request) -> Caller:
    """The user at the other end of the socket. A user unknown to the box is named by number."""
    caller = getattr(request.state, "caller", None)
    if caller is None:
        raise HTTPException(403, "this connection carries no peer credentials; use the Unix socket")
    return caller  # type: ignore[no-any-return]


def _allowed(service: Service) -> Callable[[Request, Caller], None]:
    """Checked before a route runs and before any other error is reported: a route's name is its operation."""

    def allowed(request: Request, actor: Actor) -> None:
        service.allow(request.scope["route"].name, actor)

    return allowed


Actor = Annotated[Caller, Depends(_actor)]


def _resolved(job_id: str, actor: Actor, request: Request) -> str:
    service: Service = request.app.state.service
    return service.resolve(job_id, actor)


JobId = Annotated[str, Depends(_resolved)]
"""The job in a path: its id, the first letters of its id or its name, resolved to its id."""


@contextlib.asynccontextmanager
async def _lifespan(_app: FastAPI) -> AsyncIterator[None]:
    anyio.to_thread.current_default_thread_limiter().total_tokens = THREADS
    yield


def _problem(status: int, error: str, exit_code: int) -> Response:
    # it may quote the request, whose control characters would affect the reader's terminal
    problem = ErrorBody(error=one_line(error), exit_code=exit_code)
    return Response(problem.model_dump_json(), status_code=status, media_type="application/json")


def _errors(app: FastAPI) -> None:
    @app.exception_handler(CarbonschedError)
    def ours(_request: Request, error: CarbonschedError) -> Response:
        status = next(status for kind, status in _STATUS if isinstance(error, kind))
        return _problem(status, str(error), error.exit_code)

    @app.exception_handler(RequestValidationError)
    def validation(_request: Request, error: RequestValidationError) -> Response:
        errors = list(error.errors())
        where = key_path(errors[0]["loc"][1:]) or "body"
        return _problem(400, f"{where}: {first_words(errors)}", InputError.exit_code)

    @app.exception_handler(HTTPException)
    def http(_request: Request, error: HTTPException) -> Response:
        return _problem(error.status_code, str(error.detail), 1 if error.status_code == 403 else 2)

    @app.exception_handler(Exception)
    def unexpected(request: Request, error: Exception) -> Response:
        logger.error("%s %s failed", request.method, request.url.path, exc_info=error)
        return _problem(500, f"internal error ({type(error).__name__}); the daemon's log has the details", 1)


class _BodyLimit:
    """Refuses bodies larger than any job spec before they fill the daemon's memory."""

    def __init__(self, app: ASGIApp, service: Service) -> None:
        self.app, self.service = app, service

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        seen, most = 0, BODY_BYTES

        async def limited() -> Message:
            nonlocal seen, most
            message = await receive()
            seen += len(message.get("body", b""))
            if seen > most and most < IMPORT_BYTES and scope.get("path") == "/v1/imports":
                await anyio.to_thread.run_sync(self._check_importer, scope)
                most = IMPORT_BYTES
            if seen > most:
                raise HTTPException(413, f"the body is larger than {most} bytes")
            return message

        await self.app(scope, limited if scope["type"] == "http" else receive, send)

    def _check_importer(self, scope: Scope) -> None:
        """Routes check permissions only after a body is read."""
        try:
            self.service.allow("import_log", _caller(Request(scope)))
        except DeniedError as e:
            raise HTTPException(403, str(e)) from e
