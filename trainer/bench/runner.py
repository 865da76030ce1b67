"""Methods × ρ × seeds on one model and data set: each run a job of its own in a process of its own, all resumable.

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
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from carbonsched.errors import CarbonschedError
from carbonsched.model.base import Doc
from carbonsched.model.job import JobSpec, Owner, SubmittedJob
from carbonsched.model.protocol import SegmentDone
from trainer.bench.cell import Cell, Variant
from trainer.bench.meter import Meter
from trainer.bench.result import Result, Store, summarise
from trainer.job import JobDir, now, write_json

_POLL_S = 2.0


@dataclass(frozen=True, slots=True)
class Plan:
    """What a benchmark compares."""

    base: JobSpec
    variants: tuple[Variant, ...]
    seeds: tuple[int, ...]
    lrs: dict[str, float]
    """Start of a variant's walk, by its name; absent: the base's."""
    tune: bool


def next_cells(plan: Plan, store: Store) -> list[Cell]:
    """The runs that are due now: what tuning wants, then seed by seed, so that all variants share the machine's moods."""
    due: list[Cell] = []
    later: list[Cell] = []
    for variant in plan.variants:
        best, wanted = walk(plan, variant, store)
        due += wanted
        if best is not None and not wanted:
            later += [c for c in finals(plan, variant, best) if store.read(c) is None]
    return due + sorted(later, key=lambda cell: plan.seeds.index(cell.seed))


def chosen(plan: Plan, store: Store) -> list[list[Result]]:
    """The runs of each variant at its best learning rate so far, by seed; variants without any are left out."""
    runs = []
    for variant in plan.variants:
        best, _ = walk(plan, variant, store)
        found = [store.read(cell) for cell in finals(plan, variant, best)] if best is not None else []
        runs.append([result for result in found if result is not None])
    return [r for r in runs if r]


def finals(plan: Plan, variant: Variant, lr: float) -> list[Cell]:
    return [Cell(variant, lr, seed) for seed in plan.seeds]


def walk(plan: Plan, variant: Variant, store: Store) -> tuple[float | None, list[Cell]]:
    """(the best learning rate so far, the runs that the walk still needs) of one variant."""
    start = plan.lrs.get(variant.name, plan.base.train.lr)
    if not plan.tune:
        return start, []
    seen: dict[int, float] = {}
    for step in _outward():
        result = store.read(Cell(variant, _rate(start, step), plan.seeds[0]))
        if result is not None:
            seen[step] = result.dev_nll
    if not seen:
        return None, [Cell(variant, _rate(start, step), plan.seeds[0]) for step in (0, 1)]
    best = min(seen, key=seen.__getitem__)
    wanted = [best + side for side in (1, -1) if best + side not in seen]
    # one at a time: where the first side turns out better the other is not needed any more
    if 0 not in seen:
        wanted = [0]
    return _rate(start, best), [Cell(variant, _rate(start, s), plan.seeds[0]) for s in wanted[:1]]


def _rate(start: float, step: int) -> float:
    return float(f"{start * 2.0**step:.3g}")


def _outward() -> list[int]:
    return list(range(-8, 9))


def work(plan: Plan, store: Store, say: Callable[[str], None]) -> None:
    """Run all that is due until nothing is, waiting for runs that other runners have taken.

    Raises CarbonschedError where a run fails, with the end of its log.
    """
    while due := next_cells(plan, store):
        for cell in due:
            with _taken(store.folder(cell)) as mine:
                if mine and store.read(cell) is None:
                    say(f"{cell.id}: running ({len(due)} due)")
                    result = run_cell(plan.base, cell, store)
                    say(
                        f"{cell.id}: dev nll {result.dev_nll:.4f}, rho {result.rho_realised:.3f}, {result.seconds:.0f} s"
                    )
                    break
        else:
            time.sleep(_POLL_S)


def run_cell(base: JobSpec, cell: Cell, store: Store) -> Result:
    """Run one cell to its end, or what is left of it, and write its result. Raises CarbonschedError."""
    folder = store.folder(cell)
    job = JobDir(folder / "job")
    job.path.mkdir(parents=True, exist_ok=True)
    spec = cell.spec(base)
    _submit(job.path, spec)
    with Meter(spec.train.threads) as meter, (job.path / "log.txt").open("ab") as log:
        argv = [sys.executable, "-m", "trainer", "run", str(job.path), "--alone"]
        code = subprocess.run(argv, stdin=subprocess.DEVNULL, stdout=log, stderr=log, check=False).returncode
        if code:
            lines = (job.path / "log.txt").read_text(errors="replace").strip().splitlines()
            raise CarbonschedError(f"{cell.id} ended with {code}: {lines[-1] if lines else 'no message'}")
        joules, how = meter.joules(list(_stretches(job)))
    result = summarise(cell, job, joules, how)
    shutil.rmtree(job.checkpoints, ignore_errors=True)
    store.write(cell, result)
    return result


def _stretches(job: JobDir) -> Iterator[tuple[float, float]]:
    for event in job.events():
        if isinstance(event, SegmentDone):
            end = event.at.timestamp()
            yield end - event.seconds, end


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
def _taken(folder: Path) -> Iterator[bool]:
    """Whether this process has the folder to itself; the lock goes with the process, however it ends."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / ".lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
        else:
            yield True
