"""Compares methods at equal grams: reads the rows from one TOML, and computes the steps that each budget buys each row.

The file is a JOB.toml with an additional table `[championship]`. A budget is a share of what a stock Trainer's full fine-tuning emits over
the job's epochs. Each row gets as many steps as the same grams pay for on the same grid, by the FLOPs of the very batches that it will
train on. Every row is annealed at its last step, and may repeat the data if its grams last longer.
"""

import tomllib
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Annotated, Any, Literal

from pydantic import Field

from carbonsched.errors import InputError
from carbonsched.model.base import MOST, Doc, LocalPath, UtcTime
from carbonsched.model.job import JobSpec, Share
from carbonsched.model.job_file import resolve_paths
from trainer.bench.cell import Cell, Variant
from trainer.bench.grams import Grid, constant_grid, read_grid, steps_within
from trainer.bench.job_batches import JobRows, StepCosts
from trainer.bench.result import ResultStore
from trainer.bench.runner import BenchPlan
from trainer.methods.registry import method_row

STOCK = {"group_by_length": False, "labelled_head": False}
"""Settings of `[train]` that make a job train as a stock Trainer does."""


class Row(Doc):
    """One row: a method and its settings.

    Example:
        >>> Row(name="tensors", method="greentrainer", rho=0.6, lr=4e-4).tune
        False
    """

    name: str
    method: str
    lr: Annotated[float, Field(gt=0, le=MOST)]
    """Its learning rate, from which tuning starts."""
    rho: Share | None = None
    """Directed ρ, for methods that follow one."""
    stock: bool = False
    """Pad to the longest row of a random batch, and compute logits for every token."""
    tune: bool = False
    """Tune the learning rate at the share `tune_at`; the other shares use the result."""
    shares: tuple[Share, ...] | None = None
    """None: those of the championship."""
    settings: dict[str, Any] = {}
    """Other keys of `[train]`."""

    def variant(self, steps: int) -> Variant:
        settings = (STOCK if self.stock else {}) | self.settings | {"max_steps": steps}
        return Variant(self.method, self.rho, tuple(settings.items()))


class ReplayedGrid(Doc):
    """A recorded intensity that every row is replayed on, from the same time on.

    Example:
        >>> ReplayedGrid(trace="week.csv", start="2022-03-01T00:00:00Z", stock_hours=24.0).stock_hours
        24.0
    """

    trace: LocalPath
    """CSV of datetime and g_per_kwh, UTC."""
    start: UtcTime
    stock_hours: Annotated[float, Field(gt=0, le=87_600)]
    """Hours that stock full fine-tuning takes; other rows take time in proportion to their FLOPs."""


class Championship(Doc):
    """`[championship]` of the file.

    Example:
        >>> Championship(row=(Row(name="full", method="full", lr=1e-4),)).shares
        (0.15, 0.4, 0.8)
    """

    shares: tuple[Share, ...] = (0.15, 0.4, 0.8)
    """Budgets, as shares of what stock full fine-tuning emits."""
    tune_at: Share = 0.4
    seeds: tuple[Annotated[int, Field(ge=0)], ...] = (0, 1)
    margin: Annotated[float, Field(gt=0)] = 0.010
    """Nats: a row is not worse than another if the upper end of the difference's 95% interval is below this."""
    against: tuple[str, ...] = ()
    """Names of the rows that each row is compared with: at the same share, or at the only share that the other has."""
    energy: Literal["flops", "meter"] = "flops"
    """flops: all rows use the same joules per FLOP. meter: each row uses those of its own finished runs."""
    grid: ReplayedGrid | None = None
    """None: constant intensity."""
    row: Annotated[tuple[Row, ...], Field(min_length=1)]


@dataclass(frozen=True, slots=True)
class Entry:
    """A row at one budget.

    Example::

        entry = entries(championship, base)[0]
        print(entry.row.name, entry.share, entry.variant.name)
    """

    row: Row
    share: float
    variant: Variant
    flops: float
    """Planned FLOPs of all its steps."""


