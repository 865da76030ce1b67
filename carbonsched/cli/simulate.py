"""`carbonsched simulate`: the result of a policy with a budget on a trace of the grid. Needs no daemon.

This file has only the options. `simulate_request` reads them, `simulate_output` shows the result.
"""

import math
import sys
from pathlib import Path
from typing import Annotated, Literal

import typer

from carbonsched.cli.flags import between
from carbonsched.cli.options import Debug, Json, Socket

FIXED_SHARE = 1 / 3
"""c0 if nothing better is known: the forward pass's share of a step's FLOPs."""
_COST = "Energy and time of a segment"
_JOB = "The job"


_Trace = Annotated[
    Path, typer.Option("--trace", metavar="CSV", help="datetime,g_per_kwh[,forecast_g_per_kwh], UTC.")
]
_Start = Annotated[
    list[str] | None,
    typer.Option(
        "--start",
        metavar="TIME",
        help="Within the trace, e.g. 2022-03-01T00:00:00Z. May repeat.",
        show_default=False,
    ),
]
_Starts = Annotated[
    int | None,
    typer.Option(
        "--starts", metavar="N", callback=between(1, 100_000), help="Instead: this many random starts."
    ),
]
_Seed = Annotated[
    int, typer.Option("--seed", metavar="S", callback=between(0, math.inf), help="Of the random starts.")
]
_Job = Annotated[
    Path | None,
    typer.Option(
        "--job",
        metavar="JOB.toml",
        help="Take segments, budget, deadline and bounds from here.",
        rich_help_panel=_JOB,
    ),
]
_Segments = Annotated[
    int | None, typer.Option("--segments", metavar="N", help="How many segments.", rich_help_panel=_JOB)
]
_BudgetG = Annotated[
    list[float] | None,
    typer.Option(
        "--budget-g",
        metavar="G",
        help="Grams the job may emit. May repeat.",
        show_default=False,
        rich_help_panel=_JOB,
    ),
]
_BudgetShare = Annotated[
    list[float] | None,
    typer.Option(
        "--budget-share",
        metavar="S",
        help="Instead: as a share of full fine-tuning at the mean intensity from the starts on. May repeat.",
        show_default=False,
        rich_help_panel=_JOB,
    ),
]
_DeadlineHours = Annotated[
    float | None, typer.Option("--deadline-hours", metavar="H", help="After the start.", rich_help_panel=_JOB)
]
_RhoMin = Annotated[
    float | None,
    typer.Option("--rho-min", metavar="a", help="Default: the job's, else 0.4.", rich_help_panel=_JOB),
]
_RhoMax = Annotated[
    float | None,
    typer.Option("--rho-max", metavar="b", help="Default: the job's, else 1.", rich_help_panel=_JOB),
]
_AllowedHours = Annotated[
    list[str] | None,
    typer.Option(
        "--allowed-hours",
        metavar="HH:MM-HH:MM",
        help="Train only then; may repeat. The job's, else any hour.",
        show_default=False,
        rich_help_panel=_JOB,
    ),
]
_Timezone = Annotated[
    str | None,
    typer.Option(
        "--timezone", metavar="ZONE", help="Of the allowed hours; the job's, else UTC.", rich_help_panel=_JOB
    ),
]
_NoPause = Annotated[
    bool,
    typer.Option(
        "--no-pause", help="Segments follow each other in slots of fixed length.", rich_help_panel=_JOB
    ),
]
_SegmentKwh = Annotated[
    float | None,
    typer.Option("--segment-kwh", metavar="X", help="Of one segment at ρ = 1.", rich_help_panel=_COST),
]
_SegmentHours = Annotated[
    float | None,
    typer.Option("--segment-hours", metavar="Y", help="Of one segment at ρ = 1.", rich_help_panel=_COST),
]
_FixedShare = Annotated[
    float,
    typer.Option(
        "--fixed-share", metavar="c0", help="Share of it that does not depend on ρ.", rich_help_panel=_COST
    ),
]
_FlopsPerS = Annotated[
    float,
    typer.Option(
        "--flops-per-s",
        metavar="F",
        help="With --job and no --segment-hours: what the board sustains.",
        rich_help_panel=_COST,
    ),
]
_Watts = Annotated[
    float,
    typer.Option(
        "--watts",
        metavar="W",
        help="With --job and no --segment-kwh: what it draws meanwhile.",
        rich_help_panel=_COST,
    ),
]
_Pue = Annotated[
    float,
    typer.Option(
        "--pue",
        metavar="P",
        callback=between(1, 100),
        help="Power usage effectiveness.",
        rich_help_panel=_COST,
    ),
]
_Policy = Annotated[
    list[str] | None,
    typer.Option(
        "--policy",
        metavar="mpc|constant|dual|threshold|full|oracle",
        help="Who decides; may repeat, or a list with commas. Default: mpc.",
        show_default=False,
    ),
]
_Forecast = Annotated[
    Literal["perfect", "persistence", "column"],
    typer.Option("--forecast", help="What it knows of the hours to come."),
]
_Gain = Annotated[str, typer.Option("--gain", metavar="linear|FRONTIER.json", help="What ρ is worth.")]
_Python = Annotated[
    str,
    typer.Option(
        "--python", metavar="EXE", help="With --job: interpreter that has the trainer.", show_default=False
    ),
]
_Plot = Annotated[
    Path | None, typer.Option("--plot", metavar="FILE.svg", help="Draw the outcome.", show_default=False)
]


