"""Sums the rows that begin in one hour into what reports need: whose energy it was, and at which intensities it was charged.

The sums are a cache: rows, settlements and accounts determine them, and merging an hour's rows does not change them. Millijoules,
microseconds and counts are exact integers; grams and euros are sums of the rows' own figures.
"""

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any, Final, NamedTuple, Self

from carbonsched.ledger.rows import moment
from carbonsched.ledger.settlements import Charged, Settled, Stretch
from carbonsched.ledger.tables import INTERVALS
from carbonsched.ledger.totals import Era, Group, account_of, charged_g
from carbonsched.model.energy import NOT_ALONE, Account, BudgetAccount, EnergyMethod
from carbonsched.model.grid import Basis, Kind

HOUR_US: Final = 3_600_000_000
_BRIDGED_US: Final = 60_000_000
"""A gap of up to a minute in the known intensity is ignored."""
NAMES: Final = (
    *("id", "board", "start_us", "end_us", "energy_mj", "method", "bridged", "reason", "meter", "account"),
    *("job_id", "segment", "rho", "g_per_kwh", "provider", "zone", "basis", "kind", "time_compression"),
    *("note", "intensity_start_us", "grid_start_us", "pue", "pue_source", "grams", "on_site_grams"),
    *("supply_share", "supply_g_per_kwh", "eur", "price_source", "rows"),
)
"""Columns that are needed."""
COLUMNS: Final = tuple(INTERVALS.c[name] for name in NAMES)

Row = Mapping[Any, Any]


class Alike(NamedTuple):
    """The rarely changing facts about how rows were charged.

    Example::

        print(cell.alike.provider, cell.alike.kind, cell.alike.pue)
    """

    meter: str
    pue: float
    pue_source: str
    known: bool
    """Whether the intensity is known; if not, the next six are None."""
    provider: str | None
    zone: str | None
    basis: str | None
    kind: str | None
    time_compression: float | None
    note: str | None
    price_source: str | None
    with_others: bool
    """Whether somebody else computed on the board at the time."""
    charged_by: BudgetAccount
    supplied: bool
    """Whether the box had a supply of its own."""


@dataclass(slots=True)
class Cell:
    """The rows of one hour with one owner, board and origin.

    Example::

        for cell in sums.cells:
            print(cell.board, cell.job_id, cell.energy_mj, cell.grams)
    """

    board: str
    account: str
    job_id: str | None
    segment: int | None
    method: str
    bridged: bool
    metered: bool
    """Whether the energy is known."""
    alike: Alike
    rows: int = 0
    energy_mj: int = 0
    span_us: int = 0
    weighted: float = 0.0
    """Σ mJ × g/kWh."""
    weighted_us: float = 0.0
    """Σ µs × g/kWh."""
    grams: float = 0.0
    charged_g: float = 0.0
    """Grams by the account that budgets are charged by."""
    on_site_g: float = 0.0
    supply_unknown_us: int = 0
    eur: float = 0.0
    first_us: int = 0
    last_us: int = 0
    settled_rows: int = 0
    """How many rows a settlement covers, and their settled sums below."""
    settled_mj: int = 0
    decided_g: float = 0.0
    settled_g: float = 0.0
    settled_grid_g: float = 0.0
    """Change of the grams at the grid's intensity."""
    settled_first_us: int = 0
    settled_last_us: int = 0
    later: dict[int, tuple[float, float]] = field(default_factory=dict)
    """Later hour → (mJ, grams) of rows that reach into it, shared by time."""

    @property
    def key(self) -> tuple[Any, ...]:
        return (
            *(self.board, self.account, self.job_id, self.segment),
            *(self.method, self.bridged, self.metered, self.alike),
        )

    @property
    def known(self) -> bool:
        """Whether the grams are known."""
        return self.metered and self.alike.known

    def add(self, other: "Cell") -> None:
        """Add another cell with the same key, without what reaches into later hours."""
        self.rows += other.rows
        self.energy_mj += other.energy_mj
        self.span_us += other.span_us
        self.weighted += other.weighted
        self.weighted_us += other.weighted_us
        self.grams += other.grams
        self.charged_g += other.charged_g
        self.on_site_g += other.on_site_g
        self.supply_unknown_us += other.supply_unknown_us
        self.eur += other.eur
        self.first_us = min(self.first_us, other.first_us)
        self.last_us = max(self.last_us, other.last_us)
        if other.settled_rows:
            self.settled_rows += other.settled_rows
            self.settled_mj += other.settled_mj
            self.decided_g += other.decided_g
            self.settled_g += other.settled_g
            self.settled_grid_g += other.settled_grid_g


