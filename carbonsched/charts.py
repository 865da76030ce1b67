"""Draws SVG charts with no plotting library: axes, lines, steps, dots, bands and rules.

A chart is data. `svg` draws it into an HTML page, whose style sheet gives the colours through classes (`s1`, `s2`, …), so
that light, dark and print differ there alone; `svg_file` writes charts below each other into a file that stands alone.
Reports, simulations and the trainer's benchmark draw with it. Every chart has a title and a description for those who
do not see it.
"""

import math
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final, Literal

from markupsafe import Markup, escape

WIDTH: Final = 880
_LEFT, _RIGHT, _TOP, _BOTTOM = 64, 16, 34, 34
_STEPS_S: Final = (
    *(1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800),
    *(3600, 7200, 10_800, 21_600, 43_200, 86_400, 172_800, 604_800),
)

_COLOURS: Final = ("#0b62a4", "#c2500a", "#0a7d5a", "#7b3fa0", "#8a6d00", "#b0224f", "#4a5560")
STYLES: Final = tuple(f"s{n + 1}" for n in range(len(_COLOURS)))
"""Series styles that a figure can draw apart."""
_MARGIN: Final = 16
_STYLE: Final = """
text { font: 12px system-ui, "Segoe UI", Roboto, Arial, sans-serif; fill: #5b6570; }
text.label, text.legend, text.mark { fill: #1b1f24; }
text.label { font-weight: 600; }
.grid { stroke: #d5dae0; stroke-width: 1; }
.axis { stroke: #5b6570; stroke-width: 1; }
.band { fill: #0b62a4; opacity: .09; }
.line { fill: none; stroke-width: 1.8; stroke-linejoin: round; }
.area { stroke: none; opacity: .16; }
.ring { fill: none; stroke-width: 1.8; }
.bar { stroke-width: 2.4; }
.spread { fill: none; stroke-width: 1.2; }
.rule { stroke: #1b1f24; stroke-width: 1.3; stroke-dasharray: 6 4; }
"""

Point = tuple[float, float | None]


@dataclass(frozen=True, slots=True)
class Series:
    """One row of the legend. A None in y breaks the line.

    Example:
        >>> Series("held out", "dots", [(1.0, 3.2), (2.0, None)], "s2").points[0]
        (1.0, 3.2)
    """

    name: str
    kind: Literal["line", "step", "area", "dots", "rings", "ticks"]
    points: Sequence[Point]
    style: str = "s1"
    labels: Sequence[str] = ()
    """Of dots and rings: a text beside each point."""
    spread: Sequence[float | None] = ()
    """Of dots and rings: half the length of each point's error bar, in the unit of y."""


@dataclass(frozen=True, slots=True)
class Band:
    """A shaded stretch of x.

    Example:
        >>> Band(0.0, 600.0, "segment 0").label
        'segment 0'
    """

    start: float
    end: float
    label: str


@dataclass(frozen=True, slots=True)
class Rule:
    """A horizontal line at y.

    Example:
        >>> Rule(120.0, "budget 120 g").style
        'rule'
    """

    y: float
    label: str
    style: str = "rule"


@dataclass(frozen=True, slots=True)
class Chart:
    """What `svg` draws: the series over one x axis, with what a reader needs to understand them.

    Example:
        >>> loss = Series("training", "line", [(0, 3.4), (10, 3.1)])
        >>> chart = Chart("Loss", "by step", "nats per token", [loss], (0, 10), count_ticks(0, 10))
        >>> str(svg(chart, "loss"))[:18]
        '<svg class="chart"'
    """

    title: str
    description: str
    y_label: str
    series: Sequence[Series]
    x_range: tuple[float, float]
    x_ticks: Sequence[tuple[float, str]]
    x_label: str = ""
    bands: Sequence[Band] = ()
    rules: Sequence[Rule] = ()
    y_range: tuple[float, float] | None = None
    """None: from 0, or from the lowest value where `from_zero` is off, to the highest."""
    from_zero: bool = True
    height: int = 240


