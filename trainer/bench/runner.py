"""Runs methods × ρ × seeds on one model and data set: each run a job of its own in a process of its own, all resumable.

A run is `python -m trainer run JOB_DIR --alone`, so what is measured is what users run, and one that is cut short goes on from
its checkpoint. Several runners may work on one folder: a run is taken by a lock on its directory.

Tuning: every variant's learning rate is walked by factors of 2 from its start, on the first seed, downhill in the dev loss, until
both neighbours of the best are known to be worse. The other seeds use the best. Test rows are looked at only then.
"""

import fcntl
import hashlib
import json
import os
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from carbonsched.errors import CarbonschedError
from carbonsched.model.base import Doc
from carbonsched.model.job import JobSpec, Owner, SubmittedJob
from carbonsched.model.protocol import SegmentDone, Started
from trainer.bench.cell import Cell, Variant
from trainer.bench.meter import BenchMeter
from trainer.bench.progress import Progress
from trainer.bench.result import Result, ResultStore, summarise
from trainer.job.job_dir import JobDir, now, write_json

_POLL_S = 2.0
_STEPS = range(-12, 13)
"""Doublings of a learning rate in either direction at most."""


@dataclass(frozen=True, slots=True)
class BenchPlan:
    """What a benchmark compares.

    Example::

        variants = tuple(parse_variants("greentrainer", rhos=[0.5, 0.6]))
        plan = BenchPlan(spec, variants, seeds=(0, 1), lrs={v.name: 1e-4 for v in variants}, tune=True)
        run_all(plan, ResultStore(Path("bench")), print)
    """

    base: JobSpec
    variants: tuple[Variant, ...]
    seeds: tuple[int, ...]
    lrs: dict[str, float]
    """Start of a variant's tuning, by its name; absent: the base's."""
    tune: bool
    rate_from: Mapping[str, Variant | None] = field(default_factory=dict)
    """Variants, by name, whose rate comes from another variant's tuning, or (None) is the start."""
    weights: Mapping[str, float] = field(default_factory=dict)
    """Work of a run by variant name, for the remaining time."""


def next_cells(plan: BenchPlan, store: ResultStore) -> list[Cell]:
    """The runs that are due now: what tuning needs, then seed by seed, so that all variants share the machine's good and bad hours."""
    due: list[Cell] = []
    later: list[Cell] = []
    for variant in plan.variants:
        best, wanted = walk(plan, variant, store)
        due += wanted
        if best is not None and not wanted:
            later += [c for c in final_cells(plan, variant, best) if store.read(c) is None]
    return due + sorted(later, key=lambda cell: plan.seeds.index(cell.seed))


def untested_cells(plan: BenchPlan, store: ResultStore) -> list[Cell]:
    """The runs at a tuned learning rate whose test rows have not been evaluated yet."""
    if plan.base.evaluate.test is None:
        return []
    cells = []
    for variant in plan.variants:
        best, wanted = walk(plan, variant, store)
        for cell in final_cells(plan, variant, best) if best is not None and not wanted else []:
            result = store.read(cell)
            if result is not None and result.test is None:
                cells.append(cell)
    return cells


def tuned_results(plan: BenchPlan, store: ResultStore) -> list[list[Result]]:
    """The runs of each variant at its best learning rate so far, by seed; variants without runs are left out."""
    runs = []
    for variant in plan.variants:
        best, _ = walk(plan, variant, store)
        found = [store.read(cell) for cell in final_cells(plan, variant, best)] if best is not None else []
        runs.append([result for result in found if result is not None])
    return [r for r in runs if r]


def final_cells(plan: BenchPlan, variant: Variant, lr: float) -> list[Cell]:
    return [Cell(variant, lr, seed) for seed in plan.seeds]


def walk(plan: BenchPlan, variant: Variant, store: ResultStore) -> tuple[float | None, list[Cell]]:
    """(the best learning rate so far, the runs that tuning still needs) for one variant."""
    start = plan.lrs[variant.name]
    teacher = plan.rate_from.get(variant.name, variant)
    if not plan.tune or teacher is None:
        return start, []
    if teacher != variant:
        taught, open_ends = walk(plan, teacher, store)
        return (None if open_ends else taught), []
    seen: dict[int, float] = {}
    for step in _STEPS:
        result = store.read(Cell(variant, _rate(start, step), plan.seeds[0]))
        if result is not None:
            seen[step] = result.dev_nll
    if not seen:
        return None, [Cell(variant, _rate(start, step), plan.seeds[0]) for step in (0, 1)]
    best = min(seen, key=seen.__getitem__)
    wanted = [best + side for side in (1, -1) if best + side not in seen]
    # one at a time: if the first side is better, the other is not needed
    if 0 not in seen:
        wanted = [0]
    return _rate(start, best), [Cell(variant, _rate(start, s), plan.seeds[0]) for s in wanted[:1]]


def _rate(start: float, step: int) -> float:
    return float(f"{start * 2.0**step:.3g}")


def run_all(plan: BenchPlan, store: ResultStore, say: Callable[[str], None], jobs: int = 1) -> None:
    """Run and test all that is due until nothing is, waiting for runs that other runners have taken. jobs: simultaneous runs. Raises
    CarbonschedError if a run fails, with the end of its log."""
    progress, ended = Progress(plan.weights), threading.Event()
    with ThreadPoolExecutor(jobs) as pool:
        workers = [pool.submit(_work, plan, store, say, progress, ended) for _ in range(jobs)]
        try:
            for worker in as_completed(workers):
                worker.result()
        finally:
            ended.set()


