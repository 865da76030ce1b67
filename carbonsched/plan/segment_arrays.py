"""Holds the remaining segments as arrays: times, emissions and gains for any vector of ρ.

A frontier is read as a piecewise linear curve between its points and scaled so that its right end is the segment's
share of the steps. Its concave hull orders the pieces by gain per gram: taking them in that order is the
optimum if the times of the segments do not depend on ρ and the frontier is concave.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Self

import numpy as np
from numpy.typing import NDArray

from carbonsched.plan.intensity_curve import Floats, IntensityCurve, Level
from carbonsched.plan.problem import EnergyModel, Gap, JobSegment, Problem, Slot, mean_price
from carbonsched.units import G_PER_KG, J_PER_KWH

_EPS = 1e-9
"""Differences of ρ caused by rounding."""
_GAP = 1e-3
"""Seconds by which a segment must extend past the end of the allowed hours to be interrupted by it."""
_BEYOND = 32
"""Number of groups of the segments past the last slot."""
_LEAST_EUR_PER_KG = 1e-6
"""A lower value of a kg, or none, only breaks ties."""


@dataclass(frozen=True, slots=True)
class GainCurve:
    """Gain of one segment over [lo, hi], piecewise linear, and its concave hull.

    Example:
        >>> curve = GainCurve.of(((0.4, 0.0), (0.6, 9.0), (1.0, 10.0)), rho_min=0.5, rho_max=1.0)
        >>> float(curve.at(0.6)), float(curve.at(0.5))
        (0.9, 0.45)
    """

    rho: Floats
    gain: Floats
    hull_rho: Floats
    hull_gain: Floats

    @classmethod
    def of(cls, frontier: tuple[tuple[float, float], ...], rho_min: float, rho_max: float) -> Self:
        """A frontier clipped to the bounds, its right end scaled to 1 before clipping; flat zero counts as linear.

        Raises ValueError for an empty frontier.
        """
        points = np.asarray(frontier, dtype=float)
        if points.ndim != 2 or points.shape[1] != 2 or len(points) == 0:
            raise ValueError("a frontier is a non-empty list of (rho, gain)")
        x, y = points[:, 0], np.maximum.accumulate(points[:, 1])
        top = y[-1]
        y = y / top if top > 0 else x / x[-1]
        lo = max(rho_min, float(x[0]))
        hi = max(min(rho_max, float(x[-1])), lo)
        inner = (x > lo + _EPS) & (x < hi - _EPS)
        rho = np.concatenate(([lo], x[inner], [hi] if hi > lo + _EPS else []))
        gain = np.interp(rho, x, y)
        keep = _hull(rho, gain)
        return cls(rho, gain, rho[keep], gain[keep])

    def at(self, rho: Floats | float) -> Floats:
        """Gain at ρ, any shape: 1 at the frontier's right end."""
        return np.asarray(np.interp(rho, self.rho, self.gain))


def _hull(x: Floats, y: Floats) -> list[int]:
    """Indices of the upper concave hull of an ascending curve."""
    keep: list[int] = []
    for i in range(len(x)):
        while len(keep) > 1:
            a, b = keep[-2], keep[-1]
            if (y[b] - y[a]) * (x[i] - x[a]) > (y[i] - y[a]) * (x[b] - x[a]) + 1e-15:
                break
            keep.pop()
        keep.append(i)
    return keep


@dataclass(frozen=True)
class Schedule:
    """The times and emissions of the segments, for one vector of ρ. All arrays are (n,), times in seconds from now.

    Example:
        >>> Schedule(np.array([0.0, 60.0]), np.array([60.0, 120.0]), np.array([1.5, 2.0])).spend_g
        3.5
    """

    start_s: Floats
    end_s: Floats
    grams: Floats
    """Grams of each segment, with the wait before it; the last also has the tail."""

    @property
    def spend_g(self) -> float:
        """Grams of all segments."""
        return float(self.grams.sum())

    @property
    def finish_s(self) -> float:
        """End of the last one."""
        return float(self.end_s[-1])


@dataclass(frozen=True, slots=True)
class CostCurves:
    """The cost by which hours are chosen, in g/kWh over time: the intensity, and money as grams. Budgets use the intensity alone.

    Example::

        costs = arrays.weighed(1.0)
        costs.idling.now >= arrays.intensity.now  # waiting earns nothing, even at a negative price
    """

    training: IntensityCurve
    idling: IntensityCurve
    """Cost of the energy of waits: a negative price counts as zero, else a waiting job would earn money."""


