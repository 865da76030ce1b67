"""`carbonsched simulate`: a job run against a trace of the grid by the very planner and guard of the daemon.

Pure: the trace comes in as arrays, the result is a document. At any time t the planner sees the rows with datetime ≤ t
and, of what lies ahead, what the chosen forecast says: `perfect` the trace itself, `column` the trace's forecast
column (taken as issued for all its rows), `persistence` the past. A segment runs tick by tick under `guard.must_stop`;
the tick at which it would stop is computed, not looped for.
"""

import math
from bisect import bisect_right
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta

import numpy as np

from carbonsched.errors import InputError
from carbonsched.model.base import Doc, UtcTime
from carbonsched.plan import gain_decay as discount
from carbonsched.plan import guard
from carbonsched.plan.forecasting import slots as forecast
from carbonsched.plan.forecasting.blend import Blend, Past
from carbonsched.plan.forecasting.provider_forecast import NO_FORECAST, ProviderForecast
from carbonsched.plan.intensity_curve import IntensityCurve
from carbonsched.plan.planner import solve
from carbonsched.plan.problem import EnergyModel, JobSegment, Plan, Problem, Slot
from carbonsched.plan.segment_arrays import SegmentArrays
from carbonsched.plan.simulation.policies import Policy, PolicyMemory, decide
from carbonsched.plan.simulation.request import DAY_S, ForecastKind, SimRequest, TraceArrays, validate
from carbonsched.plan.working_time import WorkingTime
from carbonsched.units import J_PER_KWH, grams

_HISTORY_S = 29 * DAY_S
_LATELY_S = 7 * DAY_S
_YEAR_S = 365 * DAY_S
_LONGEST_WAIT_S = 4 * 3600.0
"""A wait is looked at again after this long: the forecast may have changed."""


class SimSegment(Doc):
    k: int
    start: UtcTime
    end: UtcTime
    rho: float
    spent_g: float
    done: float = 1.0
    """Share of the segment's steps that were run: below 1 only where the budget ended it."""


class SimResult(Doc):
    """What `carbonsched simulate --json` prints."""

    policy: Policy
    forecast: ForecastKind
    spent_g: float
    budget_g: float
    floor_g: float
    """All segments at the lowest ρ, back to back from the start, at the real intensity."""
    full_g: float
    """The same at the highest ρ."""
    flops_ratio: float
    """Σ ρ over all segments, what was not run counting 0."""
    gain: float
    """Share of full fine-tuning's gain by the frontier given; for linear gain the FLOPs ratio."""
    oracle_gain: float | None
    """Of the plan with perfect knowledge: exact for fixed slots and concave gain, else within `oracle_gap`."""
    oracle_gap: float | None
    """Duality gap of the oracle's plan as a share of its bound."""
    finished: bool
    finished_at: UtcTime | None
    """None: not all segments were done."""
    missed_deadline_s: float = 0.0
    waits: int = 0
    reason: str
    """Why it ended, and what the last plan said."""
    flops_effect_g: float
    """Saved by doing fewer FLOPs: full fine-tuning in the same hours, less what was spent."""
    timing_effect_g: float
    """Saved by the hours chosen: the same energy at the mean intensity from start to end or deadline, less what was
    spent. Negative: the hours were dirtier than the mean."""
    segments: tuple[SimSegment, ...]


