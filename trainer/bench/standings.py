"""Puts the results of a championship into one document and a Markdown table: one line per row and budget, and comparisons.

Comparisons are paired over the test rows within each seed; their p-values are corrected together by Holm's method.
"""

from collections.abc import Sequence
from statistics import fmean, stdev

from carbonsched.model.base import Doc
from carbonsched.model.job import JobSpec
from trainer.bench.championship import Championship, Entry
from trainer.bench.result import HeldOutResult, Result, ResultStore
from trainer.bench.runner import BenchPlan, final_cells, walk
from trainer.bench.statistics import difference, holm


class Comparison(Doc):
    """Test NLL of a row minus that of another at the same budget, or at the other's only budget.

    Example:
        >>> Comparison(against="lora", mean=-0.02, low=-0.03, high=-0.01, detectable=0.014, p=0.001, p_holm=0.006, not_worse=True).p_holm
        0.006
    """

    against: str
    mean: float
    low: float
    high: float
    detectable: float
    p: float
    p_holm: float
    """Corrected for all comparisons in the document."""
    not_worse: bool
    """The upper end of the 95% interval is below the margin."""


class Standing(Doc):
    """A row at one budget; means over its seeds.

    Example::

        best = min((s for s in standings.lines if s.share == 0.4), key=lambda s: s.dev_nll)
    """

    name: str
    share: float
    method: str
    lr: float
    tuned: tuple[tuple[float, float], ...]
    """(rate, dev NLL) of the tuning runs."""
    settled: bool
    """Whether tuning is finished: both neighbours of the best are worse."""
    seeds: tuple[int, ...]
    steps: int
    flops: float
    planned_flops: float
    rho_realised: float
    seconds: float
    joules: float | None
    joules_method: str
    dev_nll: float
    dev_nll_spread: float | None
    """Standard deviation over seeds; None with fewer than two."""
    test_nll: float | None
    comparisons: tuple[Comparison, ...]


class Standings(Doc):
    """standings.json.

    Example::

        standings = Standings.parse(json.loads(Path("championship/standings.json").read_text()), where="standings.json")
        text = table(standings)
    """

    model: str
    data: str
    margin: float
    dev_nll_before: float | None
    """None: nothing has run."""
    lines: tuple[Standing, ...]
    missing: tuple[str, ...]
    """Rows and budgets without any run."""
    results: tuple[Result, ...]
    """Every run, including tuning."""


def standings(
    found: Championship, base: JobSpec, made: Sequence[Entry], plan: BenchPlan, store: ResultStore
) -> Standings:
    """From the runs that have finished."""
    runs: list[tuple[Entry, list[Result], bool]] = []
    missing = []
    for entry in made:
        best, wanted = walk(plan, entry.variant, store)
        cells = [] if best is None else final_cells(plan, entry.variant, best)
        results = [result for cell in cells if (result := store.read(cell)) is not None]
        if results:
            runs.append((entry, results, not wanted))
        else:
            missing.append(f"{entry.row.name} at {entry.share:g}")
    everything = store.all()
    lines = [_line(entry, results, everything, settled=settled) for entry, results, settled in runs]
    compared = _compare(found, [(e.row.name, e.share, results) for e, results, _ in runs])
    return Standings(
        model=base.model.name_or_path,
        data=base.data.name_or_path,
        margin=found.margin,
        dev_nll_before=everything[0].dev_nll_before if everything else None,
        lines=tuple(
            line.model_copy(update={"comparisons": compared.get((line.name, line.share), ())})
            for line in lines
        ),
        missing=tuple(missing),
        results=tuple(everything),
    )


