"""The notification about a job. It names the job and says what happened; nothing of its data, its paths or its spec is in it."""

from enum import StrEnum
from typing import Literal

from carbonsched.model.base import Doc, UtcTime


class Happening(StrEnum):
    """What notifications are about.

    Example:
        >>> Happening("at-risk").value
        'at-risk'
    """

    FINISHED = "finished"
    FAILED = "failed"
    STOPPED = "stopped"
    """On budget."""
    AT_RISK = "at-risk"
    """The budget is spent faster than the work is done: the job may be stopped on budget."""
    UNRESPONSIVE = "unresponsive"
    """Its process lives but disobeys its directive, or sends no event for long."""


class Notification(Doc):
    """One thing that happened to a job.

    Example:
        >>> told = Notification(event="finished", at="2026-11-22T10:00:00Z", job="tiny-7f3a1c", name="tiny", owner="ada",
        ...     reason="done", spent_g=12.5, budget_g=20.0, energy_j=1e5, estimated=False)
        >>> told.line
        'tiny-7f3a1c finished: done (12.5 g of 20 g)'
    """

    version: Literal[1] = 1
    event: Happening
    at: UtcTime
    job: str
    name: str
    owner: str
    reason: str
    spent_g: float
    budget_g: float | None
    energy_j: float
    estimated: bool
    """Whether any of the energy is estimated."""
    asked: bool = False
    """Whether the job itself asks to mail its submitter."""

    @property
    def line(self) -> str:
        """In one line, for a subject or a chat."""
        of = "" if self.budget_g is None else f" of {self.budget_g:g} g"
        about = "~" if self.estimated else ""
        what = self.event.value.replace("-", " ")
        return f"{self.job} {what}: {self.reason} ({about}{self.spent_g:.4g} g{of})"