@dataclass(slots=True)
class Run:
    """Consecutive rows of one owner and board whose energy is alike known or unknown.

    Example:
        >>> Run("host", None, 0, 10, "known", False, "counter", 5, 0.1, None).gap
        False
    """

    board: str
    job_id: str | None
    start_us: int
    end_us: int
    kind: str
    """known, energy or intensity; the last two name what is unknown."""
    bridged: bool
    method: str
    """The method and reason of a gap; otherwise the first row's method."""
    energy_mj: int | None
    grams: float | None
    reason: str | None

    @property
    def gap(self) -> bool:
        return self.bridged or self.grams is None

    def goes_on(self, other: "Run") -> bool:
        """Whether another one may be joined to its end."""
        return (
            self.end_us == other.start_us
            and self.kind == other.kind
            and self.gap == other.gap
            and (not self.gap or (self.bridged, self.method) == (other.bridged, other.method))
        )


@dataclass(slots=True)
class HourSums:
    """The sums of the rows that begin in an hour.

    Example:
        >>> HourSums.of(HourSums(0).text(), 0) == HourSums(0)
        True
    """

    hour_us: int
    """Its begin."""
    cells: list[Cell] = field(default_factory=list)
    runs: list[Run] = field(default_factory=list)
    steps: list[Stretch] = field(default_factory=list)
    """How the rows with energy were charged, whoever owns them."""

    @property
    def rows(self) -> int:
        return sum(cell.rows for cell in self.cells)

    @property
    def energy_mj(self) -> int:
        return sum(cell.energy_mj for cell in self.cells)

    @property
    def end_us(self) -> int:
        """Of its last row."""
        return max((cell.last_us for cell in self.cells), default=self.hour_us)

    def text(self) -> str:
        """As JSON. Raises ValueError for a figure that is not finite."""
        alike = list(dict.fromkeys(cell.alike for cell in self.cells))
        places = {each: n for n, each in enumerate(alike)}
        cells = [
            [*key, places[cell.alike], *values, [[hour, *both] for hour, both in cell.later.items()]]
            for cell in self.cells
            for *key, values in [(*_of(cell, _KEY), _of(cell, _SUMS))]
        ]
        said = {
            "alike": alike,
            "cells": cells,
            "runs": [_of(run, _RUN) for run in self.runs],
            "steps": [[step.start_us, step.end_us, *_charged(step.charged)] for step in self.steps],
        }
        return json.dumps(said, separators=(",", ":"), ensure_ascii=False, allow_nan=False)

    @classmethod
    def of(cls, text: str, hour_us: int) -> Self:
        """From `text`. Raises ValueError, TypeError, KeyError or IndexError if it is invalid."""
        said = json.loads(text)
        alike = [Alike(*each) for each in said["alike"]]
        many = len(_KEY)
        cells = []
        for each in said["cells"]:
            values: list[Any] = [*each[:many], alike[each[many]], *each[many + 1 : -1]]
            cell = Cell(*values)
            if each[-1]:
                cell.later = {hour: (mj, grams) for hour, mj, grams in each[-1]}
            cells.append(cell)
        runs = [Run(*each) for each in said["runs"]]
        return cls(hour_us, cells, runs, [_step(*each) for each in said["steps"]])


_ALL: Final = tuple(each.name for each in fields(Cell))
_KEY: Final = _ALL[: _ALL.index("alike")]
_SUMS: Final = _ALL[_ALL.index("alike") + 1 : -1]
_RUN: Final = tuple(each.name for each in fields(Run))


def _of(value: Any, names: Sequence[str]) -> list[Any]:
    return [getattr(value, name) for name in names]


def _charged(charged: Charged) -> list[Any]:
    replayed = charged.replayed or (None, None)
    return [
        *(charged.g_per_kwh, charged.provider, charged.zone, charged.basis, charged.kind, charged.note),
        *replayed,
    ]


def _step(start: int, end: int, *said: Any) -> Stretch:
    g, provider, zone, basis, kind, note, begun, grid_start = said
    if g is None:
        return Stretch(start, end, Charged())
    replayed = None if grid_start is None else (begun, grid_start)
    return Stretch(start, end, Charged(g, provider, zone, Basis(basis), Kind(kind), note, replayed))


