"""The segments ahead as arrays: when each runs, what it emits and what it gains, for any vector of ρ.

A frontier is read as a piecewise linear curve between its points and scaled so that its right end is the segment's
share of the steps (DESIGN 4). Its concave hull orders the pieces by gain a gram: taking them in that order is the
optimum wherever the times of the segments do not depend on ρ and the frontier is concave.
"""

import math
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from carbonsched.plan.problem import EnergyModel, Problem, Segment, Slot
from carbonsched.units import J_PER_KWH

Floats = NDArray[np.float64]
Level = Literal["mean", "high", "low"]
"""Which intensity to reckon with: the expected one or a quantile."""

_EPS = 1e-9
_GAP = 1e-3
"""Seconds by which a segment must pass the end of the allowed hours to be interrupted by it."""
_GOLDEN = 0.6180339887498949
_BEYOND = 32
"""Groups made of the segments past the last slot."""


class Horizon:
    """Intensity over time as its integral, so that segments may straddle slots at no extra cost.

    Past the last slot come the values of `beyond`, each for an equal part of the time up to `until_s`, and after it, or
    without them, the mean of all slots; the quantiles in proportion. A year has clean hours and dirty ones whatever its
    mean: were it taken as flat, every hour dirtier than the mean would look worth saving for it.
    """

    def __init__(self, slots: tuple[Slot, ...], beyond: tuple[float, ...] = (), until_s: float = 0.0) -> None:
        if not slots:
            raise ValueError("a plan needs at least one slot of intensity")
        table = np.array(
            [
                (s.start_s, s.end_s, s.g_per_kwh, s.high, s.g_per_kwh if s.low is None else s.low)
                for s in slots
            ]
        )
        table[0, 0] = min(table[0, 0], 0.0)
        self.end_s = float(table[-1, 1])
        """To where the forecast reaches."""
        if beyond and until_s > self.end_s + 1.0:
            table = np.concatenate((table, _scattered(table, beyond, until_s)))
        lengths = table[:, 1] - table[:, 0]
        if lengths.min() <= 0 or np.abs(table[1:, 0] - table[:-1, 1]).max(initial=0.0) > 1e-3:
            raise ValueError("slots must be ascending and without holes")
        self.edges: Floats = np.append(table[:, 0], table[-1, 1])
        self.mean: Floats = table[:, 2]
        levels = {
            "mean": self.mean,
            "high": np.maximum(table[:, 3], self.mean),
            "low": np.minimum(table[:, 4], self.mean),
        }
        self._sums = {name: np.append(0.0, np.cumsum(lengths * g)) for name, g in levels.items()}
        span = float(lengths.sum())
        self._beyond = {name: float(total[-1]) / span for name, total in self._sums.items()}

    @property
    def now(self) -> float:
        """g/kWh at second 0."""
        return float(self.mean[int(np.searchsorted(self.edges, 0.0, side="right")) - 1])

    def integral(self, at_s: Floats, level: Level = "mean") -> Floats:
        """∫ intensity from the first slot's start to `at_s`, g/kWh·s; any shape."""
        known, rate = self._sums[level], self._beyond[level]
        total: Floats = np.interp(at_s, self.edges, known) + rate * np.maximum(at_s - self.edges[-1], 0.0)
        return total

    def between(self, start_s: Floats, end_s: Floats, level: Level = "mean") -> Floats:
        """Mean g/kWh over [start_s, end_s); an empty stretch takes a second of it."""
        end = np.maximum(end_s, start_s + 1e-3)
        return (self.integral(end, level) - self.integral(start_s, level)) / (end - start_s)


def _scattered(table: Floats, beyond: tuple[float, ...], until_s: float) -> Floats:
    """Rows of slots behind those of `table`, one a value, clean and dirty ones by turns."""
    order = np.argsort(np.arange(len(beyond)) * _GOLDEN % 1.0)
    value = np.array(beyond)[order]
    edges = np.linspace(table[-1, 1], until_s, len(beyond) + 1)
    spans = table[:, 1] - table[:, 0]
    high, low = (float((spans * table[:, c]).sum() / max((spans * table[:, 2]).sum(), 1e-9)) for c in (3, 4))
    return np.column_stack((edges[:-1], edges[1:], value, value * max(high, 1.0), value * min(low, 1.0)))


@dataclass(frozen=True, slots=True)
class Curve:
    """Gain of one segment over [lo, hi], piecewise linear, and its concave hull."""

    rho: Floats
    gain: Floats
    hull_rho: Floats
    hull_gain: Floats

    def at(self, rho: Floats | float) -> Floats:
        return np.asarray(np.interp(rho, self.rho, self.gain))


def curve(frontier: tuple[tuple[float, float], ...], rho_min: float, rho_max: float) -> Curve:
    """A frontier clipped to the bounds, its right end scaled to 1 before clipping; flat zero counts as linear."""
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
    return Curve(rho, gain, rho[keep], gain[keep])


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
class Rolled:
    """A vector of ρ laid out in time."""

    start_s: Floats
    end_s: Floats
    grams: Floats
    """Of each segment, the wait before it included; the last also has the tail."""

    @property
    def spend_g(self) -> float:
        return float(self.grams.sum())

    @property
    def finish_s(self) -> float:
        return float(self.end_s[-1])


