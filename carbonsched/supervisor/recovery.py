"""Journals each trainer process of a job, and rebuilds a JobRun after a daemon restart.

The journal records that a process began (`started`: its devices, and the length of events.jsonl before it could write), that it was asked
to end and what follows (`ending`), and that its end was seen (`ended`). A process whose end nobody saw still belongs to the job: its energy
is charged and its end handled at the next tick.
"""

import logging
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from carbonsched.clock import Clock
from carbonsched.config import Config
from carbonsched.errors import LedgerError
from carbonsched.launch.base import Launcher, ProcessStatus
from carbonsched.ledger.ledger import Ledger
from carbonsched.ledger.records import JobRecord
from carbonsched.ledger.totals import Group, total, total_by
from carbonsched.model.base import rfc3339
from carbonsched.model.files import load
from carbonsched.model.interning import shared
from carbonsched.model.job_state import TRANSITIONS, JobState
from carbonsched.model.profile import CheckResult
from carbonsched.model.protocol import Directive, RunRecord, Started
from carbonsched.power.base import Meter
from carbonsched.supervisor.jobs.account import UNKNOWN_W, JobAccount
from carbonsched.supervisor.jobs.actors import DAEMON
from carbonsched.supervisor.jobs.event_follower import EventFollower
from carbonsched.supervisor.jobs.job_run import JobRun
from carbonsched.supervisor.jobs.process_state import BoardPart, Ending, Seat

log = logging.getLogger(__name__)

_EARLIER = timedelta(seconds=2)
"""A process may seem to have begun this long before its start was journalled: two clocks are read, to the millisecond."""
_OF_A_PROCESS = frozenset(("run.json", "control.json", "events.jsonl", "exit.json"))
CHECKED = "check.json"
"""File in the job's directory with the result of the trainer's check."""


