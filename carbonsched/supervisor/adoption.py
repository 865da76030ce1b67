"""Adopts the jobs that an earlier daemon left: queued, running, or ended while no daemon watched."""

import logging
from collections.abc import Set
from typing import TYPE_CHECKING, Protocol

from carbonsched.clock import Clock
from carbonsched.errors import LedgerError
from carbonsched.ledger.ledger import Ledger
from carbonsched.ledger.records import JobRecord
from carbonsched.model.job_state import JobState
from carbonsched.supervisor.fault_isolation import FaultIsolation
from carbonsched.supervisor.jobs.actors import DAEMON
from carbonsched.supervisor.jobs.job_run import JobRun
from carbonsched.supervisor.jobs.process_state import Seat
from carbonsched.supervisor.lifecycle import Lifecycle
from carbonsched.supervisor.pending_rows import PendingRows
from carbonsched.supervisor.placement import Placement, boards_of
from carbonsched.supervisor.recovery import ProcessJournal

if TYPE_CHECKING:  # NumPy stays out of a daemon at rest
    from carbonsched.supervisor.control.loop import ControlLoop

log = logging.getLogger(__name__)


class Jobs(Protocol):
    """The part of the supervisor that adoption uses.

    Example::

        Adoption(supervisor).adopt_all()
    """

    ledger: Ledger
    clock: Clock
    runs: dict[str, JobRun]
    placement: Placement
    journal: ProcessJournal
    pending: PendingRows
    isolation: FaultIsolation
    lifecycle: Lifecycle

    @property
    def control(self) -> "ControlLoop": ...
    def live(self) -> list[JobRun]: ...
    def end_again(self, run: JobRun) -> None: ...


class Adoption:
    """Adopts the jobs in the ledger, once, when a supervisor starts. The lock is held.

    Example::

        Adoption(supervisor).adopt_all()
    """

    def __init__(self, supervisor: Jobs) -> None:
        self.supervisor = supervisor
        self.adopted: list[str] = []
        """Jobs whose process is alive, or whose end has not been handled yet."""

    def adopt_all(self) -> None:
        started = self.supervisor.ledger.started_ids()
        self.supervisor.ledger.totals_of(
            sorted(started)
        )  # one read for all jobs: each account would query its own rows otherwise
        for row in map(self._as_it_ran, self.supervisor.ledger.unclosed()):
            if row.state.ended and not row.damage:
                continue
            if (run := self._found(row, started)) is not None:
                self._take(run)
        if self.adopted:
            text = "adopted after a restart of the daemon"
            self.supervisor.pending.note_of_each(self.adopted, "note", {"text": text})

    def _take(self, run: JobRun) -> None:
        supervisor = self.supervisor
        boards = boards_of(run.spec)
        seat = (
            Seat(()) if run.found is None else supervisor.placement.seat_of_found(supervisor.live(), boards)
        )
        supervisor.runs[run.id] = run
        with supervisor.isolation.alone(run):
            supervisor.control.allocator.enlist(run)
            if run.found is not None and run.process.alive_from is not None:
                run.begin(run.process.alive_from, seat.devices, seat.part)
                run.process.take_over(run.process.alive_from)
            if run.alive:
                self._adopt(run)
            if run.found is not None:  # done last, so a ledger that refuses writes delays nothing else
                supervisor.journal.note_start(run, seat, run.found)

    def _found(self, row: JobRecord, started: Set[str]) -> JobRun | None:
        """Rebuild the job as the earlier daemon left it; None if it is over. For a queued job only its row is read."""
        if row.id not in started and self.supervisor.journal.untouched(row):
            with self.supervisor.isolation.alone(None):
                return self.supervisor.journal.fresh(row)
        run = self.supervisor.journal.rebuild(row)
        return None if run.state.ended and not run.alive else run

    def _as_it_ran(self, row: JobRecord) -> JobRecord:
        if row.damage or not self.supervisor.journal.ran_on(row):
            return row
        try:
            self.supervisor.ledger.set_state(
                row.id,
                JobState.QUEUED,
                "it ran on after what the ledger knows",
                DAEMON,
                self.supervisor.clock.now(),
            )
        except LedgerError as e:
            log.warning("job %s ran on after what the ledger knows: %s", row.id, e)
        return self.supervisor.ledger.job(row.id)

    def _adopt(self, run: JobRun) -> None:
        """The job's process is alive, or its end has not been handled yet."""
        self.supervisor.lifecycle.note_protocol(run, run.progress.started)
        self.adopted.append(run.id)
        log.info("job %s: adopted", run.id)
        self.supervisor.control.allocator.begin(run)
        self.supervisor.end_again(run)
