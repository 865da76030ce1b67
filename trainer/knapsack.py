"""0/1 knapsack tables that answer every budget at once: the best value for a cost of at most b.

Two kinds behave alike. `Dense` counts in units of the greatest common divisor of all costs: few distinct dw occur in a
transformer, so this is exact, small and fast. `Sparse` keeps the Pareto list of (cost, value) pairs and is exact for
any costs, but may grow. `plan_tables` chooses, and sets apart the few tensors that alone would spoil the divisor (a head
with an odd vocabulary turns 33 thousand units into 8.5 million); the caller tries those both ways.

Where neither fits, costs are rounded up to a coarser unit: no longer the exact optimum, and said so, but never over a
budget. Tables are immutable; `add` makes a new one.
"""

import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]

MAX_CELLS = 30_000_000
"""What all tables of one frontier may hold together (8 bytes each)."""
MAX_APART = 4


class Table(Protocol):
    @property
    def top(self) -> int:
        """The cost beyond which nothing more is gained."""
        ...

    def add(self, cost: int, value: float) -> "Table":
        """With one more item to take or leave; cost and value above 0."""
        ...

    def at(self, budget: int) -> float:
        """The best value for a cost of at most `budget` ≥ 0."""
        ...

    def at_all(self, budgets: Ints) -> Floats: ...

    def least(self, budget: int) -> int:
        """The least cost that has the value `at(budget)`."""
        ...

    def steps(self) -> tuple[Ints, Floats]:
        """Costs at which the value rises, and the values; the first is (0, 0)."""
        ...


@dataclass(frozen=True, slots=True, eq=False)
class Dense:
    unit: int
    values: Floats
    """Best value for a cost of at most k units, k = 0, 1, …"""

    @property
    def top(self) -> int:
        return (len(self.values) - 1) * self.unit

    def add(self, cost: int, value: float) -> "Dense":
        shift, size = -(-cost // self.unit), len(self.values)
        grown = np.empty(size + shift)
        grown[:size] = self.values
        grown[size:] = self.values[-1]
        np.maximum(grown[shift:], self.values + value, out=grown[shift:])
        return Dense(self.unit, grown)

    def at(self, budget: int) -> float:
        return float(self.values[min(budget // self.unit, len(self.values) - 1)])

    def at_all(self, budgets: Ints) -> Floats:
        return self.values[np.minimum(budgets // self.unit, len(self.values) - 1)]

    def least(self, budget: int) -> int:
        return int(np.searchsorted(self.values, self.at(budget))) * self.unit

    def steps(self) -> tuple[Ints, Floats]:
        rises = np.flatnonzero(np.diff(self.values, prepend=-1.0))
        return rises * self.unit, self.values[rises]


@dataclass(frozen=True, slots=True, eq=False)
class Sparse:
    costs: Ints
    values: Floats
    """Both ascend strictly; the first pair is (0, 0)."""
    limit: int

    @property
    def top(self) -> int:
        return int(self.costs[-1])

    def add(self, cost: int, value: float) -> "Sparse":
        costs = np.concatenate((self.costs, self.costs + cost))
        values = np.concatenate((self.values, self.values + value))
        order = np.lexsort((-values, costs))
        costs, values = costs[order], values[order]
        keep = values > np.concatenate(([-1.0], np.maximum.accumulate(values)[:-1]))
        if np.count_nonzero(keep) > self.limit:
            raise TableTooLargeError
        return Sparse(costs[keep], values[keep], self.limit)

    def at(self, budget: int) -> float:
        return float(self.values[np.searchsorted(self.costs, budget, side="right") - 1])

    def at_all(self, budgets: Ints) -> Floats:
        return self.values[np.searchsorted(self.costs, budgets, side="right") - 1]

    def least(self, budget: int) -> int:
        return int(self.costs[np.searchsorted(self.costs, budget, side="right") - 1])

    def steps(self) -> tuple[Ints, Floats]:
        return self.costs, self.values


class TableTooLargeError(Exception):
    """Stays inside the trainer: the caller falls back to the next plan."""


@dataclass(frozen=True, slots=True)
class TablePlan:
    empty: Table
    apart: frozenset[int]
    """Items that stay out of the tables."""
    exact: bool


def plan_tables(costs: Mapping[int, int], tables: int) -> list[TablePlan]:
    """Kinds of table for items of these costs (all above 0), the one to try first first; the last always fits.

    `tables`: how many will be made.
    """
    apart, unit = _unit(costs)
    inside = {i: c for i, c in costs.items() if i not in apart}
    total = sum(inside.values())
    room = max(1, MAX_CELLS // max(1, tables))
    plans = []
    fits = total // unit <= room
    if fits and (len(inside) >= 30 or total // unit <= 2 ** len(inside)):
        plans.append(TablePlan(Dense(unit, np.zeros(1)), frozenset(apart), exact=True))
    sparse = Sparse(np.zeros(1, dtype=np.int64), np.zeros(1), room)
    plans.append(TablePlan(sparse, frozenset(), exact=True))
    coarse = -(-sum(costs.values()) // max(1, room - len(costs))) or 1
    plans.append(TablePlan(Dense(coarse, np.zeros(1)), frozenset(), exact=False))
    return plans


def _unit(costs: Mapping[int, int]) -> tuple[set[int], int]:
    """Items to set apart and the divisor of the rest: each item apart doubles the look-ups, so it must pay for that."""
    apart: set[int] = set()
    unit = math.gcd(*costs.values()) or 1
    while True:
        counts = Counter(c for i, c in costs.items() if i not in apart)
        distinct = sorted(counts)
        before, after = [0], [0]
        for c in distinct:
            before.append(math.gcd(before[-1], c))
        for c in reversed(distinct):
            after.append(math.gcd(after[-1], c))
        best, spoiler = unit, None
        for k, c in enumerate(distinct):
            rest = math.gcd(before[k], after[len(distinct) - k - 1])
            if len(apart) + counts[c] <= MAX_APART and rest >= 4 * unit << counts[c] and rest > best:
                best, spoiler = rest, c
        if spoiler is None:
            return apart, unit
        apart |= {i for i, c in costs.items() if c == spoiler}
        unit = best