def svg(chart: Chart, name: str) -> Markup:
    """The chart as an inline `<svg>`; `name` makes its ids unique in the page."""
    low, high, ticks = _y_axis(chart)
    x0, x1 = chart.x_range
    if x1 <= x0:
        x0, x1 = x0 - 0.5, x0 + 0.5
    bottom = chart.height - _BOTTOM

    def px(x: float) -> float:
        return _LEFT + (x - x0) / (x1 - x0) * (WIDTH - _LEFT - _RIGHT)

    def py(y: float) -> float:
        return bottom - (y - low) / (high - low) * (bottom - _TOP)

    parts = [_head(chart, name)]
    parts += _bands(chart.bands, px, bottom)
    for value in ticks:
        y = py(value)
        parts.append(f'<line class="grid" x1="{_LEFT}" x2="{WIDTH - _RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>')
        parts.append(_text(_LEFT - 8, y + 4, _number(value, ticks), "tick", "end"))
    for at, label in chart.x_ticks:
        if x0 <= at <= x1:
            parts.append(
                f'<line class="grid" x1="{px(at):.1f}" x2="{px(at):.1f}" y1="{bottom}" y2="{bottom + 4}"/>'
            )
            parts.append(_text(px(at), bottom + 18, label, "tick", "middle"))
    parts.append(f'<line class="axis" x1="{_LEFT}" x2="{WIDTH - _RIGHT}" y1="{bottom}" y2="{bottom}"/>')
    if chart.x_label:
        parts.append(_text(WIDTH - _RIGHT, bottom + 31, chart.x_label, "tick", "end"))
    for series in chart.series:
        parts += _error_bars(series, px, py)
        parts += _drawn(series, [(px(x), None if y is None else py(y)) for x, y in series.points], py(low))
        parts += _labels(series, px, py)
    for rule in chart.rules:
        y = py(rule.y)
        parts.append(
            f'<line class="{rule.style}" x1="{_LEFT}" x2="{WIDTH - _RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>'
        )
        parts.append(_text(WIDTH - _RIGHT - 4, y - 5, rule.label, "mark", "end"))
    parts += _legend(chart)
    parts.append("</svg>")
    return Markup("\n".join(parts))  # noqa: S704  every text in it went through escape


def svg_file(charts: Sequence[Chart]) -> str:
    """Charts below each other as the text of one SVG file, with its style inside."""
    top, parts = _MARGIN, []
    for n, chart in enumerate(charts):
        drawn = str(svg(chart, f"chart{n}"))
        # an inner svg needs its place and size; in a page the style sheet gives them
        place = f'<svg x="{_MARGIN}" y="{top}" width="{WIDTH}" height="{chart.height}"'
        parts.append(re.sub(r"^<svg", place, drawn, count=1))
        top += chart.height + _MARGIN
    style = _STYLE + "".join(
        f".{name} {{ stroke: {colour}; }} .area.{name}, .dot.{name} {{ fill: {colour}; stroke: none; }}\n"
        for name, colour in zip(STYLES, _COLOURS, strict=True)
    )
    width = WIDTH + 2 * _MARGIN
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {top}" width="{width}" height="{top}">\n'
        f'<style>{style}</style>\n<rect width="100%" height="100%" fill="#fff"/>\n'
        + "\n".join(parts)
        + "\n</svg>\n"
    )


def time_ticks(start: datetime, end: datetime, most: int = 8) -> list[tuple[float, str]]:
    """Round UTC times between two moments with their labels; x is seconds since 1970."""
    span = max((end - start).total_seconds(), 1.0)
    step = next((s for s in _STEPS_S if span / s <= most), math.ceil(span / most / 604_800) * 604_800)
    first = math.ceil(start.timestamp() / step) * step
    ticks: list[tuple[float, str]] = []
    day: str | None = None
    for n in range(most + 2):
        at = datetime.fromtimestamp(first, UTC) + timedelta(seconds=n * step)
        if at > end:
            break
        clock = at.strftime("%H:%M:%S" if step < 60 else "%H:%M")
        today = at.strftime("%d %b")
        label = today if step >= 86_400 else clock if today == day else f"{clock}, {today}"
        day = today
        ticks.append((at.timestamp(), label))
    return ticks


