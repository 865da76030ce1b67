"""Plans a job that may run only in allowed hours in *working* time, from which all other hours are removed.

In working time the grid's slots, the deadline and the segments have no gaps, so neither the dynamic program nor the
guard knows of allowed hours. A segment that is still running when they end continues when they begin again, after a
checkpoint and a reload, whose joules are charged at that point (`Problem.gaps`).
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Self

import numpy as np

from carbonsched.model.allowed_hours import stretches
from carbonsched.plan import reasons
from carbonsched.plan.intensity_curve import Floats, IntensityCurve
from carbonsched.plan.problem import Gap, Plan, Problem, Slot, mean_price
from carbonsched.plan.segment_arrays import price_curve
from carbonsched.units import J_PER_KWH, grams

_TOUCH = 1e-4
"""Seconds within which two times count as the same."""


@dataclass(frozen=True, slots=True)
class WorkingTime:
    """Ascending, disjoint intervals (start, end), (n,) wall seconds from now; the first may have begun before now.

    They should reach as far as the deadline and the forecast. Work that does not fit into them is placed after the last
    interval, at their mean share.

    Example:
        >>> hours = WorkingTime.of([(3600.0, 7200.0), (10_800.0, 14_400.0)])
        >>> hours.wall_start(0.0), hours.wall_end(5400.0), float(hours.working_s(9000.0))
        (3600.0, 12600.0, 3600.0)
    """

    start: Floats
    end: Floats
    before: Floats
    """(n + 1,) working seconds before each interval, and in all."""

    @classmethod
    def of(cls, stretches: Sequence[tuple[float, float]]) -> Self:
        """Raises ValueError if none of them is left from now on, or they are out of order."""
        table = np.array([(max(a, 0.0), b) for a, b in stretches if b > _TOUCH], dtype=float).reshape(-1, 2)
        if not len(table):
            raise ValueError("no allowed hours lie ahead")
        if np.any(table[:, 1] <= table[:, 0]) or np.any(table[1:, 0] < table[:-1, 1]):
            raise ValueError("allowed hours must be ascending and disjoint")
        return cls(table[:, 0], table[:, 1], np.append(0.0, np.cumsum(table[:, 1] - table[:, 0])))

    @classmethod
    def daily(cls, spans: Sequence[str], timezone: str, now: datetime, until_s: float) -> Self:
        """The allowed hours of each day (`model.allowed_hours`) from `now` on, up to `until_s`."""
        found = stretches(spans, timezone, now, now + timedelta(seconds=until_s))
        return cls.of([((a - now).total_seconds(), (b - now).total_seconds()) for a, b in found])

    @property
    def share(self) -> float:
        """Working seconds per wall second."""
        return float(self.before[-1] / self.end[-1])

    def working_s(self, wall: Floats | float) -> Floats:
        """Working seconds from now to a wall time; any shape. None are counted past the last interval."""
        i = np.clip(np.searchsorted(self.start, wall, side="right") - 1, 0, len(self.start) - 1)
        inside = np.clip(wall - self.start[i], 0.0, self.end[i] - self.start[i])
        out: Floats = self.before[i] + inside
        return out

    def wall_start(self, work: float) -> float:
        """The wall time at which the working second after `work` begins."""
        return self._wall(work, "right")

    def wall_end(self, work: float) -> float:
        """The wall time at which `work` seconds are done."""
        return self._wall(work, "left") if work > 0 else 0.0

    def _wall(self, work: float, side: str) -> float:
        shift = _TOUCH if side == "right" else -_TOUCH
        i = int(np.searchsorted(self.before[1:], work + shift, side="right"))
        if i >= len(self.start):
            return float(self.end[-1] + (work - self.before[-1]) / self.share)
        return float(self.start[i] + max(work - self.before[i], 0.0))

    def cut(self, problem: Problem) -> Problem:
        """The problem in working time; `restore` translates its plan back."""
        horizon = IntensityCurve(problem.slots)
        deadline = problem.deadline_s
        wait_from = np.append(0.0, self.end[:-1])
        gap_s = self.start - wait_from
        crossed = gap_s > _TOUCH
        joules = problem.idle_w * gap_s + problem.switch_j
        rates = horizon.mean_between(wait_from, self.start)
        first = crossed[0] and problem.waiting
        joules -= first * (np.arange(len(joules)) == 0) * problem.switch_j
        price = price_curve(problem)
        eur = np.zeros(len(joules)) if price is None else price.mean_between(wait_from, self.start)
        columns = (self.before[:-1], joules, rates, eur / J_PER_KWH * problem.pue * joules)
        gaps = tuple(
            Gap(at, j, grams(j, rate, problem.pue), paid)
            for at, j, rate, paid in zip(*(column[crossed].tolist() for column in columns), strict=True)
        )
        return replace(
            problem,
            allowed=None,
            slots=self.cut_slots(problem.slots, horizon),
            paid=self.cut_slots(problem.paid, IntensityCurve(problem.paid)) if problem.paid else (),
            deadline_s=None
            if deadline is None
            else float(self.working_s(deadline))
            if deadline > 0
            else deadline,
            gaps=gaps,
        )

    def cut_slots(self, slots: tuple[Slot, ...], horizon: IntensityCurve) -> tuple[Slot, ...]:
        edges = np.array([max(s.start_s, 0.0) for s in slots] + [slots[-1].end_s])
        worked = self.working_s(edges)
        kept = tuple(
            replace(slot, start_s=a, end_s=b)
            for slot, a, b in zip(slots, worked[:-1].tolist(), worked[1:].tolist(), strict=True)
            if b - a > _TOUCH
        )
        if kept:
            return kept
        # the forecast ends before the first allowed hour: only its mean is known
        whole = np.zeros(1), np.array([horizon.end_s])
        mean, high, low = (float(horizon.mean_between(*whole, level)[0]) for level in ("mean", "high", "low"))
        return (Slot(0.0, max(float(self.before[1]), 1.0), mean, high, low, mean_price(slots)),)

    def restore(self, plan: Plan) -> Plan:
        """Translate a plan in working time to wall time; one that would train outside the hours waits."""
        segments = tuple(
            replace(p, start_s=self.wall_start(p.start_s), end_s=self.wall_end(p.end_s))
            for p in plan.segments
        )
        if plan.action == "wait" and plan.wait_s is not None:
            return replace(plan, segments=segments, wait_s=self.wall_start(plan.wait_s))
        opens = self.wall_start(0.0)
        if plan.action == "train" and opens > _TOUCH:
            reason = reasons.outside_allowed_hours(opens, plan.reason)
            return replace(plan, action="wait", rho=None, wait_s=opens, segments=segments, reason=reason)
        return replace(plan, segments=segments)
