"""Finds the best plan for one price λ by a dynamic program over (segment, time) that chooses wait or train at ρ.

Time is a uniform grid from now to the end of the plan; a segment that ends between two nodes takes the value between
them (semi-Lagrangian), so segments may straddle slots and last any time. The grams of a segment are exact: the
integral of the intensity over the time it really covers. The plan then follows the values in continuous time, with
them as look-ahead, so that only the values, never the grams of the plan, are approximate.

Where a job weighs money, grams are those of the weighed intensity, in which a EUR counts as the grams it is worth; no wait earns a EUR.

Meeting the deadline is a hard bound: `SegmentArrays.latest_s[k]` is the last start of segment k that still meets it. Beyond
it only the fastest ρ remains (a plan is late, never absent).
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from carbonsched.plan.intensity_curve import Floats
from carbonsched.plan.segment_arrays import CostCurves, Schedule, SegmentArrays

_NODES = 672
"""Nodes of the time grid: a quarter of an hour each over a week."""
_RHOS = 25
"""Values of ρ that each segment may choose from, evenly spaced."""
_NEVER = -1e18
"""Value of what is not allowed."""
_SAVES = 0.01
"""Hysteresis: a wait must save at least this share of the segment's grams."""


@dataclass(frozen=True, slots=True)
class Solution:
    """A plan in continuous time. All arrays are (n,).

    Example::

        solution = WaitOrTrain(arrays).solve(price=0.002)
        print(solution.rho[0], solution.schedule.start_s[0])
    """

    rho: Floats
    release_s: Floats
    """Earliest start of each segment: its start if the plan waits for it, else 0."""
    schedule: Schedule
    bound: float
    """Σ [gain − λ·grams] by the value function: with λ·budget an upper bound on the gain, up to the grid's error."""


