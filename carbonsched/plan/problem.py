"""What the planner is asked and what it answers. Seconds count from now; nothing here knows a clock.

One `Problem` holds one job: the segments it still has, what they cost, what the grid will be, and the grams that are
left. `carbonsched.plan.planner.solve` turns it into a `Plan`.
"""

from dataclasses import dataclass
from typing import Literal

from carbonsched.units import grams


@dataclass(frozen=True, slots=True)
class Slot:
    """A stretch [start_s, end_s) of the forecast; slots are ascending, without holes, the first contains 0."""

    start_s: float
    end_s: float
    g_per_kwh: float
    high: float
    """Upper quantile the guard reckons with, ≥ g_per_kwh."""
    low: float | None = None
    """Lower quantile: a job is stopped only where even this cannot pay for the rest; None: g_per_kwh."""


@dataclass(frozen=True, slots=True)
class EnergyModel:
    """E(ρ) = joules_full·(c0 + (1−c0)·ρ) an optimizer step, seconds likewise (DESIGN 4)."""

    joules_full: float
    joules_c0: float
    seconds_full: float
    seconds_c0: float
    overhead_j: float = 0.0
    """A segment, whatever ρ: checkpoint, evaluation, waiting for the directive."""
    overhead_s: float = 0.0
    tail_j: float = 0.0
    """Once, after the last segment: final evaluation, saving."""
    tail_s: float = 0.0
    sigma: float = 0.25
    """Relative standard deviation of a segment's joules about the prediction."""
    watts_high: float = 0.0
    """Power no tick is expected to pass, for leases; 0 where unknown."""
    slope_known: bool = False
    """False while ρ has not varied enough to tell c0 from data: c0 is then the prior's."""

    def joules(self, rho: float, steps: int) -> float:
        return steps * self.joules_full * (self.joules_c0 + (1 - self.joules_c0) * rho) + self.overhead_j

    def seconds(self, rho: float, steps: int) -> float:
        return steps * self.seconds_full * (self.seconds_c0 + (1 - self.seconds_c0) * rho) + self.overhead_s


@dataclass(frozen=True, slots=True)
class JobSegment:
    k: int
    steps: int
    frontier: tuple[tuple[float, float], ...]
    """(ρ, gain), ascending and non-decreasing, normalised by the caller or not: `solve` scales g_k(full) to the
    segment's share of the steps, later ones discounted by `Problem.decay`."""


@dataclass(frozen=True, slots=True)
class Problem:
    segments: tuple[JobSegment, ...]
    slots: tuple[Slot, ...]
    energy: EnergyModel
    budget_g: float
    """Left, after what was spent."""
    rho_min: float
    rho_max: float
    pue: float = 1.0
    deadline_s: float | None = None
    may_pause: bool = False
    idle_w: float = 0.0
    switch_j: float = 0.0
    """Of one pause and resume."""
    worst_g_per_kwh: float = 1000.0
    waiting: bool = False
    """The job waits now: going on waiting costs no further switch, and training needs no reason to resume."""
    done: float = 0.0
    """Share of the job's steps that are done. What was invested is not given up while the forecast's lows, all at once,
    could still pay for the rest, and the more is done the more is kept back for the end."""
    reserve_g: float = 0.0
    """Kept back for a checkpoint and stop (`guard.reserve_g`); no plan spends it."""
    has_forecast: bool = True
    """False: the slots only repeat what holds now, nothing is known of the hours ahead (`forecast.foreseen`)."""
    beyond_g_per_kwh: tuple[float, ...] = ()
    """Past the last slot, to the end of the job: equally likely values, e.g. quantiles of a year; none: the slots' mean."""
    day_s: float = 86_400.0
    """Wall seconds of a grid day: less in a time-compressed replay. Says which forecast errors miss together."""
    decay: float = 1.0
    """From one segment's worth to the next one's (`discount.decay`)."""
    allowed: tuple[tuple[float, float], ...] | None = None
    """Stretches (start_s, end_s) in which training may run, ascending and disjoint, as far as the deadline and the slots reach;
    None: always."""
    gaps: tuple[tuple[float, float], ...] = ()
    """(at_s, grams) that whoever trains past `at_s` has to pay: set by `hours.Hours.cut` where allowed hours end."""
    price_hint: float | None = None
    """λ of the plan before: the search starts there."""

    def grams(self, energy_j: float, g_per_kwh: float) -> float:
        return grams(energy_j, g_per_kwh, self.pue)


@dataclass(frozen=True, slots=True)
class PlannedSegment:
    """One segment as the plan has it."""

    k: int
    start_s: float
    end_s: float
    rho: float
    grams: float
    gain: float


@dataclass(frozen=True, slots=True)
class Plan:
    action: Literal["train", "wait", "stop"]
    rho: float | None
    """For the first of the remaining segments; None unless `train`."""
    wait_s: float | None
    """Until the first segment should begin; None unless `wait`."""
    price: float | None
    """λ, gain a gram."""
    reason: str
    """One line for people: what binds, in grams."""
    segments: tuple[PlannedSegment, ...]
    spend_g: float
    """Expected, of all remaining segments and the tail."""
    floor_g: float
    """The spend floor: what remains due at ρ_min."""
    binding: tuple[str, ...]
    """Of `budget`, `deadline`, `rho_min`, `rho_max`, `guard`."""
    gap: float = 0.0
    """Duality gap, as a share of the bound."""