class SegmentArrays:
    """The remaining work of one job: n segments (or groups of them), their bounds, energy, time and gain.

    Raises ValueError if the problem has no segment or no slot.

    Example::

        arrays = SegmentArrays(problem)
        schedule = arrays.schedule(arrays.lo)  # the lowest ρ for every segment, back to back
        print(schedule.spend_g, arrays.gains(arrays.lo).sum())
    """

    def __init__(self, problem: Problem, most: int | None = None) -> None:
        """`most`: most groups, the first segment stays alone; None: all segments within the forecast."""
        groups = _grouped(problem, most)
        total = sum(s.steps for s in problem.segments)
        energy: EnergyModel = problem.energy
        self.problem = problem
        self.groups = groups
        self.n = len(groups)
        steps = np.array([float(sum(s.steps for s in group)) for group in groups])
        count = np.array([float(len(group)) for group in groups])
        self.share: Floats = steps / max(total, 1)
        if problem.decay != 1.0:
            later = problem.decay ** np.arange(len(problem.segments))
            worth = later * np.array([float(s.steps) for s in problem.segments])
            firsts = np.cumsum(np.append(0, count[:-1])).astype(int)
            self.share = np.add.reduceat(worth, firsts) / worth.sum()
        seen: dict[int, GainCurve] = {}
        self.curves: list[GainCurve] = []
        for group in groups:
            key = id(group[0].frontier)
            if key not in seen:
                seen[key] = GainCurve.of(group[0].frontier, problem.rho_min, problem.rho_max)
            self.curves.append(seen[key])
        self.lo: Floats = np.array([c.rho[0] for c in self.curves])
        self.hi: Floats = np.array([c.rho[-1] for c in self.curves])
        self._j0 = steps * energy.joules_full * energy.joules_c0 + count * energy.overhead_j
        self._j1 = steps * energy.joules_full * (1 - energy.joules_c0)
        self._s0 = steps * energy.seconds_full * energy.seconds_c0 + count * energy.overhead_s
        self._s1 = steps * energy.seconds_full * (1 - energy.seconds_c0)
        self.g_per_j_per_intensity = problem.pue / J_PER_KWH
        self._lasts_s = float(self.slowest_s.sum())
        self.intensity = IntensityCurve(problem.slots, problem.beyond_g_per_kwh, self._lasts_s)
        self._mean_price = mean_price(problem.slots)
        self.weighs_money = problem.eur_per_kg is not None and self._mean_price is not None

    def weighed(self, share: float) -> CostCurves:
        """The intensity plus `share` of the price, converted to grams of the same value."""
        problem, mean = self.problem, self._mean_price
        if not self.weighs_money or problem.eur_per_kg is None or mean is None or share <= 0:
            return CostCurves(self.intensity, self.intensity)
        g_per_eur = share * G_PER_KG / max(problem.eur_per_kg, _LEAST_EUR_PER_KG)

        def curve(least_eur_per_kwh: float) -> IntensityCurve:
            def cost(g_per_kwh: float, eur_per_kwh: float | None) -> float:
                return g_per_kwh + g_per_eur * max(
                    mean if eur_per_kwh is None else eur_per_kwh, least_eur_per_kwh
                )

            costs = [cost(slot.g_per_kwh, slot.eur_per_kwh) for slot in problem.slots]
            slots = tuple(
                replace(slot, g_per_kwh=c, high=c, low=c)
                for slot, c in zip(problem.slots, costs, strict=True)
            )
            beyond = tuple(cost(g, None) for g in problem.beyond_g_per_kwh)
            return IntensityCurve(slots, beyond, self._lasts_s)

        return CostCurves(curve(-math.inf), curve(0.0))

    @cached_property
    def price(self) -> IntensityCurve | None:
        """EUR/kWh over time, the mean where it is unknown; None if no price is known."""
        return price_curve(self.problem)

    def seconds(self, rho: Floats) -> Floats:
        """(n,) seconds of the segments at ρ, (n,)."""
        return self._s0 + self._s1 * rho

    def joules(self, rho: Floats) -> Floats:
        """(n,) joules of these segments."""
        return self._j0 + self._j1 * rho

    @property
    def marginal_j(self) -> Floats:
        """(n,) joules per unit of ρ."""
        return self._j1

    def gain_of(self, k: int, rho: Floats) -> Floats:
        """Gain of segment k at several ρ."""
        found: Floats = self.share[k] * self.curves[k].at(rho)
        return found

    @property
    def slowest_s(self) -> Floats:
        """(n,) seconds at the slowest ρ."""
        return np.asarray(np.maximum(self.seconds(self.lo), self.seconds(self.hi)))

    @property
    def fastest_s(self) -> Floats:
        """(n,) seconds at the fastest ρ."""
        return np.asarray(np.minimum(self.seconds(self.lo), self.seconds(self.hi)))

    def cost(self, k: int, rho: Floats) -> tuple[Floats, Floats]:
        """(joules, seconds) of segment k at several ρ."""
        return self._j0[k] + self._j1[k] * rho, self._s0[k] + self._s1[k] * rho

    def cost_key(self, k: int) -> tuple[float, ...]:
        """Equal for segments that take the same joules and seconds at the same ρ."""
        columns = (self.lo, self.hi, self._j0, self._j1, self._s0)
        return tuple(float(column[k]) for column in columns)

    @cached_property
    def latest_s(self) -> Floats:
        """n + 1 latest start times that still meet the deadline at the fastest ρ; the last is the latest end."""
        deadline = self.problem.deadline_s
        if deadline is None:
            return np.full(self.n + 1, np.inf)
        after = np.append(np.cumsum(self.fastest_s[::-1])[::-1], 0.0)
        return deadline - self.problem.energy.tail_s - after

    def gains(self, rho: Floats) -> Floats:
        """Gain of each segment at its ρ."""
        out = np.empty(self.n)
        for one, where in self._by_curve:
            out[where] = one.at(rho[where])
        return out * self.share

    @cached_property
    def _by_curve(self) -> list[tuple[GainCurve, NDArray[np.intp]]]:
        """Segments by curve: most share one, so one interpolation covers all of them."""
        rows: dict[int, list[int]] = {}
        for k, one in enumerate(self.curves):
            rows.setdefault(id(one), []).append(k)
        return [(self.curves[ks[0]], np.array(ks)) for ks in rows.values()]

    def hull_pieces(self, base: Floats, top: Floats) -> tuple[NDArray[np.intp], Floats, Floats]:
        """(segment, Δρ, Δgain) of every hull piece between `base` and `top`, in no order."""
        parts = []
        for one, where in self._by_curve:
            steps = np.diff(one.hull_rho)
            if not len(steps):
                continue
            low = np.maximum(one.hull_rho[None, :-1], base[where][:, None])
            high = np.minimum(one.hull_rho[None, 1:], top[where][:, None])
            widths = np.maximum(high - low, 0.0)
            slopes = np.diff(one.hull_gain) / steps
            gains = widths * slopes[None, :] * self.share[where][:, None]
            segment = np.repeat(where, len(steps))
            parts.append((segment, widths.ravel(), gains.ravel()))
        if not parts:
            empty = np.empty(0)
            return np.empty(0, dtype=np.intp), empty, empty
        segment, width, gain = (np.concatenate(column) for column in zip(*parts, strict=True))
        keep = width > _EPS
        return segment[keep], width[keep], gain[keep]

    def schedule(self, rho: Floats, release_s: Floats | None = None, level: Level = "mean") -> Schedule:
        """Place segments of ρ, (n,), in time; `release_s`, (n,): earliest starts (waits); None: without pause."""
        lasts = self.seconds(rho)
        before = np.append(0.0, np.cumsum(lasts))
        if release_s is None:
            start, end = before[:-1], before[1:]
        else:
            start = before[:-1] + np.maximum.accumulate(np.maximum(release_s - before[:-1], 0.0))
            end = start + lasts
        grams = self._charged(self.intensity, rho, start, end, pauses=release_s is not None, level=level)
        return Schedule(start, end, grams + self._of_gaps(end, lambda gap: gap.grams))

    def _of_gaps(self, end: Floats, amount: Callable[[Gap], float]) -> Floats | float:
        """(n,) cost of the pauses that the allowed hours force on segments with these ends."""
        gaps = self.problem.gaps
        if not gaps:
            return 0.0
        crossed = np.searchsorted(np.array([gap.at_s for gap in gaps]), end - _GAP)
        sums = np.append(0.0, np.cumsum([amount(gap) for gap in gaps]))
        found: Floats = np.diff(sums[np.append(0, crossed)])
        return found

    def cost_g(self, rho: Floats, schedule: Schedule, costs: CostCurves) -> float:
        """Grams of a schedule that may pause, with money weighed in by `costs`."""
        start, end = schedule.start_s, schedule.end_s
        return float(self._charged(costs.training, rho, start, end, pauses=True, idle=costs.idling).sum())

    def eur(self, rho: Floats, schedule: Schedule) -> Floats | None:
        """(n,) EUR of the segments as scheduled, waits included; None if no price is known."""
        if self.price is None:
            return None
        return self._in_all(self.price, rho, schedule, lambda gap: gap.eur)

    def drawn_j(self, rho: Floats, schedule: Schedule) -> Floats:
        """(n,) joules of the segments as scheduled, waits included: the energy of their grams and EUR."""
        one_each = 1.0 / self.g_per_j_per_intensity
        flat = IntensityCurve((Slot(0.0, 1.0, one_each, one_each),))
        return self._in_all(flat, rho, schedule, lambda gap: gap.joules)

    def _in_all(
        self, curve: IntensityCurve, rho: Floats, schedule: Schedule, of_gap: Callable[[Gap], float]
    ) -> Floats:
        start, end = schedule.start_s, schedule.end_s
        charged = self._charged(curve, rho, start, end, pauses=self.problem.may_pause)
        return charged + self._of_gaps(end, of_gap)

    def _charged(
        self,
        horizon: IntensityCurve,
        rho: Floats,
        start: Floats,
        end: Floats,
        *,
        pauses: bool,
        level: Level = "mean",
        idle: IntensityCurve | None = None,
    ) -> Floats:
        """(n,) cost of the segments' joules, of the waits before them (by `idle` if given), and of the tail."""
        problem, unit = self.problem, self.g_per_j_per_intensity
        grams = self.joules(rho) * unit * horizon.mean_between(start, end, level)
        energy = problem.energy
        if energy.tail_j > 0:
            tail = horizon.mean_between(end[-1:], end[-1:] + energy.tail_s, level)
            grams[-1] += energy.tail_j * unit * float(tail[0])
        if pauses and (problem.idle_w > 0 or problem.switch_j > 0):
            left = np.append(0.0, end[:-1])
            waits = start - left
            paused = waits > 1e-6
            switches = paused.copy()
            switches[0] &= not problem.waiting
            mean = (idle or horizon).mean_between(left, start, level)
            grams += np.where(paused, unit * mean * problem.idle_w * waits, 0.0)
            grams += np.where(switches, unit * mean * problem.switch_j, 0.0)
        return grams