def read_championship(file: Path) -> tuple[Championship, JobSpec]:
    """The championship and its job. Raises InputError for an invalid file, and for a row that cannot be run."""
    try:
        document = tomllib.loads(file.read_text(encoding="utf-8-sig"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as e:
        raise InputError(file.name, f"cannot be read: {e}", "give a JOB.toml with a [championship]") from e
    if "championship" not in document:
        raise InputError(f"{file.name}: championship", "is missing", "add [championship] with its rows")
    folder = file.resolve().parent
    found = Championship.parse(
        document.pop("championship"), where=f"{file.name}: championship", folder=folder
    )
    base = resolve_paths(JobSpec.parse(document, where=file.name), folder, where=f"{file.name}: ")
    names = [row.name for row in found.row]
    for name in found.against:
        if name not in names:
            raise InputError("championship.against", f"there is no row {name!r}", f"use {', '.join(names)}")
    for row in found.row:
        if names.count(row.name) > 1:
            raise InputError("championship.row", f"two are called {row.name!r}", "name them apart")
        # runs are identified by their settings, and so is a learning rate
        alike = next((o.name for o in found.row if o.variant(1) == row.variant(1) and o.lr != row.lr), None)
        if alike is not None:
            raise InputError(
                f"championship.row.{row.name}",
                f"is {alike!r} but for its learning rate",
                "leave one of them out, and set tune = true to have rates walked",
            )
        if row.rho is None and not method_row(row.method).traits.constant_rho:
            raise InputError(f"championship.row.{row.name}", f"{row.method} has no ratio", "add rho = 0.6")
        Cell(row.variant(1), row.lr, found.seeds[0]).spec(base)
    return found, base


def entries(
    found: Championship, base: JobSpec, joules_per_flop: dict[str, float] | None = None
) -> list[Entry]:
    """Every row at every share, the smallest first. joules_per_flop: by row name, if the meter distinguishes them. The first seed's batches
    determine the steps; other seeds order the same rows differently and get as many steps."""
    rows = JobRows(base)
    reference = Row(name="stock", method="full", stock=True, lr=base.train.lr)

    def costs_of(row: Row) -> StepCosts:
        return StepCosts(rows, Cell(row.variant(1), row.lr, found.seeds[0]).spec(base), row.rho)

    stock = costs_of(reference)
    whole = [stock(n) for n in range(stock.steps_per_epoch * (base.train.epochs or 1))]
    grid = constant_grid() if found.grid is None else _grid(found.grid, sum(whole))
    made = []
    for row in found.row:
        costs = costs_of(row)
        weight = (joules_per_flop or {}).get(row.name, 1.0)
        for share in row.shares or found.shares:
            budget = share * grid.grams(whole)
            steps = steps_within(budget, costs, grid, weight)
            if not steps:
                raise InputError(
                    f"championship.row.{row.name}",
                    f"{share:g} of the grams pay for no step",
                    "leave it out there",
                )
            made.append(Entry(row, share, row.variant(steps), sum(costs(n) for n in range(steps))))
    return sorted(made, key=lambda entry: entry.share)


def plan_of(found: Championship, base: JobSpec, made: list[Entry]) -> BenchPlan:
    """What is to be run: learning rates are tuned at `tune_at`, and used at the other shares."""
    tuned = {e.row.name: e.variant for e in made if e.row.tune and e.share == found.tune_at}
    for entry in made:
        if entry.row.tune and entry.row.name not in tuned:
            raise InputError(
                f"championship.row.{entry.row.name}", "has no share tune_at", "add it, or tune = false"
            )
    return BenchPlan(
        base=base,
        variants=tuple(entry.variant for entry in made),
        seeds=found.seeds,
        lrs={entry.variant.name: entry.row.lr for entry in made},
        tune=True,
        rate_from={e.variant.name: tuned.get(e.row.name) for e in made},
        weights={e.variant.name: e.flops for e in made},
    )


def joules_per_flop(found: Championship, store: ResultStore) -> dict[str, float] | None:
    """By row, relative to the first row that has runs, from finished runs; None: by FLOPs, as asked for or because nothing else is known."""
    if found.energy == "flops":
        return None
    spent: dict[str, list[float]] = {}
    for row in found.row:
        name = row.variant(0).name.rpartition("=")[0]  # whatever its number of steps
        for result in store.all():
            if result.variant.rpartition("=")[0] == name and result.joules is not None:
                spent.setdefault(row.name, []).append(result.joules / result.flops)
    if not spent:
        return None
    means = {name: fmean(values) for name, values in spent.items()}
    stock = next(
        (means[r.name] for r in found.row if r.stock and r.name in means), next(iter(means.values()))
    )
    return {name: mean / stock for name, mean in means.items()}


def _grid(found: ReplayedGrid, stock_flops: float) -> Grid:
    return read_grid(Path(found.trace), found.start, found.stock_hours * 3600.0 / stock_flops)
