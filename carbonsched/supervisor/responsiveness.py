"""Finds jobs that disobey their directive, and jobs that send no event for long while their process is alive.

Each case is reported once: in the job's state, its history, the log and by notification. A job that trains although it was told to wait is
ended, and so is a silent one after its `queue.silence_limit`. All others are left to their owners, since a silent job may be at work. The
budget does not depend on this: the guard uses metered energy, whatever a job reports.
"""

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from carbonsched.clock import Clock
from carbonsched.config import Config
from carbonsched.model.protocol import Step
from carbonsched.supervisor.jobs.job_run import JobRun
from carbonsched.text import duration

log = logging.getLogger(__name__)

_STEPS = 20
"""A job with long steps counts as silent after this many of them, if that is longer than `launch.silent_s`."""
_RHO = 0.005
"""How far above its directed ρ a job may report to train."""


@dataclass(slots=True)
class _Heard:
    """What was last heard of a job, by time awake: a suspended box makes no job silent."""

    mark: object = None
    """Changes with each event and each process."""
    at_s: float = 0.0
    told: object = None
    """Changes with each directive, but not with a renewed lease."""
    directed_s: float = 0.0
    step: Step | None = None
    """The newest step that began when the directive was `launch.stop_s` old."""


@dataclass(slots=True)
class Responsiveness:
    """Watches the events of live jobs.

    Example::

        responsiveness.look(run)  # at every tick
    """

    clock: Clock
    config: Callable[[], Config]
    note: Callable[[str | None, str, Mapping[str, Any]], None]
    """Writes into the ledger's journal."""
    tell: Callable[[JobRun, str], None]
    """Notifies people."""
    end: Callable[[JobRun, str], None]
    """Ends the process; a job with attempts left is started again."""
    _heard: dict[str, _Heard] = field(default_factory=dict)

    def look(self, run: JobRun) -> None:
        """Check a job whose events of this tick were read."""
        if not run.alive or run.process.alive_to is not None:
            self._heard.pop(run.id, None)
            return
        heard = self._update(run)
        if run.process.target is not None or not run.steered:
            return  # it is being ended, and killed if it ignores that; a command sends no events
        deaf, silent_s = _deaf(run, heard), self._silent_s(run, heard)
        found = deaf or ("" if silent_s is None else _silent(run, silent_s))
        kind = "deaf" if deaf else "silent" if found else ""
        if kind != run.unresponsive[0]:
            self._report(run, kind, found)
        if deaf and run.directive is not None and run.directive.action == "wait":
            self.end(run, deaf)
        limit = run.spec.queue.silence_limit
        quiet_s = self.clock.awake() - heard.at_s
        if limit is not None and quiet_s >= limit and not _waits(run):
            self.end(run, f"its queue.silence_limit is over: {_silent(run, quiet_s)}")

    def forget(self, run: JobRun) -> None:
        """The job is over."""
        self._heard.pop(run.id, None)

    def _update(self, run: JobRun) -> _Heard:
        heard, now = self._heard.setdefault(run.id, _Heard()), self.clock.awake()
        directive, progress = run.directive, run.progress
        mark = (run.process.alive_from, progress.events)
        if mark != heard.mark or _waits(run):
            heard.mark, heard.at_s = mark, now
        told = None if directive is None else (directive.k, directive.action, directive.rho)
        if told != heard.told:
            heard.told, heard.directed_s, heard.step = told, now, None
        step = progress.stepped
        if step is not None:
            began_s = now - (self.clock.now() - step.at).total_seconds() - step.seconds
            if began_s >= heard.directed_s + self.config().launch.stop_s:
                heard.step = step
        return heard

    def _silent_s(self, run: JobRun, heard: _Heard) -> float | None:
        """Seconds without an event, if that is long."""
        step = run.progress.stepped
        least = max(self.config().launch.silent_s, _STEPS * (step.seconds if step is not None else 0.0))
        quiet_s = self.clock.awake() - heard.at_s
        return quiet_s if quiet_s >= least else None

    def _report(self, run: JobRun, kind: str, text: str) -> None:
        if kind:
            log.warning("job %s: %s", run.id, text)
            self.note(run.id, "note", {"text": text})
            self.tell(run, text)
        else:
            log.info("job %s: it answers again", run.id)
            self.note(run.id, "note", {"text": "it answers again"})
        run.note_unresponsive(kind, text)


def _waits(run: JobRun) -> bool:
    """Whether it was told to wait, or has reported that it waits: no event is expected then."""
    told = run.directive is not None and run.directive.action == "wait"
    return (told or run.progress.waiting is not None) and not _steps_after(run)


def _steps_after(run: JobRun) -> bool:
    """Whether its last event was a step, and not a wait."""
    step, waiting = run.progress.stepped, run.progress.waiting
    return step is not None and (waiting is None or step.at > waiting.at)


def _deaf(run: JobRun, heard: _Heard) -> str:
    """How it disobeys its directive; empty: it does not."""
    step, directive = heard.step, run.directive
    if step is None or directive is None or step.k != directive.k:
        return ""
    ways = f"see carbonsched logs {run.id}, or end it by carbonsched cancel {run.id}"
    if directive.action == "wait":
        return f"it trains on at step {step.step}, though it was told to wait"
    if directive.action == "train" and directive.rho is not None and step.rho > directive.rho + _RHO:
        return f"it trains at rho {step.rho:.3f}, though it was directed {directive.rho:.3f}; {ways}"
    return ""


def _silent(run: JobRun, seconds: float) -> str:
    progress = run.progress
    if progress.finished is not None or progress.failed is not None:
        doing = "it said that it ended, and its process lives"
    elif progress.started is None:
        doing = "it is loading the model"
    else:
        doing = (
            "its process lives" if progress.step is None else f"its process lives, at step {progress.step}"
        )
    saved = progress.checkpoint
    where = "the beginning (it has no checkpoint yet)" if saved is None else "its last checkpoint"
    return (
        f"it has said nothing for {duration(seconds)}, {doing}; see carbonsched logs {run.id}, or have it start again from {where}: "
        f"carbonsched pause {run.id}, then resume"
    )
