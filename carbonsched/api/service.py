"""The service protocol: what the API needs of the daemon. `carbonsched.supervisor.service.SupervisorService` has it."""

from collections.abc import Iterator
from pathlib import Path
from typing import Protocol

from carbonsched.model.audit import AuditProgress, AuditResult
from carbonsched.model.command import RunEnd, RunRequest, RunStarted, RunStatus, RunTotal
from carbonsched.model.grid import GridView
from carbonsched.model.imported import ImportBody, Imported
from carbonsched.model.job import JobSpec, Owner
from carbonsched.model.pools import PoolList
from carbonsched.model.profile import CheckResult
from carbonsched.model.upkeep import Drained, Removed
from carbonsched.model.views import Acted, Budgeted, Explained, JobDetail, ReportQuery, Submitted, Version


class Service(Protocol):
    """Every method may raise a CarbonschedError; `actor` is who asked, by the socket's peer credentials.

    Show, log, report, cancel, pause, resume and budget of a job are for its owner, the admins, root and the daemon's own user:
    DeniedError for others. Called from several threads.

    Example::

        app = create_app(SupervisorService(supervisor))  # any Service will do, as tests show
    """

    def allow(self, operation: str, actor: Owner) -> None:
        """Raises DeniedError where `actor` may not ask for it of any job at all. operation: the name of its route."""

    def submit(self, spec: JobSpec, owner: Owner, checked: CheckResult | None = None) -> Submitted:
        """checked: what the trainer's check foresaw; a pool's job is weighed by it before it begins."""

    def submitted(self, dedupe_key: str, actor: Owner) -> Submitted:
        """The caller's job with this key that a submit would give instead of queueing another. Raises NotFoundError."""

    def explain(self, spec: JobSpec, owner: Owner, checked: CheckResult) -> Explained:
        """What the job would do and cost, were it submitted now. Nothing is queued."""

    def resolve(self, reference: str, actor: Owner) -> str:
        """The id of the job meant by an id, its first letters, a name or `latest`. Raises NotFoundError, InputError for several."""

    def job_list(self, actor: Owner, every: bool = False) -> Iterator[str]:
        """The JSON of a `JobList`, in pieces: the jobs that are not over and those that ended last; every: all. Of other people's only
        what everybody may see."""

    def show(self, job_id: str, actor: Owner) -> JobDetail: ...

    def remove(self, job_id: str, actor: Owner) -> Removed:
        """Delete the folder of a job that is over; its rows in the ledger stay."""

    def drain(self, reason: str, actor: Owner) -> Drained:
        """Start no more jobs, through restarts; those that run go on."""

    def drained(self) -> Drained:
        """Whether the box starts jobs, and what runs on it."""

    def undrain(self, actor: Owner) -> Drained: ...

    def begin_run(self, asked: RunRequest, actor: Owner) -> RunStarted:
        """Meter a process of the caller's from now on."""

    def run_status(self, job_id: str, actor: Owner) -> RunStatus: ...

    def end_run(self, job_id: str, told: RunEnd, actor: Owner) -> RunTotal:
        """It ended so; what it used."""

    def cancel(self, job_id: str, actor: Owner) -> Acted: ...
    def pause(self, job_id: str, actor: Owner) -> Acted: ...
    def resume(self, job_id: str, actor: Owner) -> Acted: ...

    def budget(self, job_id: str, grams: float, actor: Owner) -> Budgeted:
        """Set a job's budget, in grams in all; a job that was stopped on its budget is queued again if it was raised."""

    def import_log(self, body: ImportBody, actor: Owner) -> Imported:
        """Book what another tool measured; for admins, root and the daemon's own user."""

    def pools(self, actor: Owner) -> PoolList: ...

    def grid(self, hours: float) -> GridView:
        """Now, and the forecast for `hours` to come; 0 asks for none."""

    def log_path(self, job_id: str, actor: Owner) -> Path:
        """Where the job's log is, or will be once it has written something."""

    def render_report(self, asked: ReportQuery, form: str, actor: Owner) -> tuple[Iterator[str], str]:
        """(pieces of text, media type) of one job's report, or of everything or some jobs in [start, end).

        form: a name that `carbonsched.report.find` knows, else it raises InputError.
        """

    def metrics(self, actor: Owner) -> str:
        """In Prometheus's text format."""

    def audit(self) -> AuditResult: ...
    def audit_progress(self) -> AuditProgress: ...
    def version(self) -> Version: ...
