"""`carbonsched simulate`: what a policy would have made of a budget on a trace of the grid. Needs no daemon."""

import itertools
import sys
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from carbonsched import text
from carbonsched.cli.options import Debug, Json, Socket

if TYPE_CHECKING:
    from carbonsched.model.job import JobSpec
    from carbonsched.plan.simulation.policies import Policy
    from carbonsched.plan.simulation.request import TraceArrays
    from carbonsched.plan.simulation.simulate import SimResult

FIXED_SHARE = 1 / 3
"""c0 where nothing better is known: the forward pass (DESIGN 4)."""
RHO_MIN = 0.4
_HOW = "Energy and time of a segment"
_JOB = "The job"


def simulate(
    trace: Annotated[Path, typer.Option("--trace", metavar="CSV", help="datetime,g_per_kwh[,forecast_g_per_kwh], UTC.")],
    start: Annotated[list[str] | None, typer.Option("--start", metavar="TIME", help="Within the trace, e.g. 2022-03-01T00:00:00Z. May repeat.", show_default=False)] = None,
    starts: Annotated[int | None, typer.Option("--starts", metavar="N", min=1, help="Instead: this many random starts.")] = None,
    seed: Annotated[int, typer.Option("--seed", metavar="S", min=0, help="Of the random starts.")] = 0,
    job: Annotated[Path | None, typer.Option("--job", metavar="JOB.toml", help="Take segments, budget, deadline and bounds from here.", rich_help_panel=_JOB)] = None,
    segments: Annotated[int | None, typer.Option("--segments", metavar="N", help="How many segments.", rich_help_panel=_JOB)] = None,
    budget_g: Annotated[list[float] | None, typer.Option("--budget-g", metavar="G", help="Grams the job may emit. May repeat.", show_default=False, rich_help_panel=_JOB)] = None,
    budget_share: Annotated[list[float] | None, typer.Option("--budget-share", metavar="S", help="Instead: as a share of full fine-tuning at the mean intensity from the starts on. May repeat.", show_default=False, rich_help_panel=_JOB)] = None,
    deadline_hours: Annotated[float | None, typer.Option("--deadline-hours", metavar="H", help="After the start.", rich_help_panel=_JOB)] = None,
    rho_min: Annotated[float | None, typer.Option("--rho-min", metavar="a", help="Default: the job's, else 0.4.", rich_help_panel=_JOB)] = None,
    rho_max: Annotated[float | None, typer.Option("--rho-max", metavar="b", help="Default: the job's, else 1.", rich_help_panel=_JOB)] = None,
    allowed_hours: Annotated[list[str] | None, typer.Option("--allowed-hours", metavar="HH:MM-HH:MM", help="Train only then; may repeat. The job's, else any hour.", show_default=False, rich_help_panel=_JOB)] = None,
    timezone: Annotated[str | None, typer.Option("--timezone", metavar="ZONE", help="Of the allowed hours; the job's, else UTC.", rich_help_panel=_JOB)] = None,
    no_pause: Annotated[bool, typer.Option("--no-pause", help="Segments follow each other in slots of fixed length.", rich_help_panel=_JOB)] = False,
    segment_kwh: Annotated[float | None, typer.Option("--segment-kwh", metavar="X", help="Of one segment at ρ = 1.", rich_help_panel=_HOW)] = None,
    segment_hours: Annotated[float | None, typer.Option("--segment-hours", metavar="Y", help="Of one segment at ρ = 1.", rich_help_panel=_HOW)] = None,
    fixed_share: Annotated[float, typer.Option("--fixed-share", metavar="c0", help="Share of it that does not depend on ρ.", rich_help_panel=_HOW)] = FIXED_SHARE,
    flops_per_s: Annotated[float, typer.Option("--flops-per-s", metavar="F", help="With --job and no --segment-hours: what the board sustains.", rich_help_panel=_HOW)] = 1e14,
    watts: Annotated[float, typer.Option("--watts", metavar="W", help="With --job and no --segment-kwh: what it draws meanwhile.", rich_help_panel=_HOW)] = 400.0,
    pue: Annotated[float, typer.Option("--pue", metavar="P", min=1.0, help="Power usage effectiveness.", rich_help_panel=_HOW)] = 1.0,
    policy: Annotated[list[str] | None, typer.Option("--policy", metavar="mpc|constant|dual|threshold|full|oracle", help="Who decides; may repeat, or a list with commas. Default: mpc.", show_default=False)] = None,
    forecast: Annotated[Literal["perfect", "persistence", "column"], typer.Option("--forecast", help="What it knows of the hours to come.")] = "persistence",
    gain: Annotated[str, typer.Option("--gain", metavar="linear|FRONTIER.json", help="What ρ is worth.")] = "linear",
    python: Annotated[str, typer.Option("--python", metavar="EXE", help="With --job: interpreter that has the trainer.", show_default=False)] = sys.executable,
    plot: Annotated[Path | None, typer.Option("--plot", metavar="FILE.svg", help="Draw the outcome.", show_default=False)] = None,
    json: Json = False,
    socket: Socket = None,
    debug: Debug = False,
) -> None:  # fmt: skip
    """Run a job against a recorded trace, with the planner and the guard the daemon uses.

    At every time the planner knows the rows up to then, and of what lies ahead what --forecast says. Give the job by
    --job, or by --segments with --segment-kwh, --segment-hours and --budget-g; options win over the job file. Several
    starts, policies or budgets are all run with each other, and summed up for each policy and budget.
    """
    from carbonsched.cli import sweep
    from carbonsched.cli.output import emit
    from carbonsched.errors import InputError
    from carbonsched.feeds.trace import read_trace
    from carbonsched.plan.simulation.request import SimRequest, TraceArrays, check
    from carbonsched.plan.simulation.simulate import simulate as run

    policies = _policies(policy or ["mpc"])
    if plot is not None:
        sweep.drawable(plot)
    if (start is None) == (starts is None):
        raise InputError(
            "--start", "give either --start or --starts", "e.g. --start 2022-03-01T00:00:00Z or --starts 50"
        )
    rows = read_trace(trace)
    grid = TraceArrays(rows.times, rows.g_per_kwh, rows.forecast)
    begins = [_time(text) for text in start or ()]
    from_file = _read_job(job, python) if job is not None else _Job()
    n = segments if segments is not None else from_file.segments
    _above_0("--flops-per-s", flops_per_s)
    _above_0("--watts", watts)
    hours = segment_hours
    if hours is None and from_file.segment_flops is not None:
        hours = from_file.segment_flops / flops_per_s / 3600.0
        note(f"assumes {flops_per_s:g} FLOP/s (--flops-per-s, --segment-hours)")
    kwh = segment_kwh
    if kwh is None and from_file.segment_flops is not None and hours is not None:
        kwh = watts * hours / 1000.0
        note(f"assumes {watts:g} W (--watts, --segment-kwh)")
    if n is None or hours is None or kwh is None:
        missing = "--segments" if n is None else "--segment-hours" if hours is None else "--segment-kwh"
        raise InputError(missing, "is missing", "give it, or --job JOB.toml")
    base = SimRequest(
        trace=grid,
        start=begins[0] if begins else rows.times[0],
        segments=n,
        segment_kwh=kwh,
        segment_hours=hours,
        fixed_share=fixed_share,
        budget_g=1.0,  # each run has its own
        policy=policies[0],
        forecast=forecast,
        frontier=_gain(gain),
        rho_min=rho_min if rho_min is not None else from_file.rho_min or RHO_MIN,
        rho_max=rho_max if rho_max is not None else from_file.rho_max,
        may_pause=from_file.may_pause and not no_pause,
        deadline_hours=deadline_hours if deadline_hours is not None else from_file.deadline_hours,
        allowed_hours=_spans(allowed_hours) if allowed_hours is not None else from_file.allowed_hours,
        timezone=_zone(timezone) if timezone is not None else from_file.timezone,
        pue=pue,
    )
    if starts is not None:
        from carbonsched.plan.simulation.sweep import draw

        begins = list(draw(base, starts, seed))
    shares = budget_share or []
    for share in shares:
        if not 0 < share <= 1:
            raise InputError("--budget-share", f"must lie in 0..1, is {share:g}", "give e.g. 0.6 for 60%")
    budgets = budget_g or []
    if not budgets and not shares:
        budgets = [] if from_file.budget_g is None else [from_file.budget_g]
        shares = [] if from_file.budget_share is None else [from_file.budget_share]
    if not budgets and not shares:
        raise InputError("--budget-g", "is missing", "give the grams the job may emit, or --budget-share")
    check(base)
    _gaps(grid, begins)
    if shares:
        full_g = kwh * n * fmean(_mean(grid, at, hours * n) for at in begins) * pue
        budgets = [*budgets, *(share * full_g for share in shares)]
        note(f"full fine-tuning at the mean intensity emits {full_g:.4g} g")
    single = starts is None and len(begins) == len(policies) == len(budgets) == 1
    if single:
        result = run(replace(base, budget_g=budgets[0]))
        charts = sweep.one_run(result, base) if plot is not None else []
    else:
        many = sweep.sweep(base, begins, policies, budgets)
        charts = sweep.many_runs(many) if plot is not None else []
    if plot is not None:
        sweep.plot(plot, charts)
    if json:
        emit(result if single else many)
    elif single:
        _print(result, n)
    else:
        sweep.show(many)