@dataclass(slots=True)
class _Run:
    """One simulation under way; `t` and all times are epoch seconds."""

    request: SimRequest
    energy: EnergyModel
    worst: float
    reserve_g: float
    t: float
    t0: float
    deadline: float | None
    real: IntensityCurve
    """The trace from the start, in seconds since it."""
    hours: WorkingTime | None = None
    """Allowed hours, in seconds since the start."""
    worked: IntensityCurve | None = None
    """The trace in working seconds since the start; None: as `real`."""
    segments: tuple[JobSegment, ...] = ()
    shown: tuple[float, ...] = ()
    """Right end of each segment's frontier as it is measured, where the gains decay."""
    spent_g: float = 0.0
    waiting: bool = False
    blend: Blend | None = None
    learned_at: float = -math.inf

    def grams_between(self, joules: float, start: float, end: float) -> float:
        a, b = np.array([start - self.t0]), np.array([end - self.t0])
        return grams(joules, float(self.real.between(a, b)[0]), self.request.pue)

    def grams_working(self, joules: float, start: float, lasts: float) -> float:
        """Of joules spread over the next `lasts` seconds in which the job may run."""
        if self.hours is None or self.worked is None:
            return self.grams_between(joules, start, start + lasts)
        begin = self.hours.work(np.array([start - self.t0]))
        return grams(joules, float(self.worked.between(begin, begin + lasts)[0]), self.request.pue)

    def after(self, start: float, lasts: float) -> float:
        """The time at which `lasts` seconds have been worked."""
        if self.hours is None:
            return start + lasts
        return self.t0 + self.hours.finish(float(self.hours.work(start - self.t0)) + lasts)


def simulate(request: SimRequest) -> SimResult:
    """Run one job. Raises InputError where the trace does not cover it or a number cannot be."""
    run = _begin(request)
    oracle: Plan | None = None
    if request.oracle or request.policy == "oracle":
        everything = _problem(run, _slots_ahead(run, "perfect", whole=True), 0)
        oracle = solve(replace(everything, decay=_true_decay(request)))
    segments, reason, waits = _loop(run, oracle)
    return _result(run, segments, reason, waits, oracle)


def _begin(request: SimRequest) -> _Run:
    trace, start = request.trace, request.start.timestamp()
    validate(request)
    lasts = request.segments * request.segment_hours * 3600.0
    hours = None
    if request.allowed_hours:
        daily = request.allowed_hours, request.timezone, request.start
        week = WorkingTime.daily(*daily, _LATELY_S)
        far = 2 * lasts / week.pace + (request.deadline_hours or 0.0) * 3600.0
        hours = WorkingTime.daily(*daily, far + request.horizon_s)
        lasts = hours.finish(lasts)
    last = start + lasts
    deadline = None
    if request.deadline_hours is not None:
        deadline = start + request.deadline_hours * 3600.0
        last = max(last, deadline)
    if start < trace.at[0] or last > trace.end + 1e-6:
        raise InputError(
            "--start",
            f"the trace covers {_time_text(float(trace.at[0]))} to {_time_text(trace.end)}, the job needs {_time_text(start)} to {_time_text(last)}",
            "choose another start, fewer segments or an earlier deadline",
        )
    follows = request.time_follows_rho if request.time_follows_rho is not None else request.may_pause
    joules, lasts = request.segment_kwh * J_PER_KWH, request.segment_hours * 3600.0
    energy = EnergyModel(
        joules_full=joules,
        joules_c0=request.fixed_share,
        seconds_full=lasts,
        seconds_c0=request.fixed_share if follows else 1.0,
        sigma=request.sigma,
        watts_high=request.watts_high or joules / lasts * max((1.0, *request.power_factor)),
        slope_known=True,
    )
    worst = request.worst_g_per_kwh or max(1000.0, float(trace.g.max()))
    reserve = guard.reserve_g(request.reserve_j + energy.watts_high * request.tick_s, worst, request.pue)
    first = trace.row(start)
    stop = min(len(trace.at), trace.row(last) + 2 + math.ceil(_LATELY_S / trace.step_s))
    edges = trace.edges[first : stop + 1] - start
    real = IntensityCurve(
        tuple(
            Slot(float(a), float(b), float(v), float(v))
            for a, b, v in zip(edges[:-1], edges[1:], trace.g[first:stop], strict=True)
        )
    )
    segments = tuple(JobSegment(k, 1, request.frontier) for k in range(request.segments))
    worked = None if hours is None else IntensityCurve(hours.slots(_from_start(real), real))
    shown: tuple[float, ...] = ()
    if request.gain_decay != 1.0:
        noise = np.random.default_rng(round(start)).normal(0.0, request.gain_noise, request.segments)
        shown = tuple((_true_decay(request) ** np.arange(request.segments) * np.exp(noise)).tolist())
    return _Run(request, energy, worst, reserve, start, start, deadline, real, hours, worked, segments, shown)


