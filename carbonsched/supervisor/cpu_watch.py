"""Follows how much processor time each live job took from one tick to the next, and how much everything else on the box did."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from carbonsched.clock import Clock
from carbonsched.launch.base import Launcher
from carbonsched.launch.cpu_time import box_s
from carbonsched.power.cpu_share import CpuUse
from carbonsched.supervisor.jobs.job_run import JobRun

ENDED = "exit"
"""Of `Launcher.cpu_times`: all that the job took, said by its shim when it had ended."""
_NOISE_S = 0.02
"""The kernel counts in ticks of a hundredth of a second."""
_Times = Mapping[str, float]


@dataclass(frozen=True, slots=True)
class _Seen:
    at_s: float
    busy_s: float
    jobs: Mapping[str, _Times]


@dataclass(slots=True)
class CpuWatch:
    """Asked once per tick of the host's meter.

    Example::

        use = watch.since(live)  # None: CPU time is not known of all of them
    """

    launcher: Launcher
    clock: Clock
    box: Callable[[], float | None] = box_s
    _before: _Seen | None = field(default=None)

    def since(self, live: Sequence[JobRun]) -> CpuUse | None:
        """CPU time since it was asked last; None at first, and where that of a job or of the box cannot be told."""
        before, at_s, busy_s = self._before, self.clock.awake(), self.box()
        known = {} if before is None else before.jobs
        # one that is being started has no process yet
        jobs = {run.id: self._times(run, known.get(run.id, {})) for run in live if not run.process.starting}
        self._before = None if busy_s is None else _Seen(at_s, busy_s, jobs)
        if before is None or busy_s is None or not all(jobs.values()):
            return None
        used = {job_id: taken(before.jobs.get(job_id), times) for job_id, times in jobs.items()}
        others_s = max(busy_s - before.busy_s - sum(used.values()), 0.0)
        return CpuUse(at_s - before.at_s, used, others_s)

    def _times(self, run: JobRun, before: _Times) -> _Times:
        times = self.launcher.cpu_times(run.dir)
        if any(times.get(key, seconds) < seconds - _NOISE_S for key, seconds in before.items()):
            # a child that was waited for between two reads was missed: by now it counts with its parent
            return self.launcher.cpu_times(run.dir)
        return times


def taken(before: _Times | None, now: _Times) -> float:
    """CPU seconds between two answers of `Launcher.cpu_times`; before: None where the job has begun since.

    Never below 0. What was found only now, of a job that was there before, counts from now on.

    Example:
        >>> taken({"cgroup": 2.0}, {"cgroup": 2.5}), taken(None, {"cgroup": 0.5}), taken({"7:1": 2.0}, {"exit": 2.25})
        (0.5, 0.5, 0.25)
    """
    if before is None:
        return sum(now.values())
    if ENDED in now and ENDED not in before:
        return max(now[ENDED] - sum(before.values()), 0.0)
    return sum(max(seconds - before.get(key, seconds), 0.0) for key, seconds in now.items())
