"""Writes a report as one HTML page that loads nothing: style, charts and tables are included, and it prints well.

Every text of the report is escaped by Jinja; every chart has a table of its numbers.
"""

from datetime import datetime
from pathlib import Path
from typing import Final

from markupsafe import Markup

from carbonsched import text
from carbonsched.charts import Band, Chart, Rule, Series, count_ticks, svg, time_ticks
from carbonsched.ledger.ledger import Ledger
from carbonsched.report.ai_act import ai_act_lines
from carbonsched.report.datapoints import Line, head
from carbonsched.report.document import Report
from carbonsched.report.esrs import esrs_lines
from carbonsched.report.format import ReportFormat
from carbonsched.report.period_effects import SUMMED
from carbonsched.report.provenance import energy_words, intensity_estimated
from carbonsched.report.sci import sci_lines
from carbonsched.report.scope2 import scope2_lines

_TEMPLATES: Final = Path(__file__).parent / "templates"


def page(report: Report, _ledger: Ledger) -> str:
    """One self-contained document; no script, no external resource."""
    # a megabyte that a daemon saves as long as nobody asks it for a page
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(
        loader=FileSystemLoader(_TEMPLATES), autoescape=True, undefined=StrictUndefined, trim_blocks=True
    )
    environment.filters |= {
        "number": text.number,
        "grams": text.emissions,
        "energy": text.electricity,
        "percent": text.percent,
        "span": text.long_duration,
        "moment": text.moment,
        "flops": text.flops,
    }
    return environment.get_template("report.html").render(
        r=report,
        summed=SUMMED,
        charts=charts(report),
        ratio=ratio(report),
        estimated=intensity_estimated(report.kinds),
        energy_how=energy_words(report.methods),
        complete=None if report.completeness is None else report.completeness.words.split(" ")[0],
        disclosures=disclosures(report),
        shown=_shown,
    )


def disclosures(report: Report) -> tuple[tuple[str, tuple[Line, ...]], ...]:
    """(title, data points) of each table that has any; the subject is at the top of the page."""
    tables = (
        ("GHG Protocol Scope 2", scope2_lines(report)),
        ("ESRS E1", esrs_lines(report)),
        ("SCI, ISO/IEC 21031", sci_lines(report)),
        ("EU AI Act", ai_act_lines(report)),
    )
    return tuple((title, lines[len(head(report)) :]) for title, lines in tables if lines)


def _shown(line: Line) -> str:
    if line.value is None:
        return text.UNKNOWN
    return line.value if isinstance(line.value, str) else text.figure(line.value, digits=6)


def ratio(report: Report) -> float | None:
    """Σ FLOPs ÷ Σ full-fine-tuning FLOPs over the finished segments."""
    full = sum(segment.flops_full for segment in report.segments)
    return sum(segment.flops for segment in report.segments) / full if full else None


def charts(report: Report) -> dict[str, Markup | None]:
    """Every chart by name; None if there is nothing to draw."""
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


def _unit(most_g: float) -> tuple[str, float]:
    """(unit, grams in one), so that the axis's numbers have at most six digits: there is no room for more beside a chart."""
    return next(((unit, per) for unit, per in (("g", 1.0), ("kg", 1e3)) if most_g < 1e5 * per), ("t", 1e6))


def _grams(report: Report) -> Chart:
    points = report.timeline
    spent = [(points[0].start.timestamp(), 0.0), *((p.end.timestamp(), p.spent_g) for p in points)]
    budget = report.job.budget_g if report.job else None
    unit, per = _unit(max(points[-1].spent_g, budget or 0.0))
    against = f" of a budget of {text.emissions(budget)}" if budget is not None else ""
    return Chart(
        title="Cumulative emissions against the budget",
        description=f"{text.emissions(points[-1].spent_g)} emitted by the end{against}.",
        y_label=f"emitted so far, {unit}CO₂e",
        series=[Series("emitted", "area", [(at, grams / per) for at, grams in spent], "s2")],
        x_range=_reach(report),
        x_ticks=time_ticks(points[0].start, points[-1].end),
        bands=_bands(report),
        rules=[] if budget is None else [Rule(budget / per, f"budget {text.emissions(budget)}")],
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
    low, high = segments[0].k + 0.5, segments[-1].k + 1.5
    # side by side, since the three are often equal
    aside = 0.12
    return Chart(
        title="FLOPs ratio of each segment",
        description="ρ as directed by the daemon, as planned by the selector and as realised by training.",
        y_label="ρ, share of full fine-tuning's FLOPs",
        series=[
            Series("directed", "ticks", [(s.k + 1.0, s.rho_directed) for s in segments], "s1"),
            Series("planned", "rings", [(s.k + 1 - aside, s.rho_planned) for s in segments], "s2"),
            Series("realised", "dots", [(s.k + 1 + aside, s.rho_realised) for s in segments], "s3"),
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
        description=f"Negative log-likelihood per token by optimizer step{ends}.",
        y_label="loss, nats per token",
        series=[each for each in series if each.points],
        x_range=(low - pad, high + pad),
        x_ticks=count_ticks(low, high),
        x_label="optimizer step",
        from_zero=False,
    )


def _bands(report: Report) -> list[Band]:
    return [Band(s.start.timestamp(), s.end.timestamp(), str(s.k + 1)) for s in report.segments]


def _reach(report: Report) -> tuple[float, float]:
    return report.timeline[0].start.timestamp(), report.timeline[-1].end.timestamp()


def _held(parts: list[tuple[datetime, datetime, float | None]]) -> list[tuple[float, float | None]]:
    """Points of a step line that holds each value to the end of its interval."""
    points: list[tuple[float, float | None]] = []
    for start, end, value in parts:
        points.append((start.timestamp(), value))
        points.append((end.timestamp(), value))
    return points


HTML: Final = ReportFormat("text/html; charset=utf-8", page)
