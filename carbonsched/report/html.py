"""The report as one HTML page that needs nothing else: style, charts and tables are inside, and it prints.

Every text of the report goes through Jinja's escaping; a chart never stands without a table of its numbers.
"""

import math
from datetime import datetime
from pathlib import Path
from typing import Final

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from carbonsched.charts import Band, Chart, Rule, Series, count_ticks, svg, time_ticks
from carbonsched.report.document import Report

_TEMPLATES: Final = Path(__file__).parent / "templates"
_UNKNOWN: Final = "unknown"


def page(report: Report) -> str:
    """One self-contained document; no script, no external resource."""
    environment = Environment(
        loader=FileSystemLoader(_TEMPLATES), autoescape=True, undefined=StrictUndefined, trim_blocks=True
    )
    environment.filters |= {
        "number": number,
        "grams": grams,
        "energy": energy,
        "percent": percent,
        "span": span,
        "moment": moment,
        "flops": flops,
    }
    return environment.get_template("report.html").render(
        r=report, charts=charts(report), ratio=ratio(report)
    )


def ratio(report: Report) -> float | None:
    """Σ FLOPs ÷ Σ full-fine-tuning FLOPs over the finished segments."""
    full = sum(segment.flops_full for segment in report.segments)
    return sum(segment.flops for segment in report.segments) / full if full else None


def charts(report: Report) -> dict[str, Markup | None]:
    """Every chart by name; None where there is nothing to draw."""
    timed, trained = bool(report.timeline), bool(report.segments)
    loss = bool(report.validation) or any(s.loss is not None for s in report.segments)
    drawn = {
        "grams": _grams(report) if timed else None,
        "intensity": _intensity(report) if timed else None,
        "power": _power(report) if timed else None,
        "rho": _rho(report) if trained else None,
        "loss": _loss(report) if loss else None,
    }
    return {name: None if chart is None else svg(chart, name) for name, chart in drawn.items()}


def _intensity(report: Report) -> Chart:
    points = report.timeline
    known = [p.g_per_kwh for p in points if p.g_per_kwh is not None]
    reach = f"between {min(known):.0f} and {max(known):.0f} g/kWh" if known else "not known"
    return Chart(
        title="Grid intensity over time",
        description=f"Carbon intensity {reach}; segments of training are shaded.",
        y_label="intensity, gCO₂e/kWh",
        series=[Series("intensity", "step", _held([(p.start, p.end, p.g_per_kwh) for p in points]), "s1")],
        x_range=_reach(report),
        x_ticks=time_ticks(points[0].start, points[-1].end),
        x_label="",
        bands=_bands(report),
    )


def _grams(report: Report) -> Chart:
    points = report.timeline
    spent = [(points[0].start.timestamp(), 0.0), *((p.end.timestamp(), p.spent_g) for p in points)]
    budget = report.job.budget_g if report.job else None
    against = f" of a budget of {grams(budget)}" if budget is not None else ""
    return Chart(
        title="Cumulative emissions against the budget",
        description=f"{grams(points[-1].spent_g)} emitted by the end{against}.",
        y_label="emitted so far, gCO₂e",
        series=[Series("emitted", "area", spent, "s2")],
        x_range=_reach(report),
        x_ticks=time_ticks(points[0].start, points[-1].end),
        bands=_bands(report),
        rules=[] if budget is None else [Rule(budget, f"budget {grams(budget)}")],
    )


def _power(report: Report) -> Chart:
    points = report.timeline
    known = [p.power_w for p in points if p.power_w is not None]
    reach = f"up to {max(known):.0f} W" if known else "not known"
    return Chart(
        title="Power over time",
        description=f"Mean power of what the report covers, {reach}.",
        y_label="power, W",
        series=[Series("power", "step", _held([(p.start, p.end, p.power_w) for p in points]), "s3")],
        x_range=_reach(report),
        x_ticks=time_ticks(points[0].start, points[-1].end),
        bands=_bands(report),
        height=180,
    )


