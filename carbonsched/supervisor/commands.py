"""Meters commands that `carbonsched run` starts: takes each in as a job that runs already, and adds up what it used.

Such a job has a folder, rows and a journal as any other, so that a daemon which is restarted goes on with it; but nobody starts it
again, and it is told what to do only where it has a budget and speaks the protocol.
"""

import os
import shutil
import time
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from carbonsched.errors import CarbonschedError, NotFoundError, StateError
from carbonsched.launch import liveness_lock, shim
from carbonsched.launch.leftover_processes import MARK
from carbonsched.model.command import RunEnd, RunRequest, RunStarted, RunStatus, RunTotal
from carbonsched.model.files import save
from carbonsched.model.job import JobSpec, Owner, SubmittedJob
from carbonsched.model.job_state import JobState
from carbonsched.model.protocol import ExitRecord, RunRecord
from carbonsched.supervisor.budgets import command_budget
from carbonsched.supervisor.job_reference import make_folder
from carbonsched.supervisor.jobs.job_run import JobRun
from carbonsched.supervisor.jobs.process_state import Seat
from carbonsched.supervisor.supervisor import HUNG_S, Supervisor
from carbonsched.units import MJ_PER_J

END_S = 15.0
"""The total of a command whose end is not charged by then is told without it. `carbonsched run` waits for 30 s."""
_PAUSE_S = 0.1


