"""Runs the simulations of one `simulate` call with a progress bar, and shows them as a table and as charts."""

import sys
from collections.abc import Callable, Sequence
from datetime import datetime

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from carbonsched import text
from carbonsched.charts import STYLES, Chart, Series, count_ticks, time_ticks
from carbonsched.cli import output as o
from carbonsched.plan.simulation import sweep as runs
from carbonsched.plan.simulation.policies import Policy
from carbonsched.plan.simulation.request import SimRequest
from carbonsched.plan.simulation.sweep import Sweep, SweepRun


def sweep(
    base: SimRequest, starts: Sequence[datetime], policies: Sequence[Policy], budgets: Sequence[float]
) -> Sweep:
    """Run all of them with a progress bar, which is only on a terminal."""
    columns = TextColumn("simulations"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()
    console = o.console(stderr=True)
    done: list[SweepRun] = []
    with Progress(*columns, console=console, disable=not sys.stderr.isatty(), transient=True) as progress:
        task = progress.add_task("", total=len(starts) * len(policies) * len(budgets))
        for run in runs.sweep(base, starts, policies, budgets):
            done.append(run)
            progress.advance(task)
    return runs.collect(done, base.forecast)


def show(result: Sweep) -> None:
    table = o.table(
        "POLICY", "BUDGET g", "RUNS", "WHOLE", "GAIN", "OF ORACLE", "SPENT g", "FLOPS g", "TIMING g", "LATE",
        right=("BUDGET g", "RUNS", "WHOLE", "GAIN", "OF ORACLE", "SPENT g", "FLOPS g", "TIMING g", "LATE"),
    )  # fmt: skip
    for case in result.cases:
        table.add_row(
            case.policy,
            text.figure(case.budget_g, digits=4),
            str(case.runs),
            f"{100 * case.finished:.0f}%",
            f"{case.gain:.4f}",
            text.NOT_KNOWN if case.of_oracle is None else f"{100 * case.of_oracle:.1f}%",
            text.figure(case.spent_g, digits=4),
            text.figure(round(case.flops_effect_g, 6) + 0.0),
            text.figure(round(case.timing_effect_g, 6) + 0.0),
            str(case.late),
        )
    out = o.console()
    out.print(table)
    out.print(
        "WHOLE: runs that did all segments. GAIN: of full fine-tuning's. OF ORACLE: of what perfect knowledge gets. FLOPS, "
        "TIMING: grams saved by fewer FLOPs, by the hours chosen. LATE: runs past their deadline.",
        style="dim",
    )
    over = sum(case.over_budget for case in result.cases)
    out.print(
        f"Means over the runs, forecast {result.forecast}. Budget passed in {over} of {text.several(len(result.runs), 'run')}."
    )


def charts(result: Sweep) -> list[Chart]:
    """Gain and grams of every policy: over the budgets if there are several, else over the starts."""
    budgets = sorted({case.budget_g for case in result.cases})
    if len(budgets) > 1:
        gain = _series(result, lambda run: run.budget_g, lambda run: run.gain)
        spent = _series(result, lambda run: run.budget_g, lambda run: run.spent_g)
        x, ticks = (budgets[0], budgets[-1]), count_ticks(budgets[0], budgets[-1], 8)
        if len(ticks) < 2:
            ticks = [(b, text.figure(b)) for b in budgets]
        about = "mean over the starts, by budget"
        return [
            Chart(
                "Gain", about, f"Gain, share of full fine-tuning; {about}", gain, x, ticks, from_zero=False
            ),
            Chart("Spent", about, f"Spent, g; {about}", spent, x, ticks, "budget, g", from_zero=False),
        ]
    starts = sorted({run.start for run in result.runs})
    x, ticks = (starts[0].timestamp(), starts[-1].timestamp()), time_ticks(starts[0], starts[-1])
    gain = _series(result, lambda run: run.start.timestamp(), lambda run: run.gain)
    spent = _series(result, lambda run: run.start.timestamp(), lambda run: run.spent_g / run.budget_g)
    return [
        Chart(
            "Gain", "by start", "Gain, share of full fine-tuning, by start", gain, x, ticks, from_zero=False
        ),
        Chart("Spent", "by start", "Spent share of the budget, by start", spent, x, ticks, from_zero=False),
    ]


def _series(result: Sweep, x: Callable[[SweepRun], float], y: Callable[[SweepRun], float]) -> list[Series]:
    """One line per policy through the means of all runs with the same x."""
    found: dict[str, dict[float, list[float]]] = {}
    for run in result.runs:
        found.setdefault(run.policy, {}).setdefault(x(run), []).append(y(run))
    return [
        Series(
            policy,
            "line" if len(at) > 1 else "dots",
            sorted((k, sum(v) / len(v)) for k, v in at.items()),
            style,
        )
        for (policy, at), style in zip(found.items(), STYLES, strict=False)
    ]
