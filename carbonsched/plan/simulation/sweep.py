"""Runs many simulations, every policy with every budget from every start, and sums them up by policy and budget."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import replace
from datetime import UTC, datetime

import numpy as np

from carbonsched.errors import InputError
from carbonsched.model.base import Doc, UtcTime
from carbonsched.plan.simulation.policies import Policy
from carbonsched.plan.simulation.request import DAY_S, ForecastKind, SimRequest
from carbonsched.plan.simulation.result import SimResult
from carbonsched.plan.simulation.simulate import simulate
from carbonsched.plan.working_time import WorkingTime

_HISTORY_S = 30 * DAY_S


class SweepRun(Doc):
    """One simulation without its segments; the fields are those of `SimResult`.

    Example::

        runs = list(sweep(request, starts, ["mpc", "constant"], [5000.0]))
    """

    start: UtcTime
    policy: Policy
    spent_g: float
    budget_g: float
    floor_g: float
    full_g: float
    flops_ratio: float
    gain: float
    oracle_gain: float | None
    finished: bool
    finished_at: UtcTime | None
    missed_deadline_s: float
    waits: int
    flops_effect_g: float
    timing_effect_g: float
    reason: str


class SweepCase(Doc):
    """One policy with one budget, over all starts.

    Example::

        for case in collect(runs, "persistence").cases:
            print(case.policy, case.gain, case.over_budget)
    """

    policy: Policy
    budget_g: float
    runs: int
    finished: float
    """Share of the runs that did all segments."""
    over_budget: int
    """Runs that spent more than the budget."""
    late: int
    """Runs that missed their deadline."""
    gain: float
    """Means over the runs, as all below."""
    gain_low: float
    """A twentieth of the runs gained less."""
    of_oracle: float | None
    """Mean of gain over the oracle's gain, of the runs that did all segments; None: none did."""
    flops_ratio: float
    spent_g: float
    flops_effect_g: float
    timing_effect_g: float


class Sweep(Doc):
    """What `carbonsched simulate --json` prints for more than one run.

    Example::

        result = collect(list(sweep(request, starts, policies, budgets)), request.forecast)
    """

    forecast: ForecastKind
    cases: tuple[SweepCase, ...]
    runs: tuple[SweepRun, ...]


def draw(request: SimRequest, count: int, seed: int = 0) -> tuple[datetime, ...]:
    """`count` random starts on rows of the trace, in order: a month of it lies before each, the whole job behind it.

    Raises InputError where the trace is too short for the job; half a trace's spare time is history where there is less.
    """
    trace = request.trace
    lasts = request.segments * request.segment_hours * 3600.0
    if request.allowed_hours:
        week = WorkingTime.daily(request.allowed_hours, request.timezone, request.start, 7 * DAY_S)
        lasts = lasts / week.share + DAY_S
    lasts = max(lasts, (request.deadline_hours or 0.0) * 3600.0)
    spare = trace.end - float(trace.at[0]) - lasts
    first = int(np.searchsorted(trace.at, float(trace.at[0]) + min(_HISTORY_S, max(spare, 0.0) / 2)))
    last = int(np.searchsorted(trace.at, trace.end - lasts, side="right")) - 1
    if spare < 0 or last < first:
        raise InputError(
            "--starts",
            f"the trace is {(trace.end - float(trace.at[0])) / 3600:.0f} h long, the job may take {lasts / 3600:.0f} h",
            "give a longer trace, fewer segments or an earlier deadline",
        )
    rows = np.random.default_rng(seed).integers(first, last + 1, count)
    return tuple(datetime.fromtimestamp(float(trace.at[i]), UTC) for i in np.sort(rows))


def sweep(
    base: SimRequest, starts: Sequence[datetime], policies: Sequence[Policy], budgets: Sequence[float]
) -> Iterator[SweepRun]:
    """Run them all; `base` gives the rest. One at a time, so that a caller can show progress."""
    for start in starts:
        for budget in budgets:
            oracle: SimResult | None = None
            for policy in policies:
                # the oracle's plan is the same for every policy: solved with the first
                request = replace(base, start=start, policy=policy, budget_g=budget, oracle=oracle is None)
                result = simulate(request)
                oracle = oracle or result
                yield SweepRun(
                    start=start,
                    oracle_gain=oracle.oracle_gain,
                    **{name: getattr(result, name) for name in _SHARED},
                )


_SHARED = tuple(name for name in SweepRun.model_fields if name not in ("start", "oracle_gain"))


def collect(runs: Sequence[SweepRun], forecast: ForecastKind) -> Sweep:
    """Group the runs by policy and budget, in the order in which they come."""
    groups: dict[tuple[Policy, float], list[SweepRun]] = {}
    for run in runs:
        groups.setdefault((run.policy, run.budget_g), []).append(run)
    return Sweep(forecast=forecast, cases=tuple(_case(group) for group in groups.values()), runs=tuple(runs))


def _case(runs: list[SweepRun]) -> SweepCase:
    def mean(name: str) -> float:
        return math.fsum(getattr(run, name) for run in runs) / len(runs)

    shares = [run.gain / run.oracle_gain for run in runs if run.oracle_gain and run.finished]
    return SweepCase(
        policy=runs[0].policy,
        budget_g=runs[0].budget_g,
        runs=len(runs),
        finished=mean("finished"),
        over_budget=sum(run.spent_g > run.budget_g for run in runs),
        late=sum(run.missed_deadline_s > 1.0 for run in runs),
        gain=mean("gain"),
        gain_low=float(np.quantile([run.gain for run in runs], 0.05)),
        of_oracle=math.fsum(shares) / len(shares) if shares else None,
        flops_ratio=mean("flops_ratio"),
        spent_g=mean("spent_g"),
        flops_effect_g=mean("flops_effect_g"),
        timing_effect_g=mean("timing_effect_g"),
    )
