"""The best plan of real settings out of many partial plans, extended segment by segment and ranked by a price for grams and one for time.

Settings are discrete: between two prices there are many plans that neither price finds, more so with few segments. So the partial plans
are extended with every setting, with their real time and grams, and the most promising are kept: those with the most gain after paying
for their grams and time. Segments are left out only at the end, since a job that ends early ends.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from carbonsched.plan.dynamic_program import Solution
from carbonsched.plan.intensity_curve import Floats
from carbonsched.plan.price_search import TIE
from carbonsched.plan.setting_arrays import SettingArrays
from carbonsched.plan.two_prices import Prices

_SCALES = ((1.0, 1.0, 200), (0.5, 1.0, 80), (1.0, 0.5, 80), (0.5, 0.5, 40))
"""Shares of the price for grams and of the one for time, and the number of partial plans kept by them. At the prices themselves a plan that
leaves much unused looks as good as one that uses everything."""
_CELLS = 1000
"""Plans that end within the same part of the time count as ending together: number of parts of the job's longest time."""
_PAUSE_S = 1e-6
"""Least length of a wait."""


@dataclass(frozen=True, slots=True)
class _States:
    """Partial plans, (w,) each."""

    end_s: Floats
    grams: Floats
    gain: Floats
    came_from: NDArray[np.intp]
    number: NDArray[np.intp]

    def only(self, rows: NDArray[np.intp]) -> "_States":
        return _States(
            self.end_s[rows], self.grams[rows], self.gain[rows], self.came_from[rows], self.number[rows]
        )


def best_by_beam(
    arrays: SettingArrays, prices: Prices, budget_g: float, release_s: Floats
) -> Solution | None:
    """The plan with the most gain found within the budget and the deadline; None if none was found.

    release_s: (n,) earliest starts, if the job may pause.
    """
    beam = _Beam(arrays, prices, budget_g, release_s)
    zero = np.zeros(1)
    states = _States(zero, zero, zero, np.zeros(1, np.intp), np.ones(1, np.intp))
    history: list[_States] = []
    for k in range(arrays.n):
        found = beam.extend(k, states)
        if found is None:
            return None
        states = found
        history.append(states)
    for index in np.lexsort((states.grams, -np.round(states.gain, 12))):
        rho, at = np.zeros(arrays.n), int(index)
        for k in range(arrays.n - 1, -1, -1):
            rho[k] = history[k].number[at]
            at = int(history[k].came_from[at])
        release = np.where(rho == beam.none, 0.0, release_s)
        schedule = arrays.schedule(rho, release if arrays.problem.may_pause else None)
        if schedule.spend_g <= budget_g * (1 + TIE) and schedule.finish_s <= arrays.latest_s[-1] + 1e-6:
            return Solution(rho, release, schedule, 0.0)
    return None


class _Beam:
    def __init__(self, arrays: SettingArrays, prices: Prices, budget_g: float, release_s: Floats) -> None:
        self.arrays, self.prices, self.budget_g = arrays, prices, budget_g * (1 + TIE)
        self.release_s = release_s if arrays.problem.may_pause else np.zeros(arrays.n)
        self.numbers = np.arange(len(arrays.choices))
        self.choices: Floats = self.numbers.astype(np.float64)
        self.none = 0 if arrays.problem.may_end_early else -1
        """Number of the choice that leaves a segment out; -1: there is none."""
        least_j = np.array([arrays.cost(k, self.choices)[0].min() for k in range(arrays.n)])
        cleanest = float(arrays.intensity.mean.min()) * arrays.g_per_j_per_intensity
        tail_g = arrays.problem.energy.tail_j * cleanest
        self.rest_g = np.append(np.cumsum(least_j[::-1])[::-1][1:], 0.0) * cleanest + tail_g
        """(n,) least grams of all segments after a segment."""
        self.span_s = max(float(arrays.slowest_s.sum()), 1e-9)
        gaps = arrays.problem.gaps
        self.gap_ends = np.array([gap.at_s for gap in gaps])
        self.gap_sums = np.append(0.0, np.cumsum([gap.grams for gap in gaps]))

    def extend(self, k: int, states: _States) -> _States | None:
        """Every partial plan with every choice for segment k; None if none can go on."""
        arrays = self.arrays
        joules, lasts = arrays.cost(k, self.choices)
        gains = arrays.gain_of(k, self.choices)
        start = np.maximum(states.end_s, self.release_s[k])
        trained = self.numbers != self.none
        # a segment that is left out takes no time and waits for nothing
        begins = np.where(trained[None, :], start[:, None], states.end_s[:, None])
        ends = begins + lasts[None, :]
        grams = joules[None, :] * arrays.g_per_j_per_intensity * arrays.intensity.mean_between(begins, ends)
        grams += states.grams[:, None] + self._of_wait(k, states.end_s, begins)
        gain = states.gain[:, None] + gains[None, :]
        allowed = ends <= float(arrays.latest_s[k + 1]) + 1e-6
        allowed &= grams + self._of_gaps(ends) + self.rest_g[k] <= self.budget_g
        if self.none >= 0:
            over = states.number == self.none
            allowed &= ~over[:, None] | ~trained[None, :]
            if k == 0:
                allowed[:, self.none] = False
        origin, number = np.nonzero(allowed)
        if not len(origin):
            return None
        at = (origin, number)
        found = _States(ends[at], grams[at], gain[at], origin.astype(np.intp), number.astype(np.intp))
        return self._kept(found)

    def _kept(self, states: _States) -> _States:
        """The most promising plans that no other dominates in grams and gain."""
        over = states.number == self.none
        time = 2 * np.rint(states.end_s / self.span_s * _CELLS) + over
        order = np.lexsort((-states.gain, states.grams, time))
        # a plan is kept if it gains more than all that end with it and take fewer grams
        level = time[order] * 4 + states.gain[order]  # gains are at most 1, so each time has its own range
        best_before = np.maximum.accumulate(np.append(-np.inf, level[:-1]))
        good = order[level > best_before + TIE]
        taken = states.grams[good] + self._of_gaps(states.end_s[good])
        keep: set[int] = set()
        for per_g, per_s, count in _SCALES:
            price_g, price_s = per_g * self.prices.per_g, per_s * self.prices.per_s
            promise = states.gain[good] - price_g * taken - price_s * states.end_s[good]
            keep.update(good[np.argsort(-promise, kind="stable")[:count]].tolist())
        kept = np.array(sorted(keep), dtype=np.intp)
        return states.only(kept)

    def _of_wait(self, k: int, left_s: Floats, begins: Floats) -> Floats | float:
        """Grams of the waits before segment k."""
        problem = self.arrays.problem
        if not problem.may_pause or (problem.idle_w <= 0 and problem.switch_j <= 0):
            return 0.0
        waits = begins - left_s[:, None]
        paused = waits > _PAUSE_S
        mean = self.arrays.intensity.mean_between(np.broadcast_to(left_s[:, None], begins.shape), begins)
        switch = 0.0 if k == 0 and problem.waiting else problem.switch_j
        drawn = np.where(paused, problem.idle_w * waits + switch, 0.0)
        return np.asarray(drawn * mean * self.arrays.g_per_j_per_intensity)

    def _of_gaps(self, ends: Floats) -> Floats | float:
        """Grams of the pauses that the allowed hours force until then."""
        if not len(self.gap_ends):
            return 0.0
        return np.asarray(self.gap_sums[np.searchsorted(self.gap_ends, ends - 1e-3)])
