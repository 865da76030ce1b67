"""Defines the planner's input, a `Problem`, and its output, a `Plan`.

One `Problem` holds one job: its remaining segments, their costs, the grid's forecast, and the remaining grams.
`carbonsched.plan.planner.solve` turns it into a `Plan`. Seconds count from now; nothing here uses a clock.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from carbonsched.model.setting import setting_name
from carbonsched.units import grams


@dataclass(frozen=True, slots=True)
class Slot:
    """An interval [start_s, end_s) of the forecast; slots are ascending, without gaps, and the first contains 0.

    Example:
        >>> Slot(0.0, 3600.0, g_per_kwh=212.0, high=240.0)
        Slot(start_s=0.0, end_s=3600.0, g_per_kwh=212.0, high=240.0, low=None, eur_per_kwh=None)
    """

    start_s: float
    end_s: float
    g_per_kwh: float
    high: float
    """Upper quantile that the guard uses, ≥ g_per_kwh."""
    low: float | None = None
    """Lower quantile: a job is stopped only if even this cannot pay for the rest; None: g_per_kwh."""
    eur_per_kwh: float | None = None
    """Price of a kWh, published or expected; None: unknown."""


def mean_price(slots: Sequence[Slot]) -> float | None:
    """Mean EUR/kWh of the slots with a known price, weighted by length; None if there is none.

    Example:
        >>> mean_price((Slot(0.0, 1.0, 300.0, 330.0, eur_per_kwh=0.1), Slot(1.0, 4.0, 300.0, 330.0, eur_per_kwh=0.3)))
        0.25
    """
    known = [(slot.eur_per_kwh, slot.end_s - slot.start_s) for slot in slots if slot.eur_per_kwh is not None]
    span_s = sum(seconds for _, seconds in known)
    return round(sum(eur * seconds for eur, seconds in known) / span_s, 12) if span_s > 0 else None


@dataclass(frozen=True, slots=True)
class EnergyModel:
    """Energy and time of a segment at ρ: E(ρ) = joules_full·(c0 + (1−c0)·ρ) per optimizer step, seconds likewise.

    Example:
        >>> model = EnergyModel(joules_full=100.0, joules_c0=0.5, seconds_full=1.0, seconds_c0=0.5)
        >>> model.joules(0.5, steps=10), model.seconds(0.5, steps=10)
        (750.0, 7.5)
    """

    joules_full: float
    joules_c0: float
    seconds_full: float
    seconds_c0: float
    overhead_j: float = 0.0
    """Per segment, at any ρ: checkpoint, evaluation, waiting for the directive."""
    overhead_s: float = 0.0
    tail_j: float = 0.0
    """Once, after the last segment: final evaluation, saving."""
    tail_s: float = 0.0
    sigma: float = 0.25
    """Relative standard deviation of a segment's joules about the prediction."""
    watts_high: float = 0.0
    """Highest expected power of a tick, for leases; 0 if unknown."""
    slope_known: bool = False
    """False while ρ has not varied enough to fit c0: c0 is then the prior's."""

    def joules(self, rho: float, steps: int) -> float:
        """Joules of a segment of `steps` optimizer steps at ρ, its overhead included."""
        return steps * self.joules_full * (self.joules_c0 + (1 - self.joules_c0) * rho) + self.overhead_j

    def seconds(self, rho: float, steps: int) -> float:
        """Seconds of such a segment."""
        return steps * self.seconds_full * (self.seconds_c0 + (1 - self.seconds_c0) * rho) + self.overhead_s


@dataclass(frozen=True, slots=True)
class JobSegment:
    """A remaining segment of a job.

    Example:
        >>> JobSegment(k=3, steps=50, frontier=((0.4, 0.1), (1.0, 0.7))).steps
        50
    """

    k: int
    steps: int
    """Optimizer steps."""
    frontier: tuple[tuple[float, float], ...]
    """(ρ, gain), ascending and non-decreasing, normalised by the caller or not: `solve` scales g_k(full) to the
    segment's share of the steps, later ones discounted by `Problem.decay`."""


@dataclass(frozen=True, slots=True)
class PlanPoint:
    """A setting that a segment may train in. Its figures are per optimizer step.

    Example:
        >>> PlanPoint("full", rho=1.0, joules=400.0, seconds=4.0, worth=1.0).name
        'full'
    """

    method: str
    rho: float
    joules: float
    seconds: float
    worth: float
    """Full steps that a step is worth (`loss_curve.LossCurve.efficiency`)."""
    share: float | None = None
    """τ; None: gradient flows through every token."""
    clocks: int | None = None
    """MHz that the board's clock is locked at; None: not locked."""
    whole_job: bool = False
    """It is chosen for all remaining segments or for none, since a job that trains adapters must keep them."""

    @property
    def name(self) -> str:
        """For people: `full`, `tensors at rho 0.60`, `tokens at 0.25 of the tokens`."""
        text = setting_name(self.method, self.rho, self.share)
        return text if self.clocks is None else f"{text}, {self.clocks} MHz"


@dataclass(frozen=True, slots=True)
class Gap:
    """A pause that the end of the allowed hours forces on a segment that trains past `at_s`, and its cost.

    Example:
        >>> Gap(at_s=3600.0, joules=7.2e5, grams=80.0).eur
        0.0
    """

    at_s: float
    joules: float
    grams: float
    eur: float = 0.0
    """0 if no price is known."""