def _loop(run: _Run, oracle: Plan | None) -> tuple[list[SimSegment], str, int]:
    request = run.request
    memory = PolicyMemory()
    done: list[SimSegment] = []
    reason, waits = "", 0
    planned = {p.k: p for p in oracle.segments} if oracle is not None and request.policy == "oracle" else None
    while len(done) < request.segments:
        k = len(done)
        if planned is not None:
            if k not in planned:
                return done, oracle.reason if oracle else "", waits
            if planned[k].start_s > run.t - run.t0 + 1e-6:
                waits += 1
                _pause(run, run.t0 + planned[k].start_s)
            rho, reason = planned[k].rho, "oracle"
        else:
            problem = _problem(run, _slots_ahead(run, request.forecast), k)
            decision = decide(
                request.policy, problem, memory, _recent_slots(run) if request.policy == "dual" else ()
            )
            reason = decision.reason
            if decision.action == "stop":
                return done, reason, waits
            if decision.action == "wait":
                waits += not run.waiting
                _pause(run, run.t + min(max(decision.wait_s, 1.0), _LONGEST_WAIT_S))
                continue
            rho = decision.rho
        before = run.spent_g
        done.append(_train(run, k, rho))
        memory.spent_g = run.spent_g - before
        if done[-1].done < 1.0 - 1e-12:
            return done, f"stop: the next tick could pass the budget; {reason}", waits
    return done, reason, waits


def _pause(run: _Run, until: float) -> None:
    """Idle until then; the switch is charged once, at the start of a wait."""
    joules = run.request.idle_w * (until - run.t) + (0.0 if run.waiting else run.request.switch_j)
    run.spent_g += run.grams_between(joules, run.t, until)
    run.t, run.waiting = until, True


def _train(run: _Run, k: int, rho: float) -> SimSegment:
    """Run segment k; ends early at the first tick boundary at which `must_stop` says so."""
    request, energy = run.request, run.energy
    factor = request.power_factor[k % len(request.power_factor)] if request.power_factor else 1.0
    lasts = energy.seconds(rho, 1)
    joules = energy.joules(rho, 1) * factor
    start, end, share = run.t, run.after(run.t, lasts), 1.0
    # must_stop holds as soon as spent passes budget − reserve, where the reserve has the tick at worst in it
    limit = request.budget_g - run.reserve_g
    spent = run.grams_working(joules, start, lasts)
    if run.spent_g + spent > limit * (1 + 1e-9):
        ticks, low = math.ceil(lasts / request.tick_s), 0
        while ticks - low > 1:
            middle = (low + ticks) // 2
            part = min(middle * request.tick_s, lasts)
            used = run.grams_working(joules * part / lasts, start, part)
            low, ticks = (middle, ticks) if run.spent_g + used <= limit else (low, middle)
        # the tick that began while all was still well is run to its end, then the stop is seen
        part = min((low + 1) * request.tick_s, lasts) if run.spent_g <= limit else 0.0
        share, end = part / lasts, run.after(start, part) if part > 0 else start
        spent = run.grams_working(joules * share, start, part) if part > 0 else 0.0
    run.spent_g += spent
    run.t, run.waiting = end, False
    return SimSegment(k=k, start=_utc(start), end=_utc(end), rho=rho, spent_g=spent, done=share)


