"""The best selection of tensors for a FLOPs ratio ρ: the exact optimum, and the frontier for every ρ at once.

max Σ I_i over non-empty S with cost(S) ≤ ρ·T_full, the cost of trainer/patterns.py. What the activation gradient has to
pass is fixed first: a *state* is a set of operator groups that some selection runs exactly, and within a state the
tensors whose groups all run are bought for their dw alone, a 0/1 knapsack. Each selection is found in its own state, so
the best over all states is the optimum. Along a chain there is one state for each depth; where branches part there are
a few for each block. States grow by inclusion, and one knapsack table grows with them, tensor by tensor, for all
budgets at once (trainer/knapsack.py). Nothing is rounded, and the selection never passes the budget.

(The published dynamic program, arXiv 2309.13192 section 3.3, is O(N²T), rounds costs down and prunes states.)

Ties go to the cheaper selection; a tensor that adds no importance is left out, unless the selection would be empty.
NumPy only, no torch.
"""

import math
from bisect import bisect_right
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from fractions import Fraction

import numpy as np

from carbonsched.errors import CarbonschedError, InputError
from carbonsched.model.profile import Profile, Selection
from carbonsched.model.protocol import FrontierPoint
from trainer.knapsack import Floats, Ints, Table, TableTooLargeError, plan_tables
from trainer.patterns import CostModel

MAX_STATES = 100_000


def frontier(profile: Profile, importance: Mapping[str, float]) -> "Frontier":
    """The frontier of one importance vector; raises InputError for a tensor without a finite importance."""
    return Selector(profile).frontier(importance)


def rho_floor(profile: Profile) -> float:
    """The cheapest non-empty selection as a ratio of full fine-tuning: below it there is nothing to train."""
    return Selector(profile).rho_floor


def step_rho(rho: float, steps: int, importance_batches: int) -> float:
    """What a directed ρ leaves for each step of a segment once its importance batches (full cost) are paid: ρ − m/N."""
    return rho - importance_batches / steps


def planned_rho(rho_step: float, steps: int, importance_batches: int) -> float:
    """Planned ρ of a segment: (N·cost(S) + m·T_full) ÷ (N·T_full), from `rho_step` = cost(S)/T_full."""
    return rho_step + importance_batches / steps


@dataclass(frozen=True, slots=True)
class State:
    """Operator groups that run, and the tensors that are thereby open to be bought for their dw."""

    groups: int
    cost: int
    """Forward + these groups."""
    parent: int
    """An earlier state with fewer groups, whose table this one's extends; -1: none."""
    opened: tuple[int, ...]
    """Tensors open here and not yet in the parent."""


class Selector:
    """What selection needs of a profile, worked out once; a frontier for each importance vector comes fast from it."""

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
        self.states = _states(self.model, self.candidates)
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
class _Offer:
    """One state, with one choice of the tensors kept apart from the tables."""

    cost: int
    value: float
    """Importance that comes with it: free tensors, and those chosen apart."""
    state: int
    table: Table
    apart: tuple[int, ...]


