"""Holds a command of `carbonsched run`, which takes no directives, to its budget: warns once, and ends the command if asked to."""

from carbonsched.model.job_state import JobState
from carbonsched.supervisor.jobs.job_run import JobRun
from carbonsched.supervisor.jobs.process_state import Ending
from carbonsched.text import grams


def warning(run: JobRun) -> str | None:
    """The warning to journal once; None: there is none, or it was journalled."""
    if run.command is None or run.budget_g is None or run.warned:
        return None
    if run.charged_g < run.command.warn * run.budget_g:
        return None
    return f"{grams(run.charged_g)} of {grams(run.budget_g)} are spent"


def ending(run: JobRun, tick_g: float) -> Ending | None:
    """The ending, if one more tick could exceed the budget and the command is to be stopped there. tick_g: the most that a tick may emit."""
    command, budget_g = run.command, run.budget_g
    if command is None or budget_g is None or not command.stop or run.process.target is not None:
        return None
    if run.charged_g + tick_g <= budget_g:
        return None
    return Ending(JobState.STOPPED, f"its budget of {grams(budget_g)} is spent")
