"""Notifies people of jobs: once for each end, and once for a budget that is spent too fast."""

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
"""Share of the budget below which the progress made says little."""
RISK_FACTOR: Final = 1.5
"""A job is at risk if the share of steps left is this many times the share of grams left."""


def _nobody(_: Notification) -> None:
    pass


@dataclass(slots=True)
class JobNotifier:
    """What is notified of jobs, and what already was.

    Example::

        notifier.send = senders.put
        notifier.moved(run, JobState.FINISHED, "done")
    """

    clock: Clock
    send: Callable[[Notification], None] = _nobody
    """Must not block."""
    _warned: dict[str, float] = field(default_factory=dict)
    """Job → the budget for which a risk was notified."""

    def moved(self, run: JobRun, new: JobState, reason: str) -> None:
        """The job has moved to this state."""
        if (happening := _OF_STATE.get(new)) is not None:
            self._warned.pop(run.id, None)
            self._notify(run, happening, reason)

    def unresponsive(self, run: JobRun, reason: str) -> None:
        """The job's process lives but does not do what it should."""
        self._notify(run, Happening.UNRESPONSIVE, reason)

    def look(self, run: JobRun) -> None:
        """Check whether a running job's budget is spent faster than its work is done. Cheap enough for every tick."""
        started, done, budget = run.progress.started, run.progress.step, run.budget_g
        if started is None or done is None or not started.steps or not budget:
            return  # a job of open end has no fixed work left: it takes as many steps as the budget pays for
        if self._warned.get(run.id) == budget:
            return
        grams_left, steps_left = 1 - run.charged_g / budget, 1 - done / started.steps
        if 1 - grams_left >= RISK_FROM and steps_left > max(grams_left, 0.0) * RISK_FACTOR:
            self._warned[run.id] = budget
            self._notify(
                run,
                Happening.AT_RISK,
                f"{steps_left:.0%} of the steps are left, {grams_left:.0%} of the budget",
            )

    def _notify(self, run: JobRun, happening: Happening, reason: str) -> None:
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
