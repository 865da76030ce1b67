"""Holds what was decided about a job: the answer of `decide`, `renew` and `ease`, which the director applies."""

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
    """It waits with the model in memory."""
    WAIT_GONE = "wait_gone"
    """It is told to wait, and then to checkpoint and to end: the wait is a long one."""
    STOP = "stop"
    """It is told to checkpoint and to end."""


@dataclass(frozen=True, slots=True)
class Decision:
    """What a job is told, and what becomes of it.

    Example::

        decision = decide(inputs)
        if decision.outcome is Outcome.GO_ON:
            decision.directive.rho  # of the segment inputs.k
    """

    directive: Directive
    outcome: Outcome
    plan: Plan | None = None
    """Behind it; None for a directive that only renews or eases the one before."""
    ending: Ending | None = None
    """Where the job goes when its process has ended; None: the process stays."""
    loss: LossForecast | None = None
    """What the plan should end at; None where no loss is foretold."""
    problem: Problem | None = None
    """What the plan answers."""
    look_s: float = 60.0
    """Seconds until the segment is looked at again while it runs."""
    steps: StepPlan | None = None
    """How many steps the job takes, where that is open."""
    journal: bool = True
    """Whether it is to be read in the job's history; a fresh lease is not."""

    @property
    def price(self) -> float | None:
        """λ of the plan, in gain per gram."""
        return (self.plan.price or None) if self.plan is not None else None

    @property
    def end_s(self) -> float | None:
        """Seconds from now to the end of the last segment that was planned."""
        return self.plan.segments[-1].end_s if self.plan is not None and self.plan.segments else None