class Track:
    """What one job still has to run: n segments (or groups of them), their bounds, energy, time and gain."""

    def __init__(self, problem: Problem, most: int | None = None) -> None:
        """`most`: groups at most, the first segment stays alone; None: all that lie within the forecast."""
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
        seen: dict[int, Curve] = {}
        self.curves: list[Curve] = []
        for group in groups:
            key = id(group[0].frontier)
            if key not in seen:
                seen[key] = curve(group[0].frontier, problem.rho_min, problem.rho_max)
            self.curves.append(seen[key])
        self.lo: Floats = np.array([c.rho[0] for c in self.curves])
        self.hi: Floats = np.array([c.rho[-1] for c in self.curves])
        self._j0 = steps * energy.joules_full * energy.joules_c0 + count * energy.overhead_j
        self._j1 = steps * energy.joules_full * (1 - energy.joules_c0)
        self._s0 = steps * energy.seconds_full * energy.seconds_c0 + count * energy.overhead_s
        self._s1 = steps * energy.seconds_full * (1 - energy.seconds_c0)
        self.g_per_j_per_intensity = problem.pue / J_PER_KWH
        lasts = float(np.maximum(self.seconds(self.lo), self.seconds(self.hi)).sum())
        self.horizon = Horizon(problem.slots, problem.beyond_g_per_kwh, lasts)

    def seconds(self, rho: Floats) -> Floats:
        return self._s0 + self._s1 * rho

    def joules(self, rho: Floats) -> Floats:
        return self._j0 + self._j1 * rho

    @property
    def marginal_j(self) -> Floats:
        """Joules a unit of ρ, each segment."""
        return self._j1

    def times(self, k: int, rho: Floats) -> tuple[Floats, Floats]:
        """(joules, seconds) of segment k at several ρ."""
        return self._j0[k] + self._j1[k] * rho, self._s0[k] + self._s1[k] * rho

    def kind(self, k: int) -> tuple[float, ...]:
        """What segments have in common that take the same joules and seconds at the same ρ."""
        columns = (self.lo, self.hi, self._j0, self._j1, self._s0)
        return tuple(float(column[k]) for column in columns)

    @cached_property
    def latest_s(self) -> Floats:
        """n + 1 latest start times that still meet the deadline at the fastest ρ; the last is the latest end."""
        deadline = self.problem.deadline_s
        if deadline is None:
            return np.full(self.n + 1, np.inf)
        fastest = np.minimum(self.seconds(self.lo), self.seconds(self.hi))
        after = np.append(np.cumsum(fastest[::-1])[::-1], 0.0)
        return deadline - self.problem.energy.tail_s - after

    def gains(self, rho: Floats) -> Floats:
        """Gain of each segment at its ρ."""
        out = np.empty(self.n)
        for one, where in self._same:
            out[where] = one.at(rho[where])
        return out * self.share

    @cached_property
    def _same(self) -> list[tuple[Curve, NDArray[np.intp]]]:
        """Segments by curve: most share one, and one interpolation does for all of them."""
        rows: dict[int, list[int]] = {}
        for k, one in enumerate(self.curves):
            rows.setdefault(id(one), []).append(k)
        return [(self.curves[ks[0]], np.array(ks)) for ks in rows.values()]

    def pieces(self, base: Floats, top: Floats) -> tuple[NDArray[np.intp], Floats, Floats]:
        """(segment, Δρ, Δgain) of every hull piece between `base` and `top`, in no order."""
        parts = []
        for one, where in self._same:
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

    def roll(self, rho: Floats, release_s: Floats | None = None, level: Level = "mean") -> Rolled:
        """Lay ρ out in time; `release_s` are the earliest starts (waits), none: back to back."""
        problem, unit, horizon = self.problem, self.g_per_j_per_intensity, self.horizon
        lasts = self.seconds(rho)
        before = np.append(0.0, np.cumsum(lasts))
        if release_s is None:
            start, end = before[:-1], before[1:]
        else:
            start = before[:-1] + np.maximum.accumulate(np.maximum(release_s - before[:-1], 0.0))
            end = start + lasts
        grams = self.joules(rho) * unit * horizon.between(start, end, level)
        energy = problem.energy
        if energy.tail_j > 0:
            tail = horizon.between(end[-1:], end[-1:] + energy.tail_s, level)
            grams[-1] += energy.tail_j * unit * float(tail[0])
        if release_s is not None and (problem.idle_w > 0 or problem.switch_j > 0):
            left = np.append(0.0, end[:-1])
            waits = start - left
            paused = waits > 1e-6
            switches = paused.copy()
            switches[0] &= not problem.waiting
            mean = horizon.between(left, start, level)
            grams += np.where(paused, unit * mean * problem.idle_w * waits, 0.0)
            grams += np.where(switches, unit * mean * problem.switch_j, 0.0)
        if problem.gaps:
            at, cost = np.array(problem.gaps).T
            crossed = np.searchsorted(at, end - _GAP)
            grams += np.diff(np.append(0.0, np.cumsum(cost))[np.append(0, crossed)])
        return Rolled(start, end, grams)


def _grouped(problem: Problem, most: int | None) -> list[tuple[Segment, ...]]:
    """The segments one by one as far as the forecast reaches and `most` allows, the rest in groups.

    Past the last slot nothing tells one hour from another, so there a group loses nothing.
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
