"""Answers the API between two ticks: submit, explain, show, cancel, pause, resume, budget, report.

It implements the protocol `carbonsched.api.service`; the API knows nothing else of the supervisor.
"""

import contextlib
import logging
import os
import platform
import shutil
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from carbonsched import __version__
from carbonsched.errors import InputError, LaunchError, LedgerError, NotFoundError, StateError
from carbonsched.ledger.checkpoint import Checkpoint, Done
from carbonsched.ledger.records import JobRecord
from carbonsched.model.audit import AuditProgress, AuditResult
from carbonsched.model.command import RunEnd, RunRequest, RunStarted, RunStatus, RunTotal
from carbonsched.model.files import save
from carbonsched.model.grid import GridView
from carbonsched.model.imported import ImportBody, Imported
from carbonsched.model.job import JobSpec, Owner, SubmittedJob
from carbonsched.model.job_state import JobState
from carbonsched.model.labels import fits
from carbonsched.model.pools import PoolList
from carbonsched.model.profile import CheckResult
from carbonsched.model.upkeep import Drained, Removed
from carbonsched.model.views import (
    Acted,
    Budgeted,
    Explained,
    JobDetail,
    JobList,
    ReportQuery,
    Submitted,
    Version,
)
from carbonsched.notifications.settings import OWNER
from carbonsched.supervisor import access, job_reference
from carbonsched.supervisor.commands import Commands
from carbonsched.supervisor.imports import book
from carbonsched.supervisor.job_list import JobListing
from carbonsched.supervisor.job_views import job_detail, of_past, of_run
from carbonsched.supervisor.jobs.job_run import JobRun
from carbonsched.supervisor.jobs.process_state import Ending
from carbonsched.supervisor.queue_outlook import QueueOutlook, with_start
from carbonsched.supervisor.recovery import CHECKED
from carbonsched.supervisor.removal import refuse_removed, remove
from carbonsched.supervisor.supervisor import Supervisor
from carbonsched.text import grams as show_grams

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class SupervisorService:
    """Implements the API's calls on a supervisor.

    Example::

        service = SupervisorService(supervisor)
        job_id = service.submit(spec, owner, checked).id
        service.show(job_id, owner).state
    """

    supervisor: Supervisor
    listing: JobListing = field(default_factory=lambda: JobListing(QueueOutlook()))
    _keyed: threading.Lock = field(default_factory=threading.Lock)
    """Held while a job with a `dedupe_key` is submitted."""
    _auditing: list[Done] = field(default_factory=list)
    """Held while a verification runs."""

    def allow(self, operation: str, actor: Owner) -> None:
        api = self.supervisor.config.api
        access.allow(operation, actor, api.users, api.admins)

    def submit(self, spec: JobSpec, owner: Owner, checked: CheckResult | None = None) -> Submitted:
        if spec.queue.dedupe_key is None:
            return self._submit(spec, owner, checked)
        with self._keyed:  # of two simultaneous submits, the second finds the first one's job
            return self._with_key(spec.queue.dedupe_key, owner) or self._submit(spec, owner, checked)

    def submitted(self, dedupe_key: str, actor: Owner) -> Submitted:
        if found := self._with_key(dedupe_key, actor):
            return found
        raise NotFoundError("none of your jobs with this dedupe_key is under way or has finished")

    def _with_key(self, key: str, owner: Owner) -> Submitted | None:
        """The owner's job with this key that another submit is not to repeat."""
        for row in (ledger := self.supervisor.ledger).with_key(key):
            run = self.supervisor.runs.get(row.id)
            # one that was cancelled while it ran checkpoints first: its state is still that of before
            state = row.state if run is None else run.process.target or row.state
            stands = state is JobState.FINISHED or not state.ended
            if stands and row.owner.uid == owner.uid and row.id not in ledger.removed_ids():
                return Submitted(id=row.id, state=row.state)
        return None

    def _submit(self, spec: JobSpec, owner: Owner, checked: CheckResult | None) -> Submitted:
        supervisor = self.supervisor
        if spec.command is not None:
            raise InputError("command", "is no job: nothing would be trained", "give it to carbonsched run")
        if spec.notify and not any(each.mail == OWNER for each in supervisor.config.notify):
            raise InputError(
                "notify",
                "this box mails no submitters",
                'leave it out, or ask its admin for [[notify]] mail = "owner"',
            )
        spec = self._placed(spec, owner)
        supervisor.pools.check(spec)
        supervisor.prices.check(spec)
        supervisor.placement.check(spec)
        supervisor.launcher.check(spec, owner)
        supervisor.load_control()
        with supervisor.quotas.taking(owner, spec):
            # nobody knows the job before it is in the ledger, so no tick waits for the disk
            path = job_reference.make_folder(supervisor.journal.jobs, spec.name, supervisor.ledger)
            job = SubmittedJob(
                id=path.name, spec=spec, owner=owner, submitted_at=supervisor.clock.now(), sha256=spec.sha256
            )
            try:
                supervisor.launcher.prepare(path, owner)
                if checked is not None:
                    save(path / CHECKED, checked)
                save(path / "spec.json", job, indent=2)
                supervisor.ledger.add_job(job)
            except (OSError, LaunchError, LedgerError) as e:
                # a job that is not in the ledger does not exist: nobody would ever clean up its folder
                shutil.rmtree(path, ignore_errors=True)
                if not isinstance(e, OSError):
                    raise
                raise StateError(
                    f"the job cannot be kept in {path.parent}: {e.strerror}; free space there, then submit it again"
                ) from e
            with supervisor.lock:
                supervisor.enlist(job.id)
                run = supervisor.runs.get(job.id)
                if run is not None and spec.queue.hold:
                    supervisor.move(
                        run, JobState.PAUSED, f"held; carbonsched release {job.id} lets it start", owner.user
                    )
        log.info("job %s: submitted by %s", job.id, owner.user)
        return Submitted(id=job.id, state=JobState.QUEUED if run is None else run.state)

    def _placed(self, spec: JobSpec, owner: Owner) -> JobSpec:
        """The spec with the ids of the jobs it comes after. Raises InputError if there is no such job, or this user may not read it."""
        queue = spec.queue
        if queue.priority > 0 and not access.reads_all(owner, self._admins):
            raise InputError(
                "queue.priority",
                f"{queue.priority} puts it before others' jobs, which admins alone may",
                "give 0 or less",
            )
        if not queue.after:
            return spec
        try:
            after = tuple(dict.fromkeys(self.resolve(reference, owner) for reference in queue.after))
        except NotFoundError as e:
            raise InputError(
                "queue.after", str(e).split(";")[0], "carbonsched ps lists the jobs there are"
            ) from e
        gone = self.supervisor.ledger.removed_ids()
        for job_id in after:
            state = self.supervisor.ledger.job(job_id).state
            removed = job_id in gone and state is not JobState.FINISHED
            if state is JobState.CANCELLED or removed:
                how = "removed" if removed else "cancelled"
                raise InputError("queue.after", f"{job_id} was {how}, it will never finish", "leave it out")
        return spec.model_copy(update={"queue": queue.model_copy(update={"after": after})})

    def explain(self, spec: JobSpec, owner: Owner, checked: CheckResult) -> Explained:
        # the planner is loaded with the first job, or the first explanation
        from carbonsched.supervisor.explain import explain

        self.supervisor.launcher.check(spec, owner)
        self.supervisor.prices.check(spec)
        self.supervisor.placement.check(spec)
        return explain(self.supervisor, spec, owner, checked)

    def resolve(self, reference: str, actor: Owner) -> str:
        ledger = self.supervisor.ledger
        if reference != job_reference.LATEST:
            ids = ledger.ids_like(reference) or job_reference.by_long_name(reference, ledger)
            return job_reference.pick(reference, ids)
        own = ledger.latest_of(actor.uid)
        if own is None and access.reads_all(actor, self._admins):
            own = ledger.latest_of(None)
        if own is None:
            raise NotFoundError(f"{actor.user} has submitted no job yet; carbonsched ps lists everybody's")
        return own

    def job_list(self, actor: Owner, every: bool = False) -> Iterator[str]:
        return self.listing.pieces(self.supervisor, actor, self._admins, every=every)

    def jobs(self, actor: Owner, every: bool = False) -> JobList:
        """The same jobs as `job_list`, for callers in this process."""
        return JobList.model_validate_json("".join(self.job_list(actor, every)))

    def show(self, job_id: str, actor: Owner) -> JobDetail:
        supervisor = self.supervisor
        self._may_read("show", actor, job_id)
        row, run = supervisor.ledger.job(job_id), supervisor.runs.get(job_id)
        if run is None:
            fields = of_past(row, supervisor.ledger, supervisor.journal.announced(job_id))
            return self._completed(job_detail(row, fields, supervisor.ledger))
        with supervisor.lock:
            fields = of_run(row, run, supervisor.clock)
            fields |= {
                "directive": run.directive,
                "validation": tuple(e.dump() for e in run.progress.evaluated),
            }
        detail = job_detail(row, fields, supervisor.ledger)
        if detail.state is JobState.QUEUED:
            start = self.listing.outlook.starts(supervisor).get(job_id)
            detail = detail if start is None else with_start(detail, start, supervisor.clock.now())
        return self._completed(detail)

    def _completed(self, detail: JobDetail) -> JobDetail:
        """Add what is looked up without the lock: the cost in money, and where the model is."""
        supervisor, more = self.supervisor, dict[str, object]()
        if supervisor.prices.chain is not None:
            more["eur"] = supervisor.ledger.cost(detail.id)
        output = supervisor.job_dir(detail.id) / "output"
        with contextlib.suppress(OSError):  # the folder is the owner's, who may have closed it to us
            if any(output.iterdir()):
                more["output"] = str(output)
        return detail.model_copy(update=more) if more else detail

    def begin_run(self, asked: RunRequest, actor: Owner) -> RunStarted:
        return Commands(self.supervisor).begin(asked, actor)

    def run_status(self, job_id: str, actor: Owner) -> RunStatus:
        self._may_read("run_status", actor, job_id)
        return Commands(self.supervisor).status(job_id)

    def end_run(self, job_id: str, told: RunEnd, actor: Owner) -> RunTotal:
        self._may("end_run", actor, self.supervisor.ledger.job(job_id))
        return Commands(self.supervisor).end(job_id, told)

    def cancel(self, job_id: str, actor: Owner) -> Acted:
        return self._leave("cancel", job_id, actor, JobState.CANCELLED)

    def pause(self, job_id: str, actor: Owner) -> Acted:
        return self._leave("pause", job_id, actor, JobState.PAUSED)

    def resume(self, job_id: str, actor: Owner) -> Acted:
        supervisor = self.supervisor
        row = supervisor.ledger.job(job_id)
        self._may("resume", actor, row)
        place = supervisor.quotas.taking(row.owner, row.spec, row.budget_g, again=job_id)
        with place, supervisor.lock:
            refuse_removed(supervisor.ledger, job_id)
            row, run = supervisor.find(job_id)
            _refuse_command(run, "start it again with carbonsched run")
            target = run.process.target
            if target is not None:
                raise StateError(
                    f"job {job_id} is still ending; try again when carbonsched ps shows it {target}"
                )
            if run.alive:
                raise StateError(f"job {job_id} is {run.state} already; nothing to resume")
            supervisor.requeue(run, f"resumed by {actor.user}", actor.user)
            return Acted(id=job_id, state=run.state, reason=run.reason)

    def remove(self, job_id: str, actor: Owner) -> Removed:
        self._may("remove", actor, self.supervisor.ledger.job(job_id))
        return remove(self.supervisor, job_id, actor.user, f"removed by {actor.user}")

    def drain(self, reason: str, actor: Owner) -> Drained:
        self.allow("drain", actor)
        with self.supervisor.lock:
            self.supervisor.starter.drain.begin(reason, actor.user)
            log.info("%s", self.supervisor.starter.drain.why)
            return self.drained()

    def undrain(self, actor: Owner) -> Drained:
        self.allow("undrain", actor)
        with self.supervisor.lock:
            self.supervisor.starter.end_drain(actor.user)
            log.info("undrained by %s", actor.user)
            return self.drained()

    def drained(self) -> Drained:
        with self.supervisor.lock:
            why, runs = self.supervisor.starter.drain.why, self.supervisor.runs.values()
            live = sum(run.alive for run in runs)
            queued = sum(run.state is JobState.QUEUED and not run.alive for run in runs)
        return Drained(drained=bool(why), reason=why, live=live, queued=queued)

    def budget(self, job_id: str, grams: float, actor: Owner) -> Budgeted:
        """Set the budget, and record by whom, when, the old one and the new one. A running job is planned again at the next tick."""
        supervisor = self.supervisor
        row = supervisor.ledger.job(job_id)
        self._may("budget", actor, row)
        more = row.budget_g is None or grams > row.budget_g
        quotas = supervisor.quotas
        with (
            quotas.taking(row.owner, row.spec, grams, again=job_id) if more else contextlib.nullcontext(),
            supervisor.lock,
        ):
            refuse_removed(supervisor.ledger, job_id)
            row, run = supervisor.find(job_id)
            carbon = row.spec.carbon
            closed = (JobState.FINISHED, JobState.CANCELLED)
            if run.state in closed or (run.command is not None and run.state.ended):
                raise StateError(f"job {job_id} is {run.state}: its budget is closed; submit it again")
            if carbon.pool is not None:
                raise StateError(
                    f"job {job_id} draws on pool {carbon.pool}: raise the pool's budget_g in the daemon's config, "
                    "then send SIGHUP"
                )
            if carbon.budget_rate_g_per_h is not None:
                raise StateError(
                    f"job {job_id} has no fixed budget, it grows by {carbon.budget_rate_g_per_h:g} g/h by itself"
                )
            if grams <= run.charged_g:
                raise InputError(
                    "--grams",
                    f"{grams:g} g are not above the {show_grams(run.charged_g)} already spent",
                    "give more",
                )
            old, now = run.budget_g, supervisor.clock.now()
            supervisor.pending.save(
                ()
            )  # an earlier budget that is still queued for the ledger must not be written after this one
            supervisor.ledger.set_budget(job_id, grams, f"set by {actor.user}", actor.user, now, actor.uid)
            log.info("job %s: budget %g g, set by %s", job_id, grams, actor.user)
            run.grant(grams)
            run.request_plan()
            if run.command is None and run.state is JobState.STOPPED and (old is None or grams > old):
                supervisor.requeue(run, f"budget raised to {grams:g} g by {actor.user}", actor.user)
            return Budgeted(
                id=job_id,
                state=run.state,
                reason=run.reason,
                from_g=old,
                budget_g=grams,
                spent_g=run.account.spent_g,
            )

    def _leave(self, operation: str, job_id: str, actor: Owner, target: JobState) -> Acted:
        """Cancel or pause: a running process is asked to checkpoint and exit, and is metered until it has."""
        supervisor = self.supervisor
        reason = f"{target} by {actor.user}"
        self._may(
            operation, actor, supervisor.ledger.job(job_id)
        )  # before a long history is read under the lock
        with supervisor.lock:
            _, run = supervisor.find(job_id)
            if target is JobState.PAUSED:
                _refuse_command(run, "suspend it with kill -STOP, or cancel it")
            if not run.alive:
                supervisor.move(run, target, reason, actor.user)
                if target.ended:
                    supervisor.drop(run)
            else:
                director = supervisor.control.director
                (director.end if run.command is None else director.end_command)(run, Ending(target, reason))
                supervisor.pending.note(job_id, "note", {"text": f"to be {reason}"}, actor.user)
                log.info("job %s: to be %s", job_id, reason)
            return Acted(id=job_id, state=run.state, reason=run.reason)

    def import_log(self, body: ImportBody, actor: Owner) -> Imported:
        self.allow("import_log", actor)
        supervisor = self.supervisor
        supervisor.flush()
        imported = book(supervisor.ledger, body, actor.user, actor.uid, supervisor.clock.now())
        supervisor.ledger.sync()
        return imported

    def pools(self, actor: Owner) -> PoolList:
        supervisor, every_job = self.supervisor, access.reads_all(actor, self._admins)
        with supervisor.lock:
            runs = list(supervisor.runs.values())
            found = supervisor.pools.view(runs)
        readable = {run.id for run in runs if every_job or run.job.owner.uid == actor.uid}
        return PoolList(
            pools=tuple(
                pool.model_copy(
                    update={
                        "jobs": tuple(j if j.id in readable else access.public_pool_job(j) for j in pool.jobs)
                    }
                )
                for pool in found.pools
            )
        )

    def grid(self, hours: float) -> GridView:
        view, prices, supply = (
            self.supervisor.watch.view(hours),
            self.supervisor.prices,
            self.supervisor.supply,
        )
        return view.model_copy(update={"prices": prices.view(hours), "supply": supply.view()})

    def log_path(self, job_id: str, actor: Owner) -> Path:
        self._may_read("log", actor, job_id)
        return self.supervisor.job_dir(job_id) / "log.txt"

    def render_report(self, asked: ReportQuery, form: str, actor: Owner) -> tuple[Iterator[str], str]:
        # templates and plots are loaded with the first report
        from carbonsched.report import Selection, build, find
        from carbonsched.report.render import shows_effects

        found, supervisor = find(form), self.supervisor
        if asked.job is not None:
            self._may_read("job_report", actor, asked.job)
        self._check_site(asked.site)
        with supervisor.lock:
            supervisor.flush()  # a report includes the energy up to now
        selection = None
        if asked.selects:
            jobs = tuple(job.id for job in supervisor.ledger.jobs() if self._selected(asked, job, actor))
            selection = Selection(user=asked.user, labels=asked.labels, jobs=jobs)
        report = build(
            supervisor.ledger,
            job_id=asked.job,
            start=asked.start,
            end=asked.end,
            now=supervisor.clock.now(),
            stated=supervisor.config.stated,
            selection=selection,
            labels_of=lambda job: access.reads(actor, job.owner, self._admins),
            savings_of=supervisor.effects.reading(supervisor.clock.now()) if shows_effects(form) else None,
        )
        return found.pieces(report, supervisor.ledger), found.media_type

    def _selected(self, asked: ReportQuery, job: JobRecord, actor: Owner) -> bool:
        """Labels of other people's jobs are private: for other callers such jobs have none."""
        if asked.user is not None and job.owner.user != asked.user:
            return False
        if not asked.labels:
            return True
        return access.reads(actor, job.owner, self._admins) and all(
            fits(job.spec.labels, wanted) for wanted in asked.labels
        )

    def _check_site(self, site: str | None) -> None:
        here = self.supervisor.config.accounting.site
        if site is not None and site != here:
            stands = f"the box stands at {here!r}" if here else "the config names no site (accounting.site)"
            raise InputError(
                "--site", f"{site!r} is not this box's: {stands}", "ask the box that stands there"
            )

    def metrics(self, actor: Owner) -> str:
        # a daemon that nobody monitors does not load the library
        from carbonsched.supervisor.metrics import render

        every_job = access.reads_all(actor, self._admins)
        return render(self.supervisor, lambda run: every_job or run.job.owner.uid == actor.uid)

    def audit(self) -> AuditResult:
        ledger = self.supervisor.ledger
        rows, hours = ledger.held()
        done = Done(rows, hours)
        self._auditing.append(done)
        try:
            return ledger.verify(steps=Checkpoint(report=done.add))
        finally:
            self._auditing[:] = [one for one in self._auditing if one is not done]

    def audit_progress(self) -> AuditProgress:
        for done in reversed(self._auditing):
            return AuditProgress(part=done.part, share=done.share)
        return AuditProgress(part=None, share=None)

    def version(self) -> Version:
        supervisor = self.supervisor
        return Version(
            version=__version__,
            python=platform.python_version(),
            trainer_python=supervisor.config.launch.python,
            state_dir=supervisor.config.state_dir,
            ledger_schema=supervisor.ledger.schema_version,
            ledger=supervisor.ledger.where,
            pid=os.getpid(),
        )

    @property
    def _admins(self) -> tuple[str, ...]:
        return self.supervisor.config.api.admins

    def _may(self, operation: str, actor: Owner, row: JobRecord) -> None:
        access.check(operation, actor, row.owner, self._admins, row.id)

    def _may_read(self, operation: str, actor: Owner, job_id: str) -> None:
        self._may(operation, actor, self.supervisor.ledger.job(job_id))


def _refuse_command(run: JobRun, hint: str) -> None:
    if run.command is not None:
        raise StateError(
            f"{run.id} is a command that carbonsched run started, the daemon cannot do this with it; {hint}"
        )
