"""The service protocol: the operations that the API needs of the daemon. `carbonsched.supervisor.service.SupervisorService` implements it."""

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
    """Every method may raise a CarbonschedError; `actor` is the caller, by the socket's peer credentials.

    Show, log, report, cancel, pause, resume and budget of a job are allowed to its owner, the admins, root and the daemon's own user;
    others get DeniedError. Called from several threads.

    Example::

        app = create_app(SupervisorService(supervisor))  # tests use other implementations
    """

    def allow(self, operation: str, actor: Owner) -> None:
        """Raises DeniedError if `actor` may not use the operation for any job. operation: the name of its route."""

    def submit(self, spec: JobSpec, owner: Owner, checked: CheckResult | None = None) -> Submitted:
        """checked: the estimate of the trainer's check; the pool uses it for a pool's job before the job begins."""

    def submitted(self, dedupe_key: str, actor: Owner) -> Submitted:
        """The caller's job with this key that a submit would return instead of queueing another. Raises NotFoundError."""

    def explain(self, spec: JobSpec, owner: Owner, checked: CheckResult) -> Explained:
        """What the job would do and cost if it were submitted now. Nothing is queued."""

    def resolve(self, reference: str, actor: Owner) -> str:
        """The id of the job meant by an id, its first letters, a name or `latest`. Raises NotFoundError, InputError if several match."""

    def job_list(self, actor: Owner, every: bool = False) -> Iterator[str]:
        """The JSON of a `JobList`, in pieces: the jobs that have not ended and those that ended last; every: all. Of other users' jobs only
        the public fields."""

    def show(self, job_id: str, actor: Owner) -> JobDetail: ...

    def remove(self, job_id: str, actor: Owner) -> Removed:
        """Delete the folder of an ended job; its ledger rows stay."""

    def drain(self, reason: str, actor: Owner) -> Drained:
        """Start no more jobs, also after restarts; running ones go on."""

    def drained(self) -> Drained:
        """Whether the box starts jobs, and which jobs run on it."""

    def undrain(self, actor: Owner) -> Drained: ...

    def begin_run(self, asked: RunRequest, actor: Owner) -> RunStarted:
        """Meter a process of the caller's from now on."""

    def run_status(self, job_id: str, actor: Owner) -> RunStatus: ...

    def end_run(self, job_id: str, told: RunEnd, actor: Owner) -> RunTotal:
        """The end of a run as reported by its command; returns the total."""

    def cancel(self, job_id: str, actor: Owner) -> Acted: ...
    def pause(self, job_id: str, actor: Owner) -> Acted: ...
    def resume(self, job_id: str, actor: Owner) -> Acted: ...

    def budget(self, job_id: str, grams: float, actor: Owner) -> Budgeted:
        """Set a job's total budget, in grams; a job that was stopped on its budget is queued again if it was raised."""

    def import_log(self, body: ImportBody, actor: Owner) -> Imported:
        """Book the measurements of another tool; for admins, root and the daemon's own user."""

    def pools(self, actor: Owner) -> PoolList: ...

    def grid(self, hours: float) -> GridView:
        """The grid now, and the forecast of the next `hours`; 0: no forecast."""

    def log_path(self, job_id: str, actor: Owner) -> Path:
        """Path of the job's log, which exists once the job has written something."""

    def render_report(self, asked: ReportQuery, form: str, actor: Owner) -> tuple[Iterator[str], str]:
        """(pieces of text, media type) of one job's report, or of everything or some jobs in [start, end).

        form: a name that `carbonsched.report.find` knows; otherwise it raises InputError.
        """

    def metrics(self, actor: Owner) -> str:
        """The metrics in Prometheus's text format."""

    def audit(self) -> AuditResult: ...
    def audit_progress(self) -> AuditProgress: ...
    def version(self) -> Version: ...