def price_curve(problem: Problem) -> IntensityCurve | None:
    """EUR/kWh over time, the mean where it is unknown; None if no price is known."""
    slots = problem.paid or problem.slots
    mean = mean_price(slots)
    if mean is None:
        return None
    prices = [mean if slot.eur_per_kwh is None else slot.eur_per_kwh for slot in slots]
    return IntensityCurve(
        tuple(replace(slot, g_per_kwh=p, high=p, low=p) for slot, p in zip(slots, prices, strict=True))
    )


def _grouped(problem: Problem, most: int | None) -> list[tuple[JobSegment, ...]]:
    """The segments one by one as far as the forecast reaches and `most` allows, the rest in groups.

    Past the last slot all hours are alike, so grouping loses nothing there.
    """
    segments = problem.segments
    if not segments:
        raise ValueError("no segment remains: there is nothing to plan")
    if most is None:
        longest = problem.energy.seconds(problem.rho_max, max(s.steps for s in segments))
        reach = problem.slots[-1].end_s if problem.slots else 0.0
        single = len(segments) if longest <= 0 else min(len(segments), math.ceil(reach / longest) + 1)
        size = -(-(len(segments) - single) // _BEYOND)
    else:
        single = len(segments) if len(segments) <= most else 1
        size = -(-(len(segments) - 1) // (most - 1))
    return [(s,) for s in segments[:single]] + [
        segments[i : i + size] for i in range(single, len(segments), max(size, 1))
    ]