def count_ticks(low: float, high: float, most: int = 12) -> list[tuple[float, str]]:
    """Whole numbers between two, at most `most` or so."""
    step = max(1, math.ceil(_nice((high - low) / most)))
    first = math.ceil(low / step) * step
    return [(float(n), f"{n:,}") for n in range(first, math.floor(high) + 1, step)]


def number_ticks(low: float, high: float, most: int = 8) -> list[tuple[float, str]]:
    """Round numbers between two, at most `most` or so."""
    step = _nice((high - low) / most)
    found = [n * step for n in range(math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9) + 1)]
    return [(value, _number(value, found)) for value in found]


def _nice(rough: float) -> float:
    """The smallest of 1, 2, 2.5, 5 × 10ⁿ that is at least `rough`."""
    if rough <= 0 or not math.isfinite(rough):
        return 1.0
    power = 10.0 ** math.floor(math.log10(rough))
    return next(m * power for m in (1, 2, 2.5, 5, 10) if m * power >= rough * (1 - 1e-9))


def _y_axis(chart: Chart) -> tuple[float, float, list[float]]:
    values = [y for series in chart.series for _, y in series.points if y is not None]
    values += [end for series in chart.series for _, *ends in _spans(series) for end in ends]
    values += [rule.y for rule in chart.rules]
    low, high = min(values, default=0.0), max(values, default=1.0)
    if chart.y_range is not None:
        low, high = chart.y_range
    elif chart.from_zero:
        low = min(low, 0.0)
    # a flat line, and one that only rounding bends, still needs a scale
    if high - low <= 1e-9 * max(abs(low), abs(high), 1e-6):
        high = low + max(abs(low), 1e-6)
    step = _nice((high - low) / 5)
    if chart.y_range is None:
        low, high = math.floor(low / step + 1e-9) * step, math.ceil(high / step - 1e-9) * step
    count = round((high - low) / step + 1e-6)
    return (
        low,
        high,
        [low + n * step for n in range(count + 1) if low + n * step <= high * (1 + 1e-9) + 1e-12],
    )


def _number(value: float, ticks: Sequence[float]) -> str:
    step = abs(ticks[1] - ticks[0]) if len(ticks) > 1 else abs(value) or 1.0
    decimals = max(0, -math.floor(math.log10(step) + 1e-9))
    # a step of 2.5 needs one decimal more than its power of ten says
    if abs(step * 10**decimals - round(step * 10**decimals)) > 1e-6:
        decimals += 1
    return f"{value:,.{decimals}f}"


def _head(chart: Chart, name: str) -> str:
    return (
        f'<svg class="chart" viewBox="0 0 {WIDTH} {chart.height}" role="img" '
        f'aria-labelledby="{escape(name)}-title {escape(name)}-desc" xmlns="http://www.w3.org/2000/svg">'
        f'<title id="{escape(name)}-title">{escape(chart.title)}</title>'
        f'<desc id="{escape(name)}-desc">{escape(chart.description)}</desc>'
        f"{_text(0, 14, chart.y_label, 'label', 'start')}"
    )


def _bands(bands: Sequence[Band], px: Callable[[float], float], bottom: float) -> list[str]:
    parts: list[str] = []
    for n, band in enumerate(bands):
        left, right = px(band.start), px(band.end)
        style = "band odd" if n % 2 else "band"
        width = max(right - left, 0.5)
        parts.append(
            f'<rect class="{style}" x="{left:.1f}" y="{_TOP}" width="{width:.1f}" height="{bottom - _TOP:.1f}"/>'
        )
        if width > 4 + 6 * len(band.label):
            parts.append(_text((left + right) / 2, _TOP - 4, band.label, "bandlabel", "middle"))
    return parts


