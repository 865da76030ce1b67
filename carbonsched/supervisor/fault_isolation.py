"""Keeps a fault of one job from the others: the work is retried, or that job alone fails."""

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from enum import Enum, auto

from carbonsched.clock import Clock
from carbonsched.errors import LaunchError, LedgerError
from carbonsched.launch.base import ProcessStatus
from carbonsched.supervisor.jobs.job_run import JobRun

log = logging.getLogger(__name__)

SAID_AGAIN_S = 60.0
"""The same fault is logged once in so many seconds."""
REBUILD_S = 60.0
"""Seconds between two attempts to rebuild a job that was set aside."""
PATIENCE_S = 300.0
"""Seconds that a job the daemon cannot follow may keep its device; its lease lapses meanwhile."""

UNSURE_S = 60.0
"""Seconds for which a process counts as alive when the daemon cannot tell."""


class Due(Enum):
    """What to do now with a job that cannot be followed.

    Example:
        >>> Due.REBUILD.name
        'REBUILD'
    """

    NOTHING = auto()
    REBUILD = auto()
    END = auto()


@dataclass(slots=True)
class FaultIsolation:
    """Wraps every piece of work done for one job.

    Example::

        with isolation.alone(run):
            advance(run)  # whatever it raises, the next job is come to
    """

    clock: Clock
    fail: Callable[[JobRun, str], None]
    """Fails a job that cannot continue."""
    _logged: dict[str, float] = field(default_factory=dict)
    """Fault → monotonic time at which it was logged."""
    _unsure_since: dict[str, float] = field(default_factory=dict)
    """Job whose process may be alive or dead → time awake since when that is unknown."""
    _rebuild_at: dict[str, float] = field(default_factory=dict)
    """Job that is set aside → monotonic time of the next attempt."""

    @contextmanager
    def alone(self, run: JobRun | None) -> Iterator[None]:
        """Run work for one job. A full disk or an unreachable process is shown with the job and retried at the next tick; a fault that
        cannot pass fails the job. None: the work is for all jobs, and no job fails for it."""
        try:
            yield
        except (OSError, LedgerError, LaunchError) as e:
            self._pass_over(run, e)
        except Exception as e:
            self.say(_name(run), "the daemon cannot go on", error=e)
            if run is not None:
                self._fail(run, f"the daemon cannot go on with it: {type(e).__name__}: {e}")

    def due(self, run: JobRun) -> Due:
        """What to do with a job that is set aside or whose events cannot be read; logs it too."""
        now = self.clock.monotonic()
        since = run.aside_s if run.aside else run.unheard_s
        self.say(_name(run), f"set aside: {run.aside}" if run.aside else run.unheard)
        if run.alive and run.process.target is None and now - since >= PATIENCE_S:
            return Due.END
        if run.aside and now >= self._rebuild_at.get(run.id, since + REBUILD_S):
            self._rebuild_at[run.id] = now + REBUILD_S
            return Due.REBUILD
        return Due.NOTHING

    def unsure(self, run: JobRun, polled: ProcessStatus) -> bool:
        """Whether the process counts as alive because the daemon cannot tell; logs it too."""
        if polled.problem:
            self.say(_name(run), polled.problem)
            run.note_trouble(polled.problem)
        if polled.state != "unknown":
            self._unsure_since.pop(run.id, None)
            return False
        now = self.clock.awake()
        return now - self._unsure_since.setdefault(run.id, now) < UNSURE_S

    def say(self, name: str, text: str, error: Exception | None = None) -> None:
        """Log a fault, with the place of an unforeseen error; the same one again only after a minute."""
        now, key = self.clock.monotonic(), f"{name}: {text}: {type(error).__name__}"
        if now - self._logged.get(key, -SAID_AGAIN_S) < SAID_AGAIN_S:
            return
        if len(self._logged) > 1000:
            self._logged.clear()
        self._logged[key] = now
        log.log(logging.ERROR if error else logging.WARNING, "%s: %s", name, text, exc_info=error)

    def _pass_over(self, run: JobRun | None, error: Exception) -> None:
        text = f"{error}; tried again at the next tick"
        self.say(_name(run), text)
        if run is not None:
            run.note_trouble(text)

    def _fail(self, run: JobRun, reason: str) -> None:
        try:
            self.fail(run, reason)
        except (OSError, LedgerError, LaunchError) as e:
            self._pass_over(run, e)
        except Exception as e:
            self.say(_name(run), "cannot even be failed", error=e)
            run.note_trouble(reason)


def _name(run: JobRun | None) -> str:
    return "the jobs" if run is None else f"job {run.id}"