@dataclass(frozen=True, slots=True)
class _Job:
    """What a job file says of a simulation; nothing where there is none."""

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


def note(text: str) -> None:
    print(f"carbonsched: note: {text}", file=sys.stderr)


def _above_0(option: str, value: float) -> None:
    from carbonsched.errors import InputError

    if not 0 < value < float("inf"):
        raise InputError(option, f"must be above 0, is {value:g}", "give a positive number")


def _gaps(grid: "TraceArrays", begins: list[datetime]) -> None:
    """Say where rows are missing: the one before holds, which a reader of the result should know."""
    import numpy as np

    steps = np.diff(grid.at)
    holes = np.flatnonzero((steps > 2 * grid.step_s) & (grid.at[1:] > min(begins).timestamp()))
    if len(holes):
        longest = holes[int(np.argmax(steps[holes]))]
        at = datetime.fromtimestamp(float(grid.at[longest]), UTC)
        note(
            f"the trace has {len(holes)} gap{'s' * (len(holes) > 1)} behind the start, the longest of "
            f"{steps[longest] / 3600:.3g} h from {at:%Y-%m-%dT%H:%M:%SZ} on; the row before a gap is taken to hold"
        )


def _read_job(path: Path, python: str) -> _Job:
    from carbonsched.cli.trainer_check import check
    from carbonsched.model.job_file import read_job

    spec: JobSpec = read_job(path)
    checked = check(spec, python)
    carbon = spec.carbon
    if carbon.objective == "min-carbon":
        note("the job is min-carbon; simulated is the most gain for the budget")
    return _Job(
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


def _policies(given: list[str]) -> "list[Policy]":
    from carbonsched.errors import InputError
    from carbonsched.plan.simulation.policies import POLICIES

    named = [name.strip() for text in given for name in text.split(",")]
    for name in named:
        if name not in POLICIES:
            raise InputError("--policy", f"there is no {name!r}", f"choose from {', '.join(POLICIES)}")
    return [one for one in POLICIES if one in named]


def _spans(given: list[str]) -> tuple[str, ...]:
    from carbonsched.errors import InputError
    from carbonsched.model import allowed_hours as hours

    spans = tuple(part.strip() for text in given for part in text.split(","))
    try:
        for text in spans:
            hours.span(text)
    except ValueError as e:
        raise InputError("--allowed-hours", str(e)) from e
    return spans


def _zone(name: str) -> str:
    from carbonsched.errors import InputError
    from carbonsched.model import allowed_hours as hours

    try:
        hours.zone(name)
    except ValueError as e:
        raise InputError("--timezone", str(e)) from e
    return name


def _time(text: str) -> datetime:
    from carbonsched.errors import InputError

    hint = "write it like 2022-03-01T00:00:00Z"
    try:
        at = datetime.fromisoformat(text)
    except ValueError as e:
        raise InputError("--start", f"{text!r} is not a time", hint) from e
    if at.tzinfo is None:
        raise InputError("--start", f"{text!r} has no time zone", hint)
    return at.astimezone(UTC)


def _mean(grid: "TraceArrays", start: datetime, hours: float) -> float:
    """Intensity over the hours that full fine-tuning would take, g/kWh."""
    first = max(grid.row(start.timestamp()), 0)
    last = grid.row(start.timestamp() + hours * 3600.0)
    return float(grid.g[first : last + 1].mean())


def _gain(text: str) -> tuple[tuple[float, float], ...]:
    from carbonsched.errors import InputError
    from carbonsched.model.profile import FrontierDoc
    from carbonsched.plan.simulation.request import LINEAR

    if text == "linear":
        return LINEAR
    try:
        raw = Path(text).read_bytes()
    except OSError as e:
        raise InputError(
            "--gain", f"{text} cannot be read: {e.strerror}", "give linear or a FRONTIER.json"
        ) from e
    try:
        points = FrontierDoc.model_validate_json(raw).frontier
    except ValueError as e:
        raise InputError(
            "--gain", f"{text} is no frontier", 'write {"frontier": [{"rho": 0.4, "importance": 1.2}, …]}'
        ) from e
    rising = all(a.rho < b.rho and a.importance <= b.importance for a, b in itertools.pairwise(points))
    if not points or not rising or points[0].rho < 0 or points[-1].rho > 1:
        raise InputError(
            "--gain", f"{text} is not a rising curve over ρ in 0..1", "sort it by rho, each once"
        )
    return tuple((point.rho, point.importance) for point in points)


def _print(result: "SimResult", n: int) -> None:
    from carbonsched.cli import output as o

    out = o.console()
    facts = o.table("key", "value", wrap=("value",))
    facts.show_header = False
    full = 100 * result.spent_g / result.full_g if result.full_g > 0 else 0.0
    known = (
        f", {100 * result.gain / result.oracle_gain:.1f}% of what perfect knowledge would get"
        if result.oracle_gain
        else ""
    )
    late = result.missed_deadline_s
    ended = f"{text.moment(result.finished_at)}{f', {text.duration(late)} AFTER the deadline' if late > 1 else ''}"
    for key, value in (
        ("Policy", f"{result.policy}, forecast {result.forecast}"),
        (
            "Spent",
            f"{text.grams(result.spent_g)} of {text.grams(result.budget_g)}, {full:.1f}% of full speed at once "
            f"({text.grams(result.full_g)}; the lowest ρ at once {text.grams(result.floor_g)})",
        ),
        ("FLOPs", f"{100 * result.flops_ratio:.1f}% of full fine-tuning"),
        ("Gain", f"{100 * result.gain:.1f}% of full fine-tuning's{known}"),
        (
            "Savings",
            f"{text.grams(round(result.flops_effect_g, 6) + 0.0)} by fewer FLOPs, {text.grams(round(result.timing_effect_g, 6) + 0.0)} by timing",
        ),
        (
            "Finished",
            ended if result.finished else f"no, {sum(s.done >= 1 for s in result.segments)} of {n} segments",
        ),
        ("Waits", str(result.waits)),
        ("Why", result.reason),
    ):
        facts.add_row(key, value)
    out.print(facts)
    out.print()
    rows = o.table("SEG", "START", "END", "ρ", "g", right=("SEG", "ρ", "g"))
    for segment in result.segments:
        rows.add_row(
            str(segment.k + 1),
            text.moment(segment.start),
            text.moment(segment.end),
            text.rho(segment.rho),
            text.figure(segment.spent_g, digits=4),
        )
    out.print(rows)
