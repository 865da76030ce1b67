"""Applies decisions: the only place that writes control.json, notes directives and endings, and signals processes."""

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
    """Tells jobs what was decided.

    Example::

        director.apply(run, decide(inputs))
        director.end(run, Ending(JobState.PAUSED, "paused by ada"))
    """

    note: Callable[[str | None, str, Mapping[str, Any]], None]
    """Writes into the ledger's journal, later where it refuses now."""
    clock: Clock
    launcher: Launcher
    journal: ProcessJournal
    config: Callable[[], Config]

    def apply(self, run: JobRun, decision: Decision) -> None:
        """Raises OSError where control.json cannot be written: then nothing was said, and is not taken for said.

        A stop does not wait for the disk: the process is told by a signal instead.
        """
        if decision.outcome is Outcome.STOP and decision.ending is not None:
            self._stop(run, decision.directive, decision.ending)
        else:
            self._direct(run, decision.directive, decision.loss, journal=decision.journal)
        if decision.plan is not None:
            steps = decision.steps.end if decision.steps is not None else None
            step_j = None if decision.problem is None else decision.problem.energy.joules_full
            note = PlanNote(self.clock.monotonic(), decision.price, decision.end_s, steps, step_j)
            run.note_plan(note, decision.look_s)
        if decision.outcome is Outcome.WAIT_GONE and decision.ending is not None:
            self.end(run, decision.ending)

    def open(self, run: JobRun, directive: Directive) -> None:
        """Before a start: leave a lease, should we be gone when it asks. Nothing is taken for said. Raises OSError."""
        # which protocol it will speak is not known yet, and nothing here needs more than the first
        write_control(run.dir, directive.spoken(1))

    def end(self, run: JobRun, ending: Ending) -> None:
        """Ask the process to checkpoint and end, by a signal; it is killed after `launch.stop_s`."""
        self._end(run, ending)
        self.launcher.terminate(run.dir)
        self._note_ending(run)

    def end_command(self, run: JobRun, ending: Ending) -> None:
        """Ask all of a command to end. Where we may not signal it, `carbonsched run` does, which asks what became of it."""
        self._end(run, ending)
        try:
            self.launcher.terminate(run.dir)
        except LaunchError as e:
            log.warning("job %s: %s", run.id, e)
        self._note_ending(run)

    def kill(self, run: JobRun, ending: Ending) -> None:
        """End the process at once; what it was told to end for before still holds."""
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
        """A ledger that refuses it stops no stop: the process has been told."""
        try:
            self.journal.note_ending(run)
        except LedgerError as e:
            log.warning("job %s: it is told to end, which cannot be recorded: %s", run.id, e)

    def _end(self, run: JobRun, ending: Ending) -> None:
        run.end(ending, self.clock.monotonic() + self.config().launch.stop_s)

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
    """Say it to the trainer, on a full disk in the place of what was said before. Raises OSError; then it was not said."""
    path = job_dir / "control.json"
    try:
        save(
            path, directive, lasting=False
        )  # the process that reads it falls in a power cut, too, and the disk may be slow
    except OSError as e:
        if e.errno not in (errno.ENOSPC, errno.EDQUOT) or not path.is_file():
            raise
        overwrite(path, directive)
