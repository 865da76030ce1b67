"""Has the feeds polled by APScheduler, beside the tick and never in its way.

APScheduler computes by the wall clock, since that is what providers publish by. A clock that is set forward makes its own
interval trigger enumerate every run that was missed, one that is set back makes it wait until the old time comes again;
`FromNow` misses nothing, and `Polling.restart` is called after a step of the clock. A provider that does not answer keeps
neither the tick nor the end of the daemon: runs are daemon threads.
"""

import logging
import sys
import threading
from collections.abc import Callable
from datetime import datetime, timedelta

from apscheduler.executors.base import BaseExecutor, run_job
from apscheduler.job import Job
from apscheduler.schedulers.background import BackgroundScheduler
from apscheduler.triggers.base import BaseTrigger

_NAME = "poll"


class FromNow(BaseTrigger):  # type: ignore[misc]
    """Runs at once, and then an interval after now, whenever now is: what was missed is neither counted nor made up for.

    Example:
        >>> FromNow(60.0).get_next_fire_time(datetime(2026, 1, 1), datetime(2036, 1, 1))
        datetime.datetime(2036, 1, 1, 0, 1)
    """

    def __init__(self, every_s: float) -> None:
        self.every = timedelta(seconds=every_s)

    def get_next_fire_time(self, previous_fire_time: datetime | None, now: datetime) -> datetime:
        return now if previous_fire_time is None else now + self.every


class DaemonThreadExecutor(BaseExecutor):  # type: ignore[misc]
    """Runs each job in a thread that the end of the process does not wait for.

    Example:
        >>> scheduler = BackgroundScheduler(executors={"default": DaemonThreadExecutor()})
    """

    def _do_submit_job(self, job: Job, run_times: list[datetime]) -> None:
        threading.Thread(target=self._run, args=(job, run_times), name=job.id, daemon=True).start()

    def _run(self, job: Job, run_times: list[datetime]) -> None:
        try:
            events = run_job(job, job._jobstore_alias, run_times, self._logger.name)
        except BaseException as e:
            self._run_job_error(job.id, e, sys.exc_info()[2])
        else:
            self._run_job_success(job.id, events)


class Polling:
    """Work that is done every so many seconds, by the wall clock; work that still runs is not begun again.

    Example:
        >>> done = threading.Event()
        >>> polling = Polling(done.set, every_s=1.0)
        >>> polling.start()
        >>> done.wait(5.0)
        True
        >>> polling.stop()
    """

    def __init__(self, work: Callable[[], object], every_s: float) -> None:
        self._work = work
        self._every_s = every_s
        self._lock = threading.Lock()
        self._running = False
        self._again = False
        self.first = threading.Event()
        """Set once the work was done for the first time, or has failed."""
        # it would warn each time that a run is skipped because the one before still waits for its provider
        logging.getLogger("apscheduler").setLevel(logging.ERROR)
        self._scheduler = BackgroundScheduler(
            executors={"default": DaemonThreadExecutor()},
            # more than one, since it counts a run that is over until its thread has told so: `_run` sees that one works at a time
            job_defaults={"coalesce": True, "max_instances": 3, "misfire_grace_time": None},
            timezone="UTC",
        )

    def start(self) -> None:
        """Do the work now, and then every `every_s`."""
        self._scheduler.add_job(self._run, FromNow(self._every_s), id=_NAME)
        self._scheduler.start()

    def restart(self) -> None:
        """After the wall clock was set: the next run was computed by the old one. What is being done is then done once more."""
        with self._lock:
            self._again = True
        self._scheduler.reschedule_job(_NAME, trigger=FromNow(self._every_s))

    def stop(self) -> None:
        """Do it no more; not waited for where it is being done."""
        self._scheduler.shutdown(wait=False)

    def _run(self) -> None:
        with self._lock:
            if self._running:
                return
            self._running, self._again = True, False
        try:
            self._work()
        finally:
            self.first.set()
            with self._lock:
                self._running, again = False, self._again
            if again and self._scheduler.running:
                self._scheduler.reschedule_job(_NAME, trigger=FromNow(self._every_s))