class Frontier:
    """Best reachable total importance for every ρ, and the selection that reaches it."""

    def __init__(self, selector: Selector, importance: dict[int, float]) -> None:
        self._model, self._states, self._importance = selector.model, selector.states, importance
        self._worth = {i: v for i, v in importance.items() if v > 0}
        self._singles = self._best_singles(selector.single_costs)
        costs = {i: self._model.dw[i] for i in self._worth if self._model.dw[i]}
        for plan in plan_tables(costs, len(self._states)):
            self._plan = plan
            try:
                self._tables, self._offers = self._build()
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
            raise InputError(
                "rho", f"{rho:g} is below the floor {self.rho_floor:.6f}", "no tensor can be trained for less"
            )
        best, chosen, cost = 0.0, None, 0
        for offer in self._offers:
            if offer.cost > budget:
                continue
            value = offer.value + offer.table.at(budget - offer.cost)
            if value > best:
                best, chosen, cost = value, offer, budget - offer.cost
        picked = [self._singles[at][2]] if chosen is None else self._trace(chosen, cost)
        return Selection(
            rho_planned=self._model.units(picked) / self._model.full,
            importance=math.fsum(self._importance[i] for i in picked),
            selected=tuple(self._model.names[i] for i in sorted(picked)),
        )

    def points(self, limit: int | None = None) -> tuple[FrontierPoint, ...]:
        """The curve as its steps, ascending: importance is reachable at that ρ and at no lower one.

        All of them, or with `limit` about that many, spread evenly over ρ; the first and the last are always there.
        """
        if limit is not None and limit < 2:
            raise InputError("points", f"must be at least 2, is {limit}")
        costs, values = self._sample(limit or 1024)
        if limit is None:
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

    def _build(self) -> tuple[list[Table], list[_Offer]]:
        tables: list[Table] = []
        free: list[float] = []
        apart: list[tuple[int, ...]] = []
        offers: list[_Offer] = []
        for s, state in enumerate(self._states):
            gained = [i for i in state.opened if i in self._worth]
            root = state.parent < 0
            table = self._plan.empty if root else tables[state.parent]
            bonus = 0.0 if root else free[state.parent]
            kept = () if root else apart[state.parent]
            for i in gained:
                if i in self._plan.apart:
                    kept = (*kept, i)
                elif self._model.dw[i]:
                    table = table.add(self._model.dw[i], self._worth[i])
                else:
                    bonus += self._worth[i]
            tables.append(table)
            free.append(bonus)
            apart.append(kept)
            if not gained:
                continue  # dearer than its parent and no better
            for bits in range(1 << len(kept)):
                chosen = tuple(i for k, i in enumerate(kept) if bits >> k & 1)
                offers.append(
                    _Offer(
                        cost=state.cost + sum(self._model.dw[i] for i in chosen),
                        value=bonus + sum(self._worth[i] for i in chosen),
                        state=s,
                        table=table,
                        apart=chosen,
                    )
                )
        return tables, sorted(offers, key=lambda o: o.cost)

    def _trace(self, offer: _Offer, left: int) -> list[int]:
        picked = list(offer.apart)
        at = offer.state
        left = offer.table.least(left)
        while at >= 0:
            state = self._states[at]
            worth = [i for i in state.opened if i in self._worth and i not in self._plan.apart]
            picked += [i for i in worth if not self._model.dw[i]]
            bought = [i for i in worth if self._model.dw[i]]
            before = [self._plan.empty if state.parent < 0 else self._tables[state.parent]]
            for i in bought[:-1]:
                before.append(before[-1].add(self._model.dw[i], self._worth[i]))
            for i, table in zip(reversed(bought), reversed(before[: len(bought)]), strict=True):
                dw = self._model.dw[i]
                if left >= dw and table.at(left - dw) + self._worth[i] > table.at(left):
                    picked.append(i)
                    left -= dw
            at = state.parent
        return picked

    def _sample(self, count: int) -> tuple[Ints, Floats]:
        """About `count` steps of the curve: for evenly spread budgets the best value, each at the least cost."""
        low, high = self._singles[0][0], max(self._top_cost(), self._singles[-1][0])
        budgets = np.unique(np.linspace(low, high, count).astype(np.int64))
        budgets[0], budgets[-1] = low, high
        at = np.searchsorted([s[0] for s in self._singles], budgets, side="right") - 1
        costs = np.array([s[0] for s in self._singles], dtype=np.int64)[at]
        values = np.array([s[1] for s in self._singles])[at]
        values_of_none = values.copy()
        who = np.full(len(budgets), -1)
        best = np.zeros(len(budgets))
        for n, offer in enumerate(self._offers):
            first = int(np.searchsorted(budgets, offer.cost))
            if first == len(budgets):
                break
            found = offer.value + offer.table.at_all(budgets[first:] - offer.cost)
            better = found > best[first:]
            best[first:][better] = found[better]
            who[first:][better] = n
        for b in np.flatnonzero(who >= 0):
            offer = self._offers[who[b]]
            costs[b] = offer.cost + offer.table.least(int(budgets[b]) - offer.cost)
        values = np.where(who >= 0, best, values_of_none)
        return _pareto(costs, values)

    def _steps(self, coarse_costs: Ints, coarse_values: Floats) -> tuple[Ints, Floats]:
        """Every step of the curve; `coarse` are some of them, used to drop most candidates unsorted."""
        costs = [coarse_costs, np.array([s[0] for s in self._singles], dtype=np.int64)]
        values = [coarse_values, np.array([s[1] for s in self._singles])]
        for offer in self._offers:
            cost, value = offer.table.steps()
            cost, value = cost + offer.cost, value + offer.value
            known = np.searchsorted(coarse_costs, cost, side="right") - 1
            keep = (value > 0) & (value > coarse_values[np.maximum(known, 0)])
            costs.append(cost[keep])
            values.append(value[keep])
        return _pareto(np.concatenate(costs), np.concatenate(values))

    def _top_cost(self) -> int:
        return max((o.cost + o.table.top for o in self._offers), default=0)


