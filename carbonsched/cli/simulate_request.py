"""Reads the options of `carbonsched simulate`, and the job file that they may name, into simulation requests."""

import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from statistics import fmean

import numpy as np

from carbonsched.cli.flags import naming_flags
from carbonsched.cli.trainer_check import check as check_by_trainer
from carbonsched.errors import InputError
from carbonsched.feeds.trace import read_trace
from carbonsched.model import allowed_hours as hours
from carbonsched.model.base import utc
from carbonsched.model.job_file import read_job
from carbonsched.model.profile import read_frontier
from carbonsched.plan.simulation.policies import POLICIES, Policy
from carbonsched.plan.simulation.request import LINEAR, ForecastKind, SimRequest, TraceArrays, validate
from carbonsched.plan.simulation.sweep import draw

RHO_MIN = 0.4
"""Lower bound of ρ if neither an option nor a job gives one: about a model's floor."""


@dataclass(frozen=True, slots=True)
class SimulateOptions:
    """The options as given; None: not given. `carbonsched simulate --help` explains them.

    Example::

        task = read(SimulateOptions(**options))
    """

    trace: Path
    start: list[str] | None
    starts: int | None
    seed: int
    job: Path | None
    segments: int | None
    budget_g: list[float] | None
    budget_share: list[float] | None
    deadline_hours: float | None
    rho_min: float | None
    rho_max: float | None
    allowed_hours: list[str] | None
    timezone: str | None
    no_pause: bool
    segment_kwh: float | None
    segment_hours: float | None
    fixed_share: float
    flops_per_s: float
    watts: float
    pue: float
    policy: list[str] | None
    forecast: ForecastKind
    gain: str
    python: str
    plot: Path | None


@dataclass(frozen=True, slots=True)
class SimulateTask:
    """The simulations: every policy with every budget from every start.

    Example::

        task = read(options)
        result = simulate(task.request()) if task.single else sweep(task.base, task.starts, task.policies, task.budgets)
    """

    base: SimRequest
    """Common to all runs, except for the start, the policy and the budget."""
    starts: Sequence[datetime]
    policies: Sequence[Policy]
    budgets: Sequence[float]
    """In grams."""
    single: bool
    """One run, shown completely; else a sweep, summarised."""

    def request(self) -> SimRequest:
        """The first run, which is the only one if `single`."""
        return replace(self.base, start=self.starts[0], policy=self.policies[0], budget_g=self.budgets[0])


@dataclass(frozen=True, slots=True)
class JobFacts:
    """The values of a job file; by default empty, without a file.

    Example::

        request = request_from(options, JobFacts(segments=5, rho_min=0.45), trace, start)
    """

    segments: int | None = None
    segment_flops: float | None = None
    budget_g: float | None = None
    budget_share: float | None = None
    deadline_hours: float | None = None
    rho_min: float | None = None
    rho_max: float = 1.0
    may_pause: bool = True
    allowed_hours: tuple[str, ...] = ()
    timezone: str = "UTC"


def read(options: SimulateOptions) -> SimulateTask:
    """Read the trace, the job file and the frontier that the options name. Lists its assumptions on stderr.

    Raises InputError that names the option.
    """
    policies = _policies(options.policy or ["mpc"])
    if (options.start is None) == (options.starts is None):
        raise InputError(
            "--start", "give either --start or --starts", "e.g. --start 2022-03-01T00:00:00Z or --starts 50"
        )
    with naming_flags({str(options.trace): f"--trace: {options.trace}"}):
        rows = read_trace(options.trace)
    trace = TraceArrays(rows.times, rows.g_per_kwh, rows.forecast)
    given = [_time(text) for text in options.start or ()]
    job = _read_job(options.job, options.python) if options.job is not None else JobFacts()
    base = replace(
        request_from(options, job, trace, given[0] if given else rows.times[0]), policy=policies[0]
    )
    starts = given if options.starts is None else list(draw(base, options.starts, options.seed))
    budgets = budgets_from(options, job, base, starts)
    single = options.starts is None and len(starts) == len(policies) == len(budgets) == 1
    return SimulateTask(base, starts, policies, budgets, single)


def request_from(options: SimulateOptions, job: JobFacts, trace: TraceArrays, start: datetime) -> SimRequest:
    """The request that all runs share; options override the job file."""
    segments = options.segments if options.segments is not None else job.segments
    segment_hours, segment_kwh = _segment_cost(options, job)
    if segments is None or segment_hours is None or segment_kwh is None:
        missing = (
            "--segments"
            if segments is None
            else "--segment-hours"
            if segment_hours is None
            else "--segment-kwh"
        )
        raise InputError(missing, "is missing", "give it, or --job JOB.toml")
    deadline = options.deadline_hours
    return SimRequest(
        trace=trace,
        start=start,
        segments=segments,
        segment_kwh=segment_kwh,
        segment_hours=segment_hours,
        fixed_share=options.fixed_share,
        budget_g=1.0,  # each run has its own
        forecast=options.forecast,
        frontier=LINEAR if options.gain == "linear" else read_frontier(Path(options.gain), "--gain"),
        rho_min=options.rho_min if options.rho_min is not None else job.rho_min or RHO_MIN,
        rho_max=options.rho_max if options.rho_max is not None else job.rho_max,
        may_pause=job.may_pause and not options.no_pause,
        deadline_hours=deadline if deadline is not None else job.deadline_hours,
        allowed_hours=job.allowed_hours if options.allowed_hours is None else _spans(options.allowed_hours),
        timezone=job.timezone if options.timezone is None else _zone(options.timezone),
        pue=options.pue,
    )