def _drawn(series: Series, points: Sequence[Point], base: float) -> list[str]:
    match series.kind:
        case "dots":
            shape = '<circle class="dot {style}" cx="{x:.1f}" cy="{y:.1f}" r="3.5"/>'
        case "rings":
            shape = '<circle class="ring {style}" cx="{x:.1f}" cy="{y:.1f}" r="5.5"/>'
        case "ticks":
            shape = '<path class="bar {style}" d="M{left:.1f} {y:.1f}H{right:.1f}"/>'
        case _:
            return [_path(series, run, base) for run in _runs(points)]
    half = 9.0
    return [
        shape.format(style=series.style, x=x, y=y, left=x - half, right=x + half)
        for x, y in points
        if y is not None
    ]


def _spans(series: Series) -> list[tuple[float, float, float]]:
    """Of every point with an error bar: x, and the bar's lower and upper end."""
    pairs = zip(series.points, series.spread, strict=False)
    return [(x, y - half, y + half) for (x, y), half in pairs if y is not None and half is not None]


def _error_bars(series: Series, px: Callable[[float], float], py: Callable[[float], float]) -> list[str]:
    return [
        f'<path class="spread {series.style}" d="M{px(x):.1f} {py(low):.1f}V{py(high):.1f}'
        f'M{px(x) - 4:.1f} {py(low):.1f}h8M{px(x) - 4:.1f} {py(high):.1f}h8"/>'
        for x, low, high in _spans(series)
    ]


def _labels(series: Series, px: Callable[[float], float], py: Callable[[float], float]) -> list[str]:
    """Right of the point, or left of it where the drawing ends."""
    pairs = zip(series.points, series.labels, strict=False)
    parts: list[str] = []
    for (x, y), label in pairs:
        if y is not None:
            room = px(x) + 8 + 6.6 * len(label) <= WIDTH - _RIGHT
            parts.append(
                _text(px(x) + (8 if room else -8), py(y) - 5, label, "mark", "start" if room else "end")
            )
    return parts


def _path(series: Series, run: Sequence[tuple[float, float]], base: float) -> str:
    (x, y), *rest = run
    line = f"M{x:.1f} {y:.1f}"
    for nx, ny in rest:
        line += f"H{nx:.1f}V{ny:.1f}" if series.kind == "step" else f"L{nx:.1f} {ny:.1f}"
    drawn = f'<path class="line {series.style}" d="{line}"/>'
    if series.kind == "area":
        drawn = f'<path class="area {series.style}" d="{line}V{base:.1f}H{x:.1f}Z"/>{drawn}'
    return drawn


def _runs(points: Iterable[Point]) -> list[list[tuple[float, float]]]:
    """The stretches between unknown values."""
    runs: list[list[tuple[float, float]]] = [[]]
    for x, y in points:
        if y is None:
            runs.append([])
        else:
            runs[-1].append((x, y))
    return [run for run in runs if run]


def _legend(chart: Chart) -> list[str]:
    if len(chart.series) < 2:
        return []
    parts: list[str] = []
    x = float(WIDTH - _RIGHT)
    for series in reversed(chart.series):
        x -= 6.6 * len(series.name) + 4
        parts.append(_text(x, 14, series.name, "legend", "start"))
        x -= 26
        key = Series(series.name, series.kind, (), series.style)
        middle = (
            [(x + 10.0, 10.0)] if series.kind in ("dots", "rings", "ticks") else [(x, 10.0), (x + 20, 10.0)]
        )
        parts += _drawn(key, middle, 10.0)
        x -= 10
    return parts


def _text(x: float, y: float, text: str, style: str, anchor: str) -> str:
    return f'<text class="{style}" x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(text)}</text>'