def _pareto(costs: Ints, values: Floats) -> tuple[Ints, Floats]:
    order = np.lexsort((-values, costs))
    costs, values = costs[order], values[order]
    before = np.concatenate(([-np.inf], np.maximum.accumulate(values)[:-1]))
    keep = values > before
    return costs[keep], values[keep]


def _states(model: CostModel, candidates: list[int]) -> list[State]:
    """Every set of groups that some selection runs, smaller ones first.

    That is the closure under union of the tensors' own sets. Sets that all later ones contain add nothing by union, so
    along a network only those of about one block are ever alive, and the work stays linear in depth.
    """
    own: dict[int, list[int]] = {}
    for i in candidates:
        own.setdefault(model.above[i], []).append(i)
    kinds = sorted(own, key=int.bit_count)
    unions = sorted(_closure(kinds), key=int.bit_count)
    common = _suffix_intersections(unions)
    states: list[State] = []
    opened: list[int] = []  # kinds open in each state, as bits
    alive: list[int] = []
    settled, first, last = 0, 0, 0  # kinds before `first` are in every state from here on
    for s, groups in enumerate(unions):
        while last < len(kinds) and kinds[last].bit_count() <= groups.bit_count():
            last += 1
        while first < last and not kinds[first] & ~common[s]:
            settled |= 1 << first
            first += 1
        here = settled
        for k in range(first, last):
            if not kinds[k] & ~groups:
                here |= 1 << k
        below = [p for p in alive if not unions[p] & ~groups]
        parent = max(below, key=lambda p: opened[p].bit_count(), default=-1)
        new = here & ~(opened[parent] if parent >= 0 else 0)
        tensors = [i for k in range(len(kinds)) if new >> k & 1 for i in own[kinds[k]]] if new else []
        states.append(State(groups, model.forward + model.weight(groups), parent, tuple(sorted(tensors))))
        opened.append(here)
        if s + 1 < len(unions):
            done = [p for p in alive if not unions[p] & ~common[s + 1]]
            base = max(done, key=lambda p: unions[p].bit_count(), default=None)
            alive = [p for p in alive if p not in done or p == base] + [s]
    return states


def _closure(kinds: list[int]) -> set[int]:
    common = _suffix_intersections(kinds)
    found: set[int] = set()
    alive: set[int] = set()
    for k, kind in enumerate(kinds):
        new = {kind, *(groups | kind for groups in alive)} - found
        found |= new
        alive |= new
        if len(found) > MAX_STATES:
            raise CarbonschedError(
                "this model's branches allow too many patterns; restrict the choice with `among`"
            )
        if k + 1 < len(kinds):
            alive = {groups for groups in alive if groups & ~common[k + 1]}
    return found


def _suffix_intersections(sets: list[int]) -> list[int]:
    common = sets[:]
    for k in range(len(sets) - 2, -1, -1):
        common[k] &= common[k + 1]
    return common
