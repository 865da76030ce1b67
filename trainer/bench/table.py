"""Puts the results of a benchmark into one document and a Markdown table: one line per variant, at its chosen learning rate."""

from collections.abc import Sequence
from statistics import fmean, median, stdev

from carbonsched.model.base import Doc
from trainer.bench.result import HeldOutResult, Result
from trainer.bench.statistics import difference


class ResultGap(Doc):
    """Test NLL of a variant minus another's, paired over rows and seeds (trainer/bench/statistics.py).

    Example:
        >>> ResultGap(against="full", mean=0.02, low=0.01, high=0.03, detectable=0.015).low > 0
        True
    """

    against: str
    mean: float
    low: float
    high: float
    detectable: float


class ResultLine(Doc):
    """One variant; means over its seeds.

    Example::

        best = min(bench.lines, key=lambda line: line.dev_nll)
        kilojoules = None if best.joules is None else best.joules / 1e3
    """

    variant: str
    lr: float
    seeds: tuple[int, ...]
    steps: int
    rho_realised: float
    flops: float
    seconds: float
    time_ratio: float | None
    """Seconds ÷ those of `full` with the same seed, median over seeds; None: there is no `full` to compare with."""
    joules: float | None
    joules_method: str
    peak_memory_bytes: float | None
    dev_nll: float
    test_nll: float | None
    """None: test rows were not evaluated."""
    test_nll_spread: float | None
    """Standard deviation over seeds; None with fewer than two."""
    metrics: dict[str, float]
    gaps: tuple[ResultGap, ...]


class Bench(Doc):
    """results.json.

    Example::

        bench = Bench.parse(json.loads(Path("bench/results.json").read_text()), where="results.json")
        text = markdown(bench)
    """

    model: str
    data: str
    dev_nll_before: float
    lines: tuple[ResultLine, ...]
    results: tuple[Result, ...]
    """Every run, including tuning."""


def lines(chosen: Sequence[Sequence[Result]], against: Sequence[str]) -> tuple[ResultLine, ...]:
    """`chosen`: the runs of each variant at its learning rate, by seed. `against`: variants to compare each with."""
    full = {r.seed: r.seconds / r.steps for runs in chosen for r in runs if r.variant == "full"}
    tested = {runs[0].variant: {r.seed: r.test for r in runs if r.test is not None} for runs in chosen}
    return tuple(
        _line(
            runs, full, [_gap(tested, runs[0].variant, name) for name in against if name != runs[0].variant]
        )
        for runs in chosen
    )


def _line(runs: Sequence[Result], full: dict[int, float], gaps: Sequence[ResultGap | None]) -> ResultLine:
    tests = [r.test for r in runs if r.test is not None]
    nll = [t.nll for t in tests]
    shared = [name for name in tests[0].metrics if all(name in t.metrics for t in tests)] if tests else []
    joules = [r.joules for r in runs if r.joules is not None]
    peaks = [r.peak_memory_bytes for r in runs if r.peak_memory_bytes is not None]
    ratios = [r.seconds / r.steps / full[r.seed] for r in runs if r.seed in full]
    return ResultLine(
        variant=runs[0].variant,
        lr=runs[0].lr,
        seeds=tuple(r.seed for r in runs),
        steps=runs[0].steps,
        rho_realised=fmean(r.rho_realised for r in runs),
        flops=fmean(r.flops for r in runs),
        seconds=fmean(r.seconds for r in runs),
        time_ratio=median(ratios) if ratios else None,
        joules=fmean(joules) if joules else None,
        joules_method=runs[0].joules_method,
        peak_memory_bytes=fmean(peaks) if peaks else None,
        dev_nll=fmean(r.dev_nll for r in runs),
        test_nll=fmean(nll) if nll else None,
        test_nll_spread=stdev(nll) if len(nll) > 1 else None,
        metrics={name: fmean(t.metrics[name] for t in tests) for name in shared},
        gaps=tuple(gap for gap in gaps if gap is not None),
    )


def _gap(tested: dict[str, dict[int, HeldOutResult]], one: str, other: str) -> ResultGap | None:
    seeds = sorted(tested[one].keys() & tested.get(other, {}).keys())
    if not seeds:
        return None
    found = difference([tested[one][s] for s in seeds], [tested[other][s] for s in seeds])
    return ResultGap(
        against=other, mean=found.mean, low=found.low, high=found.high, detectable=found.detectable
    )


def markdown(bench: Bench) -> str:
    names = sorted({gap.against for line in bench.lines for gap in line.gaps})
    metrics = sorted({name for line in bench.lines for name in line.metrics})
    estimated = any(not line.joules_method.startswith("counter") for line in bench.lines)
    head = [
        "method",
        "lr",
        "seeds",
        "steps",
        "ρ realised",
        "PFLOP",
        "s",
        "s ÷ full",
        "kJ, estimated" if estimated else "kJ",
    ]
    head += ["peak GB", "dev NLL", "test NLL", *(f"less {name} [95%]" for name in names), *metrics]
    rows = [head, ["---"] * len(head)]
    for line in bench.lines:
        gaps = {gap.against: gap for gap in line.gaps}
        spread = "" if line.test_nll_spread is None else f" ± {line.test_nll_spread:.3f}"
        rows.append(
            [
                line.variant,
                f"{line.lr:.1e}",
                str(len(line.seeds)),
                str(line.steps),
                f"{line.rho_realised:.3f}",
                f"{line.flops / 1e15:.4f}",
                f"{line.seconds:.0f}",
                "" if line.time_ratio is None else f"{line.time_ratio:.3f}",
                "?" if line.joules is None else f"{line.joules / 1e3:.2f}",
                "?" if line.peak_memory_bytes is None else f"{line.peak_memory_bytes / 1e9:.2f}",
                f"{line.dev_nll:.4f}",
                "" if line.test_nll is None else f"{line.test_nll:.4f}{spread}",
                *(_gap_text(gaps.get(name)) for name in names),
                *(f"{line.metrics[m]:.1f}" if m in line.metrics else "" for m in metrics),
            ]
        )
    found = max((gap.detectable for line in bench.lines for gap in line.gaps), default=None)
    text = "\n".join("| " + " | ".join(row) + " |" for row in rows) + "\n"
    if found is not None:
        text += (
            f"\nLeast detectable difference (5%, power 80%): {found:.4f} at most. Before training: dev NLL "
        )
        text += f"{bench.dev_nll_before:.4f}. `*`: the 95% interval leaves 0 out.\n"
    return text


def _gap_text(gap: ResultGap | None) -> str:
    if gap is None:
        return ""
    star = "*" if gap.low > 0 or gap.high < 0 else ""
    return f"{gap.mean:+.4f}{star} [{gap.low:+.3f}, {gap.high:+.3f}]"