def simulate(
    trace: _Trace,
    start: _Start = None,
    starts: _Starts = None,
    seed: _Seed = 0,
    job: _Job = None,
    segments: _Segments = None,
    budget_g: _BudgetG = None,
    budget_share: _BudgetShare = None,
    deadline_hours: _DeadlineHours = None,
    rho_min: _RhoMin = None,
    rho_max: _RhoMax = None,
    allowed_hours: _AllowedHours = None,
    timezone: _Timezone = None,
    no_pause: _NoPause = False,
    segment_kwh: _SegmentKwh = None,
    segment_hours: _SegmentHours = None,
    fixed_share: _FixedShare = FIXED_SHARE,
    flops_per_s: _FlopsPerS = 1e14,
    watts: _Watts = 400.0,
    pue: _Pue = 1.0,
    policy: _Policy = None,
    forecast: _Forecast = "persistence",
    gain: _Gain = "linear",
    python: _Python = sys.executable,
    plot: _Plot = None,
    json: Json = False,
    socket: Socket = None,
    debug: Debug = False,
) -> None:
    """Simulate a job on a recorded trace, with the planner and the guard that the daemon uses.

    At every time the planner knows the rows up to then; --forecast determines what it knows of later hours. Give the job by
    --job, or by --segments with --segment-kwh, --segment-hours and --budget-g; options override the job file. Several
    starts, policies or budgets are all combined, and summarised for each policy and budget.
    """
    options = {name: value for name, value in locals().items() if name not in ("json", "socket", "debug")}
    from carbonsched.cli import simulate_output as output
    from carbonsched.cli import sweep
    from carbonsched.cli.output import emit
    from carbonsched.cli.simulate_request import SimulateOptions, read
    from carbonsched.plan.simulation.simulate import simulate as run

    if plot is not None:
        output.check_plot(plot)
    task = read(SimulateOptions(**options))
    if task.single:
        result = run(task.request())
        charts = output.charts(result, task.base) if plot is not None else []
    else:
        many = sweep.sweep(task.base, task.starts, task.policies, task.budgets)
        charts = sweep.charts(many) if plot is not None else []
    if plot is not None:
        output.plot(plot, charts)
    if json:
        emit(result if task.single else many)
    elif task.single:
        output.show(result, task.base.segments)
    else:
        sweep.show(many)