def _rho(report: Report) -> Chart:
    segments = report.segments
    low, high = segments[0].k - 0.5, segments[-1].k + 0.5
    # side by side, for the three often agree
    aside = 0.12
    return Chart(
        title="FLOPs ratio of each segment",
        description="ρ as directed by the daemon, as planned by the selector and as realised by training.",
        y_label="ρ, share of full fine-tuning's FLOPs",
        series=[
            Series("directed", "ticks", [(float(s.k), s.rho_directed) for s in segments], "s1"),
            Series("planned", "rings", [(s.k - aside, s.rho_planned) for s in segments], "s2"),
            Series("realised", "dots", [(s.k + aside, s.rho_realised) for s in segments], "s3"),
        ],
        x_range=(low, high),
        x_ticks=count_ticks(low, high),
        x_label="segment",
        y_range=(0.0, 1.0),
    )


def _loss(report: Report) -> Chart:
    trained = [(float(s.first_step + s.steps), s.loss) for s in report.segments]
    validated = sorted((float(v.step), v.loss) for v in report.validation)
    steps = [x for x, _ in trained] + [x for x, _ in validated]
    low, high = min([0.0, *steps]), max(steps)
    pad = (high - low) * 0.02
    series = [Series("training", "line", trained, "s1"), Series("held out", "rings", validated, "s2")]
    ends = f", held out from {validated[0][1]:.3f} to {validated[-1][1]:.3f}" if validated else ""
    return Chart(
        title="Loss",
        description=f"Negative log-likelihood a token by optimizer step{ends}.",
        y_label="loss, nats a token",
        series=[each for each in series if each.points],
        x_range=(low - pad, high + pad),
        x_ticks=count_ticks(low, high),
        x_label="optimizer step",
        from_zero=False,
    )


def _bands(report: Report) -> list[Band]:
    return [Band(s.start.timestamp(), s.end.timestamp(), str(s.k)) for s in report.segments]


def _reach(report: Report) -> tuple[float, float]:
    return report.timeline[0].start.timestamp(), report.timeline[-1].end.timestamp()


def _held(parts: list[tuple[datetime, datetime, float | None]]) -> list[tuple[float, float | None]]:
    """Points of a step line that holds each value to the end of its stretch."""
    points: list[tuple[float, float | None]] = []
    for start, end, value in parts:
        points.append((start.timestamp(), value))
        points.append((end.timestamp(), value))
    return points


def number(value: float | None, digits: int = 4) -> str:
    """Significant digits with thousands set apart; unknown is said."""
    if value is None:
        return _UNKNOWN
    if value == 0 or not math.isfinite(value):
        return "0"
    decimals = max(0, digits - 1 - math.floor(math.log10(abs(value))))
    return f"{value:,.{min(decimals, 9)}f}"


def _scaled(value: float | None, scales: list[tuple[float, str]]) -> str:
    if value is None:
        return _UNKNOWN
    factor, unit = next(((f, u) for f, u in scales if abs(value) >= f), scales[-1])
    return f"{number(value / factor)} {unit}"


def grams(value: float | None) -> str:
    return "0 g" if value == 0 else _scaled(value, [(1e6, "t"), (1e3, "kg"), (1.0, "g"), (1e-3, "mg")])


def energy(joules: float | None) -> str:
    """Wh and its multiples, which is what a meter on the wall shows."""
    wh = None if joules is None else joules / 3600
    return "0 Wh" if wh == 0 else _scaled(wh, [(1e6, "MWh"), (1e3, "kWh"), (1.0, "Wh"), (1e-3, "mWh")])


def flops(value: float | None) -> str:
    return _scaled(value, [(1e18, "EFLOP"), (1e15, "PFLOP"), (1e12, "TFLOP"), (1e9, "GFLOP"), (1.0, "FLOP")])


def percent(value: float | None) -> str:
    return _UNKNOWN if value is None else f"{value * 100:.1f}%"


def span(seconds: float | None) -> str:
    """`2 d 3 h`, `1 h 20 min`, `4 min 10 s`, `12.3 s`."""
    if seconds is None:
        return _UNKNOWN
    if seconds < 60:
        return f"{seconds:.3g} s"
    for big, small, size, below in (("min", "s", 60, 1), ("h", "min", 3600, 60), ("d", "h", 86_400, 3600)):
        whole, rest = divmod(round(seconds / below), size // below)
        if seconds < size * (60 if big == "min" else 24) or big == "d":
            return f"{whole} {big} {rest} {small}" if rest else f"{whole} {big}"
    raise AssertionError("days have no end")


def moment(at: datetime | None) -> str:
    return _UNKNOWN if at is None else at.strftime("%Y-%m-%d %H:%M:%S UTC")
