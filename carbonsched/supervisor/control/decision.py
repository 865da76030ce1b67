"""Defines Decision: the result of `decide`, `renew` and `ease`, which the director applies."""

from dataclasses import dataclass
from enum import StrEnum

from carbonsched.model.protocol import Directive
from carbonsched.plan.problem import Plan, Problem
from carbonsched.plan.step_dial import StepPlan
from carbonsched.supervisor.estimates.loss_outlook import LossForecast
from carbonsched.supervisor.jobs.process_state import Ending


class Outcome(StrEnum):
    """What becomes of the job's process.

    Example:
        >>> Outcome("stop") is Outcome.STOP
        True
    """

    GO_ON = "go_on"
    WAIT_RESIDENT = "wait_resident"
    """The process waits with the model in memory."""
    WAIT_GONE = "wait_gone"
    """The process waits, then checkpoints and exits: the wait is long."""
    STOP = "stop"
    """The process checkpoints and exits."""


@dataclass(frozen=True, slots=True)
class Decision:
    """A directive for a job, and what happens to its process.

    Example::

        decision = decide(inputs)
        if decision.outcome is Outcome.GO_ON:
            decision.directive.rho  # of the segment inputs.k
    """

    directive: Directive
    outcome: Outcome
    plan: Plan | None = None
    """The plan behind the directive; None if the directive only renews or eases the one before."""
    ending: Ending | None = None
    """The state the job moves to after its process has ended; None: the process stays."""
    loss: LossForecast | None = None
    """The held-out loss expected at the plan's end; None if none is forecast."""
    problem: Problem | None = None
    """The problem that the plan solves."""
    recheck_s: float = 60.0
    """Seconds until the running segment is checked again."""
    steps: StepPlan | None = None
    """Total steps of the job, if the daemon decides how many there are."""
    journal: bool = True
    """Whether the directive appears in the job's history; a mere renewal does not."""

    @property
    def price(self) -> float | None:
        """λ of the plan, in gain per gram."""
        return (self.plan.price or None) if self.plan is not None else None

    @property
    def end_s(self) -> float | None:
        """Seconds from now to the end of the last planned segment."""
        return self.plan.segments[-1].end_s if self.plan is not None and self.plan.segments else None
