"""Decides where a job goes after its process has ended, from its exit, its last event and its directive. Pure."""

from datetime import datetime, timedelta

from carbonsched.launch.base import ProcessStatus
from carbonsched.model.job_state import TRANSITIONS, JobState
from carbonsched.model.protocol import VERSION, Started
from carbonsched.supervisor.jobs.job_run import JobRun
from carbonsched.supervisor.jobs.process_state import Ending
from carbonsched.text import duration


def outcome(run: JobRun, polled: ProcessStatus) -> tuple[JobState, str]:
    """The state that the job moves to, and why."""
    finished = run.progress.finished
    code = polled.exit.code if polled.exit else None
    if run.command is not None:
        return _of_command(run, polled)
    # a job that has reported `finished` has saved everything, even if it was then killed at its budget
    killed = polled.exit is not None and polled.exit.signal is not None and run.process.target is not None
    if finished is not None and finished.reason == "done" and (code == 0 or killed):
        return JobState.FINISHED, finished.early or "done"
    if run.process.target is not None:
        return run.process.target, run.process.target_reason
    if finished is not None and code == 0:
        return JobState.PAUSED, f"stopped by a signal from outside; carbonsched resume {run.id} goes on"
    return JobState.FAILED, _death(run, polled)


def again(run: JobRun, reason: str, now: datetime) -> Ending | None:
    """Where a job goes whose process died and which may be tried again; None: it has failed. `run.failed` includes this attempt."""
    queue, failed = run.spec.queue, run.failed + 1
    if failed >= queue.max_attempts:
        return None
    run.note_failed(failed)
    wait_s = queue.backoff_s(failed)
    text = f"attempt {failed} of {queue.max_attempts} failed, the next in {duration(wait_s)}: {reason}"
    return Ending(JobState.WAITING, text, now + timedelta(seconds=wait_s))


def _of_command(run: JobRun, polled: ProcessStatus) -> tuple[JobState, str]:
    """For a command that was only metered: its exit code is all there is."""
    if run.process.target is not None:
        return run.process.target, run.process.target_reason
    if polled.exit is None:
        known = run.process.known_until
        last = "" if known is None else f"; it was last seen alive at {known:%Y-%m-%d %H:%M:%S} UTC"
        return JobState.FAILED, f"it ended, and carbonsched run was not there to see how{last}"
    if polled.exit.signal is not None:
        return JobState.FAILED, f"ended by signal {polled.exit.signal}"
    if polled.exit.code != 0:
        return JobState.FAILED, f"ended with exit code {polled.exit.code}"
    return JobState.FINISHED, "done"


def too_old(run: JobRun, started: Started) -> str | None:
    """Why a trainer of an older protocol cannot train the job; None: it can."""
    if started.protocol >= VERSION or run.spec.train.scheduler != "budget":
        return None
    return (
        f"train.scheduler 'budget' takes a trainer that speaks protocol {VERSION}, the one of launch.python speaks "
        f"{started.protocol}: install this version of carbonsched there"
    )


def left_unsaid(started: Started) -> str | None:
    """What a trainer of an older protocol is not told; None: it is told all."""
    if started.protocol >= VERSION:
        return None
    return f"its trainer speaks protocol {started.protocol}: it is told no setting, no phase and no clocks"


def way(old: JobState, new: JobState) -> tuple[JobState, ...]:
    """The states in between, for a job whose process ran although its state has none."""
    if new is old or new in TRANSITIONS[old]:
        return ()
    before = (JobState.QUEUED,) if JobState.QUEUED in TRANSITIONS[old] else ()
    return (*before, JobState.RUNNING)


def _death(run: JobRun, polled: ProcessStatus) -> str:
    again = run.resume_words()
    if run.progress.failed is not None:
        return f"{run.progress.failed.error}; see carbonsched logs {run.id}"
    unknown = run.aside or run.unheard
    if polled.exit is None:
        why = f"how is not known: {polled.problem}" if polled.problem else "power cut?"
        return f"its process vanished without a word ({why}); {again}"
    if polled.exit.signal is not None:
        return f"killed by signal {polled.exit.signal}; {again}"
    if unknown:
        return f"ended with exit code {polled.exit.code}, what it said is not known: {unknown}; {again}"
    return f"ended with exit code {polled.exit.code}; see carbonsched logs {run.id}"