def _segment_cost(options: SimulateOptions, job: JobFacts) -> tuple[float | None, float | None]:
    """(hours, kWh) of a segment at ρ = 1: as given, or from the job's FLOPs; None if neither is available."""
    _require_positive("--flops-per-s", options.flops_per_s)
    _require_positive("--watts", options.watts)
    lasts, kwh = options.segment_hours, options.segment_kwh
    if lasts is None and job.segment_flops is not None:
        lasts = job.segment_flops / options.flops_per_s / 3600.0
        note(f"assumes {options.flops_per_s:g} FLOP/s (--flops-per-s, --segment-hours)")
    if kwh is None and job.segment_flops is not None and lasts is not None:
        kwh = options.watts * lasts / 1000.0
        note(f"assumes {options.watts:g} W (--watts, --segment-kwh)")
    return lasts, kwh


def budgets_from(
    options: SimulateOptions, job: JobFacts, base: SimRequest, starts: Sequence[datetime]
) -> list[float]:
    """Grams of each run: those given, and shares of the emissions of full fine-tuning in the mean of `starts`."""
    shares = options.budget_share or []
    for share in shares:
        if not 0 < share <= 1:
            raise InputError(
                "--budget-share", f"must be above 0 and 1 at most, is {share:g}", "give e.g. 0.6 for 60%"
            )
    budgets = options.budget_g or []
    if not budgets and not shares:
        budgets = [] if job.budget_g is None else [job.budget_g]
        shares = [] if job.budget_share is None else [job.budget_share]
    if not budgets and not shares:
        raise InputError("--budget-g", "is missing", "give the grams the job may emit, or --budget-share")
    validate(base)
    _note_gaps(base.trace, starts)
    if not shares:
        return budgets
    lasts = base.segment_hours * base.segments
    mean = fmean(_mean_intensity(base.trace, start, lasts) for start in starts)
    full_g = base.segment_kwh * base.segments * mean * base.pue
    note(f"full fine-tuning at the mean intensity emits {full_g:.4g} g")
    return [*budgets, *(share * full_g for share in shares)]


def note(text: str) -> None:
    print(f"carbonsched: note: {text}", file=sys.stderr)


def _require_positive(option: str, value: float) -> None:
    if not 0 < value < float("inf"):
        raise InputError(option, f"must be above 0, is {value:g}", "give a positive number")


def _note_gaps(trace: TraceArrays, starts: Sequence[datetime]) -> None:
    """Say where rows are missing: the previous row holds, which a reader of the result should know."""
    steps = np.diff(trace.at)
    holes = np.flatnonzero((steps > 2 * trace.step_s) & (trace.at[1:] > min(starts).timestamp()))
    if len(holes):
        longest = holes[int(np.argmax(steps[holes]))]
        at = datetime.fromtimestamp(float(trace.at[longest]), UTC)
        note(
            f"the trace has {len(holes)} gap{'s' * (len(holes) > 1)} behind the start, the longest of "
            f"{steps[longest] / 3600:.3g} h from {at:%Y-%m-%dT%H:%M:%SZ} on; the row before a gap is taken to hold"
        )


def _read_job(path: Path, python: str) -> JobFacts:
    """The job file, and its steps and floor from `python -m trainer check`."""
    spec = read_job(path)
    checked = check_by_trainer(spec, python)
    carbon = spec.carbon
    if checked.segments is None or checked.steps is None:
        raise InputError(
            "--job",
            "train.scheduler = 'budget' leaves open how many segments it has",
            "see submit --explain, or give another",
        )
    if carbon.objective == "min-carbon":
        note("the job is min-carbon; simulated is the most gain for the budget")
    return JobFacts(
        segments=checked.segments,
        segment_flops=checked.step_flops_full * checked.steps / checked.segments,
        budget_g=carbon.budget_g,
        budget_share=carbon.budget_share,
        deadline_hours=None if carbon.deadline is None else carbon.deadline / 3600.0,
        rho_min=max(carbon.rho_min or 0.0, checked.rho_floor),
        rho_max=max(carbon.rho_max, checked.rho_floor),
        may_pause=carbon.may_pause,
        allowed_hours=carbon.allowed_hours,
        timezone=carbon.timezone,
    )


def _policies(given: list[str]) -> list[Policy]:
    named = [name.strip() for text in given for name in text.split(",")]
    for name in named:
        if name not in POLICIES:
            raise InputError("--policy", f"there is no {name!r}", f"choose from {', '.join(POLICIES)}")
    return [one for one in POLICIES if one in named]


def _spans(given: list[str]) -> tuple[str, ...]:
    spans = tuple(part.strip() for text in given for part in text.split(","))
    try:
        for text in spans:
            hours.span(text)
    except ValueError as e:
        raise InputError("--allowed-hours", str(e)) from e
    return spans


def _zone(name: str) -> str:
    try:
        hours.zone(name)
    except ValueError as e:
        raise InputError("--timezone", str(e)) from e
    return name


def _time(text: str) -> datetime:
    hint = "write it like 2022-03-01 or 2022-03-01T00:00:00Z"
    if len(text) == len("2022-03-01"):
        text += "T00:00:00Z"  # a day means its first moment
    try:
        at = datetime.fromisoformat(text)
    except ValueError as e:
        raise InputError("--start", f"{text!r} is not a time", hint) from e
    try:
        return utc(at)
    except ValueError as e:
        raise InputError("--start", f"{text!r} {str(e).partition(';')[0]}", hint) from e


def _mean_intensity(trace: TraceArrays, start: datetime, lasts_h: float) -> float:
    """Mean intensity over the duration of full fine-tuning, g/kWh."""
    first = max(trace.row_at(start.timestamp()), 0)
    last = trace.row_at(start.timestamp() + lasts_h * 3600.0)
    return float(trace.g[first : last + 1].mean())
