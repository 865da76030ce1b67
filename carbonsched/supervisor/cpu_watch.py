"""Measures the CPU time that each live job, and everything else on the box, used from one tick to the next."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from carbonsched.clock import Clock
from carbonsched.launch.base import Launcher
from carbonsched.launch.cpu_time import box_s
from carbonsched.power.cpu_share import CpuUse
from carbonsched.supervisor.jobs.job_run import JobRun

ENDED = "exit"
"""Key in `Launcher.cpu_times` for the total of a job that has ended, as its shim reported it."""
_NOISE_S = 0.02
"""The kernel counts CPU time in ticks of 10 ms."""
_Times = Mapping[str, float]


@dataclass(frozen=True, slots=True)
class _Seen:
    at_s: float
    busy_s: float
    jobs: Mapping[str, _Times]


@dataclass(slots=True)
class CpuWatch:
    """Measures CPU time once per tick of the host's meter.

    Example::

        use = watch.since(live)  # None: CPU time is not known of all of them
    """

    launcher: Launcher
    clock: Clock
    box: Callable[[], float | None] = box_s
    _before: _Seen | None = field(default=None)

    def since(self, live: Sequence[JobRun]) -> CpuUse | None:
        """CPU time since the last call; None at the first call, or if that of a job or of the box cannot be read."""
        before, at_s, busy_s = self._before, self.clock.awake(), self.box()
        known = {} if before is None else before.jobs
        # a job that is starting has no process yet
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
            # a child that exited between two reads was missed; its time now counts with its parent
            return self.launcher.cpu_times(run.dir)
        return times


def taken(before: _Times | None, now: _Times) -> float:
    """CPU seconds between two results of `Launcher.cpu_times`, never below 0; before: None if the job has started since. Processes of an
    older job that appear for the first time count from now on.

    Example:
        >>> taken({"cgroup": 2.0}, {"cgroup": 2.5}), taken(None, {"cgroup": 0.5}), taken({"7:1": 2.0}, {"exit": 2.25})
        (0.5, 0.5, 0.25)
    """
    if before is None:
        return sum(now.values())
    if ENDED in now and ENDED not in before:
        return max(now[ENDED] - sum(before.values()), 0.0)
    return sum(max(seconds - before.get(key, seconds), 0.0) for key, seconds in now.items())
