"""Does `python -m trainer bench`: makes a plan from the options, runs it, and writes results.json, a table and plots."""

import logging
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from carbonsched.errors import InputError
from carbonsched.model.job import JobSpec
from carbonsched.model.job_file import read_job, resolve_paths

if TYPE_CHECKING:
    from trainer.bench.importance import BenchImportance
    from trainer.bench.standings import Standings
    from trainer.bench.table import Bench
    from trainer.bench.waste import BenchWaste


def bench(
    job: Path | None,
    model: str | None,
    data: str | None,
    methods: list[str],
    rhos: list[float],
    seeds: list[int],
    lrs: list[str],
    tune: bool,
    out: Path,
    against: list[str],
    quiet: bool,
) -> "Bench":
    """Run what is due in `out`, then write results.json, results.md and plots there. Raises InputError, or CarbonschedError if a run fails."""
    from trainer.bench.cell import Cell, parse_variants
    from trainer.bench.plot import draw
    from trainer.bench.result import ResultStore
    from trainer.bench.runner import BenchPlan, run_all, tuned_results
    from trainer.bench.table import Bench, lines, markdown
    from trainer.job.job_dir import write_json

    logging.getLogger("codecarbon").setLevel(logging.ERROR)
    base = _base(job, model, data)
    variants = [v for text in methods for v in parse_variants(text, rhos)]
    starts = dict(_rate(text) for text in lrs)
    unknown = sorted(starts.keys() - {v.name for v in variants} - {v.method for v in variants} - {""})
    if unknown:
        raise InputError("--lr", f"no --method is called {unknown[0]!r}", "name it as --method does")
    default = starts.get("", base.train.lr)
    plan = BenchPlan(
        base,
        tuple(variants),
        tuple(seeds),
        {v.name: starts.get(v.name, starts.get(v.method, default)) for v in variants},
        tune,
    )
    for variant in variants:  # refuse before the first run what a run would refuse
        Cell(variant, plan.lrs[variant.name], seeds[0]).spec(base)
    store = ResultStore(out)
    out.mkdir(parents=True, exist_ok=True)
    run_all(plan, store, (lambda line: None) if quiet else _say)
    runs = tuned_results(plan, store)
    document = Bench(
        # results are published: the last part of a path identifies it, the rest is private to this machine
        model=_last(base.model.name_or_path),
        data=_last(base.data.name_or_path),
        dev_nll_before=runs[0][0].dev_nll_before,
        lines=lines(runs, against),
        results=tuple(store.all()),
    )
    write_json(out / "results.json", document.dump())
    (out / "results.md").write_text(markdown(document), encoding="utf-8")
    draw(document, out)
    if not quiet:
        _say(markdown(document))
    return document


def championship(
    file: Path, out: Path, shares: list[float], seeds: list[int], jobs: int, report_only: bool, quiet: bool
) -> "Standings":
    """Run what is due of a championship in `out`, and write standings there. shares, seeds: only those; empty: all of the file. Raises
    InputError, or CarbonschedError if a run fails."""
    from trainer.bench.championship import entries, joules_per_flop, plan_of, read_championship
    from trainer.bench.plot import draw_standings
    from trainer.bench.result import ResultStore
    from trainer.bench.runner import run_all
    from trainer.bench.standings import standings, table
    from trainer.job.job_dir import write_json

    logging.getLogger("codecarbon").setLevel(logging.ERROR)
    found, base = read_championship(file)
    given: dict[str, Any] = {"shares": tuple(shares)} if shares else {}
    given |= {"seeds": tuple(seeds)} if seeds else {}
    found = found.model_copy(update=given)
    out.mkdir(parents=True, exist_ok=True)
    store = ResultStore(out)
    say: Callable[[str], None] = (lambda line: None) if quiet else _say
    made = entries(found, base, joules_per_flop(found, store))
    plan = plan_of(found, base, made)
    for entry in made:
        say(f"{entry.row.name} at {entry.share:g}: {entry.variant.name}, {entry.flops:.4g} FLOPs")
    if not report_only:
        run_all(plan, store, say, jobs)
    document = standings(found, base, made, plan, store).model_copy(
        update={"model": _last(base.model.name_or_path), "data": _last(base.data.name_or_path)}
    )
    write_json(out / "standings.json", document.dump())
    (out / "standings.md").write_text(table(document), encoding="utf-8")
    draw_standings(document, out)
    say(table(document))
    return document


def importance(
    job: Path | None,
    model: str | None,
    data: str | None,
    settings: dict[str, Any],
    seq: int | None,
    tensors: int,
    steps: int,
    lr: float,
    held_out: int,
    quiet: bool,
) -> "BenchImportance":
    """`settings` of the job's [train] that are not None replace its own."""
    from trainer.bench.importance import bench_importance, table

    base = _base(job, model, data)
    given = {name: value for name, value in settings.items() if value is not None}
    part = base.data if seq is None else base.data.model_copy(update={"max_length": seq})
    spec = base.model_copy(update={"train": base.train.model_copy(update=given), "data": part})
    say: Callable[[str], None] = (lambda line: None) if quiet else _say
    found = bench_importance(spec, tensors=tensors, steps=steps, lr=lr, held_out=held_out, say=say)
    found = found.model_copy(update={"model": _last(found.model), "data": _last(found.data)})
    say(table(found))
    return found


def waste(
    model: str,
    data: str,
    settings: dict[str, Any],
    seq: int | None,
    rows: int | None,
    count_only: bool,
    quiet: bool,
) -> "BenchWaste":
    """`settings` of [train] that are not None replace the defaults."""
    from trainer.bench.waste import bench_waste, table

    base = _base(None, model, data)
    given = {name: value for name, value in settings.items() if value is not None}
    part = base.data if seq is None else base.data.model_copy(update={"max_length": seq})
    spec = base.model_copy(update={"train": base.train.model_copy(update=given), "data": part})
    say: Callable[[str], None] = (lambda line: None) if quiet else _say
    found = bench_waste(spec, rows, run=not count_only, say=say)
    say(table(found))
    return found


def _last(name: str) -> str:
    return Path(name).name if Path(name).is_absolute() else name


def _say(line: str) -> None:
    sys.stderr.write(line + "\n")
    sys.stderr.flush()


def _base(job: Path | None, model: str | None, data: str | None) -> JobSpec:
    if job is not None:
        base = read_job(job)
    elif model is None or data is None:
        raise InputError("--job", "is missing", "give a JOB.toml, or --model and --data")
    else:
        base = JobSpec.parse(
            {
                "name": "bench",
                "model": {"name_or_path": model},
                "data": {"name_or_path": data},
                "carbon": {"budget_share": 1.0},
            }
        )
        return resolve_paths(base, Path.cwd())
    if model is not None:
        base = base.model_copy(update={"model": base.model.model_copy(update={"name_or_path": model})})
    if data is not None:
        base = base.model_copy(update={"data": base.data.model_copy(update={"name_or_path": data})})
    return base if model is None and data is None else resolve_paths(base, Path.cwd())


def _rate(text: str) -> tuple[str, float]:
    name, _, value = text.rpartition(":")
    try:
        return name, float(value)
    except ValueError as e:
        raise InputError("--lr", f"{value!r} is no learning rate", "write 1e-4, or lora:4e-4") from e