def _problem(run: _Run, slots: tuple[Slot, ...], k: int) -> Problem:
    request = run.request
    return Problem(
        segments=run.segments[k:],
        slots=slots,
        energy=run.energy,
        budget_g=request.budget_g - run.spent_g,
        rho_min=request.rho_min,
        rho_max=request.rho_max,
        pue=request.pue,
        deadline_s=None if run.deadline is None else run.deadline - run.t,
        may_pause=request.may_pause,
        idle_w=request.idle_w,
        switch_j=request.switch_j,
        worst_g_per_kwh=run.worst,
        waiting=run.waiting,
        done=k / request.segments,
        reserve_g=run.reserve_g,
        allowed=_allowed(run),
        decay=_decay(run, k),
        beyond_g_per_kwh=() if slots[-1].end_s >= _left(run) else _beyond(run, slots),
    )


def _beyond(run: _Run, slots: tuple[Slot, ...]) -> tuple[float, ...]:
    """What is expected after the horizon, from what is known of the last year."""
    trace, row = run.request.trace, run.request.trace.row(run.t)
    first = bisect_right(trace.at, run.t - _YEAR_S)
    days = float(trace.edges[row + 1] - trace.edges[first]) / DAY_S
    # a few hundred rows tell the spread as well as all of them
    return forecast.beyond(slots, trace.g[first : row + 1 : max((row + 1 - first) // 997, 1)], days)


def _left(run: _Run) -> float:
    """Seconds from now to the last moment at which the job may still run."""
    request = run.request
    left = run.after(run.t0, request.segments * request.segment_hours * 3600.0) - run.t0
    if run.deadline is not None:
        left = max(left, run.deadline - run.t0)
    elif request.may_pause:
        left = 2 * left + DAY_S
    return left - (run.t - run.t0)


def _decay(run: _Run, k: int) -> float:
    """What the frontiers of the segments up to k suggest."""
    request = run.request
    if request.gain_decay == 1.0 or not request.discount:
        return 1.0
    return discount.decay(list(enumerate(run.shown[: k + 1])), request.segments)


def _true_decay(request: SimRequest) -> float:
    return float(request.gain_decay ** (1 / max(request.segments - 1, 1)))


def _allowed(run: _Run) -> tuple[tuple[float, float], ...] | None:
    """The allowed hours from now on, in seconds from now."""
    if run.hours is None:
        return None
    passed = run.t - run.t0
    rows = zip((run.hours.start - passed).tolist(), (run.hours.end - passed).tolist(), strict=True)
    ahead = tuple((a, b) for a, b in rows if b > 1e-6)
    # past the last one the job is late anyway: a day of them keeps the planner going
    return ahead or ((0.0, DAY_S),)


def _slots_ahead(run: _Run, kind: ForecastKind, *, whole: bool = False) -> tuple[Slot, ...]:
    """The slots from now on, from what may be known at `run.t`; `whole`: to the very end, not only the horizon."""
    request, trace, now = run.request, run.request.trace, run.t
    horizon = max(_left(run) if whole else min(_left(run), request.horizon_s), 2 * trace.step_s)
    row = trace.row(now)
    here = float(trace.g[row])
    if kind == "perfect":
        stop = min(bisect_right(trace.at, now + horizon), len(trace.at))
        edges = trace.edges[row : stop + 1] - now
        return tuple(
            Slot(float(a), float(b), float(v), float(v))
            for a, b, v in zip(edges[:-1], edges[1:], trace.g[row:stop], strict=True)
        )
    first = bisect_right(trace.at, now - _HISTORY_S)
    past = Past(trace.at[first : row + 1], trace.g[first : row + 1])
    with_provider = kind == "column"
    provider = _column(trace, row, bisect_right(trace.at, now + horizon)) if with_provider else NO_FORECAST
    if run.blend is None or now - run.learned_at >= DAY_S:
        run.blend = Blend.learn(past, _column(trace, first, row + 1) if with_provider else NO_FORECAST)
        run.learned_at = now
    ends = max(float(trace.edges[row + 1]) - now, 1.0)
    edges = forecast.raster(
        horizon,
        min(ends, trace.step_s),
        trace.step_s,
        replace(provider, start=provider.start - now, end=provider.end - now),
        DAY_S,
    )
    return forecast.build(edges, now, here, past, provider, run.blend, request.quantile, run.worst)


def _column(trace: TraceArrays, first: int, stop: int) -> ProviderForecast:
    """What the trace's forecast column said for its rows."""
    if trace.forecast is None:
        return NO_FORECAST
    stop = min(stop, len(trace.at))
    value = trace.forecast[first:stop]
    return ProviderForecast(
        trace.edges[first:stop], trace.edges[first + 1 : stop + 1], value, np.full(len(value), math.nan)
    )


def _recent_slots(run: _Run) -> tuple[Slot, ...]:
    """The last week as if it lay ahead."""
    trace, row = run.request.trace, run.request.trace.row(run.t)
    values = trace.g[max(0, row + 1 - int(_LATELY_S / trace.step_s)) : row + 1]
    return tuple(
        Slot(i * trace.step_s, (i + 1) * trace.step_s, float(v), float(v)) for i, v in enumerate(values)
    )


def _result(run: _Run, segments: list[SimSegment], reason: str, waits: int, oracle: Plan | None) -> SimResult:
    request = run.request
    whole = SegmentArrays(
        replace(
            _problem(run, _from_start(run.worked or run.real), 0),
            budget_g=request.budget_g,
            may_pause=False,
            allowed=None,
        )
    )
    share, curve = 1.0 / request.segments, whole.curves[0]
    worth = _true_decay(request) ** np.arange(request.segments)
    worth /= worth.sum()
    rho = np.array([s.rho for s in segments])
    parts = np.array([s.done for s in segments])
    gain = float((worth[: len(rho)] * curve.at(rho) * parts).sum()) if segments else 0.0
    finished = len(segments) == request.segments and all(s.done >= 1 - 1e-12 for s in segments)
    end = segments[-1].end if segments else request.start
    spent = run.spent_g
    full_there = sum(
        run.grams_working(
            run.energy.joules_full * s.done, s.start.timestamp(), run.energy.seconds(s.rho, 1) * s.done
        )
        for s in segments
    )
    joules = sum(s.done * run.energy.joules(s.rho, 1) for s in segments)
    until = max(end.timestamp(), run.deadline or 0.0)
    mean = float(run.real.between(np.array([0.0]), np.array([max(until - run.t0, 1.0)]))[0])
    late = max(0.0, end.timestamp() - run.deadline) if run.deadline is not None and segments else 0.0
    return SimResult(
        policy=request.policy,
        forecast=request.forecast,
        spent_g=spent,
        budget_g=request.budget_g,
        floor_g=whole.schedule(whole.lo).spend_g,
        full_g=whole.schedule(whole.hi).spend_g,
        flops_ratio=float((rho * parts).sum()) * share if segments else 0.0,
        gain=gain,
        oracle_gain=None if oracle is None else sum(p.gain for p in oracle.segments),
        oracle_gap=None if oracle is None else oracle.gap,
        finished=finished,
        finished_at=end if finished else None,
        missed_deadline_s=late,
        waits=waits,
        reason=reason,
        flops_effect_g=full_there - spent,
        timing_effect_g=grams(joules, mean, request.pue) - spent,
        segments=tuple(segments),
    )


def _from_start(real: IntensityCurve) -> tuple[Slot, ...]:
    return tuple(
        Slot(float(a), float(b), float(v), float(v))
        for a, b, v in zip(real.edges[:-1], real.edges[1:], real.mean, strict=True)
    )


def _time_text(at: float) -> str:
    return f"{_utc(at):%Y-%m-%dT%H:%M:%SZ}"


def _utc(at: float) -> datetime:
    return datetime.fromtimestamp(0, UTC) + timedelta(seconds=at)
