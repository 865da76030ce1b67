"""Holds one running simulation: what its policy may know by now, and the real outcome of its decisions."""

import math
from bisect import bisect_right
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Self

import numpy as np

from carbonsched.errors import InputError
from carbonsched.plan import guard
from carbonsched.plan.forecasting import slots as forecasting
from carbonsched.plan.forecasting.blend import Blend, ReadingHistory
from carbonsched.plan.forecasting.provider_forecast import NO_FORECAST, ProviderForecast
from carbonsched.plan.gain_decay import decay
from carbonsched.plan.intensity_curve import Floats, IntensityCurve
from carbonsched.plan.problem import EnergyModel, JobSegment, Problem, Slot
from carbonsched.plan.simulation.request import DAY_S, ForecastKind, SimRequest, TraceArrays, validate
from carbonsched.plan.simulation.result import SimSegment
from carbonsched.plan.working_time import WorkingTime
from carbonsched.units import J_PER_KWH, grams

_HISTORY_S = 29 * DAY_S
"""Readings that the forecast learns from: four weeks and the day before."""
_RECENT_S = 7 * DAY_S
_YEAR_S = 365 * DAY_S
_SPREAD_ROWS = 997
"""Least number of rows of the past year that give the spread of its intensity; using all of them adds nothing."""


@dataclass(frozen=True, slots=True)
class RealGrid:
    """The trace from the start of a job on, and the hours in which the job may run. Times are epoch seconds.

    Example::

        grid = RealGrid.of(request, None, last=request.trace.end)
        grams = grid.grams_between(3.6e6, grid.t0, grid.t0 + 3600.0)
    """

    t0: float
    pue: float
    curve: IntensityCurve
    """In seconds since `t0`."""
    hours: WorkingTime | None = None
    """Allowed hours, in seconds since `t0`; None: always."""
    worked: IntensityCurve | None = None
    """The curve in working seconds since `t0`; None: as `curve`."""

    @classmethod
    def of(cls, request: SimRequest, hours: WorkingTime | None, last: float) -> Self:
        """last: the latest end of the job; a week more of the trace is kept."""
        trace, t0 = request.trace, request.start.timestamp()
        first = trace.row_at(t0)
        stop = min(len(trace.at), trace.row_at(last) + 2 + math.ceil(_RECENT_S / trace.step_s))
        curve = IntensityCurve(exact_slots(trace.edges[first : stop + 1] - t0, trace.g[first:stop]))
        worked = None
        if hours is not None:
            worked = IntensityCurve(hours.cut_slots(exact_slots(curve.edges, curve.mean), curve))
        return cls(t0, request.pue, curve, hours, worked)

    def slots(self) -> tuple[Slot, ...]:
        """The real intensity in working seconds since the start."""
        curve = self.worked or self.curve
        return exact_slots(curve.edges, curve.mean)

    def grams_between(self, joules: float, start: float, end: float) -> float:
        """Grams of joules spread evenly over [start, end)."""
        a, b = np.array([start - self.t0]), np.array([end - self.t0])
        return grams(joules, float(self.curve.mean_between(a, b)[0]), self.pue)

    def grams_working(self, joules: float, start: float, lasts: float) -> float:
        """Grams of joules spread over the next `lasts` seconds in which the job may run."""
        if self.hours is None or self.worked is None:
            return self.grams_between(joules, start, start + lasts)
        begin = self.hours.working_s(np.array([start - self.t0]))
        return grams(joules, float(self.worked.mean_between(begin, begin + lasts)[0]), self.pue)

    def after(self, start: float, lasts: float) -> float:
        """The time at which `lasts` seconds have been worked."""
        if self.hours is None:
            return start + lasts
        return self.t0 + self.hours.wall_end(float(self.hours.working_s(start - self.t0)) + lasts)


