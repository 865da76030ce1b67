"""Defines the input of a simulation: a trace of the grid as arrays, a job, a policy, and what the policy may know."""

import math
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Literal

import numpy as np

from carbonsched.errors import InputError
from carbonsched.model.error_words import shown
from carbonsched.plan.intensity_curve import Floats
from carbonsched.plan.simulation.policies import Policy
from carbonsched.text import several

ForecastKind = Literal["perfect", "persistence", "column"]
LINEAR = ((0.0, 0.0), (1.0, 1.0))

DAY_S = 86_400.0


class TraceArrays:
    """A trace as arrays of epoch seconds and g/kWh; made once and used for many runs.

    Raises InputError for fewer than two rows.

    Example:
        >>> hours = [datetime.fromisoformat(f"2022-03-01T0{h}:00Z") for h in (0, 1)]
        >>> trace = TraceArrays(hours, [300.0, 100.0])
        >>> trace.step_s, trace.row_at(trace.at[0] + 1800.0)
        (3600.0, 0)
    """

    def __init__(
        self,
        times: Sequence[datetime],
        g_per_kwh: Sequence[float],
        forecast: Sequence[float | None] | None = None,
    ) -> None:
        if len(times) < 2:
            raise InputError("trace", f"holds {several(len(times), 'row')}", "a trace needs two or more")
        self.at: Floats = np.array([t.timestamp() for t in times])
        self.g: Floats = np.array(g_per_kwh, dtype=float)
        self.forecast: Floats | None = (
            None
            if forecast is None
            else np.array([math.nan if v is None else v for v in forecast], dtype=float)
        )
        self.step_s = float(np.median(np.diff(self.at)))
        self.end = float(self.at[-1]) + self.step_s
        self.edges: Floats = np.append(self.at, self.end)
        self.integral: Floats = np.append(0.0, np.cumsum(np.diff(self.edges) * self.g))
        """∫ g to each edge, g/kWh·s."""

    def row_at(self, at: float) -> int:
        """Index of the row that holds at a time (epoch seconds)."""
        return bisect_right(self.at, at) - 1


@dataclass(frozen=True, slots=True)
class SimRequest:
    """One run. kWh and hours of a segment are those at ρ = 1.

    Example::

        start = datetime(2022, 3, 1, tzinfo=UTC)
        request = SimRequest(trace, start, 24, 1.2, 1.0, fixed_share=0.2, budget_g=6000.0, policy="mpc")
    """

    trace: TraceArrays
    start: datetime
    segments: int
    segment_kwh: float
    segment_hours: float
    fixed_share: float
    """c0 of E(ρ) = kWh·(c0 + (1−c0)·ρ)."""
    budget_g: float
    policy: Policy = "mpc"
    forecast: ForecastKind = "persistence"
    frontier: tuple[tuple[float, float], ...] = LINEAR
    rho_min: float = 0.4
    rho_max: float = 1.0
    may_pause: bool = True
    deadline_hours: float | None = None
    gain_decay: float = 1.0
    """True ratio of the last segment's gain to the first's; geometric in between."""
    gain_noise: float = 0.2
    """Relative sd of the measured gain of a frontier, if `gain_decay` is not 1."""
    discount: bool = True
    """Whether the planner learns the decay from the observed frontiers."""
    allowed_hours: tuple[str, ...] = ()
    """Hours of the day in which the job may run, e.g. `22:00-06:00`; empty: any hour."""
    timezone: str = "UTC"
    """Time zone of `allowed_hours`."""
    time_follows_rho: bool | None = None
    """Whether a segment's hours shrink with ρ like its energy; None: yes, but fixed slots if nothing may pause."""
    pue: float = 1.0
    worst_g_per_kwh: float | None = None
    """None: 1000 g/kWh or the dirtiest hour of the trace, whichever is more."""
    tick_s: float = 1.0
    reserve_j: float = 0.0
    idle_w: float = 0.0
    switch_j: float = 0.0
    quantile: float = 0.95
    horizon_s: float = 14 * DAY_S
    """How far ahead the planner looks; for later segments it uses the mean of that."""
    sigma: float = 0.0
    """Relative sd of a segment's joules that the planner assumes."""
    power_factor: tuple[float, ...] = ()
    """Real power of segment k ÷ that of the model, in turn; empty: 1."""
    watts_high: float | None = None
    """Power that the guard assumes; None: the highest that `power_factor` gives."""
    oracle: bool = True
    """Whether to solve the oracle, too, for `oracle_gain`."""


_MOST_SEGMENTS, _MOST_HOURS = 100_000, 87_600.0
"""Hours: ten years, like a job's deadline."""


def validate(request: SimRequest) -> None:
    """Raises InputError that names the option with an invalid value."""
    for name, value in (
        ("--segments", request.segments),
        ("--segment-kwh", request.segment_kwh),
        ("--segment-hours", request.segment_hours),
        ("--budget-g", request.budget_g),
    ):
        if not 0 < value < math.inf:
            raise InputError(name, f"must be above 0 and finite, is {shown(value)}", "give a positive number")
    if request.segments > _MOST_SEGMENTS:
        raise InputError("--segments", f"must be {_MOST_SEGMENTS} or less", "give fewer, longer ones")
    if request.segments * request.segment_hours > _MOST_HOURS:
        problem = f"{request.segments} of {request.segment_hours:g} h are more than ten years"
        raise InputError("--segment-hours", problem, "give fewer hours, or fewer --segments")
    deadline = request.deadline_hours
    if deadline is not None and not 0 < deadline <= _MOST_HOURS:
        raise InputError(
            "--deadline-hours",
            f"must be above 0 and {_MOST_HOURS:g} (ten years) at most, is {deadline:g}",
            "give hours, e.g. 36, or leave it out",
        )
    if not 1 <= request.pue < math.inf:
        raise InputError("--pue", f"must be 1 or more, is {request.pue:g}", "give e.g. 1.2")
    if not 0 <= request.fixed_share <= 1:
        raise InputError("--fixed-share", f"must be 0 to 1, is {request.fixed_share}", "give c0, e.g. 0.2")
    if not 0 < request.rho_min <= request.rho_max <= 1:
        raise InputError(
            "--rho-min" if not 0 < request.rho_min <= 1 else "--rho-max",
            f"must be such that 0 < rho-min <= rho-max <= 1, which {request.rho_min} and {request.rho_max} are not",
            "give e.g. --rho-min 0.4 --rho-max 1",
        )
    column = request.trace.forecast
    if request.forecast == "column" and (column is None or bool(np.isnan(column).all())):
        raise InputError(
            "--forecast",
            "the trace has no forecast_g_per_kwh column"
            if column is None
            else "the trace's forecast_g_per_kwh is empty",
            "use --forecast persistence or another trace",
        )