def _line(entry: Entry, runs: list[Result], everything: list[Result], *, settled: bool) -> Standing:
    dev = [r.dev_nll for r in runs]
    tests = [r.test.nll for r in runs if r.test is not None]
    joules = [r.joules for r in runs if r.joules is not None]
    walked = {
        r.lr: r.dev_nll
        for r in everything
        if r.variant == entry.variant.name and r.seed == runs[0].seed and entry.row.tune
    }
    return Standing(
        name=entry.row.name,
        share=entry.share,
        method=entry.row.method,
        lr=runs[0].lr,
        tuned=tuple(sorted(walked.items())) if len(walked) > 1 else (),
        settled=settled,
        seeds=tuple(r.seed for r in runs),
        steps=runs[0].steps,
        flops=fmean(r.flops for r in runs),
        planned_flops=entry.flops,
        rho_realised=fmean(r.rho_realised for r in runs),
        seconds=fmean(r.seconds for r in runs),
        joules=fmean(joules) if joules else None,
        joules_method=runs[0].joules_method,
        dev_nll=fmean(dev),
        dev_nll_spread=stdev(dev) if len(dev) > 1 else None,
        test_nll=fmean(tests) if tests else None,
        comparisons=(),
    )


def _compare(
    found: Championship, runs: Sequence[tuple[str, float, list[Result]]]
) -> dict[tuple[str, float], tuple[Comparison, ...]]:
    tested: dict[tuple[str, float], dict[int, HeldOutResult]] = {
        (name, share): {r.seed: r.test for r in results if r.test is not None}
        for name, share, results in runs
    }
    only = {row.name: row.shares[0] for row in found.row if row.shares is not None and len(row.shares) == 1}
    made = []
    for name, share in tested:
        for other in found.against:
            mine, theirs = tested[name, share], tested.get((other, only.get(other, share)), {})
            seeds = sorted(mine.keys() & theirs.keys())
            if other != name and seeds:
                gap = difference([mine[s] for s in seeds], [theirs[s] for s in seeds])
                made.append((name, share, other, gap))
    corrected = holm([gap.p for *_, gap in made])
    answer: dict[tuple[str, float], tuple[Comparison, ...]] = {}
    for (name, share, other, gap), p in zip(made, corrected, strict=True):
        answer[name, share] = (
            *answer.get((name, share), ()),
            Comparison(
                against=other,
                mean=gap.mean,
                low=gap.low,
                high=gap.high,
                detectable=gap.detectable,
                p=gap.p,
                p_holm=p,
                not_worse=gap.not_worse(found.margin),
            ),
        )
    return answer


def table(found: Standings) -> str:
    """For people, in Markdown."""
    others = sorted({c.against for line in found.lines for c in line.comparisons})
    head = [
        "grams",
        "row",
        "lr",
        "seeds",
        "steps",
        "TFLOP",
        "dev NLL",
        "test NLL",
        *(f"less {o}" for o in others),
    ]
    rows = [head, ["---"] * len(head)]
    for line in found.lines:
        gaps = {c.against: c for c in line.comparisons}
        spread = "" if line.dev_nll_spread is None else f" ± {line.dev_nll_spread:.3f}"
        rows.append(
            [
                f"{line.share:.0%}",
                line.name,
                f"{line.lr:.1e}" + ("" if line.settled else " (still tuned)"),
                str(len(line.seeds)),
                str(line.steps),
                f"{line.flops / 1e12:.1f}",
                f"{line.dev_nll:.4f}{spread}",
                "" if line.test_nll is None else f"{line.test_nll:.4f}",
                *(_gap_text(gaps.get(other)) for other in others),
            ]
        )
    text = "\n".join("| " + " | ".join(row) + " |" for row in rows) + "\n"
    before = "" if found.dev_nll_before is None else f"\nBefore training: dev NLL {found.dev_nll_before:.4f}."
    if others:
        before += (
            f" `*`: p below .05 after Holm's correction; `≤`: not worse, by a margin of {found.margin:g}."
        )
    tuned = [
        f"{line.name} at {line.share:.0%}: " + ", ".join(f"{rate:.1e} {nll:.4f}" for rate, nll in line.tuned)
        for line in found.lines
        if line.tuned
    ]
    tried = "\nRates tried (dev NLL): " + "; ".join(tuned) + ".\n" if tuned else ""
    missing = "\nNot run: " + ", ".join(found.missing) + ".\n" if found.missing else ""
    return f"{text}{before}\n{tried}{missing}"


def _gap_text(gap: Comparison | None) -> str:
    if gap is None:
        return ""
    marks = ("*" if gap.p_holm < 0.05 else "") + ("≤" if gap.not_worse else "")
    return f"{gap.mean:+.4f}{marks} [{gap.low:+.3f}, {gap.high:+.3f}]"
