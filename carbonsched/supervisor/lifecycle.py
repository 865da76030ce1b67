"""Follows a job's process: polls it at each tick, reads its events, and after its end moves the job to its next state."""

import logging
from datetime import datetime
from typing import TYPE_CHECKING, Protocol

from carbonsched.clock import Clock
from carbonsched.config import Config
from carbonsched.errors import LaunchError
from carbonsched.launch.base import Launcher, ProcessStatus
from carbonsched.ledger.ledger import Ledger
from carbonsched.model.job_state import JobState
from carbonsched.model.protocol import SegmentDone, Started
from carbonsched.power.power_trace import HOLD_S
from carbonsched.supervisor.event_recording import record, record_more
from carbonsched.supervisor.fault_isolation import Due, FaultIsolation
from carbonsched.supervisor.job_notifier import JobNotifier
from carbonsched.supervisor.jobs.job_run import JobRun
from carbonsched.supervisor.jobs.process_state import Ending
from carbonsched.supervisor.metering import Metering
from carbonsched.supervisor.outcome import again, left_unsaid, outcome, too_old, way
from carbonsched.supervisor.pending_rows import PendingRows
from carbonsched.supervisor.placement import Placement
from carbonsched.supervisor.recovery import ProcessJournal
from carbonsched.supervisor.responsiveness import Responsiveness

if TYPE_CHECKING:  # NumPy stays out of a daemon at rest
    from carbonsched.supervisor.control.loop import ControlLoop

log = logging.getLogger(__name__)

WORD_S = 5.0
"""Seconds to wait for `carbonsched run` to report how its command ended, once the command is gone."""
ENERGY_S = 2 * HOLD_S
"""Seconds to wait for a meter that has not yet reported a finished job's last seconds."""
LISTEN_S = 10.0
"""Seconds for which the last events of a finished job are retried if they cannot be read."""


class Jobs(Protocol):
    """The part of the supervisor that following jobs uses.

    Example::

        Lifecycle(supervisor).advance(run)
    """

    config: Config
    ledger: Ledger
    launcher: Launcher
    clock: Clock
    began: datetime
    metering: Metering
    placement: Placement
    journal: ProcessJournal
    notifier: JobNotifier
    pending: PendingRows
    responsiveness: Responsiveness
    isolation: FaultIsolation

    @property
    def control(self) -> "ControlLoop": ...
    def flush(self) -> None: ...
    def put_in(self, run: JobRun) -> None: ...
    def move(self, run: JobRun, new: JobState, reason: str) -> None: ...
    def drop(self, run: JobRun) -> None: ...
    def end_again(self, run: JobRun) -> None: ...