@dataclass(frozen=True, slots=True)
class ProcessJournal:
    """Journals the processes of all jobs.

    Example::

        journal.note_start(run, Seat(("GPU-0",)))  # before the launch
        run = journal.rebuild(ledger.job(job_id))  # in the next daemon
    """

    ledger: Ledger
    clock: Clock
    launcher: Launcher
    meter: Meter
    config: Callable[[], Config]
    jobs: Path
    """The folder of the job directories."""

    def note_start(self, run: JobRun, seat: Seat, found: RunRecord | None = None) -> None:
        """Journal a start before it happens: whatever follows, the next daemon knows on which devices a process may be. found: the process
        runs, or ran, though nobody journalled it."""
        detail: dict[str, Any] = {"boards": list(seat.devices), "events": run.follower.offset}
        detail["names"] = {each.id: each.name for each in self.meter.devices if each.id in seat.devices}
        detail["cpus"] = os.cpu_count()
        if seat.part.id:
            detail |= {"part": seat.part.id, "share": seat.part.share}
        if found is not None:
            detail |= {"run": found.identity, "began": rfc3339(found.started_at)}
        elif (before := self.launcher.poll(run.dir).run) is not None:
            # the process that run.json names until this start succeeds
            detail["before"] = before.identity
        self._note(run, "started", detail)

    def note_ending(self, run: JobRun) -> None:
        """Journal that the process was asked to end, and where the job goes then."""
        process = run.process
        wake_at = None if process.wake_at is None else rfc3339(process.wake_at)
        detail = {"state": process.target, "reason": process.target_reason, "wake_at": wake_at}
        self._note(run, "ending", detail | ({"failed": run.failed} if run.failed else {}))

    def note_end(self, run: JobRun) -> None:
        """Journal that the process has ended."""
        ended = self.launcher.poll(run.dir).run
        self._note(run, "ended", {} if ended is None else {"run": ended.identity})

    def account(self, job_id: str) -> JobAccount:
        """The job's account by the ledger: known grams, and unknown stretches at their worst case."""
        config = self.config()
        limits = [device.watts_limit for device in self.meter.devices if device.kind == "gpu"]
        watts = limits[0] if limits and limits[0] else UNKNOWN_W
        return JobAccount.of_ledger(
            self.ledger.totals(job_id), watts, config.zone.worst_g_per_kwh, config.pue
        )

    def ran_on(self, row: JobRecord) -> bool:
        """Whether a job that is over by the ledger has run since, by its folder: the ledger is then an older copy."""
        if row.ended_at is None or JobState.QUEUED not in TRANSITIONS[row.state]:
            return False
        found = load(self.jobs / row.id / "run.json", RunRecord)
        if found is None or found.started_at <= row.ended_at:
            return False
        last = self.ledger.history(row.id, kinds=("started", "ending", "ended"), newest=1)
        return _unaccounted(found, last[-1] if last else {})

    def announced(self, job_id: str) -> Started | None:
        """What the job's last process announced at its start; None: nothing, or its events are gone."""
        began = self.ledger.history(job_id, kinds=("started",), newest=1)
        follower = EventFollower(
            self.jobs / job_id / "events.jsonl", began[0].get("events", 0) if began else 0
        )
        try:
            return next((event for event in follower.events() if isinstance(event, Started)), None)
        except OSError:
            return None

    def fresh(self, row: JobRecord) -> JobRun:
        """The run of a job that never had a process; the ledger has only its row."""
        path = self.jobs / row.id
        run = JobRun(
            job=row.submitted,
            dir=path,
            follower=EventFollower(path / "events.jsonl"),
            state=row.state,
            reason=row.reason,
            budget_g=row.budget_g,
            checked=None if (checked := load(path / CHECKED, CheckResult)) is None else shared(checked),
        )
        if run.spec.carbon.pool is not None:
            run.grant(0.0)  # until its pool is divided
        return run

    def untouched(self, row: JobRecord) -> bool:
        """Whether neither the folder nor the row shows a process; the journal has to be checked too."""
        if row.state is not JobState.QUEUED or row.started_at is not None or row.damage:
            return False
        try:
            with os.scandir(self.jobs / row.id) as found:
                return _OF_A_PROCESS.isdisjoint(entry.name for entry in found)
        except FileNotFoundError:
            return True
        except OSError:
            return False

    def rebuild(self, row: JobRecord) -> JobRun:
        """Rebuild the run as a daemon that never stopped would have it, up to the last recorded event.

        If its row, folder or journal is damaged, the job is set aside with the reason. Only its processes are then known, from the journal,
        so that their energy is charged to it and their devices stay assigned.
        """
        if row.damage:
            return self._without_events(row, row.damage)
        try:
            run = self._fresh(row)
            self._replay(run)
        except LedgerError:
            raise
        except Exception as e:
            log.warning("job %s is set aside: %s: %s", row.id, type(e).__name__, e)
            problem = (
                f"{e.filename or ''}: {e.strerror}" if isinstance(e, OSError) else f"{type(e).__name__}: {e}"
            )
            return self._without_events(row, problem)
        return run

    def _fresh(self, row: JobRecord, heard: int = 0) -> JobRun:
        """The run before its first process; heard: from which byte its events are read."""
        path = self.jobs / row.id
        run = JobRun(
            job=row.submitted,
            dir=path,
            follower=EventFollower(path / "events.jsonl", heard),
            state=row.state,
            reason=row.reason,
            budget_g=row.budget_g,
            checked=load(path / CHECKED, CheckResult),
            account=self.account(row.id),
        )
        if run.spec.carbon.pool is not None:
            run.grant(run.charged_g)  # until its pool is divided
        run.note_recorded(self.ledger.offset(run.id))
        return run

    def _without_events(self, row: JobRecord, problem: str) -> JobRun:
        run = self._fresh(row, self.ledger.offset(row.id))
        run.set_aside(problem, self.clock.monotonic())
        last: dict[str, Any] = {}
        for entry in self.ledger.history(run.id, kinds=("started", "ended"), newest=1):
            last = entry
        if last.get("kind") == "started":
            at = datetime.fromisoformat(last["at"])
            run.begin(min(at, self.clock.now()), tuple(map(str, last.get("boards", ()))))
            self._take_over(run, self.launcher.poll(run.dir))
        return run

    def _replay(self, run: JobRun) -> None:
        """Replay the run's processes from the journal and its events."""
        last: dict[str, Any] = {}
        started: dict[str, Any] = {}
        kinds = ("started", "ending", "ended", "note")
        for entry in self.ledger.history(run.id, kinds, having={"note": "more"}):
            if entry["kind"] == "note":
                said = {entry.get("of", "warning"): int(entry["more"])}
                run.limit.note_said(said, datetime.fromisoformat(entry["at"]))
                continue
            last = entry
            match entry["kind"]:
                case "started":
                    started = entry
                    run.replay(entry.get("events", 0), self.clock)
                    at = datetime.fromisoformat(entry.get("began", entry["at"]))
                    part = BoardPart(entry.get("part", ""), entry.get("share", 1.0))
                    run.begin(min(at, self.clock.now()), tuple(entry["boards"]), part)
                case "ending":
                    wake_at = datetime.fromisoformat(entry["wake_at"]) if entry["wake_at"] else None
                    run.note_failed(entry.get("failed", 0))
                    run.process.end(Ending(JobState(entry["state"]), entry["reason"], wake_at))
        run.replay(run.recorded, self.clock)
        polled = self.launcher.poll(run.dir)
        alive = bool(last) and last["kind"] != "ended"
        if not alive and not run.state.ended and polled.run is not None and _unaccounted(polled.run, last):
            # the ledger was restored from a backup, or refused the entry: the energy is the job's all the same
            log.warning("job %s: the ledger does not know its last process, it is taken up", run.id)
            run.adopt_process(polled.run, self.clock.now())
            return
        # a journalled start may have failed
        if not alive or not (run.state.live or _came_to_pass(polled, started)):
            run.leave(run.process.wake_at if run.state is JobState.WAITING else None)
            return
        charged = self._take_over(run, polled)
        segment_mj = {k: sums.energy_mj for k, sums in total_by(charged, lambda g: g.segment).items()}
        run.account.resume(segment_mj, total(charged).grams)
        run.adopt(load(run.dir / "control.json", Directive), self.clock.monotonic())

    def _take_over(self, run: JobRun, polled: ProcessStatus) -> Sequence[Group]:
        """An earlier daemon metered its process: until when that lived, by the ledger. Returns what it was charged."""
        began = run.process.alive_from or self.clock.now()
        charged = self.ledger.groups(run.id, start=began)
        known = self.clock.now() if polled.state == "running" else total(charged).end
        run.process.take_over(max(known or began, began))
        return charged

    def _note(self, run: JobRun, kind: str, detail: dict[str, Any]) -> None:
        self.ledger.note(run.id, kind, detail, DAEMON, self.clock.now())


def _came_to_pass(polled: ProcessStatus, started: Mapping[str, Any]) -> bool:
    """Whether the last journalled start led to a process, by run.json and exit.json."""
    if polled.state in ("running", "unknown"):
        return True
    if polled.run is None:
        return False
    if "run" in started:
        return bool(polled.run.identity == started["run"])
    if "before" in started or polled.run.started_at >= datetime.fromisoformat(started["at"]) - _EARLIER:
        return bool(polled.run.identity != started.get("before"))
    return False


def _unaccounted(found: RunRecord, last: Mapping[str, Any]) -> bool:
    """Whether the journal does not know this process. last: the journal's last process of the job, empty if none."""
    if "run" in last:
        return bool(found.identity != last["run"])
    return not last or found.started_at > datetime.fromisoformat(last["at"])
