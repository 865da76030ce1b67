"""Finds the best selection of tensors for a FLOPs ratio ρ: the exact optimum, and the frontier for every ρ at once.

max Σ I_i over non-empty S with cost(S) ≤ ρ·T_full, the cost of trainer/selection/cost_model.py. What the activation gradient has to
pass is fixed first: a state (trainer/selection/backward_states.py) is a set of operator groups that some selection runs, and within it the
tensors whose groups all run are bought for their dw alone, a 0/1 knapsack. Each selection is found in its own state, so
the best over all states is the optimum. States grow by inclusion, and one knapsack table grows with them, tensor by
tensor, for all budgets at once (trainer/selection/knapsack.py). Nothing is rounded, and no selection passes the budget.

(The published dynamic program, arXiv 2309.13192 section 3.3, is O(N²T), rounds costs down and prunes states.)

Ties go to the cheaper selection; a tensor that adds no importance is left out, unless the selection would be empty.
"""

import math
from bisect import bisect_right
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from fractions import Fraction

import numpy as np

from carbonsched.errors import InputError
from carbonsched.model.profile import Profile, Selection
from carbonsched.model.protocol import FrontierPoint
from trainer.selection.backward_states import Branch, closure, enumerate_states
from trainer.selection.cost_model import CostModel, bits
from trainer.selection.knapsack import Floats, Ints, SideList, Table, TableTooLargeError, pareto, plan_tables

MAX_STEPS = 50_000_000
"""Table cells (16 bytes each) that every step of a curve may be sorted out of; where there are more, it is sampled."""
SAMPLE = 4096
"""Budgets at which a curve with more cells is sampled."""


class Selector:
    """What selection needs of a profile, worked out once; a frontier for each importance vector comes fast from it.

    Example:
        >>> from carbonsched.model.profile import Profile, TensorCost
        >>> deep = TensorCost(name="deep", numel=4, depth_flops=30, dw_flops=20)
        >>> head = TensorCost(name="head", numel=4, depth_flops=0, dw_flops=50)
        >>> profile = Profile(
        ...     model="m", params=8, forward_flops=100, full_flops=200, tensors=(head, deep), batch=1, seq=8
        ... )
        >>> Selector(profile).frontier({"head": 1.0, "deep": 3.0}).select(rho=0.8).selected
        ('deep',)
    """

    def __init__(self, profile: Profile, among: Collection[str] | None = None) -> None:
        """`among` restricts the choice to some tensors (the others stay frozen and need no importance)."""
        self.model = CostModel.of(profile)
        names = self.model.names
        unknown = sorted(set(among or ()) - set(names))
        if unknown:
            raise InputError("among", f"the profile has no tensor {unknown[0]!r}", "use the profile's names")
        self.candidates = [i for i, n in enumerate(names) if among is None or n in among]
        if not self.candidates:
            raise InputError("among", "is empty", "leave at least one tensor to choose")
        self.states = enumerate_states(self.model, self.candidates)
        self.single_costs = {i: self.model.units([i]) for i in self.candidates}

    @property
    def rho_floor(self) -> float:
        return min(self.single_costs.values()) / self.model.full

    def frontier(self, importance: Mapping[str, float]) -> "Frontier":
        """Raises InputError for an importance that is missing, not finite, or of no tensor in the profile."""
        names = self.model.names
        unknown = importance.keys() - set(names)
        if unknown:
            raise InputError(
                "importance", f"{min(unknown)!r} is not in the profile", "profile the same model"
            )
        values = {}
        for i in self.candidates:
            value = importance.get(names[i])
            if value is None:
                raise InputError(
                    f"importance[{names[i]}]", "is missing", "give one for every tensor of the profile"
                )
            if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
                raise InputError(f"importance[{names[i]}]", f"is {value}", "it must be a finite number")
            values[i] = float(value)
        return Frontier(self, values)


@dataclass(frozen=True, slots=True)
class _StateTable:
    """One state's candidates: a knapsack table and a side of what does not fit it, and tensors that come free."""

    state: int
    cost: int
    free: float
    """Importance of the tensors without a dw of their own."""
    table: Table
    side: SideList

    def best(self, budget: int) -> tuple[float, int, int]:
        """The best importance for a cost of at most `budget`, the least cost that has it negated, the side's entry."""
        best = (-math.inf, 0, 0)
        for k, (cost, value) in enumerate(zip(self.side.costs, self.side.values, strict=True)):
            base = self.cost + cost
            if base > budget:
                break
            value += self.free + self.table.value_at(budget - base)
            if value >= best[0]:
                best = max(best, (value, -base - self.table.least_cost(budget - base), k))
        return best


