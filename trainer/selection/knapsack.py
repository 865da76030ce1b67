"""Solves the 0/1 knapsack for every budget at once: the best value for a cost of at most b. Exact, never rounded.

`DenseTable` counts in units of the greatest common divisor of all costs: few distinct dw occur in a transformer, so this is
small and fast. `SparseTable` keeps the Pareto list of (cost, value) pairs, for costs without a useful divisor. `SideList` is a
small Pareto list that also remembers what was bought: it takes the few items that would spoil the divisor (a head with
an odd vocabulary turns 33 thousand units into 8.5 million) and the branches of trainer/selection/backward_states.py; the best of table and
side together is found by going through the side's entries.

`plan_tables` chooses. Where nothing exact fits into memory, table costs are rounded up to a coarser unit: no longer
surely the optimum, and said so, but never over a budget. All tables are immutable; `add` makes a new one.
"""

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol, Self

import numpy as np
import numpy.typing as npt

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]

MAX_CELLS = 20_000_000
"""What all tables of one frontier may hold together (8 bytes each)."""
MAX_SIDE = 128
"""Entries that setting items apart may add to the sides."""


class Table(Protocol):
    """The best value for every budget, over the items added so far.

    Example:
        >>> table: Table = DenseTable(unit=1, values=np.zeros(1)).add(2, 5.0).add(3, 6.0)
        >>> [table.value_at(budget) for budget in (1, 2, 3, 5)]
        [0.0, 5.0, 6.0, 11.0]
        >>> table.least_cost(4)
        3
    """

    def __len__(self) -> int: ...

    @property
    def top(self) -> int:
        """The cost beyond which nothing more is gained."""
        ...

    def add(self, cost: int, value: float) -> Self:
        """With one more item to take or leave; cost and value above 0."""
        ...

    def value_at(self, budget: int) -> float:
        """The best value for a cost of at most `budget` ≥ 0."""
        ...

    def values_at(self, budgets: Ints) -> Floats: ...

    def least_cost(self, budget: int) -> int:
        """The least cost that has the value `value_at(budget)`."""
        ...

    def least_costs(self, budgets: Ints) -> Ints: ...

    def steps(self) -> tuple[Ints, Floats]:
        """Costs at which the value rises, and the values; the first is (0, 0)."""
        ...


