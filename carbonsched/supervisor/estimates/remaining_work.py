"""Computes a job's remaining work: from its events while it runs, from the trainer's check before it has started."""

from dataclasses import dataclass

from carbonsched.model.methods.traits import METHODS
from carbonsched.model.protocol import SegmentReady
from carbonsched.plan.problem import JobSegment
from carbonsched.plan.step_dial import OpenEnd
from carbonsched.supervisor.jobs.job_run import JobRun

_LAG_S = 2.0
"""A trainer may be this many seconds ahead of its last event: it reports a step per second, and is read at each tick."""
_LENGTH = 100
"""Steps assumed per segment of a job that does not report them."""


@dataclass(frozen=True, slots=True)
class RemainingWork:
    """The segments still to run; the current one with the steps it has left.

    Example::

        remaining = remaining_work(run)
        sum(segment.steps for segment in remaining.segments)
    """

    segments: tuple[JobSegment, ...]
    rho_floor: float
    done: float
    """Share of the job's steps that are done."""
    rho_due: float | None
    """Mean ρ that the remaining steps must reach to give the job its `rho_mean`; None if none is asked for."""
    known: bool
    """Whether the job itself reported it. False: it comes from the check, and gain is assumed linear in ρ."""
    open_end: OpenEnd | None = None
    """Set if the number of further steps is open: `segments` then holds only the first."""


def remaining_work(run: JobRun) -> RemainingWork | None:
    """Compute it; None for a job that has reported nothing and came without a check."""
    ready, checked, progress = run.progress.ready, run.checked, run.progress
    if ready is not None:
        under_way = min(max((progress.step or 0) - ready.first_step, 0), ready.steps - 1)
        curve = tuple((point.rho, point.importance) for point in ready.frontier)
        if run.spec.train.scheduler == "budget" or ready.steps_left is None or ready.segments is None:
            return _of_open_end(_under_way(run, ready, under_way), curve, ready.rho_floor, known=True)
        steps = [
            ready.steps - under_way,
            *spread(ready.steps_left - ready.steps, ready.segments - ready.k - 1),
        ]
        total = ready.first_step + ready.steps_left
        return _of_steps(run, steps, ready.k, curve, ready.rho_floor, total, under_way, known=True)
    if checked is None:
        return None
    done = sum(d.steps for d in progress.done)
    k, floor = len(progress.done), checked.rho_floor
    line = ((floor, floor), (1.0, 1.0))
    if checked.steps is None or checked.segments is None:
        length, share = checked.segment_steps or _LENGTH, run.spec.train.cooldown
        end = OpenEnd(done=done, k=k, here=length, length=length, share=share, most=checked.most_steps)
        traits = METHODS.get(run.spec.train.method)
        constant = traits is not None and traits.constant_rho
        return _of_open_end(end, ((floor, 1.0),) if constant else line, floor, known=False)
    n = max(checked.segments, k + 1)
    steps = spread(max(checked.steps - done, 1), n - k)
    return _of_steps(run, steps, k, line, floor, checked.steps, 0, known=False)


def _under_way(run: JobRun, ready: SegmentReady, under_way: int) -> OpenEnd:
    told = run.directive if run.directive is not None and run.directive.k == ready.k else None
    cools_from = ready.cooldown_from
    if told is not None and told.phase == "cooldown":
        cools_from = told.cooldown_from
    rho = told.rho if told is not None else None
    if told is None and ready.points and cools_from is not None and run.progress.done:
        rho = run.progress.done[-1].rho_directed  # a cooldown does not change its setting
    trains = told is not None and told.action == "train" and run.progress.waiting is None
    return OpenEnd(
        done=ready.first_step + under_way,
        k=ready.k,
        here=ready.steps - under_way,
        length=ready.segment_steps or ready.steps,
        share=run.spec.train.cooldown,
        most=ready.most_steps,
        rho=rho,
        cools_from=cools_from,
        lag_s=_LAG_S if trains else 0.0,
    )


def _of_open_end(
    end: OpenEnd, curve: tuple[tuple[float, float], ...], floor: float, *, known: bool
) -> RemainingWork:
    first = (JobSegment(end.k, end.here, curve),)
    return RemainingWork(first, floor, done=0.0, rho_due=None, known=known, open_end=end)


def _of_steps(
    run: JobRun,
    steps: list[int],
    k: int,
    curve: tuple[tuple[float, float], ...],
    floor: float,
    total: int,
    under_way: int,
    *,
    known: bool,
) -> RemainingWork:
    left, wanted = max(sum(steps), 1), run.spec.carbon.rho_mean
    due = None
    if wanted is not None:
        rho = run.directive.rho if run.directive and run.directive.rho else wanted
        trained = sum(d.steps * d.rho_realised for d in run.progress.done) + under_way * rho
        due = min(max((wanted * total - trained) / left, floor), 1.0)
    return RemainingWork(
        segments=tuple(JobSegment(k + i, n, curve) for i, n in enumerate(steps) if n > 0),
        rho_floor=floor,
        done=1 - left / max(total, 1),
        rho_due=due,
        known=known,
    )


def spread(steps: int, segments: int) -> list[int]:
    """Spread the remaining steps evenly over the segments: only their sum is known."""
    if segments <= 0 or steps <= 0:
        return []
    base, more = divmod(steps, segments)
    return [base + (i < more) for i in range(segments)]
