"""Applies decisions. Nothing else writes control.json, journals directives and endings, or signals trainer processes."""

import errno
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from carbonsched.clock import Clock
from carbonsched.config import Config
from carbonsched.errors import LaunchError, LedgerError
from carbonsched.launch.base import Launcher
from carbonsched.model.files import overwrite, save
from carbonsched.model.protocol import VERSION, Directive, Directive1
from carbonsched.supervisor.control.decision import Decision, Outcome
from carbonsched.supervisor.estimates.loss_outlook import LossForecast
from carbonsched.supervisor.jobs.job_run import JobRun, PlanNote
from carbonsched.supervisor.jobs.process_state import Ending
from carbonsched.supervisor.recovery import ProcessJournal

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Director:
    """Sends decisions to jobs.

    Example::

        director.apply(run, decide(inputs))
        director.end(run, Ending(JobState.PAUSED, "paused by ada"))
    """

    note: Callable[[str | None, str, Mapping[str, Any]], None]
    """Writes an entry into the ledger's journal, or queues it while the ledger refuses writes."""
    clock: Clock
    launcher: Launcher
    journal: ProcessJournal
    config: Callable[[], Config]

    def apply(self, run: JobRun, decision: Decision) -> None:
        """Apply a decision. Raises OSError if control.json cannot be written; the directive then does not count as sent. A stop does not
        depend on the disk: the process is signalled instead."""
        if decision.outcome is Outcome.STOP and decision.ending is not None:
            self._stop(run, decision.directive, decision.ending)
        else:
            self._direct(run, decision.directive, decision.loss, journal=decision.journal)
        if decision.plan is not None:
            steps = decision.steps.end if decision.steps is not None else None
            step_j = None if decision.problem is None else decision.problem.energy.joules_full
            note = PlanNote(self.clock.monotonic(), decision.price, decision.end_s, steps, step_j)
            run.note_plan(note, decision.recheck_s)
        if decision.outcome is Outcome.WAIT_GONE and decision.ending is not None:
            self.end(run, decision.ending)

    def open(self, run: JobRun, directive: Directive) -> None:
        """Write the first lease before the process starts, in case the daemon is gone when the trainer asks. It does not count as a sent
        directive. Raises OSError."""
        # the trainer's protocol version is not known yet, and nothing here needs more than version 1
        write_control(run.dir, directive.spoken(1))

    def end(self, run: JobRun, ending: Ending) -> None:
        """Signal the process to checkpoint and exit; it is killed after `launch.stop_s`, a command after its `grace_s`."""
        self._end(run, ending)
        self.launcher.terminate(run.dir)
        self._note_ending(run)

    def end_command(self, run: JobRun, ending: Ending) -> None:
        """Signal all processes of a command to exit. If the daemon may not signal them, `carbonsched run` does so when it polls."""
        self._end(run, ending)
        try:
            self.launcher.terminate(run.dir)
        except LaunchError as e:
            log.warning("job %s: %s", run.id, e)
        self._note_ending(run)

    def kill_command(self, run: JobRun) -> None:
        """Kill all processes of a command that was told to end. If the daemon may not, `carbonsched run` does so when it polls."""
        try:
            self.launcher.kill(run.dir)
        except LaunchError as e:
            log.warning("job %s: %s", run.id, e)

    def kill(self, run: JobRun, ending: Ending) -> None:
        """Kill the process at once; a target set by an earlier stop still holds."""
        self.launcher.kill(run.dir)
        if run.process.target is None:
            self._end(run, ending)
            log.warning("job %s: %s", run.id, ending.reason)
            self._note_ending(run)

    def _stop(self, run: JobRun, directive: Directive, ending: Ending) -> None:
        self._end(run, ending)
        try:
            self._direct(run, directive)
        except OSError as e:
            log.warning("job %s: stopped by a signal, control.json cannot be written: %s", run.id, e)
            self.launcher.terminate(run.dir)
        self._note_ending(run)

    def _note_ending(self, run: JobRun) -> None:
        """Journal the ending. A refusing ledger does not prevent a stop: the process has been signalled."""
        try:
            self.journal.note_ending(run)
        except LedgerError as e:
            log.warning("job %s: it is told to end, which cannot be recorded: %s", run.id, e)

    def _end(self, run: JobRun, ending: Ending) -> None:
        grace_s = self.config().launch.stop_s if run.command is None else run.command.grace_s
        run.end(ending, self.clock.monotonic() + grace_s)

    def _direct(
        self, run: JobRun, directive: Directive, loss: LossForecast | None = None, *, journal: bool = True
    ) -> None:
        started = run.progress.started
        write_control(run.dir, directive.spoken(VERSION if started is None else started.protocol))
        run.direct(directive)
        if journal:
            detail = directive.dump() | {"spent_g": run.account.spent_g, "budget_g": run.budget_g}
            if loss is not None and not loss.relative:
                end = loss.end
                detail["expected_loss"] = {
                    "loss": end.loss,
                    "low": end.low,
                    "high": end.high,
                    "basis": loss.basis,
                }
            self.note(run.id, "directive", detail)
            log.info("job %s segment %d: %s", run.id, directive.k + 1, directive.reason)


def write_control(job_dir: Path, directive: Directive1) -> None:
    """Write control.json; on a full disk the old file is overwritten in place. Raises OSError if the directive could not be written."""
    path = job_dir / "control.json"
    try:
        save(
            path, directive, lasting=False
        )  # not synced: a power cut also ends the process that reads it, and the disk may be slow
    except OSError as e:
        if e.errno not in (errno.ENOSPC, errno.EDQUOT) or not path.is_file():
            raise
        overwrite(path, directive)