@dataclass(frozen=True, slots=True, eq=False)
class DenseTable:
    """A table with one cell per `unit` of cost.

    Example:
        >>> DenseTable(unit=10, values=np.zeros(1)).add(20, 5.0).values.tolist()
        [0.0, 0.0, 5.0]
    """

    unit: int
    values: Floats
    """Best value for a cost of at most k units, k = 0, 1, …"""

    def __len__(self) -> int:
        return len(self.values)

    @property
    def top(self) -> int:
        return (len(self.values) - 1) * self.unit

    def add(self, cost: int, value: float) -> "DenseTable":
        shift, size = -(-cost // self.unit), len(self.values)
        grown = np.empty(size + shift)
        grown[:size] = self.values
        grown[size:] = self.values[-1]
        np.maximum(grown[shift:], self.values + value, out=grown[shift:])
        return DenseTable(self.unit, grown)

    def value_at(self, budget: int) -> float:
        return float(self.values[min(budget // self.unit, len(self.values) - 1)])

    def values_at(self, budgets: Ints) -> Floats:
        return self.values[np.minimum(budgets // self.unit, len(self.values) - 1)]

    def least_cost(self, budget: int) -> int:
        return int(np.searchsorted(self.values, self.value_at(budget))) * self.unit

    def least_costs(self, budgets: Ints) -> Ints:
        return np.searchsorted(self.values, self.values_at(budgets)) * self.unit

    def steps(self) -> tuple[Ints, Floats]:
        rises = np.flatnonzero(np.diff(self.values, prepend=-1.0))
        return rises * self.unit, self.values[rises]


@dataclass(frozen=True, slots=True, eq=False)
class SparseTable:
    """A table that keeps only the costs at which the value rises. Raises TableTooLargeError beyond `limit` of them.

    Example:
        >>> empty = SparseTable(np.zeros(1, dtype=np.int64), np.zeros(1), limit=100)
        >>> empty.add(20, 5.0).add(7, 1.0).costs.tolist()
        [0, 7, 20, 27]
    """

    costs: Ints
    values: Floats
    """Both ascend strictly; the first pair is (0, 0)."""
    limit: int

    def __len__(self) -> int:
        return len(self.values)

    @property
    def top(self) -> int:
        return int(self.costs[-1])

    def add(self, cost: int, value: float) -> "SparseTable":
        costs = np.concatenate((self.costs, self.costs + cost))
        values = np.concatenate((self.values, self.values + value))
        kept = pareto(costs, values)
        if len(kept) > self.limit:
            raise TableTooLargeError
        return SparseTable(costs[kept], values[kept], self.limit)

    def value_at(self, budget: int) -> float:
        return float(self.values[np.searchsorted(self.costs, budget, side="right") - 1])

    def values_at(self, budgets: Ints) -> Floats:
        return self.values[np.searchsorted(self.costs, budgets, side="right") - 1]

    def least_cost(self, budget: int) -> int:
        return int(self.costs[np.searchsorted(self.costs, budget, side="right") - 1])

    def least_costs(self, budgets: Ints) -> Ints:
        return self.costs[np.searchsorted(self.costs, budgets, side="right") - 1]

    def steps(self) -> tuple[Ints, Floats]:
        return self.costs, self.values


@dataclass(frozen=True, slots=True, eq=False)
class SideList:
    """Pareto list of (cost, value), with the items bought for each as bits.

    Example:
        >>> SideList().add(item=2, cost=7, value=3.0)
        SideList(costs=(0, 7), values=(0.0, 3.0), bought=(0, 4))
    """

    costs: tuple[int, ...] = (0,)
    values: tuple[float, ...] = (0.0,)
    bought: tuple[int, ...] = (0,)

    def add(self, item: int, cost: int, value: float) -> "SideList":
        """With one more item to take or leave; the cost may be 0, the value is above 0."""
        return self.merge(self._with_items(1 << item, cost, value))

    def branch(self, ways: Iterable[tuple[int, Iterable[tuple[int, int, float]]]]) -> "SideList":
        """With at most one of `ways`: a price, and the items (item, cost, value) that may be taken once it is paid."""
        result = self
        for price, items in ways:
            inside = self._with_items(0, price, 0.0)
            for item, cost, value in items:
                inside = inside.add(item, cost, value)
            result = result.merge(inside)
        return result

    def merge(self, other: "SideList") -> "SideList":
        merged = sorted(
            (c, -v, b)
            for side in (self, other)
            for c, v, b in zip(side.costs, side.values, side.bought, strict=True)
        )
        kept: list[tuple[int, float, int]] = []
        for cost, loss, bought in merged:
            if not kept or -loss > kept[-1][1]:
                kept.append((cost, -loss, bought))
        if len(kept) > MAX_CELLS // 1000:
            raise TableTooLargeError
        costs, values, picks = zip(*kept, strict=True)
        return SideList(costs, values, picks)

    def _with_items(self, items: int, cost: int, value: float) -> "SideList":
        return SideList(
            tuple(c + cost for c in self.costs),
            tuple(v + value for v in self.values),
            tuple(b | items for b in self.bought),
        )


class TableTooLargeError(Exception):
    """Raised by a table that outgrows its limit; the caller goes on to the next plan.

    Example:
        >>> try:
        ...     SparseTable(np.zeros(1, dtype=np.int64), np.zeros(1), limit=1).add(1, 1.0)
        ... except TableTooLargeError:
        ...     print("try the next plan")
        try the next plan
    """


@dataclass(frozen=True, slots=True)
class TablePlan:
    """One kind of table to try for a set of items.

    Example:
        >>> [(type(plan.empty).__name__, plan.exact) for plan in plan_tables([4] * 10, tables=1)]
        [('DenseTable', True), ('SparseTable', True), ('DenseTable', False)]
    """

    empty: Table
    apart: frozenset[int]
    """Costs whose items go to the side."""
    exact: bool


def plan_tables(costs: Sequence[int], tables: int) -> list[TablePlan]:
    """Kinds of table for items of these costs (all above 0), in the order to try them; the last always fits.

    `tables`: how many will be made.
    """
    apart, unit = _unit(costs)
    inside = [c for c in costs if c not in apart]
    cells = sum(inside) // unit
    room = max(1000, MAX_CELLS // max(1, tables))
    plans = []
    if cells <= room and cells >> min(len(inside), 62) == 0:
        plans.append(TablePlan(DenseTable(unit, np.zeros(1)), apart, exact=True))
    sparse = SparseTable(np.zeros(1, dtype=np.int64), np.zeros(1), room)
    plans.append(TablePlan(sparse, frozenset(), exact=True))
    coarse = -(-sum(costs) // max(1, room - len(costs))) or 1
    plans.append(TablePlan(DenseTable(coarse, np.zeros(1)), frozenset(), exact=False))
    return plans


def pareto(costs: Ints, values: Floats) -> npt.NDArray[np.intp]:
    """Positions of the pairs that no cheaper or equal pair matches in value, by ascending cost."""
    order = np.lexsort((-values, costs))
    sorted_values = values[order]
    before = np.concatenate(([-np.inf], np.maximum.accumulate(sorted_values)[:-1]))
    return order[sorted_values > before]


def _unit(costs: Sequence[int]) -> tuple[frozenset[int], int]:
    """Costs to set apart and the divisor of the rest: n equal items apart make a side n + 1 times as long."""
    counts = Counter(costs)
    apart: set[int] = set()
    unit, side = math.gcd(*counts) or 1, 1
    while True:
        distinct = sorted(c for c in counts if c not in apart)
        before, after = [0], [0]
        for c in distinct:
            before.append(math.gcd(before[-1], c))
        for c in reversed(distinct):
            after.append(math.gcd(after[-1], c))
        best, spoiler = unit, 0
        for k, c in enumerate(distinct):
            rest = math.gcd(before[k], after[len(distinct) - k - 1])
            longer = counts[c] + 1
            if rest > best and rest >= 2 * unit * longer and side * longer <= MAX_SIDE:
                best, spoiler = rest, c
        if not spoiler:
            return frozenset(apart), unit
        apart.add(spoiler)
        unit, side = best, side * (counts[spoiler] + 1)