def known_runs(plan: BenchPlan, store: ResultStore) -> tuple[list[str], list[str]]:
    """(variants of finished runs, variants of runs known to be due), one name per run; while a variant is being tuned, each seed's run is due."""
    done = [result.variant for result in store.all()]
    due = []
    for variant in plan.variants:
        best, wanted = walk(plan, variant, store)
        cells = final_cells(plan, variant, plan.lrs[variant.name] if best is None else best)
        due += [variant.name for cell in {*cells, *wanted} if store.read(cell) is None]
    return done, due


def _work(
    plan: BenchPlan,
    store: ResultStore,
    say: Callable[[str], None],
    progress: Progress,
    ended: threading.Event,
) -> None:
    while not ended.is_set():
        tests, runs = untested_cells(plan, store), next_cells(plan, store)
        if not tests and not runs:
            break
        for cell in [*runs, *tests]:
            with _lock(store.folder(cell)) as mine:
                if not mine:
                    continue
                done = store.read(cell)
                if done is None:
                    say(f"{cell.id}: running ({len(runs)} due)")
                    done = run_cell(plan.base, cell, store)
                    say(
                        f"{cell.id}: dev nll {done.dev_nll:.4f}, ρ {done.rho_realised:.3f}, {done.seconds:.0f} s"
                    )
                    progress.add(cell.variant.name)
                    say(progress.line(*known_runs(plan, store)))
                elif done.test is None and cell in tests:
                    _test(plan.base, cell, store, done, say)
                else:
                    continue
                break
        else:
            time.sleep(_POLL_S)
        _remove_losers(plan, store)


def _test(base: JobSpec, cell: Cell, store: ResultStore, done: Result, say: Callable[[str], None]) -> None:
    from trainer.bench.test_set import evaluate_test_rows

    output = store.folder(cell) / "job" / "output"
    if not output.exists():  # removed as a loser of an earlier plan's tuning
        store.drop(cell)
        return
    spec = cell.spec(base).model_copy(update={"evaluate": base.evaluate})
    found = evaluate_test_rows(spec, output)
    store.write(cell, done.model_copy(update={"test": found}))
    shutil.rmtree(output)
    text = "" if found is None else f"test nll {found.nll:.4f} {found.metrics}"
    say(f"{cell.id}: {text}")


def _remove_losers(plan: BenchPlan, store: ResultStore) -> None:
    """Remove the models of runs that tuning has rejected."""
    for variant in plan.variants:
        best, wanted = walk(plan, variant, store)
        if not plan.tune or wanted or best is None:
            continue
        kept = {store.folder(cell) for cell in final_cells(plan, variant, best)}
        if plan.rate_from.get(variant.name, variant) != variant:
            continue
        for step in _STEPS:
            folder = store.folder(Cell(variant, _rate(plan.lrs[variant.name], step), plan.seeds[0]))
            if folder not in kept:
                shutil.rmtree(folder / "job" / "output", ignore_errors=True)


def run_cell(base: JobSpec, cell: Cell, store: ResultStore) -> Result:
    """Run a cell, or the rest of it, and write its result. Raises CarbonschedError."""
    folder = store.folder(cell)
    job = JobDir(folder / "job")
    job.path.mkdir(parents=True, exist_ok=True)
    spec = cell.spec(base)
    _submit(job.path, spec)
    with BenchMeter(spec.train.threads) as meter, (job.path / "log.txt").open("ab") as log:
        argv = [sys.executable, "-m", "trainer", "run", str(job.path), "--alone", "--parts"]
        code = subprocess.run(argv, stdin=subprocess.DEVNULL, stdout=log, stderr=log, check=False).returncode
        if code:
            lines = (job.path / "log.txt").read_text(errors="replace").strip().splitlines()
            raise CarbonschedError(f"{cell.id} ended with {code}: {lines[-1] if lines else 'no message'}")
        joules, method = meter.joules(list(_training_spans(job)), _last_start(job))
    result = summarise(cell, job, joules, method)
    shutil.rmtree(job.checkpoints, ignore_errors=True)
    store.write(cell, result)
    return result


def _training_spans(job: JobDir) -> Iterator[tuple[float, float]]:
    for event in job.events():
        if isinstance(event, SegmentDone):
            end = event.at.timestamp()
            yield end - event.seconds, end


def _last_start(job: JobDir) -> Started | None:
    """What the run has reported of its device."""
    return next((event for event in reversed(list(job.events())) if isinstance(event, Started)), None)


def _submit(folder: Path, spec: JobSpec) -> None:
    if (folder / "spec.json").exists():
        return
    canonical = json.dumps(spec.dump(), sort_keys=True, separators=(",", ":"))
    owner = Owner(uid=os.getuid(), gid=os.getgid(), user="bench")
    digest = hashlib.sha256(canonical.encode()).hexdigest()
    submitted: Doc = SubmittedJob(
        id=folder.parent.name, spec=spec, owner=owner, submitted_at=now(), sha256=digest
    )
    write_json(folder / "spec.json", submitted.dump())


@contextmanager
def _lock(folder: Path) -> Iterator[bool]:
    """Whether this process has the folder to itself; the kernel releases the lock when the process ends."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / ".lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
        else:
            yield True
