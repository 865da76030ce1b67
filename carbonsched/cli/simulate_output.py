"""Shows one simulation: its figures, a table of its segments, and charts of ρ and the grid."""

from collections.abc import Sequence
from pathlib import Path

from carbonsched import text
from carbonsched.charts import Chart, Series, svg_file, time_ticks
from carbonsched.cli import output as o
from carbonsched.errors import InputError
from carbonsched.model.allowed_hours import stretches
from carbonsched.plan.simulation.request import SimRequest
from carbonsched.plan.simulation.result import SimResult


def show(result: SimResult, segments: int) -> None:
    """Tables of one run of a job with that many segments."""
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
            ended
            if result.finished
            else f"no, {sum(s.done >= 1 for s in result.segments)} of {text.several(segments, 'segment')}",
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


def charts(result: SimResult, request: SimRequest) -> list[Chart]:
    """The grid and ρ over the time of one job."""
    if not result.segments:
        raise InputError("--plot", f"nothing ran: {result.reason}", "raise the budget")
    trace, start, end = request.trace, request.start, result.segments[-1].end
    allowed = stretches(request.allowed_hours, request.timezone, start, end)
    rows = range(trace.row_at(start.timestamp()), trace.row_at(end.timestamp()) + 1)
    intensity = [(float(trace.at[i]), float(trace.g[i])) for i in rows]
    spans: list[tuple[float, float | None]] = []
    for s in result.segments:
        for a, b in ((max(s.start, a).timestamp(), min(s.end, b).timestamp()) for a, b in allowed):
            spans += [(a, s.rho), (b, s.rho), (b, None)] if a < b else []
    x, ticks = (start.timestamp(), end.timestamp()), time_ticks(start, end)
    title = f"{result.policy}, forecast {result.forecast}: {result.spent_g:.4g} g of {result.budget_g:.4g} g"
    return [
        Chart(
            "Intensity",
            title,
            "Intensity, g/kWh",
            [Series("intensity", "step", intensity, "s2")],
            x,
            ticks,
        ),
        Chart(
            "FLOPs ratio",
            title,
            f"ρ; {title}",
            [Series("ρ", "line", spans)],
            x,
            ticks,
            y_range=(0.0, 1.0),
        ),
    ]


def check_plot(path: Path) -> None:
    """Raises InputError if `plot` could not draw: before hours are spent on simulations."""
    if path.suffix.lower() != ".svg":
        raise InputError(
            "--plot", f"cannot draw {path.suffix or 'a file without an ending'}", "give a FILE.svg"
        )
    if not path.absolute().parent.is_dir():
        raise InputError("--plot", f"{path.absolute().parent} is no folder", "give a file in one that exists")


def plot(path: Path, charts: Sequence[Chart]) -> None:
    """Draw the charts into one SVG file. Raises InputError if it cannot be written."""
    try:
        path.write_text(svg_file(charts), encoding="utf-8")
    except OSError as e:
        raise InputError("--plot", f"{path} cannot be written: {e.strerror}", "give another file") from e
