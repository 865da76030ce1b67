"""Holds a command of `carbonsched run`, which takes no directives, to its budget: warns once, and ends the command if asked to.

A command may ignore SIGTERM, so the grams that it would spend until SIGKILL are kept back, and SIGTERM comes that much earlier. They are
an estimate, by its power and the grid of now; where they turn out too few, SIGKILL comes earlier.
"""

from dataclasses import dataclass

from carbonsched.model.job import CommandPart
from carbonsched.model.job_state import JobState
from carbonsched.supervisor.jobs.job_run import JobRun
from carbonsched.supervisor.jobs.process_state import Ending
from carbonsched.text import grams

_MOST_KEPT = 0.5
"""Share of a budget that is kept back at most: a command that ends at once is not to lose more of it."""


@dataclass(frozen=True, slots=True)
class Grace:
    """The time that a command has to end.

    Example:
        >>> Grace(seconds=30.0, grams=0.2).grams
        0.2
    """

    seconds: float
    grams: float
    """What it is expected to emit meanwhile: kept back of its budget."""


def grace(run: JobRun, g_per_s: float) -> Grace | None:
    """The time to end that its budget pays for; None: no budget ends it. g_per_s: grams per second that it emits now."""
    command, budget_g = run.command, run.budget_g
    if command is None or budget_g is None or not command.stop:
        return None
    seconds = command.grace_s
    if g_per_s * seconds > _MOST_KEPT * budget_g:
        seconds = _MOST_KEPT * budget_g / g_per_s
    return Grace(seconds, g_per_s * seconds)


def too_small(command: CommandPart, budget_g: float, tick_g: float) -> tuple[str, ...]:
    """What is to be said before the start of one whose budget may not pay for a tick. tick_g: the most that a tick may emit."""
    if not command.stop or tick_g <= budget_g:
        return ()
    return (
        f"until it is metered again it may emit {grams(tick_g)}, more than its budget of {grams(budget_g)}: it is stopped at once",
    )


def warning(run: JobRun) -> str | None:
    """The warning to journal once; None: there is none, or it was journalled."""
    if run.command is None or run.budget_g is None or run.warned:
        return None
    if run.charged_g < run.command.warn * run.budget_g:
        return None
    return f"{grams(run.charged_g)} of {grams(run.budget_g)} are spent"


def ending(run: JobRun, tick_g: float, kept: Grace | None) -> Ending | None:
    """The ending, if the command is to be stopped at its budget, and one more tick and its grace could exceed that. tick_g: the most that a
    tick may emit."""
    budget_g = run.budget_g
    if kept is None or budget_g is None or run.process.target is not None:
        return None
    if run.charged_g + tick_g + kept.grams <= budget_g:
        return None
    rest = f", but for {grams(kept.grams)} that it may take to end" if kept.grams > 0 else ""
    return Ending(JobState.STOPPED, f"its budget of {grams(budget_g)} is spent{rest}")


def is_spent(run: JobRun, tick_g: float) -> bool:
    """Whether a command that was told to end, and lives, is to be killed since one more tick could exceed its budget."""
    command, budget_g = run.command, run.budget_g
    if command is None or budget_g is None or not command.stop or run.process.target is None:
        return False
    return run.charged_g + tick_g > budget_g