class Frontier:
    """Best reachable total importance for every ρ, and the selection that reaches it.

    Example::

        frontier = Selector(profile).frontier(importance)
        selection = frontier.select(rho=0.6)
        curve = [(point.rho, point.importance) for point in frontier.points(limit=200)]
    """

    def __init__(self, selector: Selector, importance: dict[int, float]) -> None:
        self._model, self._states, self._importance = selector.model, selector.states, importance
        self._values = _exactly_addable({i: v for i, v in importance.items() if v > 0})
        self._singles = self._best_singles(selector.single_costs)
        costs = [self._model.dw[i] for i in self._values if self._model.dw[i]]
        for plan in plan_tables(costs, len(self._states)):
            self._plan = plan
            try:
                self._tables, self._useful = self._pack()
                break
            except TableTooLargeError:
                continue

    @property
    def exact(self) -> bool:
        """False where costs without a common measure had to be rounded up: still never over the budget."""
        return self._plan.exact

    @property
    def rho_floor(self) -> float:
        """ρ of the cheapest non-empty selection."""
        return self._singles[0][0] / self._model.full

    def select(self, rho: float) -> Selection:
        """The selection of greatest importance with cost ≤ ρ·T_full. Raises InputError below the floor."""
        if not math.isfinite(rho):
            raise InputError("rho", f"is {rho}", "give a ratio between the floor and 1")
        budget = self._budget(rho)
        at = bisect_right(self._singles, budget, key=lambda s: s[0]) - 1
        if at < 0:
            floor = math.ceil(self.rho_floor * 1e6) / 1e6
            raise InputError(
                "rho", f"{rho:g} is below the floor {floor:.6f}", "no tensor can be trained for less"
            )
        picked, best = [self._singles[at][2]], (0.0, 0)
        chosen: tuple[_StateTable, int] | None = None
        for one in self._useful:
            if one.cost > budget:
                break
            value, cost, entry = one.best(budget)
            if value > 0 and (value, cost) > best:
                best, chosen = (value, cost), (one, entry)
        if chosen is not None:
            picked = self._trace(*chosen, budget)
        return Selection(
            rho_planned=self._model.units(picked) / self._model.full,
            importance=math.fsum(self._importance[i] for i in picked),
            selected=tuple(self._model.names[i] for i in sorted(picked)),
        )

    def points(self, limit: int | None = None) -> tuple[FrontierPoint, ...]:
        """The curve as its steps, ascending: that importance is reachable at that ρ and at no lower one.

        All of them (where that is more than MAX_STEPS to sort through, SAMPLE of them), or with `limit` about that many,
        spread evenly over ρ; the first and the last are always there.
        """
        if limit is not None and limit < 2:
            raise InputError("points", f"must be at least 2, is {limit}", "leave it out to get all")
        cells = sum(len(one.table) * len(one.side.costs) for one in self._useful)
        costs, values = self._sample(limit or (SAMPLE if cells > MAX_STEPS else 1024))
        if limit is None and cells <= MAX_STEPS:
            costs, values = self._steps(costs, values)
        full = self._model.full
        return tuple(
            FrontierPoint(rho=c / full, importance=v)
            for c, v in zip(costs.tolist(), values.tolist(), strict=True)
        )

    def _budget(self, rho: float) -> int:
        # the largest cost whose ratio, as the float that is printed, does not pass rho
        full = self._model.full
        cost = math.floor((Fraction(rho) + Fraction(math.ulp(rho)) / 2) * full)
        return cost if cost / full <= rho else cost - 1

    def _best_singles(self, costs: dict[int, int]) -> list[tuple[int, float, int]]:
        found: list[tuple[int, float, int]] = []
        for i in sorted(costs, key=lambda i: (costs[i], -self._importance[i])):
            if not found or self._importance[i] > found[-1][1]:
                found.append((costs[i], self._importance[i], i))
        return found

    def _pack(self) -> tuple[list[_StateTable], list[_StateTable]]:
        """Each state with its candidates; and by cost those that hold something their parent does not: others only cost more."""
        dw, values = self._model.dw, self._values
        packed: list[_StateTable] = []
        useful: list[_StateTable] = []
        for s, state in enumerate(self._states):
            if state.parent < 0:
                table, side, free = self._plan.empty, SideList(), 0.0
            else:
                parent = packed[state.parent]
                table, side, free = parent.table, parent.side, parent.free
            gained = [i for i in state.opened if i in values]
            for i in gained:
                if dw[i] in self._plan.apart:
                    side = side.add(i, dw[i], values[i])
                elif dw[i]:
                    table = table.add(dw[i], values[i])
                else:
                    free += values[i]
            for branch in state.branches:
                side = side.branch(self._ways(branch, state.groups))
            packed.append(_StateTable(s, state.cost, free, table, side))
            if gained or state.branches or state.parent < 0:
                useful.append(packed[-1])
        return packed, sorted(useful, key=lambda one: one.cost)

    def _ways(self, branch: Branch, groups: int) -> list[tuple[int, list[tuple[int, int, float]]]]:
        needs = {
            i: self._model.above[i] & branch.groups & ~groups for i in branch.tensors if i in self._values
        }
        return [
            (
                self._model.group_cost(paid),
                [(i, self._model.dw[i], self._values[i]) for i, need in needs.items() if not need & ~paid],
            )
            for paid in closure(sorted(set(needs.values()), key=int.bit_count))
        ]

    def _trace(self, one: _StateTable, entry: int, budget: int) -> list[int]:
        dw, values, empty = self._model.dw, self._values, self._plan.empty
        picked = bits(one.side.bought[entry])
        left = one.table.least_cost(budget - one.cost - one.side.costs[entry])
        at = one.state
        while at >= 0:
            state = self._states[at]
            gained = [i for i in state.opened if i in values and dw[i] not in self._plan.apart]
            picked += [i for i in gained if not dw[i]]
            bought = [i for i in gained if dw[i]]
            before = [empty if state.parent < 0 else self._tables[state.parent].table]
            for i in bought[:-1]:
                before.append(before[-1].add(dw[i], values[i]))
            for i, table in zip(reversed(bought), reversed(before[: len(bought)]), strict=True):
                if left >= dw[i] and table.value_at(left - dw[i]) + values[i] > table.value_at(left):
                    picked.append(i)
                    left -= dw[i]
            at = state.parent
        return picked

    def _sample(self, count: int) -> tuple[Ints, Floats]:
        """About `count` steps of the curve: for evenly spread budgets the best value, each at the least cost."""
        low = self._singles[0][0]
        high = max(
            [self._singles[-1][0], *(one.cost + one.side.costs[-1] + one.table.top for one in self._useful)]
        )
        budgets = np.unique(np.linspace(low, high, count).astype(np.int64))
        budgets[0], budgets[-1] = low, high
        at = np.searchsorted([s[0] for s in self._singles], budgets, side="right") - 1
        costs = np.array([s[0] for s in self._singles], dtype=np.int64)[at]
        values = np.array([s[1] for s in self._singles])[at]
        values_left = values.copy()
        values[values <= 0] = 0
        for one in self._useful:
            for cost, value in zip(one.side.costs, one.side.values, strict=True):
                base = one.cost + cost
                first = int(np.searchsorted(budgets, base))
                if first == len(budgets):
                    break
                found = one.free + value + one.table.values_at(budgets[first:] - base)
                some = np.flatnonzero((found >= values[first:]) & (found > 0))
                if not len(some):
                    continue
                least = base + one.table.least_costs(budgets[first:][some] - base)
                better = (found[some] > values[first:][some]) | (least < costs[first:][some])
                values[first:][some[better]] = found[some[better]]
                costs[first:][some[better]] = least[better]
        values = np.where(values > 0, values, values_left)
        kept = pareto(costs, values)
        return costs[kept], values[kept]

    def _steps(self, coarse_costs: Ints, coarse_values: Floats) -> tuple[Ints, Floats]:
        """Every step of the curve; `coarse` are some of them, by which most candidates drop out unsorted."""
        costs = [coarse_costs, np.array([s[0] for s in self._singles], dtype=np.int64)]
        values = [coarse_values, np.array([s[1] for s in self._singles])]
        for one in self._useful:
            at, rise = one.table.steps()
            for cost, value in zip(one.side.costs, one.side.values, strict=True):
                cost_at, value_at = at + (one.cost + cost), rise + (one.free + value)
                known = np.searchsorted(coarse_costs, cost_at, side="right") - 1
                keep = (value_at > 0) & (value_at > coarse_values[np.maximum(known, 0)])
                costs.append(cost_at[keep])
                values.append(value_at[keep])
        all_costs, all_values = np.concatenate(costs), np.concatenate(values)
        kept = pareto(all_costs, all_values)
        return all_costs[kept], all_values[kept]


def _exactly_addable(values: dict[int, float]) -> dict[int, float]:
    """`values` (above 0) rounded up to a quantum so coarse that any sum of them is exact.

    That is about 1e-13 of the greatest. Without it the order of summation would decide ties, for a dearer selection.
    """
    exponent = math.frexp(max(values.values(), default=1.0))[1] + len(values).bit_length() - 52
    quantum = math.ldexp(1.0, max(exponent, -1022))
    return {i: math.ceil(v / quantum) * quantum for i, v in values.items()}