@dataclass(slots=True)
class HourAdder:
    """Sums the rows that begin in an hour. Feed it ordered by start, without the rows that were replaced.

    Example::

        adder = HourAdder(hour_us, eras, settled)
        for row in rows:
            adder.add(row)
        print(adder.sums().rows)
    """

    hour_us: int
    eras: Sequence[Era]
    settled: Settled
    _cells: dict[tuple[Any, ...], Cell] = field(default_factory=dict)
    _runs: list[Run] = field(default_factory=list)
    _open: dict[tuple[str, str | None], Run] = field(default_factory=dict)
    _steps: dict[tuple[Any, ...], list[list[int]]] = field(default_factory=dict)

    def add(self, row: Row) -> None:
        """Add one row, by column names."""
        cell = self._cell(row)
        start, end, energy, grams = row["start_us"], row["end_us"], row["energy_mj"], row["grams"]
        span = end - start
        cell.rows += row["rows"] or 1
        cell.span_us += span
        cell.first_us, cell.last_us = min(cell.first_us, start), max(cell.last_us, end)
        if cell.alike.known:
            cell.weighted_us += row["g_per_kwh"] * span
        if energy is not None:
            cell.energy_mj += energy
            cell.eur += row["eur"] or 0.0
            if cell.alike.known:
                cell.weighted += energy * row["g_per_kwh"]
        if grams is not None:
            on_site = row["on_site_grams"]
            cell.grams += grams
            cell.on_site_g += grams if on_site is None else on_site
            cell.charged_g += (
                grams if on_site is None or cell.alike.charged_by is not BudgetAccount.ON_SITE else on_site
            )
            if cell.alike.supplied and row["supply_share"] is None:
                cell.supply_unknown_us += span
        if energy is not None and end > self.hour_us + HOUR_US:
            _spread(cell, self.hour_us, (start, end), energy, grams or 0.0)
        if self.settled and energy is not None:
            self._settle(cell, row)
        self._run(row)
        if energy is not None and cell.account != Account.IMPORTED:
            self._step(row)

    def sums(self) -> HourSums:
        """The sums so far; runs and steps are ordered by start."""
        steps = [_step(start, end, *key) for key, spans in self._steps.items() for start, end in spans]
        steps.sort(key=lambda step: (step.start_us, step.end_us))
        runs = sorted(self._runs, key=lambda run: (run.start_us, run.board, run.job_id or ""))
        return HourSums(self.hour_us, list(self._cells.values()), runs, steps)

    def _cell(self, row: Row) -> Cell:
        g, reason = row["g_per_kwh"], row["reason"]
        era = next((era for era in reversed(self.eras) if row["id"] > era.after), None)
        alike = (
            *(row["meter"], row["pue"], row["pue_source"], g is not None, row["provider"], row["zone"]),
            *(row["basis"], row["kind"], row["time_compression"], row["note"], row["price_source"]),
            reason is not None and NOT_ALONE in reason,
            BudgetAccount.LOCATION if era is None else era.account,
            era is not None and era.supplied,
        )
        owner = row["board"], row["account"], row["job_id"], row["segment"]
        how = row["method"], bool(row["bridged"]), row["energy_mj"] is not None
        key = (*owner, *how, alike)
        cell = self._cells.get(key)
        if cell is None:
            cell = self._cells[key] = Cell(
                *owner, *how, Alike(*alike), first_us=row["start_us"], last_us=row["end_us"]
            )
        return cell

    def _settle(self, cell: Cell, row: Row) -> None:
        start, end = row["start_us"], row["end_us"]
        if not self.settled.between(start, end) and (end > start or self.settled.at(start) is None):
            return
        found = self.settled.charge(row, account_of(row, self.eras))
        at_grid = self.settled.charge(row)
        if not found.covered or found.grams is None or at_grid.grams is None:
            return
        if not cell.settled_rows:
            cell.settled_first_us = start
        cell.settled_rows += row["rows"] or 1
        cell.settled_mj += row["energy_mj"]
        cell.decided_g += charged_g(row, self.eras) or 0.0
        cell.settled_g += found.grams
        cell.settled_grid_g += at_grid.grams - (row["grams"] or 0.0)
        cell.settled_last_us = max(cell.settled_last_us, end)

    def _run(self, row: Row) -> None:
        energy, grams = row["energy_mj"], row["grams"]
        kind = "energy" if energy is None else "intensity" if grams is None else "known"
        owner = row["board"], row["job_id"]
        reason = "no intensity was known" if energy is not None and grams is None else row["reason"]
        new = Run(
            *owner, row["start_us"], row["end_us"], kind, bool(row["bridged"]), row["method"], energy, grams,
            reason,
        )  # fmt: skip
        if not new.gap:
            new.method, new.energy_mj, new.grams, new.reason = "", 0, 0.0, None
        old = self._open.get(owner)
        if old is not None and old.goes_on(new):
            old.end_us = new.end_us
            if old.energy_mj is not None and new.energy_mj is not None:
                old.energy_mj += new.energy_mj
            if old.grams is not None and new.grams is not None:
                old.grams += new.grams
        else:
            self._open[owner] = new
            self._runs.append(new)

    def _step(self, row: Row) -> None:
        begun = None if row["grid_start_us"] is None else row["intensity_start_us"]
        key = (
            *(row["g_per_kwh"], row["provider"], row["zone"], row["basis"], row["kind"]),
            *(row["note"] or "", begun, row["grid_start_us"]),
        )
        spans = self._steps.setdefault(key, [])
        if spans and row["start_us"] <= spans[-1][1] + _BRIDGED_US:
            spans[-1][1] = max(spans[-1][1], row["end_us"])
        else:
            spans.append([row["start_us"], row["end_us"]])


