"""Computes what remains of a job: from its own events while it runs, from the trainer's check before it has begun."""

from dataclasses import dataclass

from carbonsched.plan.problem import JobSegment
from carbonsched.supervisor.jobs.job_run import JobRun


@dataclass(frozen=True, slots=True)
class RemainingWork:
    """The segments still to run, the one under way with the steps it has left.

    Example::

        remaining = remaining_work(run)
        sum(segment.steps for segment in remaining.segments)
    """

    segments: tuple[JobSegment, ...]
    rho_floor: float
    done: float
    """Share of the job's steps that are done."""
    rho_due: float | None
    """Mean ρ that these steps must reach for the `rho_mean` of the whole job; None where none is wanted."""
    known: bool
    """Whether the job itself said so; False: the check foresaw it, and the gain is taken as linear in ρ."""


def remaining_work(run: JobRun) -> RemainingWork | None:
    """None for a job that has said nothing yet and came without a check."""
    ready, checked, progress = run.progress.ready, run.checked, run.progress
    if ready is not None:
        under_way = min(max((progress.step or 0) - ready.first_step, 0), ready.steps - 1)
        steps = [
            ready.steps - under_way,
            *spread(ready.steps_left - ready.steps, ready.segments - ready.k - 1),
        ]
        total = ready.first_step + ready.steps_left
        curve = tuple((point.rho, point.importance) for point in ready.frontier)
        return _of_steps(run, steps, ready.k, curve, ready.rho_floor, total, under_way, known=True)
    if checked is None:
        return None
    done = sum(d.steps for d in progress.done)
    k, n = len(progress.done), max(checked.segments, len(progress.done) + 1)
    steps = spread(max(checked.steps - done, 1), n - k)
    floor = checked.rho_floor
    return _of_steps(run, steps, k, ((floor, floor), (1.0, 1.0)), floor, checked.steps, 0, known=False)


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
    """Steps of the segments to come, spread evenly: only their sum is known."""
    if segments <= 0 or steps <= 0:
        return []
    base, more = divmod(steps, segments)
    return [base + (i < more) for i in range(segments)]
