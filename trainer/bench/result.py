"""Sums up one run of a benchmark from its events, and keeps the results of all runs in a folder."""

import json
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

from carbonsched.model.base import Doc
from carbonsched.model.protocol import Evaluated, Finished, SegmentDone, Started
from trainer.bench.cell import Cell
from trainer.job.job_dir import JobDir, write_json
from trainer.job.step_parts import StepParts


class HeldOutResult(Doc):
    """Metrics of a trained model on the test rows.

    Example:
        >>> held_out = HeldOutResult(nll=2.0, row_nll=(6.0, 4.0), row_tokens=(3, 2))
        >>> sum(held_out.row_nll) / sum(held_out.row_tokens) == held_out.nll
        True
    """

    nll: float
    """Mean over target tokens, natural log."""
    row_nll: tuple[float, ...]
    """Sum over the target tokens of each row."""
    row_tokens: tuple[int, ...]
    metrics: dict[str, float] = {}
    """ROUGE F1 in percent, and whatever else was asked for."""


class Result(Doc):
    """One run. The figures are of training alone, without loading, evaluation and checkpoints.

    Example::

        result = ResultStore(Path("bench")).read(cell)
        saved_flops = result.flops_full - result.flops
    """

    variant: str
    method: str
    rho: float | None
    lr: float
    seed: int
    steps: int
    rho_planned: float
    rho_realised: float
    flops: float
    flops_full: float
    """FLOPs of as many steps of full fine-tuning."""
    seconds: float
    importance_seconds: float
    selection_seconds: float
    joules: float | None
    joules_method: str
    """`counter`, or how it was estimated, or why it is unknown."""
    peak_memory_bytes: int | None
    dev_nll_before: float
    dev_nll: float
    losses: tuple[float | None, ...]
    """Mean training loss of each segment."""
    device: str
    versions: dict[str, str]
    parts: StepParts | None = None
    """Seconds of the parts of all steps; None: they were not timed."""
    commit: str | None = None
    """Commit of the code that made it; None: it did not run in a checkout."""
    test: HeldOutResult | None = None


@dataclass(frozen=True, slots=True)
class ResultStore:
    """Results in OUT/cells/ID: job/ during a run, result.json after it.

    Example:
        >>> from trainer.bench.cell import Variant
        >>> ResultStore(Path("bench")).folder(Cell(Variant("full", None), lr=1e-4, seed=0)).as_posix()
        'bench/cells/full,lr=0.0001,seed=0'
    """

    out: Path

    def folder(self, cell: Cell) -> Path:
        return self.out / "cells" / cell.id

    def read(self, cell: Cell) -> Result | None:
        file = self.folder(cell) / "result.json"
        return Result.parse(json.loads(file.read_text()), where=str(file)) if file.exists() else None

    def write(self, cell: Cell, result: Result) -> None:
        self.folder(cell).mkdir(parents=True, exist_ok=True)
        write_json(self.folder(cell) / "result.json", result.dump())

    def drop(self, cell: Cell) -> None:
        shutil.rmtree(self.folder(cell) / "job", ignore_errors=True)
        (self.folder(cell) / "result.json").unlink(missing_ok=True)

    def all(self) -> list[Result]:
        files = sorted(self.out.glob("cells/*/result.json"))
        return [Result.parse(json.loads(file.read_text()), where=str(file)) for file in files]


def summarise(cell: Cell, job: JobDir, joules: float | None, joules_method: str) -> Result:
    """The result of a finished job, from its events; of a segment that was run twice the last run counts."""
    segments: dict[int, SegmentDone] = {}
    losses: dict[str, float] = {}
    started: Started | None = None
    peak: int | None = None
    for event in job.events():
        if isinstance(event, SegmentDone):
            segments[event.k] = event
        elif isinstance(event, Evaluated):
            losses[event.when] = event.loss
        elif isinstance(event, Started):
            started = event
        elif isinstance(event, Finished):
            peak = event.peak_memory_bytes
    done = [segments[k] for k in sorted(segments)]
    if started is None or not done:
        raise ValueError(f"{job.path} holds no finished run")
    full = sum(d.flops_full for d in done)
    return Result(
        variant=cell.variant.name,
        method=cell.variant.method,
        rho=cell.variant.rho,
        lr=cell.lr,
        seed=cell.seed,
        steps=sum(d.steps for d in done),
        rho_planned=sum(d.rho_planned * d.flops_full for d in done) / full,
        rho_realised=sum(d.flops for d in done) / full,
        flops=sum(d.flops for d in done),
        flops_full=full,
        seconds=sum(d.seconds for d in done),
        importance_seconds=sum(d.importance_seconds for d in done),
        selection_seconds=sum(d.selection_seconds for d in done),
        joules=joules,
        joules_method=joules_method,
        peak_memory_bytes=peak,
        dev_nll_before=losses["before"],
        dev_nll=losses["after"],
        losses=tuple(d.loss for d in done),
        device=started.device,
        versions=started.versions,
        parts=_parts(job.path / "parts.json"),
        commit=_commit(),
    )


def _parts(file: Path) -> StepParts | None:
    return StepParts.parse(json.loads(file.read_text()), where=str(file)) if file.exists() else None


def _commit() -> str | None:
    argv = ["git", "-C", str(Path(__file__).parent), "rev-parse", "HEAD"]
    try:
        found = subprocess.run(argv, capture_output=True, text=True, check=False)
    except OSError:  # git is not installed
        return None
    return found.stdout.strip() or None