class WaitOrTrain:
    """The dynamic program of one plan. Its tables do not depend on λ, so they are built once and used for every price.

    Example::

        program = WaitOrTrain(SegmentArrays(problem))
        cheap, dear = program.solve(0.001), program.solve(0.01)
        assert dear.schedule.spend_g <= cheap.schedule.spend_g
    """

    def __init__(
        self,
        arrays: SegmentArrays,
        *,
        rhos: int = _RHOS,
        nodes: int = _NODES,
        costs: CostCurves | None = None,
        top: bool = False,
    ) -> None:
        """costs: what hours are chosen by (`SegmentArrays.weighed`); None: the intensity. top: every segment at its highest ρ."""
        problem = arrays.problem
        self.arrays = arrays
        self.costs = costs or CostCurves(arrays.intensity, arrays.intensity)
        self.curve = self.costs.training
        self.end_s = self._plan_end(arrays)
        self.step_s = max(self.end_s / nodes, 1e-6)
        self.m = nodes
        self.at: Floats = np.arange(nodes + 1, dtype=np.float64) * self.step_s
        span = np.linspace(0.0, 1.0, rhos) if np.any(arrays.hi > arrays.lo + 1e-9) else np.zeros(1)
        if top:
            span = np.ones(1)
        self.rho: Floats = arrays.lo[:, None] + (arrays.hi - arrays.lo)[:, None] * span[None, :]
        """(n, rhos): the ρ that each segment may be trained at."""
        self.gain: Floats = np.stack([arrays.gain_of(k, self.rho[k]) for k in range(arrays.n)])
        """(n, rhos): the gain at that ρ."""
        self.unit = arrays.g_per_j_per_intensity
        self.pauses = problem.may_pause
        self._tables: dict[tuple[float, ...], tuple[Floats, Floats, NDArray[np.intp], Floats]] = {}
        """Kind of segment → grams (rhos, nodes + 1), seconds (rhos,), and these as whole grid steps (rhos,) and the remaining fraction (rhos, 1)."""
        self.keys: list[tuple[float, ...]] = []
        """The kind of each segment."""
        node_integral = self.curve.integral(self.at)
        idling = self.costs.idling
        self.idle: Floats = problem.idle_w * self.unit * idling.integral(self.at)
        self.switch: Floats = problem.switch_j * self.unit * idling.mean_between(self.at, self.at + 1.0)
        for k in range(arrays.n):
            key = arrays.cost_key(k)
            self.keys.append(key)
            if key in self._tables:
                continue
            joules, lasts = arrays.cost(k, self.rho[k])
            lasts = np.maximum(lasts, 1e-6)
            power = joules * self.unit / lasts
            ends = self.curve.integral(self.at[None, :] + lasts[:, None])
            whole = np.floor(lasts / self.step_s)
            self._tables[key] = (
                power[:, None] * (ends - node_integral[None, :]),
                lasts,
                whole.astype(np.intp),
                (lasts / self.step_s - whole)[:, None],
            )

        self.first, self.last = self._bands()

    def _bands(self) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
        """First and last node at which each segment can begin; other nodes are not computed."""
        arrays, m = self.arrays, self.m
        lasts = np.stack([self._tables[key][1] for key in self.keys])
        soonest = np.append(0.0, np.cumsum(lasts.min(axis=1)))[:-1]
        latest = np.full(arrays.n, np.inf)
        if not self.pauses:
            latest = np.append(0.0, np.cumsum(lasts.max(axis=1)))[:-1]
        latest = np.maximum(np.minimum(latest, arrays.latest_s[:-1]), soonest)
        # a margin on the early side, whose nodes are only reached from nodes of the same margin
        first = np.clip(np.floor(soonest / self.step_s) - 4, 0, m)
        last = np.clip(np.ceil(np.minimum(latest, self.end_s) / self.step_s) + 2, first, m)
        return first.astype(np.intp), last.astype(np.intp)

    @staticmethod
    def _plan_end(arrays: SegmentArrays) -> float:
        problem = arrays.problem
        slowest = float(arrays.slowest_s.sum())
        if not problem.may_pause:
            return slowest
        if problem.deadline_s is not None:
            return max(problem.deadline_s - problem.energy.tail_s, slowest * 0.5, 1e-3)
        return max(arrays.intensity.end_s, 2 * slowest)

    def solve(self, price: float) -> Solution:
        """The plan for λ = `price`, gain per gram; `inf` asks for the fewest grams and looks at no gain."""
        counted, price = (0.0, 1.0) if np.isinf(price) else (1.0, price)
        arrays, m = self.arrays, self.m
        latest = arrays.latest_s
        values = np.empty((arrays.n + 1, m + 1))
        trains = np.full((arrays.n, m + 1), _NEVER)
        waits = np.full((arrays.n, m + 1), _NEVER)
        energy = arrays.problem.energy
        tail_end = self.at + energy.tail_s
        values[arrays.n] = -price * energy.tail_j * self.unit * self.curve.mean_between(self.at, tail_end)
        # by kind of segment, (rhos, nodes): λ·grams
        priced = {key: price * table[0] for key, table in self._tables.items()}
        for k in range(arrays.n - 1, -1, -1):
            _, lasts, whole, part = self._tables[self.keys[k]]
            a, b = int(self.first[k]), int(self.last[k])
            width = b - a + 1
            room = int(whole.max()) + 2
            ahead = values[k + 1, a : a + width + room]
            if len(ahead) < width + room:
                ahead = np.concatenate((ahead, np.full(width + room - len(ahead), values[k + 1, -1])))
            # row i of `shifted` is `ahead` from its i-th entry on: a view, no copy (numpy's own helper is far slower)
            shifted: Floats = np.ndarray((room, width), np.float64, np.ascontiguousarray(ahead), 0, (8, 8))
            reach = shifted[whole]
            reach *= 1 - part
            after = shifted[whole + 1]
            after *= part
            reach += after
            reach -= priced[self.keys[k]][:, a : b + 1]
            if counted:
                reach += self.gain[k][:, None]
            if np.isfinite(latest[k + 1]):
                last = np.floor((latest[k + 1] + 1e-6 - lasts) / self.step_s).astype(int) + 1 - a
                quick = int(lasts.argmin())
                for r in np.flatnonzero(last < width):
                    if r != quick:
                        reach[r, max(int(last[r]), 0) :] = _NEVER
            train = reach.max(axis=0)
            trains[k, a : b + 1] = train
            value = train
            if self.pauses:
                held = train - price * self.idle[a : b + 1]
                if np.isfinite(latest[k]):
                    held[max(int(np.floor((latest[k] + 1e-6) / self.step_s)) + 1 - a, 0) :] = _NEVER
                best = np.maximum.accumulate(held[::-1])[::-1] + price * self.idle[a : b + 1]
                waits[k, a : b + 1] = best
                value = np.maximum(train, best - price * self.switch[a : b + 1])
            values[k, :a] = value[0]
            values[k, a : b + 1] = value
            values[k, b + 1 :] = value[-1]
        return self._follow(counted, price, values, trains, waits)

    def _follow(
        self, counted: float, price: float, values: Floats, trains: Floats, waits: Floats
    ) -> Solution:
        """Follow the values in continuous time, segment by segment. counted: 1, or 0 if gain is ignored. values: (n + 1, nodes + 1);
        trains, waits: (n, nodes + 1)."""
        arrays, idling, latest = self.arrays, self.costs.idling, self.arrays.latest_s
        rho, release = np.empty(arrays.n), np.zeros(arrays.n)
        now = 0.0
        for k in range(arrays.n):
            _, lasts, _, _ = self._tables[self.keys[k]]
            joules, _ = arrays.cost(k, self.rho[k])
            power = joules * self.unit / lasts
            pick, value, grams = self._best(
                k, now, lasts, power, counted, price, values[k + 1], latest[k + 1]
            )
            if self.pauses:
                first = min(int(np.ceil(now / self.step_s - 1e-9)), self.m)
                running = not (k == 0 and arrays.problem.waiting)
                held = self.idle[first] - self.unit * arrays.problem.idle_w * float(
                    idling.integral(np.array(now))
                )
                later = waits[k, first] - price * held - price * self.switch[first] * running
                if later > value + _SAVES * price * abs(grams) and later > _NEVER / 2:
                    ready = np.flatnonzero(
                        trains[k, first:] >= waits[k, first:] - 1e-12 - 1e-9 * abs(waits[k, first])
                    )
                    begin = (
                        self._align((first + int(ready[0])) * self.step_s, latest[k]) if len(ready) else 0.0
                    )
                    if begin > now + 1e-9:
                        now = begin
                        release[k] = now
                        pick, _, _ = self._best(
                            k, now, lasts, power, counted, price, values[k + 1], latest[k + 1]
                        )
            rho[k] = self.rho[k, pick]
            now += float(lasts[pick])
        bound = float(waits[0, 0]) if self.pauses and arrays.problem.waiting else float(values[0, 0])
        return Solution(rho, release, arrays.schedule(rho, release if self.pauses else None), bound)

    def _align(self, at_s: float, latest_s: float) -> float:
        """Move a wait's end to a nearby slot border: grid steps are arbitrary, slot borders are real."""
        edges = self.arrays.intensity.edges
        near = float(edges[np.abs(edges - at_s).argmin()])
        return near if abs(near - at_s) <= self.step_s and near <= latest_s + 1e-6 else at_s

    def _best(
        self,
        k: int,
        now: float,
        lasts: Floats,
        power: Floats,
        counted: float,
        price: float,
        ahead: Floats,
        latest: float,
    ) -> tuple[int, float, float]:
        """(index of ρ, value, grams) of training segment k at `now` in the best way."""
        horizon = self.curve
        ends = now + lasts
        grams = power * (horizon.integral(ends) - horizon.integral(np.array(now)))
        value = counted * self.gain[k] - price * grams + np.interp(ends, self.at, ahead)
        late = ends > latest + 1e-6
        late[int(lasts.argmin())] = False
        value[late] = _NEVER
        pick = int(value.argmax())
        return pick, float(value[pick]), float(grams[pick])