@dataclass(frozen=True, slots=True)
class Commands:
    """What `carbonsched run` asks of a supervisor.

    Example::

        started = commands.begin(RunRequest(name="make", command={"argv": ["make"]}, pid=pid), owner)
        total = commands.end(started.id, RunEnd(code=0))
    """

    supervisor: Supervisor

    def begin(self, asked: RunRequest, owner: Owner) -> RunStarted:
        """From now on the energy of its devices is the command's. Nothing is kept of one that is refused."""
        supervisor = self.supervisor
        supervisor.tick(HUNG_S)  # what was used up to here is not the command's
        spec = JobSpec.of_command(asked.name, asked.command, asked.budget_g, asked.labels)
        supervisor.load_control()
        with supervisor.quotas.taking(owner, spec):
            self._refuse_drained()
            path = make_folder(supervisor.journal.jobs, asked.name, supervisor.ledger)
            now = supervisor.clock.now()
            job = SubmittedJob(id=path.name, spec=spec, owner=owner, submitted_at=now, sha256=spec.sha256)
            try:
                supervisor.launcher.prepare(path, owner)
                save(path / "spec.json", job, indent=2)
                found = supervisor.launcher.adopt(path, asked.pid, asked.command.argv, owner)
                with supervisor.lock:
                    seat, notes = self._take_in(job, asked, found)
            except (OSError, CarbonschedError) as e:
                shutil.rmtree(path, ignore_errors=True)
                if isinstance(e, CarbonschedError):
                    raise
                raise StateError(f"the run cannot be kept in {path.parent}: {e.strerror}") from e
        lock = str(path.resolve() / liveness_lock.NAME) if found.locked else None
        env = self._env(path, asked, owner, seat)
        return RunStarted(id=job.id, devices=seat.devices, env=env, lock=lock, notes=notes)

    def _refuse_drained(self) -> None:
        if why := self.supervisor.starter.drain.why:
            raise StateError(f"{why}; wait, or run it without carbonsched")

    def _take_in(
        self, job: SubmittedJob, asked: RunRequest, found: RunRecord
    ) -> tuple[Seat, tuple[str, ...]]:
        """Its seat, and what is to be said of it; all of it, or nothing. Hold the lock."""
        supervisor = self.supervisor
        self._refuse_drained()
        # nothing is shared with one that has ended, and whose last word is waited for
        live = [run for run in supervisor.live() if run.process.alive_to is None]
        seat, notes = supervisor.placement.seat_of_command(asked.devices, live, share=asked.share)
        try:
            with (
                supervisor.ledger.transaction()
            ):  # a daemon that dies here has it whole, or knows nothing of it
                supervisor.ledger.add_job(job)
                supervisor.enlist(job.id)
                run = supervisor.runs[job.id]
                run.begin(supervisor.clock.now(), seat.devices, seat.part)
                supervisor.journal.note_start(run, seat, found)
                supervisor.move(run, JobState.RUNNING, "metered: carbonsched run started it")
            if asked.budget_g is not None:
                supervisor.control.open(run)
                tick_g = supervisor.control.estimates.tick_g(run)
                notes = (*notes, *command_budget.too_small(asked.command, asked.budget_g, tick_g))
        except (OSError, CarbonschedError):
            supervisor.runs.pop(job.id, None)
            raise
        return seat, notes

    def _env(self, path: Path, asked: RunRequest, owner: Owner, seat: Seat) -> dict[str, str]:
        env = {MARK: str(path.resolve())} | self.supervisor.placement.env_of_command(seat)
        if asked.budget_g is not None and os.geteuid() in (0, owner.uid):
            env[shim.MARK] = str(path.resolve())
        return env

    def status(self, job_id: str) -> RunStatus:
        supervisor = self.supervisor
        with supervisor.lock:
            row, run = supervisor.ledger.job(job_id), supervisor.runs.get(job_id)
            if run is None:
                spent = supervisor.ledger.totals(job_id).grams
                return RunStatus(state=row.state, spent_g=spent, budget_g=row.budget_g)
            ending = run.process.target_reason if run.process.target is not None else None
            warn_g = None if run.budget_g is None or run.command is None else run.command.warn * run.budget_g
            kill, grace_s = self._time_to_end(run)
            return RunStatus(
                state=run.state,
                spent_g=run.charged_g,
                budget_g=run.budget_g,
                warn_g=warn_g,
                ending=ending,
                kill=kill,
                grace_s=grace_s,
            )

    def _time_to_end(self, run: JobRun) -> tuple[bool, float | None]:
        """Whether SIGKILL is due, and the seconds that its budget pays for from SIGTERM to there; None: no budget ends it, or its power is
        not known."""
        if run.command is None or run.budget_g is None or not run.command.stop:
            return run.process.target is not None and run.process.kill_at is None, None
        estimates = self.supervisor.control.estimates
        spent = command_budget.is_spent(run, estimates.tick_g(run))
        kill = run.process.target is not None and (run.process.kill_at is None or spent)
        kept = None if run.process.power_w is None else command_budget.grace(run, estimates.g_per_s(run))
        return kill, None if kept is None else kept.seconds

    def end(self, job_id: str, told: RunEnd) -> RunTotal:
        """How it ended, by whoever started it; and what it used up to now."""
        supervisor = self.supervisor
        self._command(job_id)
        run = supervisor.runs.get(job_id)
        if run is not None:
            now = supervisor.clock.now()
            at = now if told.at is None else min(told.at, now)
            record = ExitRecord(code=told.code, signal=told.signal, at=at)
            supervisor.launcher.note_exit(run.dir, record)
        left, late = self._see_out(job_id, told.at)
        total = self.total(job_id, told, left)
        note = "its last seconds are not charged yet: show, or a report of it, tells them later"
        return total.model_copy(update={"notes": (*total.notes, note)}) if late else total

    def _see_out(self, job_id: str, at: datetime | None) -> tuple[int, bool]:
        """Ticks until its end, at `at`, is charged: one tick may be left out behind another that hangs, or a meter be late.
        How many of its processes run on, and whether its end is still to be charged after `END_S`."""
        supervisor = self.supervisor
        until, now = time.monotonic() + END_S, supervisor.clock.now()
        while True:
            if job_id in supervisor.runs:
                supervisor.tick(HUNG_S)
            with supervisor.lock:
                supervisor.flush()
                run = supervisor.runs.get(job_id)
                left = supervisor.launcher.remaining(run.dir) if run is not None else 0
                lags = run is not None and supervisor.metering.lags(run.process.devices, min(at or now, now))
            if run is None or not run.alive or (left and not lags):
                return left, False
            if time.monotonic() >= until:
                return left, True
            time.sleep(_PAUSE_S)

    def hear_ends(self, most_s: float) -> None:
        """Before the first tick of a daemon: let those speak who wait for it to say how a command ended, so that the time that
        nobody metered is charged to that end."""
        supervisor, until = self.supervisor, time.monotonic() + most_s
        while time.monotonic() < until:
            with supervisor.lock:
                ended = [
                    run
                    for run in supervisor.live()
                    if run.command is not None and supervisor.launcher.poll(run.dir).state == "lost"
                ]
                if not any(map(supervisor.lifecycle.word_may_come, ended)):
                    return
            time.sleep(_PAUSE_S)

    def total(self, job_id: str, told: RunEnd = RunEnd(), remaining: int = 0) -> RunTotal:
        ledger = self.supervisor.ledger
        row, totals, gone = ledger.job(job_id), ledger.totals(job_id), ledger.replaced()
        kinds: dict[str, float] = {}
        known, devices = False, dict.fromkeys(self._devices(job_id))
        for each in ledger.rows(job_id):
            if each["id"] in gone:
                continue
            known |= each["energy_mj"] is not None
            if each["grams"] is not None:
                kinds[each["kind"]] = kinds.get(each["kind"], 0.0) + each["grams"]
        code = 128 + told.signal if told.signal is not None else told.code
        return RunTotal(
            id=job_id,
            state=row.state,
            reason=row.reason,
            exit_code=code,
            seconds=totals.seconds,
            energy_j=totals.energy_mj / MJ_PER_J if known else None,
            spent_g=totals.grams if kinds else None,
            unknown_s=totals.unknown_s,
            estimated=totals.estimated,
            g_per_kwh=totals.g_per_kwh,
            kinds=kinds,
            devices=tuple(devices),
            budget_g=row.budget_g,
            remaining=remaining,
        )

    def _devices(self, job_id: str) -> tuple[str, ...]:
        entries = self.supervisor.ledger.history(job_id, kinds=("started",), newest=1)
        return tuple(entries[-1].get("boards", ())) if entries else ()

    def _command(self, job_id: str) -> None:
        if self.supervisor.ledger.job(job_id).spec.command is None:
            raise NotFoundError(f"{job_id} is a job, and none of carbonsched run")
