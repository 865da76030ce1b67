"""Divides a pool among its jobs at one price: each job gets as much as it gains from one more gram at that price."""

from collections.abc import Callable, Sequence

from carbonsched.plan.allocation import Allotment, divide
from carbonsched.plan.problem import Problem
from carbonsched.supervisor.budgets.pools import Pool, members_of, weight_share
from carbonsched.supervisor.jobs.job_run import JobRun

ProblemOf = Callable[[JobRun], Problem | None]
"""Returns a job's problem without its budget; None while nothing is known of the job."""


def divide_pool(pool: Pool, runs: Sequence[JobRun], problem_of: ProblemOf) -> list[tuple[JobRun, Allotment]]:
    """Return (job, part) for all jobs of a pool that does not accrue, and set the pool's price. runs: all jobs that are not over.

    Until a job has reported its work, its need is a guess: while it loads it may use the share of its weight, as long as that leaves the
    floors of training jobs untouched.
    """
    members = members_of(pool, runs)
    asked = [(run, problem_of(run)) for run in members]
    settled = [(run, problem) for run, problem in asked if problem is not None and not run.loading]
    problems = [problem for _, problem in settled]
    weights = [run.spec.carbon.weight for run, _ in settled]
    begun = [run.alive or bool(run.progress.done) for run, _ in settled]
    left = max(pool.left_g(members), 0.0)
    parts, pool.price = divide(problems, left, weights, begun)
    loading = [run for run, problem in asked if problem is None or run.loading]
    if not loading:
        return [(run, part) for (run, _), part in zip(settled, parts, strict=True)]
    kept = sum(part.floor_g for part, live in zip(parts, begun, strict=True) if live)
    spare = max(left - kept, 0.0)
    given = {
        run.id: min(left * weight_share(run, members), spare * weight_share(run, loading)) for run in loading
    }
    parts, pool.price = divide(problems, left - sum(given.values()), weights, begun)
    return [(run, Allotment(given[run.id], 0.0)) for run in loading] + [
        (run, part) for (run, _), part in zip(settled, parts, strict=True)
    ]


def preview_part(pool: Pool, run: JobRun, runs: Sequence[JobRun], problem_of: ProblemOf) -> float:
    """Grams that a job would get if it were submitted now. runs: all other jobs that are not over."""
    others = [*runs, run]
    if pool.accrual is not None:
        members = members_of(pool, others)
        return max(pool.left_g(members), 0.0) * weight_share(run, members)
    return next(part.budget_g for other, part in divide_pool(pool, others, problem_of) if other is run)