def _spread(cell: Cell, hour_us: int, span: tuple[int, int], energy: int, grams: float) -> None:
    """Record what of a row reaches into later hours, shared by time."""
    start, end = span
    for hour in range(hour_us + HOUR_US, end, HOUR_US):
        share = (min(end, hour + HOUR_US) - hour) / (end - start)
        mj, g = cell.later.get(hour, (0.0, 0.0))
        cell.later[hour] = mj + energy * share, g + grams * share


def joined(steps: Iterable[Stretch]) -> tuple[Stretch, ...]:
    """Join consecutive steps that were charged alike."""
    found: dict[Charged, list[Stretch]] = {}
    for step in sorted(steps, key=lambda each: each.start_us):
        mine = found.setdefault(step.charged, [])
        if mine and step.start_us <= mine[-1].end_us + _BRIDGED_US:
            mine[-1] = Stretch(mine[-1].start_us, max(mine[-1].end_us, step.end_us), step.charged)
        else:
            mine.append(step)
    return tuple(step for mine in found.values() for step in mine)


def absorb(found: dict[tuple[Any, ...], Cell], cell: Cell, segment: int | None) -> None:
    """Add a cell to the one with its key, as if it were of that segment."""
    key = (
        *(cell.board, cell.account, cell.job_id, segment),
        *(cell.method, cell.bridged, cell.metered, cell.alike),
    )
    have = found.get(key)
    if have is None:
        have = found[key] = Cell(*key, first_us=cell.first_us, last_us=cell.last_us)
    have.add(cell)


def groups_of(cells: Iterable[Cell]) -> tuple[Group, ...]:
    """The groups of `carbonsched.ledger.totals`."""
    bins: dict[tuple[Any, ...], list[Cell]] = {}
    for cell in cells:
        key = cell.account, cell.job_id, cell.segment, cell.board, cell.method, cell.bridged
        bins.setdefault(key, []).append(cell)
    order = sorted(bins, key=lambda key: tuple((part is not None, part) for part in key))
    return tuple(_group(bins[key]) for key in order)


def _group(cells: Sequence[Cell]) -> Group:
    first = cells[0]

    def seconds(chosen: Callable[[Cell], bool]) -> float:
        return sum(cell.span_us for cell in cells if chosen(cell)) / 1e6

    return Group(
        account=Account(first.account),
        job_id=first.job_id,
        segment=first.segment,
        board=first.board,
        method=EnergyMethod(first.method),
        bridged=first.bridged,
        rows=sum(cell.rows for cell in cells),
        energy_mj=sum(cell.energy_mj for cell in cells),
        grams=sum(cell.charged_g for cell in cells),
        seconds=seconds(lambda _: True),
        unknown_s=seconds(lambda cell: not cell.known),
        weighted=sum(cell.weighted for cell in cells),
        weighted_mj=sum(cell.energy_mj for cell in cells if cell.known),
        start=moment(min(cell.first_us for cell in cells)),
        end=moment(max(cell.last_us for cell in cells)),
        location_g=sum(cell.grams for cell in cells),
        on_site_g=sum(cell.on_site_g for cell in cells),
        supplied=sum(cell.rows for cell in cells if cell.alike.supplied),
        supply_unknown_s=sum(cell.supply_unknown_us for cell in cells) / 1e6,
    )
