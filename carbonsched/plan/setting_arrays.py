"""The remaining segments as arrays if each trains at one of a few real points (settings), or, if a job may end early, not at all.

In place of ρ in `SegmentArrays` this module uses the number of a point, in order of joules; only whole numbers have a meaning. The gain of a
segment is its full-equivalent steps as a share of the job's: the held-out loss depends only on their sum (`loss_curve`), so the plan
with the largest sum has the lowest expected loss.
"""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from carbonsched.plan.intensity_curve import Floats, IntensityCurve
from carbonsched.plan.problem import PlanPoint, Problem
from carbonsched.plan.segment_arrays import SegmentArrays

MOST = 96
"""Segments planned one by one; later ones are planned in groups."""


class SettingArrays(SegmentArrays):
    """The remaining work of one job, each segment at one of its points.

    Example::

        arrays = SettingArrays(problem, problem.points)
        arrays.schedule(np.zeros(arrays.n)).spend_g  # every segment at the first point, or left out
    """

    def __init__(self, problem: Problem, points: Sequence[PlanPoint]) -> None:
        """Raises ValueError if there is no point."""
        if not points:
            raise ValueError("a plan over settings needs at least one point")
        ordered = tuple(sorted(points, key=lambda p: (p.joules, p.worth)))
        self.choices: tuple[PlanPoint | None, ...] = (None, *ordered) if problem.may_end_early else ordered
        """By number; None: the segment is left out."""
        last = float(len(self.choices) - 1)
        line = ((0.0, 0.0), (last, 1.0)) if last else ((0.0, 1.0),)
        segments = tuple(replace(s, frontier=line) for s in problem.segments)
        plain = replace(problem, segments=segments, rho_min=0.0, rho_max=last, decay=1.0)
        super().__init__(plain, MOST)
        self.problem = problem
        steps = np.array([float(sum(s.steps for s in group)) for group in self.groups])
        count = np.array([float(len(group)) for group in self.groups])
        energy = problem.energy
        trained = np.array([float(p is not None) for p in self.choices])
        columns = np.array([(p.joules, p.seconds, p.worth) if p else (0.0, 0.0, 0.0) for p in self.choices])
        over = np.outer(count, trained)
        self._joules: Floats = np.outer(steps, columns[:, 0]) + energy.overhead_j * over
        self._seconds: Floats = np.outer(steps, columns[:, 1]) + energy.overhead_s * over
        self._gains: Floats = np.outer(self.share, columns[:, 2])
        self._rows = np.arange(self.n)
        self.kinds = list(zip(steps.tolist(), count.tolist(), strict=True))
        self._lasts_s = float(self.slowest_s.sum())
        self.intensity = IntensityCurve(problem.slots, problem.beyond_g_per_kwh, self._lasts_s)

    @property
    def best(self) -> Floats:
        """(n,) number of the point with the most gain."""
        worths = [p.worth if p else 0.0 for p in self.choices]
        return np.full(self.n, float(int(np.argmax(worths))))

    @property
    def fastest(self) -> Floats:
        """(n,) number of the fastest point of those that train."""
        seconds = [p.seconds if p else np.inf for p in self.choices]
        return np.full(self.n, float(int(np.argmin(seconds))))

    def point(self, number: float) -> PlanPoint | None:
        """The point of a number; None: the segment is left out."""
        return self.choices[round(number)]

    def seconds(self, rho: Floats) -> Floats:
        """(n,) seconds of the segments at points, (n,)."""
        return self._of(rho, "_seconds")

    def joules(self, rho: Floats) -> Floats:
        """(n,) joules of these segments."""
        return self._of(rho, "_joules")

    def gains(self, rho: Floats) -> Floats:
        """(n,) gain of these segments; full fine-tuning of every step has 1 in all."""
        return self._of(rho, "_gains")

    def gain_of(self, k: int, rho: Floats) -> Floats:
        """Gain of segment k at several points."""
        return np.asarray(self._gains[k, np.rint(rho).astype(int)])

    def cost(self, k: int, rho: Floats) -> tuple[Floats, Floats]:
        """(joules, seconds) of segment k at several points."""
        at = np.rint(rho).astype(int)
        return self._joules[k, at], self._seconds[k, at]

    def cost_key(self, k: int) -> tuple[float, ...]:
        """Equal for segments that take the same joules and seconds at the same point."""
        return self.kinds[k]

    @property
    def slowest_s(self) -> Floats:
        """(n,) seconds at the slowest point."""
        if not hasattr(self, "_seconds"):  # the base class calls this before the points are known
            return np.zeros(len(self.groups))
        return np.asarray(self._seconds.max(axis=1))

    @property
    def fastest_s(self) -> Floats:
        """(n,) seconds at the fastest one; 0 if a segment may be left out."""
        return np.asarray(self._seconds.min(axis=1))

    def _of(self, rho: Floats, table: str) -> Floats:
        found: Floats | None = getattr(self, table, None)
        if found is None:
            return np.zeros(len(rho))
        return np.asarray(found[self._rows, np.rint(rho).astype(int)])