@dataclass(slots=True)
class SimRun:
    """A job in the simulator. Times are epoch seconds; `t` moves on with `pause` and `train`.

    Example::

        run = SimRun.begin(request)
        segment = run.train(0, rho=0.6)
        print(run.spent_g, segment.end)
    """

    request: SimRequest
    energy: EnergyModel
    worst_g_per_kwh: float
    reserve_g: float
    grid: RealGrid
    deadline: float | None = None
    segments: tuple[JobSegment, ...] = ()
    shown: tuple[float, ...] = ()
    """Right end of each segment's frontier as measured, if the gains decay."""
    t: float = field(init=False)
    spent_g: float = field(init=False, default=0.0)
    waiting: bool = field(init=False, default=False)
    _blend: Blend | None = field(init=False, default=None)
    _learned_at: float = field(init=False, default=-math.inf)

    def __post_init__(self) -> None:
        self.t = self.grid.t0

    @classmethod
    def begin(cls, request: SimRequest) -> Self:
        """Raises InputError if the trace does not cover the job or a number is invalid."""
        validate(request)
        start = request.start.timestamp()
        lasts = request.segments * request.segment_hours * 3600.0
        hours = _working_time(request, lasts)
        last = start + (lasts if hours is None else hours.wall_end(lasts))
        deadline = None
        if request.deadline_hours is not None:
            deadline = start + request.deadline_hours * 3600.0
            last = max(last, deadline)
        trace = request.trace
        if start < trace.at[0] or last > trace.end + 1e-6:
            raise InputError(
                "--start",
                f"the trace covers {_text(float(trace.at[0]))} to {_text(trace.end)}, "
                f"the job needs {_text(start)} to {_text(last)}",
                "choose another start, fewer segments or an earlier deadline",
            )
        energy = _energy_model(request)
        worst = request.worst_g_per_kwh or max(1000.0, float(trace.g.max()))
        reserve_j = request.reserve_j + energy.watts_high * request.tick_s
        return cls(
            request,
            energy,
            worst,
            guard.reserve_g(reserve_j, worst, request.pue),
            RealGrid.of(request, hours, last),
            deadline,
            tuple(JobSegment(k, 1, request.frontier) for k in range(request.segments)),
            _shown_gains(request),
        )

    def slots_ahead(self, kind: ForecastKind, *, whole: bool = False) -> tuple[Slot, ...]:
        """The slots from now on, from what may be known at `self.t`; `whole`: to the very end, not only the horizon."""
        request, trace, now = self.request, self.request.trace, self.t
        horizon = max(self._left_s() if whole else min(self._left_s(), request.horizon_s), 2 * trace.step_s)
        row = trace.row_at(now)
        here = float(trace.g[row])
        if kind == "perfect":
            stop = min(bisect_right(trace.at, now + horizon), len(trace.at))
            edges = trace.edges[row : stop + 1] - now
            return tuple(
                Slot(float(a), float(b), float(v), float(v))
                for a, b, v in zip(edges[:-1], edges[1:], trace.g[row:stop], strict=True)
            )
        first = bisect_right(trace.at, now - _HISTORY_S)
        past = ReadingHistory(trace.at[first : row + 1], trace.g[first : row + 1])
        with_provider = kind == "column"
        provider = (
            _column(trace, row, bisect_right(trace.at, now + horizon)) if with_provider else NO_FORECAST
        )
        if self._blend is None or now - self._learned_at >= DAY_S:
            self._blend = Blend.learn(past, _column(trace, first, row + 1) if with_provider else NO_FORECAST)
            self._learned_at = now
        ends = max(float(trace.edges[row + 1]) - now, 1.0)
        edges = forecasting.raster(
            horizon,
            min(ends, trace.step_s),
            trace.step_s,
            replace(provider, start=provider.start - now, end=provider.end - now),
            DAY_S,
        )
        return forecasting.build(
            edges, now, here, past, provider, self._blend, request.quantile, self.worst_g_per_kwh
        )

    def recent_slots(self) -> tuple[Slot, ...]:
        """The last week as if it lay ahead."""
        trace, row = self.request.trace, self.request.trace.row_at(self.t)
        values = trace.g[max(0, row + 1 - int(_RECENT_S / trace.step_s)) : row + 1]
        return tuple(
            Slot(i * trace.step_s, (i + 1) * trace.step_s, float(v), float(v)) for i, v in enumerate(values)
        )

    def problem(self, slots: tuple[Slot, ...], k: int) -> Problem:
        """The planner's problem before segment k."""
        request = self.request
        return Problem(
            segments=self.segments[k:],
            slots=slots,
            energy=self.energy,
            budget_g=request.budget_g - self.spent_g,
            rho_min=request.rho_min,
            rho_max=request.rho_max,
            pue=request.pue,
            deadline_s=None if self.deadline is None else self.deadline - self.t,
            may_pause=request.may_pause,
            idle_w=request.idle_w,
            switch_j=request.switch_j,
            worst_g_per_kwh=self.worst_g_per_kwh,
            waiting=self.waiting,
            done=k / request.segments,
            reserve_g=self.reserve_g,
            allowed=self._allowed(),
            decay=self._decay(k),
            beyond_g_per_kwh=() if slots[-1].end_s >= self._left_s() else self._beyond(slots),
        )

    def pause(self, until: float) -> None:
        """Idle until then; the switch is charged once, at the start of a wait."""
        joules = self.request.idle_w * (until - self.t) + (0.0 if self.waiting else self.request.switch_j)
        self.spent_g += self.grid.grams_between(joules, self.t, until)
        self.t, self.waiting = until, True

    def train(self, k: int, rho: float) -> SimSegment:
        """Run segment k; it ends early at the first tick boundary at which `must_stop` is true."""
        request, energy = self.request, self.energy
        factor = request.power_factor[k % len(request.power_factor)] if request.power_factor else 1.0
        lasts = energy.seconds(rho, 1)
        joules = energy.joules(rho, 1) * factor
        start, end, share = self.t, self.grid.after(self.t, lasts), 1.0
        # must_stop is true as soon as spent exceeds budget − reserve, where the reserve includes the tick at worst
        limit = request.budget_g - self.reserve_g
        spent = self.grid.grams_working(joules, start, lasts)
        if self.spent_g + spent > limit * (1 + 1e-9):
            ticks, low = math.ceil(lasts / request.tick_s), 0
            while ticks - low > 1:
                middle = (low + ticks) // 2
                part = min(middle * request.tick_s, lasts)
                used = self.grid.grams_working(joules * part / lasts, start, part)
                low, ticks = (middle, ticks) if self.spent_g + used <= limit else (low, middle)
            # the tick in progress runs to its end, then the stop takes effect
            part = min((low + 1) * request.tick_s, lasts) if self.spent_g <= limit else 0.0
            share, end = part / lasts, self.grid.after(start, part) if part > 0 else start
            spent = self.grid.grams_working(joules * share, start, part) if part > 0 else 0.0
        self.spent_g += spent
        self.t, self.waiting = end, False
        return SimSegment(k=k, start=utc(start), end=utc(end), rho=rho, spent_g=spent, done=share)

    def _beyond(self, slots: tuple[Slot, ...]) -> tuple[float, ...]:
        """Intensities expected after the horizon, from the last year."""
        trace, row = self.request.trace, self.request.trace.row_at(self.t)
        first = bisect_right(trace.at, self.t - _YEAR_S)
        days = float(trace.edges[row + 1] - trace.edges[first]) / DAY_S
        # a few hundred rows give the spread as well as all of them
        return forecasting.beyond(
            slots, trace.g[first : row + 1 : max((row + 1 - first) // _SPREAD_ROWS, 1)], days
        )

    def _left_s(self) -> float:
        """Seconds from now to the last moment at which the job may still run."""
        request = self.request
        left = self.grid.after(self.grid.t0, request.segments * request.segment_hours * 3600.0) - self.grid.t0
        if self.deadline is not None:
            left = max(left, self.deadline - self.grid.t0)
        elif request.may_pause:
            left = 2 * left + DAY_S
        return left - (self.t - self.grid.t0)

    def _decay(self, k: int) -> float:
        """The decay that the frontiers of the segments up to k suggest."""
        if self.request.gain_decay == 1.0 or not self.request.discount:
            return 1.0
        return decay(list(enumerate(self.shown[: k + 1])), self.request.segments)

    def _allowed(self) -> tuple[tuple[float, float], ...] | None:
        """The allowed hours from now on, in seconds from now."""
        hours = self.grid.hours
        if hours is None:
            return None
        passed = self.t - self.grid.t0
        rows = zip((hours.start - passed).tolist(), (hours.end - passed).tolist(), strict=True)
        ahead = tuple((a, b) for a, b in rows if b > 1e-6)
        # after the last one the job is late anyway: another day keeps the planner going
        return ahead or ((0.0, DAY_S),)


def _working_time(request: SimRequest, lasts: float) -> WorkingTime | None:
    """The allowed hours for as long as a job that trains for `lasts` seconds may take; None: always."""
    if not request.allowed_hours:
        return None
    daily = request.allowed_hours, request.timezone, request.start
    week = WorkingTime.daily(*daily, _RECENT_S)
    far = 2 * lasts / week.share + (request.deadline_hours or 0.0) * 3600.0
    return WorkingTime.daily(*daily, far + request.horizon_s)


def _energy_model(request: SimRequest) -> EnergyModel:
    """One step per segment: what it takes is known, its `power_factor` is not."""
    follows = request.may_pause if request.time_follows_rho is None else request.time_follows_rho
    joules, lasts = request.segment_kwh * J_PER_KWH, request.segment_hours * 3600.0
    return EnergyModel(
        joules_full=joules,
        joules_c0=request.fixed_share,
        seconds_full=lasts,
        seconds_c0=request.fixed_share if follows else 1.0,
        sigma=request.sigma,
        watts_high=request.watts_high or joules / lasts * max((1.0, *request.power_factor)),
        slope_known=True,
    )


def _shown_gains(request: SimRequest) -> tuple[float, ...]:
    """The right ends of the frontiers as they are measured, with their noise; none where nothing decays."""
    if request.gain_decay == 1.0:
        return ()
    start = round(request.start.timestamp())
    noise = np.random.default_rng(start).normal(0.0, request.gain_noise, request.segments)
    return tuple((true_decay(request) ** np.arange(request.segments) * np.exp(noise)).tolist())


def true_decay(request: SimRequest) -> float:
    """Factor from one segment's worth to the next one's, as it really is."""
    return float(request.gain_decay ** (1 / max(request.segments - 1, 1)))


def exact_slots(edges: Floats, g_per_kwh: Floats) -> tuple[Slot, ...]:
    """Slots without error between `edges`, (n + 1,) seconds."""
    columns = (edges[:-1].tolist(), edges[1:].tolist(), g_per_kwh.tolist())
    return tuple(Slot(a, b, value, value) for a, b, value in zip(*columns, strict=True))


def _column(trace: TraceArrays, first: int, stop: int) -> ProviderForecast:
    """What the trace's forecast column said for its rows."""
    if trace.forecast is None:
        return NO_FORECAST
    stop = min(stop, len(trace.at))
    value = trace.forecast[first:stop]
    return ProviderForecast(
        trace.edges[first:stop], trace.edges[first + 1 : stop + 1], value, np.full(len(value), math.nan)
    )


def utc(at: float) -> datetime:
    """A time in epoch seconds as a datetime."""
    return datetime.fromtimestamp(0, UTC) + timedelta(seconds=at)


def _text(at: float) -> str:
    return f"{utc(at):%Y-%m-%dT%H:%M:%SZ}"
