"""Plots the results of a benchmark as SVG files: quality against FLOPs and joules, seconds against FLOPs."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from carbonsched.charts import Chart, Series, number_ticks, svg_file
from trainer.bench.standings import Standing, Standings
from trainer.bench.table import Bench, ResultLine

PLOTS = ("quality-flops", "quality-joules", "seconds-flops")
_HEIGHT = 400
_STYLES = 4
_MARGIN = 0.2
"""Empty space on the left and right of the points, as a share of their span."""

Figure = Callable[[ResultLine], float | None]


@dataclass(frozen=True, slots=True)
class _Axis:
    label: str
    figure: Figure
    spread: Figure = lambda line: None


def draw(bench: Bench, folder: Path) -> list[Path]:
    """Write the plots that `bench` has figures for; returns their paths. Equal figures give equal files."""
    flops = _Axis("PFLOP of training", lambda line: line.flops / 1e15)
    joules = _Axis(
        f"kJ ({bench.lines[0].joules_method})",
        lambda line: None if line.joules is None else line.joules / 1e3,
    )
    seconds = _Axis("seconds of training", lambda line: line.seconds)
    quality = _Axis("dev NLL per token", lambda line: line.dev_nll)
    if any(line.test_nll is not None for line in bench.lines):
        quality = _Axis("test NLL per token", lambda line: line.test_nll, lambda line: line.test_nll_spread)
    written = []
    for name, x, y in zip(PLOTS, (flops, joules, flops), (quality, quality, seconds), strict=True):
        chart = _chart(bench, x, y)
        if chart is not None:
            file = folder / f"{name}.svg"
            file.write_text(svg_file([chart]), encoding="utf-8")
            written.append(file)
    return written


STANDINGS = ("loss-flops", "loss-joules")


def draw_standings(found: Standings, folder: Path) -> list[Path]:
    """Loss against FLOPs and against joules, one line per row through its budgets; returns their paths."""
    tested = all(line.test_nll is not None for line in found.lines)
    label = f"{'test' if tested else 'dev'} NLL per token"
    axes: tuple[tuple[str, str, Callable[[Standing], float | None]], ...] = (
        (STANDINGS[0], "TFLOP of training", lambda line: line.flops / 1e12),
        (STANDINGS[1], "kJ", lambda line: None if line.joules is None else line.joules / 1e3),
    )
    written = []
    for name, x_label, figure in axes:
        shown = [line for line in found.lines if figure(line) is not None]
        if not shown:
            continue
        kinds = {line.joules_method for line in shown}
        unit = f"{x_label} ({'; '.join(sorted(kinds))})" if name == STANDINGS[1] else x_label
        across = [figure(line) or 0.0 for line in shown]
        room = _MARGIN * (max(across) - min(across) or max(across))
        low, high = max(min(across) - room, 0.0), max(across) + room
        series = []
        for k, row in enumerate(dict.fromkeys(line.name for line in shown)):
            mine = [line for line in shown if line.name == row]
            points = [(figure(m) or 0.0, (m.test_nll if tested else None) or m.dev_nll) for m in mine]
            labels = [row] + [""] * (len(mine) - 1)
            spread = [m.dev_nll_spread for m in mine]
            series.append(Series(row, "dots", points, f"s{1 + k % _STYLES}", labels, spread))
        chart = Chart(
            title=f"{found.model} on {found.data}: {label} against {unit}",
            description="One dot per row and budget, at the learning rate that was chosen for it.",
            y_label=label,
            series=series,
            x_range=(low, high),
            x_ticks=number_ticks(low, high),
            x_label=unit,
            from_zero=False,
            height=_HEIGHT,
        )
        file = folder / f"{name}.svg"
        file.write_text(svg_file([chart]), encoding="utf-8")
        written.append(file)
    return written


def _chart(bench: Bench, x: _Axis, y: _Axis) -> Chart | None:
    """One dot per variant, labelled with its name; None if no variant has both figures."""
    found = [(line, x.figure(line), y.figure(line)) for line in bench.lines]
    shown = [(line, at, up) for line, at, up in found if at is not None and up is not None]
    if not shown:
        return None
    across = [at for _, at, _ in shown]
    room = _MARGIN * (max(across) - min(across) or max(across) or 1.0)
    low, high = max(min(across) - room, 0.0), max(across) + room
    dots = Series(
        y.label,
        "dots",
        [(at, up) for _, at, up in shown],
        labels=[line.variant for line, _, _ in shown],
        spread=[y.spread(line) for line, _, _ in shown],
    )
    return Chart(
        title=f"{bench.model} on {bench.data}: {y.label} against {x.label}",
        description="One dot per method, at the learning rate that was chosen for it.",
        y_label=y.label,
        series=[dots],
        x_range=(low, high),
        x_ticks=number_ticks(low, high),
        x_label=x.label,
        from_zero=False,
        height=_HEIGHT,
    )