@dataclass(frozen=True, slots=True)
class Problem:
    """One job as the planner sees it now.

    Example:
        >>> segment = JobSegment(0, 50, ((0.4, 0.0), (1.0, 1.0)))
        >>> energy = EnergyModel(3.6e4, 0.2, 10.0, 1.0)
        >>> problem = Problem((segment,), (Slot(0.0, 3600.0, 300.0, 330.0),), energy, 120.0, rho_min=0.4, rho_max=1.0)
        >>> problem.grams(3.6e6, g_per_kwh=300.0)
        300.0
    """

    segments: tuple[JobSegment, ...]
    slots: tuple[Slot, ...]
    energy: EnergyModel
    budget_g: float
    """Remaining grams."""
    rho_min: float
    rho_max: float
    pue: float = 1.0
    deadline_s: float | None = None
    may_pause: bool = False
    idle_w: float = 0.0
    switch_j: float = 0.0
    """Joules of one pause and resume."""
    worst_g_per_kwh: float = 1000.0
    waiting: bool = False
    """The job is waiting: further waiting costs no further switch, and training needs no reason to resume."""
    done: float = 0.0
    """Share of the job's steps that are done. A running job is not given up while the forecast's lows, all at once, could still pay for the
    rest; and the more is done, the more is kept back for the end."""
    open_end: bool = False
    """Whether the number of further steps is open: then nothing of the rest has to be kept back here (`step_dial`)."""
    reserve_g: float = 0.0
    """Kept back for a checkpoint and stop (`guard.reserve_g`); no plan spends it."""
    has_forecast: bool = True
    """False: the slots only repeat the present value, and the hours ahead are unknown (`slots.has_forecast`)."""
    beyond_g_per_kwh: tuple[float, ...] = ()
    """From the last slot to the end of the job: equally likely values, e.g. quantiles of a year; empty: the slots' mean."""
    day_s: float = 86_400.0
    """Wall seconds of a grid day: less in a time-compressed replay. Determines which forecast errors are correlated."""
    decay: float = 1.0
    """Ratio of each segment's gain to that of the previous one (`gain_decay.decay`)."""
    allowed: tuple[tuple[float, float], ...] | None = None
    """Intervals (start_s, end_s) in which training may run, ascending and disjoint, as far as the deadline and the slots reach;
    None: always."""
    gaps: tuple[Gap, ...] = ()
    """Ascending: set by `WorkingTime.cut` where allowed hours end."""
    price_hint: float | None = None
    """λ of the previous plan: the search starts there."""
    eur_per_kg: float | None = None
    """Value of a kg of CO2e in money: hours are chosen by grams + EUR ÷ this; 0: by money, None: by grams alone."""
    points: tuple[PlanPoint, ...] = ()
    """Settings that a segment may train in; empty: the job's own method at the ρ of the frontiers."""
    may_end_early: bool = False
    """With `points`: whether the job may end, annealed, before its last step."""
    paid: tuple[Slot, ...] = ()
    """The same period with its prices, cut where they change: a plan's cost is reported by these; empty: by `slots`."""

    def grams(self, energy_j: float, g_per_kwh: float) -> float:
        """gCO2e of joules at that intensity, with the job's PUE."""
        return grams(energy_j, g_per_kwh, self.pue)


@dataclass(frozen=True, slots=True)
class PlannedSegment:
    """One segment of a plan. Seconds count from now.

    Example:
        >>> PlannedSegment(k=3, start_s=0.0, end_s=600.0, rho=0.64, grams=12.5, gain=0.11).rho
        0.64
    """

    k: int
    start_s: float
    end_s: float
    rho: float
    grams: float
    gain: float
    eur: float | None = None
    """None if no price is known."""
    joules: float = 0.0
    """Joules that `grams` and `eur` are computed from: with the wait before the segment, and for the last one the tail."""
    point: PlanPoint | None = None
    """The setting, if the plan chose among settings."""


@dataclass(frozen=True, slots=True)
class Plan:
    """The planner's output: the directive for the first remaining segment, and the plan behind it.

    Example:
        >>> plan = Plan("train", 0.64, None, 0.002, "rho 0.640 …", (), spend_g=98.1, floor_g=60.1, binding=("budget",))
        >>> plan.action, plan.rho
        ('train', 0.64)
    """

    action: Literal["train", "wait", "stop"]
    rho: float | None
    """Of the first remaining segment; None unless `train`."""
    wait_s: float | None
    """Until the first segment should begin; None unless `wait`."""
    price: float | None
    """λ, gain per gram."""
    reason: str
    """One line for people, in grams (`carbonsched.plan.reasons`)."""
    segments: tuple[PlannedSegment, ...]
    spend_g: float
    """Expected grams of all remaining segments and the tail."""
    floor_g: float
    """The spend floor: grams due at ρ_min."""
    binding: tuple[str, ...]
    """The limits of ρ: of `budget`, `deadline`, `rho_min`, `rho_max`, `guard`, `rho_mean`; `price` if a job with unused grams waits for a
    cheaper hour."""
    gap: float = 0.0
    """Duality gap, as a share of the bound."""
    point: PlanPoint | None = None
    """The setting of the next segment, if the plan chose among settings."""
    reach: float = 1.0
    """Share of the job's segments in the plan: less than 1 if a deadline is far beyond the forecast."""
