"""Plots of a benchmark as SVG: quality against FLOPs and joules, seconds against FLOPs. Needs matplotlib (`carbonsched[bench]`)."""

from collections.abc import Callable, Sequence
from pathlib import Path

from carbonsched.errors import InputError
from trainer.bench.table import Bench, ResultLine

PLOTS = ("quality-flops", "quality-joules", "seconds-flops")


def draw(bench: Bench, folder: Path) -> list[Path]:
    """Write the plots that `bench` has figures for. Raises InputError where matplotlib is not installed."""
    try:
        import matplotlib as mpl
        from matplotlib import pyplot
    except ImportError as e:
        raise InputError("bench", "plots need matplotlib", "install carbonsched[bench]") from e
    # text stays text, and the same figures give the same file
    mpl.use("svg")
    mpl.rcParams |= {"svg.fonttype": "none", "svg.hashsalt": "carbonsched", "font.size": 9}
    quality, label = (_test, "test NLL a token") if _tested(bench.lines) else (_dev, "dev NLL a token")
    axes: list[
        tuple[str, Callable[[ResultLine], float | None], str, Callable[[ResultLine], float | None], str]
    ] = [
        ("quality-flops", _petaflops, "PFLOP of training", quality, label),
        ("quality-joules", _kilojoules, f"kJ ({bench.lines[0].joules_method})", quality, label),
        ("seconds-flops", _petaflops, "PFLOP of training", lambda line: line.seconds, "seconds of training"),
    ]
    written = []
    for name, x, x_label, y, y_label in axes:
        figure, axis = pyplot.subplots(figsize=(7, 4.2), layout="constrained")
        shown = 0
        for line in bench.lines:
            across, up = x(line), y(line)
            if across is None or up is None:
                continue
            spread = line.test_nll_spread if y is _test else None
            axis.errorbar([across], [up], yerr=[spread or 0.0], marker="o", capsize=3, linestyle="none")
            axis.annotate(line.variant, (across, up), xytext=(6, 4), textcoords="offset points")
            shown += 1
        if shown:
            axis.set(xlabel=x_label, ylabel=y_label)
            axis.grid(alpha=0.3)
            axis.spines[["top", "right"]].set_visible(False)
            axis.margins(x=0.2, y=0.1)
            file = folder / f"{name}.svg"
            figure.savefig(file, metadata={"Date": None, "Creator": None})
            written.append(file)
        pyplot.close(figure)
    return written


def _tested(lines: Sequence[ResultLine]) -> bool:
    return any(line.test_nll is not None for line in lines)


def _petaflops(line: ResultLine) -> float | None:
    return line.flops / 1e15


def _kilojoules(line: ResultLine) -> float | None:
    return None if line.joules is None else line.joules / 1e3


def _test(line: ResultLine) -> float | None:
    return line.test_nll


def _dev(line: ResultLine) -> float | None:
    return line.dev_nll
