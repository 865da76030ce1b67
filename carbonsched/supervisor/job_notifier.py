"""Says what became of a job to whoever wants to be notified: once for each end, and once for a budget that goes too fast."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

from carbonsched.clock import Clock
from carbonsched.model.job_state import JobState
from carbonsched.model.notification import Happening, Notification
from carbonsched.supervisor.jobs.job_run import JobRun
from carbonsched.units import MJ_PER_J

_OF_STATE: Final = {
    JobState.FINISHED: Happening.FINISHED,
    JobState.FAILED: Happening.FAILED,
    JobState.STOPPED: Happening.STOPPED,
}
RISK_FROM: Final = 0.5
"""Of the budget: before that the share of the work that is done tells little."""
RISK_FACTOR: Final = 1.5
"""At risk: the share of the steps that are left is so many times that of the grams."""


def _nobody(_: Notification) -> None:
    pass


@dataclass(slots=True)
class JobNotifier:
    """What is said of jobs, and what was said already.

    Example::

        notifier.send = senders.put
        notifier.moved(run, JobState.FINISHED, "done")
    """

    clock: Clock
    send: Callable[[Notification], None] = _nobody
    """Must not wait."""
    _warned: dict[str, float] = field(default_factory=dict)
    """Job → the budget that was said to be at risk."""

    def moved(self, run: JobRun, new: JobState, reason: str) -> None:
        """The job has come to this state."""
        if (happening := _OF_STATE.get(new)) is not None:
            self._warned.pop(run.id, None)
            self._tell(run, happening, reason)

    def unresponsive(self, run: JobRun, reason: str) -> None:
        """Its process lives and does not do what it should."""
        self._tell(run, Happening.UNRESPONSIVE, reason)

    def look(self, run: JobRun) -> None:
        """Whether a running job's budget goes faster than its work. Cheap: at every tick."""
        started, done, budget = run.progress.started, run.progress.step, run.budget_g
        if started is None or done is None or not started.steps or not budget:
            return  # of a job of open end nothing is left: it takes as many as the budget pays for
        if self._warned.get(run.id) == budget:
            return
        grams_left, steps_left = 1 - run.charged_g / budget, 1 - done / started.steps
        if 1 - grams_left >= RISK_FROM and steps_left > max(grams_left, 0.0) * RISK_FACTOR:
            self._warned[run.id] = budget
            self._tell(
                run,
                Happening.AT_RISK,
                f"{steps_left:.0%} of the steps are left, {grams_left:.0%} of the budget",
            )

    def _tell(self, run: JobRun, happening: Happening, reason: str) -> None:
        self.send(
            Notification(
                event=happening,
                at=self.clock.now(),
                job=run.id,
                name=run.spec.name,
                owner=run.job.owner.user,
                reason=reason,
                spent_g=run.account.spent_g,
                budget_g=run.budget_g,
                energy_j=run.account.spent_mj / MJ_PER_J,
                estimated=run.account.estimated,
                asked=happening in run.spec.notify,
            )
        )