class Lifecycle:
    """Follows the supervisor's jobs from their start to their end. The lock is held throughout.

    Example::

        lifecycle = Lifecycle(supervisor)
        lifecycle.poll(run)  # before its energy is charged
        lifecycle.advance(run)  # after it
    """

    def __init__(self, supervisor: Jobs) -> None:
        self.supervisor = supervisor

    def poll(self, run: JobRun) -> None:
        """Return whether the job's process has ended and all its energy is metered; reads its events too."""
        if run.process.starting:
            return
        polled = self.supervisor.launcher.poll(run.dir)
        if not run.aside:
            run.read_events(self.supervisor.clock)
        sure = not self.supervisor.isolation.unsure(run, polled)
        if polled.state != "running" and sure:
            # its workers still use energy and the board
            if run.process.alive_to is None and (left := self.supervisor.launcher.sweep(run.dir)):
                raise LaunchError(f"{left} of its processes run on and cannot be ended")
            now = self.supervisor.clock.now()
            run.process.close(min(self._ended(run, polled) or now, now))
        elif polled.state == "running":
            run.process.see()
            self._kill_if_due(run)
        else:
            self._kill_if_due(run)

    def _kill_if_due(self, run: JobRun) -> None:
        if run.process.kill_at is not None and self.supervisor.clock.monotonic() >= run.process.kill_at:
            stop_s = self.supervisor.config.launch.stop_s if run.command is None else run.command.grace_s
            log.warning("job %s did not end in %g s, killing it", run.id, stop_s)
            self.supervisor.launcher.kill(run.dir)
            run.process.forget_kill()

    def _ended(self, run: JobRun, polled: ProcessStatus) -> datetime | None:
        """When a process that is gone ended, as far as is known; None: this daemon saw it alive at the last tick.

        If it ended while no daemon ran, the ledger knows until when it was metered: energy used later is not its own.
        """
        process, told = run.process, polled.exit.at if polled.exit else None
        if run.command is not None and process.alive_to is not None:
            return process.alive_to
        known = [at for at in (process.known_until, told or run.progress.last_event_at) if at is not None]
        if run.command is None:
            # without an exit record the process is taken to have lived until its last event; if it sent none,
            # until it was first found gone: a later time at each tick would never end
            return told or max(known, default=process.alive_to)
        if process.known_until is not None:
            return max(known)
        # else its leftover processes lived on, or nobody knows when it ended
        return told if self._just_ended(polled) else None

    def _just_ended(self, polled: ProcessStatus) -> bool:
        if polled.exit is None:
            return False
        return (
            self.supervisor.clock.now() - polled.exit.at
        ).total_seconds() <= 2 * self.supervisor.config.power.tick_s

    def advance(self, run: JobRun) -> None:
        """Handle what a job has reported and where its process stands."""
        if run.aside or run.unheard:
            run = self._retry_or_end(run)
        if run.aside and not run.alive:
            return
        if not run.alive:
            wake_at = run.process.wake_at
            if run.state is JobState.WAITING and (wake_at is None or self.supervisor.clock.now() >= wake_at):
                self.supervisor.move(run, JobState.QUEUED, "the wait is over")
            return
        if run.process.starting:
            return
        # the energy model is fitted to a segment once its energy is charged
        for event in run.learn():
            if isinstance(event, SegmentDone):
                self.supervisor.control.estimates.costs.observe(run, event)
            elif isinstance(event, Started):
                if why := self.supervisor.placement.contradiction(run, event) or too_old(run, event):
                    self.end_as_failed(run, f"{why}; see carbonsched logs {run.id}")
                self.note_protocol(run, event)
        record(run, self.supervisor.ledger, self.supervisor.clock.now())
        self.supervisor.notifier.look(run)
        self.supervisor.responsiveness.look(run)
        if run.process.alive_to is not None and not run.follower.behind:
            if self._awaits_word(run) or self._awaits_energy(run):
                return
            if not run.unheard or self.supervisor.clock.monotonic() - run.unheard_s >= LISTEN_S:
                self._finish(run)
            return
        if run.aside:
            return
        waiting = run.progress.waiting
        new = JobState.RUNNING if waiting is None else JobState.WAITING
        if new is not run.state:
            reason = run.directive.reason if run.directive else "goes on"
            self.supervisor.move(run, new, reason if waiting is None else waiting.reason)

    def _retry_or_end(self, run: JobRun) -> JobRun:
        """Retry a job that cannot be followed, and end its process in the end: others wait for the devices. Returns the job's run, which
        may have been rebuilt."""
        due = self.supervisor.isolation.due(run)
        if due is Due.END:
            self.fail(run, f"the daemon cannot follow it: {run.aside or run.unheard}")
        elif due is Due.REBUILD:
            self.supervisor.flush()  # the account is rebuilt from the rows
            if self.supervisor.pending.rows:
                return run
            again = self.supervisor.journal.rebuild(self.supervisor.ledger.job(run.id))
            if not again.aside:
                log.info("job %s: goes on, what was wrong with it is fixed", run.id)
                self.supervisor.put_in(again)
                self.supervisor.end_again(again)
                return again
        return run

    def _awaits_word(self, run: JobRun) -> bool:
        """Whether `carbonsched run` may still report how its command ended; sometimes the daemon sees the end first."""
        if run.command is None or run.process.alive_to is None:
            return False
        # if it ended while no daemon ran, the report comes after this daemon's start
        since = max(run.process.alive_to, self.supervisor.began)
        waited = (self.supervisor.clock.now() - since).total_seconds()
        return waited < WORD_S and self.word_may_come(run)

    def word_may_come(self, run: JobRun) -> bool:
        """Whether the end of a command is not reported yet, and the `carbonsched run` that can report it still runs."""
        launcher = self.supervisor.launcher
        return launcher.poll(run.dir).exit is None and launcher.starter_lives(run.dir, run.job.owner)

    def _awaits_energy(self, run: JobRun) -> bool:
        """Whether a meter still has to report the job's last seconds: after an odd reading the next one reports them."""
        ended, began = run.process.alive_to, run.process.alive_from
        if (
            ended is None
            or began is None
            or ended <= began
            or (self.supervisor.clock.now() - max(ended, self.supervisor.began)).total_seconds() > ENERGY_S
        ):
            return False
        devices = run.process.devices
        if run.command is None:  # the next job may need the board: do not wait for a device without any row
            devices = tuple(each for each in devices if each in self.supervisor.metering.reach)
        return self.supervisor.metering.lags(devices, ended)

    def _finish(self, run: JobRun) -> None:
        """The process is gone: move the job to its next state."""
        new, reason = outcome(run, self.supervisor.launcher.poll(run.dir))
        ending = None
        if (
            new is JobState.FAILED
            and run.process.target is None
            and (ending := again(run, reason, self.supervisor.clock.now()))
        ):
            run.end(ending)
            new, reason = ending.target, ending.reason
        for step in way(run.state, new):
            self.supervisor.move(run, step, "it ran, though its start was not recorded")
        with self.supervisor.ledger.transaction():
            record_more(run, self.supervisor.ledger, self.supervisor.clock.now(), run.limit.unsaid())
            if ending is not None:
                self.supervisor.journal.note_ending(run)
            self.supervisor.journal.note_end(run)
            self.supervisor.move(run, new, reason)
        run.leave(run.process.wake_at if new is JobState.WAITING else None)
        if new.ended:
            self.supervisor.drop(run)

    def fail(self, run: JobRun, reason: str) -> None:
        run.discard()
        if not run.alive:
            self.supervisor.move(run, JobState.FAILED, reason)
            self.supervisor.drop(run)
        else:
            self.end_as_failed(run, reason)

    def end_as_failed(self, run: JobRun, reason: str) -> None:
        if run.process.target is None:
            self.supervisor.control.director.end(run, Ending(JobState.FAILED, reason))
            self.supervisor.pending.note(run.id, "note", {"text": reason})

    def end_and_retry(self, run: JobRun, reason: str) -> None:
        """End the process; a job with attempts left restarts from its last checkpoint."""
        ending = again(run, reason, self.supervisor.clock.now()) or Ending(JobState.FAILED, reason)
        director = self.supervisor.control.director
        (director.end if run.command is None else director.end_command)(run, ending)
        self.supervisor.pending.note(run.id, "note", {"text": ending.reason})

    def note_protocol(self, run: JobRun, started: Started | None) -> None:
        if started is None or run.process.protocol_noted:
            return
        if (text := left_unsaid(started)) is not None:
            run.process.note_protocol()
            self.supervisor.pending.note(run.id, "note", {"text": text})
