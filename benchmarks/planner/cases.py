"""Turns each claim of docs/planner.md into cases that run one by one; `python -m benchmarks.planner` runs them.

A case has a name, which a run that was broken off knows it by, and a thunk that yields its row of figures.
"""

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from carbonsched.plan.planner import solve
from carbonsched.plan.problem import EnergyModel, JobSegment, Problem, Slot
from carbonsched.plan.simulation.policies import Policy
from carbonsched.plan.simulation.request import LINEAR, ForecastKind, SimRequest, TraceArrays
from carbonsched.plan.simulation.result import SimResult
from carbonsched.plan.simulation.simulate import simulate
from carbonsched.units import J_PER_KWH

Row = dict[str, Any]
Frontier = tuple[tuple[float, float], ...]

C0, RHO_MIN = 0.2, 0.4
_FLOOR = C0 + (1 - C0) * RHO_MIN
_HISTORY_H = 30 * 24
_TICK_S = 1.0
_CHUNK = 500
_WHOLE_YEARS = 10
"""Starts per case from which the table of costs runs whole years."""
_YEAR_H = 8760


@dataclass(frozen=True, slots=True)
class Case:
    """One row of a table, not run yet.

    Example::

        case = next(fixed_slots(inputs))
        print(case.name, case.run())
    """

    about: Row
    """What it is a case of: trace, segments, policy…"""
    run: Callable[[], Row]

    @property
    def name(self) -> str:
        return " ".join(str(value) for value in self.about.values())


@dataclass(frozen=True, slots=True)
class BenchmarkInputs:
    """What all tables are made from.

    Example::

        inputs = BenchmarkInputs({"de.csv": read(Path("de.csv"))}, {}, starts=10)
    """

    traces: dict[str, TraceArrays]
    polls: dict[str, tuple[TraceArrays, TraceArrays]]
    """As known when, and as settled."""
    starts: int = 200
    adversarial: int = 10_000
    frontier: Frontier = LINEAR


def starts(trace: TraceArrays, hours: float, count: int, seed: int) -> list[int]:
    """Random rows with a month of history before and `hours` of trace behind them."""
    first = int(np.searchsorted(trace.at, trace.at[0] + _HISTORY_H * 3600.0))
    last = int(np.searchsorted(trace.at, trace.end - hours * 3600.0, side="right")) - 1
    if last <= first:
        return []
    return [int(i) for i in np.random.default_rng(seed).integers(first, last, count)]


def job(trace: TraceArrays, row: int, n: int, share: float = 0.5, **more: Any) -> SimRequest:
    """n hourly kWh on fixed slots; the budget lies at `share` between what all-ρ_min and all-full emit."""
    at = float(trace.at[row])
    full = (
        float(
            np.interp(at + 3600.0 * n, trace.edges, trace.integral)
            - np.interp(at, trace.edges, trace.integral)
        )
        / 3600.0
    )
    floor = full * _FLOOR
    base = SimRequest(
        trace,
        datetime.fromtimestamp(at, UTC),
        n,
        1.0,
        1.0,
        C0,
        floor + share * (full - floor),
        tick_s=_TICK_S,
    )
    return replace(base, **{"may_pause": False, "rho_min": RHO_MIN, **more})


def share_of_oracle(result: SimResult, floor_gain: float) -> float:
    """Above-floor gain over the oracle's; for linear gain: above-floor FLOPs."""
    best = (result.oracle_gain or 0.0) - floor_gain
    return (result.gain - floor_gain) / best if best > 1e-9 else 1.0


def fixed_slots(inputs: BenchmarkInputs) -> Iterator[Case]:
    """No pause, E = 0.2 + 0.8ρ, ρ in [0.4, 1], budget half-way: every policy against the exact oracle."""
    for name, trace in inputs.traces.items():
        cases: list[tuple[Policy, ForecastKind]] = [("mpc", "perfect"), ("mpc", "persistence")]
        if trace.forecast is not None:
            cases.append(("mpc", "column"))
        cases += [("constant", "persistence"), ("dual", "persistence")]
        for n in (24, 72, 168):
            for policy, kind in cases:
                count = inputs.starts if policy == "mpc" else max(inputs.starts // 3, 1)
                rows = starts(trace, n + 24, count, n)
                request = {"policy": policy, "forecast": kind, "frontier": inputs.frontier}
                if rows:
                    about = {"trace": name, "segments": n, "policy": policy, "forecast": kind}
                    yield Case(about, partial(_fixed, trace, rows, n, request))


def _fixed(trace: TraceArrays, rows: list[int], n: int, request: Row) -> Row:
    floor_gain = _gain_at(request["frontier"], RHO_MIN)
    results = [simulate(job(trace, row, n, **request)) for row in rows]
    shares = [share_of_oracle(result, floor_gain) for result in results]
    return {
        "starts": len(rows),
        "share": round(float(np.mean(shares)), 4),
        "p5": round(float(np.quantile(shares, 0.05)), 4),
        "done": round(sum(r.finished for r in results) / len(rows), 4),
        "over_budget": sum(r.spent_g > r.budget_g for r in results),
    }


def discounted(inputs: BenchmarkInputs) -> Iterator[Case]:
    """Gains that fall to a quarter over the job, seen with 20% noise: the learned discount against none."""
    for name, trace in inputs.traces.items():
        for n in (24, 72):
            rows = starts(trace, n + 24, max(inputs.starts // 4, 2), n)
            if rows:
                about = {"trace": name, "segments": n}
                yield Case(about, partial(_discounted, trace, rows, n, inputs.frontier))


def _discounted(trace: TraceArrays, rows: list[int], n: int, frontier: Frontier) -> Row:
    out: Row = {"starts": len(rows)}
    for key, more in {
        "discounted": {"gain_decay": 0.25},
        "not_discounted": {"gain_decay": 0.25, "discount": False},
        # where nothing decays, learning from noise must not cost
        "flat_discounted": {"gain_decay": 1.0 - 1e-9},
        "flat_not_discounted": {},
    }.items():
        results = [simulate(job(trace, row, n, frontier=frontier, **more)) for row in rows]
        out[key] = round(float(np.mean([r.gain / (r.oracle_gain or 1.0) for r in results])), 4)
    return out


def adversarial(inputs: BenchmarkInputs) -> Iterator[Case]:
    """Biased forecasts, spikes, gaps, power outliers beyond what the guard was told: is the budget ever passed?"""
    for first in range(0, inputs.adversarial, _CHUNK):
        count = min(_CHUNK, inputs.adversarial - first)
        yield Case({"first": first, "runs": count}, partial(_adversarial, inputs.traces, first, count))


def _adversarial(traces: dict[str, TraceArrays], first: int, count: int) -> Row:
    rng = np.random.default_rng((11, first))
    names = sorted(traces)
    worst_g, passed, unfinished, stopped = 0.0, 0, 0, 0
    for i in range(first, first + count):
        trace = traces[names[i % len(names)]]
        n = int(rng.integers(3, 13))
        row = starts(trace, n + 240, 1, int(rng.integers(1 << 31)))[0]
        spoilt = _spoil(trace, row, n, rng)
        request = job(
            spoilt,
            int(np.searchsorted(spoilt.at, trace.at[row], side="right")) - 1,
            n,
            float(rng.uniform(-0.1, 1.1)),
            forecast=("column", "persistence")[i % 2],
            may_pause=bool(rng.integers(2)),
            deadline_hours=float(n * rng.uniform(1.2, 2.5)),
            power_factor=tuple(rng.choice([0.8, 1.0, 1.0, 1.15, 1.8], n).tolist()),
            watts_high=1250.0,
            worst_g_per_kwh=3 * float(trace.g.max()),
            sigma=0.05,
            reserve_j=20_000.0,
            oracle=False,
        )
        # rows may have been dropped at the start: begin where the last one left stands
        result = simulate(replace(request, start=datetime.fromtimestamp(float(trace.at[row]), UTC)))
        # 1,800 W pass the 1,250 W the guard was told: what a tick of those can emit is the allowed excess
        tick_g = (1800.0 - 1250.0) * _TICK_S / J_PER_KWH * 3 * float(trace.g.max())
        excess = result.spent_g - result.budget_g
        worst_g = max(worst_g, excess)
        passed += excess > tick_g
        unfinished += not result.finished
        stopped += not result.segments
    return {
        "passed_budget_by_more_than_a_tick": passed,
        "largest_excess_g": round(worst_g, 6),
        "not_finished": unfinished,
        "of_these_refused_at_once": stopped,
    }


def _spoil(trace: TraceArrays, row: int, n: int, rng: np.random.Generator) -> TraceArrays:
    """A copy whose future breaks its past: level shift, spikes ×3, a gap of up to 88 h, a biased forecast."""
    first, stop = max(0, row - _HISTORY_H), min(len(trace.at), row + 4 * n + 120)
    at, g = trace.at[first:stop].copy(), trace.g[first:stop].copy()
    here = row - first
    g[here + 1 :] *= rng.uniform(0.6, 1.6)
    spikes = rng.integers(here, len(g), 4)
    g[spikes] *= 3
    g = np.minimum(g, 3 * trace.g.max())
    provider = g * (1 + rng.uniform(-0.5, 0.5)) * np.exp(rng.normal(0, 0.1, len(g)))
    keep = np.ones(len(g), dtype=bool)
    hole = here + int(rng.integers(-60, 4))
    keep[max(hole, 1) : hole + int(rng.integers(0, 89))] = False
    times = [datetime.fromtimestamp(float(t), UTC) for t in at[keep]]
    return TraceArrays(times, g[keep].tolist(), provider[keep].tolist())


def pauses(inputs: BenchmarkInputs) -> Iterator[Case]:
    """A deadline of 1.5 and 2 times full speed: grams at the gain `mpc` reaches, for each other policy; of whole jobs."""
    for name, trace in inputs.traces.items():
        for slack in (1.5, 2.0):
            rows = starts(trace, 24 * 2 + 24, max(inputs.starts // 5, 2), int(slack * 10))
            if rows:
                about = {"trace": name, "deadline": slack, "segments": 24}
                yield Case(about, partial(_pauses, trace, rows, slack, inputs.frontier))


def _pauses(trace: TraceArrays, rows: list[int], slack: float, frontier: Frontier) -> Row:
    n = 24
    table: dict[str, list[float]] = {}
    whole: list[bool] = []
    for row in rows:
        request = job(
            trace,
            row,
            n,
            may_pause=True,
            deadline_hours=n * slack,
            frontier=frontier,
            time_follows_rho=False,
        )
        ours = simulate(request)
        whole.append(ours.finished)
        if not ours.finished:
            continue
        rho = _rho_of(frontier, ours.gain)
        same = replace(request, budget_g=1e12, oracle=False, rho_min=rho, rho_max=rho)
        flat = simulate(replace(same, policy="full", may_pause=False))
        waited = simulate(replace(same, policy="threshold"))
        full = simulate(replace(request, budget_g=1e12, oracle=False, policy="full", may_pause=False))
        for key, value in {
            "saved_against_constant": 1 - ours.spent_g / flat.spent_g,
            "saved_against_threshold": 1 - ours.spent_g / waited.spent_g,
            "saved_against_full": 1 - ours.spent_g / full.spent_g,
            "flops_effect": ours.flops_effect_g / full.spent_g,
            "timing_effect": ours.timing_effect_g / full.spent_g,
            "gain": ours.gain,
            "of_oracle_gain": ours.gain / (ours.oracle_gain or 1.0),
            "late": float(ours.missed_deadline_s > 1.0),
        }.items():
            table.setdefault(key, []).append(value)
    means = {key: round(float(np.mean(v)), 4) for key, v in table.items()}
    return {"starts": len(rows), "done": round(sum(whole) / len(whole), 4), **means}


def polled(inputs: BenchmarkInputs) -> Iterator[Case]:
    """Real polls with their gaps, lags and revisions: 14-day jobs on both accounts, as decided and as settled."""
    for name, (known, final) in inputs.polls.items():
        rows = starts(known, 15 * 24, max(inputs.starts // 10, 2), 5)
        if rows:
            yield Case({"trace": name, "days": 14}, partial(_polled, known, final, rows))


def _polled(known: TraceArrays, final: TraceArrays, rows: list[int]) -> Row:
    ratios, decided, done = [], [], 0
    for row in rows:
        result = simulate(job(known, row, 14 * 24, oracle=False))
        joules = [C0 + (1 - C0) * s.rho for s in result.segments]
        ends = [
            np.interp([s.start.timestamp(), s.end.timestamp()], final.edges, final.integral)
            for s in result.segments
        ]
        settled = sum(
            j * s.done * float(b - a) / 3600.0
            for j, s, (a, b) in zip(joules, result.segments, ends, strict=True)
        )
        ratios.append(settled / result.budget_g - 1)
        decided.append(result.spent_g / result.budget_g - 1)
        done += result.finished
    return {
        "starts": len(ratios),
        "decided_over_budget_max": round(max(decided), 5),
        "settled_over_budget_mean": round(float(np.mean(ratios)), 5),
        "settled_over_budget_max": round(max(ratios), 5),
        "settled_over_budget_min": round(min(ratios), 5),
        "done": round(done / len(ratios), 4),
    }


def cost(inputs: BenchmarkInputs) -> Iterator[Case]:
    """CPU seconds on one core of a re-plan with 168 segments, 7 days at 15 minutes and 25 ρ, and of long runs."""
    for pause in (False, True):
        for n in (24, 84, 168):
            yield Case({"replan_segments": n, "pauses": pause}, partial(_replan, n, pause))
    name, trace = max(inputs.traces.items(), key=lambda item: len(item[1].at))
    spare_h = (trace.end - float(trace.at[0])) / 3600.0 - _HISTORY_H - 48
    if inputs.starts > 1:
        # a year each way is minutes: a few starts ask for a look alone
        parts = (0.25, 1.0) if inputs.starts >= _WHOLE_YEARS else (0.03, 0.12)
        for part in parts:
            n = int(part * min(_YEAR_H, spare_h))
            about = {"trace": name, "hourly_segments": n, "pauses": False}
            yield Case(about, partial(_long, trace, n, {}))
        for part in parts:
            n = int(part * min(_YEAR_H, spare_h / 1.5))
            more = {"may_pause": True, "deadline_hours": 1.5 * n, "time_follows_rho": False}
            about = {"trace": name, "hourly_segments": n, "pauses": True}
            yield Case(about, partial(_long, trace, n, more))


def _replan(n: int, pause: bool) -> Row:
    rng = np.random.default_rng(2)
    t = np.arange(672) * 900.0
    g = 300 + 100 * np.sin(2 * np.pi * t / 86_400) + rng.normal(0, 20, len(t))
    slots = tuple(Slot(float(a), float(a) + 900, float(v), float(v) * 1.1) for a, v in zip(t, g, strict=True))
    energy = EnergyModel(J_PER_KWH, C0, 3600.0, 1 / 3)
    budget = n * 300 * (_FLOOR + 0.5 * (1 - _FLOOR))
    problem = Problem(
        tuple(JobSegment(k, 1, LINEAR) for k in range(n)),
        slots,
        energy,
        budget,
        RHO_MIN,
        1.0,
        may_pause=pause,
        deadline_s=7 * 86_400.0 if pause else None,
    )
    hint = solve(problem).price
    return {"cold_ms": _milliseconds(problem), "warm_ms": _milliseconds(replace(problem, price_hint=hint))}


def _long(trace: TraceArrays, n: int, more: Row) -> Row:
    hours = more.get("deadline_hours", n)
    row = starts(trace, hours + 24, 1, 1)[0]
    began = time.process_time()
    result = simulate(job(trace, row, n, oracle=False, **more))
    return {
        "cpu_s": round(time.process_time() - began, 1),
        "done": result.finished,
        "late_s": round(result.missed_deadline_s),
        "spent_of_budget": round(result.spent_g / result.budget_g, 5),
        "peak_memory_mb": peak_memory_mb(),
    }


def peak_memory_mb() -> int:
    # VmHWM, not ru_maxrss: that one is inherited from whoever started us
    peak_kb = int(Path("/proc/self/status").read_text().split("VmHWM:")[1].split()[0])
    return round(peak_kb * 1024 / 1e6)


def _milliseconds(problem: Problem) -> float:
    taken = []
    for _ in range(5):
        began = time.process_time()
        solve(problem)
        taken.append(time.process_time() - began)
    return round(1000 * min(taken), 1)


def _gain_at(frontier: Frontier, rho: float) -> float:
    points = np.asarray(frontier)
    return float(np.interp(rho, points[:, 0], points[:, 1]) / points[-1, 1])


def _rho_of(frontier: Frontier, gain: float) -> float:
    """The ρ at which a constant policy reaches this gain."""
    points = np.asarray(frontier)
    return float(np.clip(np.interp(gain * points[-1, 1], points[:, 1], points[:, 0]), RHO_MIN, 1.0))


TABLES: dict[str, Callable[[BenchmarkInputs], Iterator[Case]]] = {
    "fixed_slots": fixed_slots,
    "adversarial": adversarial,
    "pauses": pauses,
    "polled": polled,
    "discounted": discounted,
    "cost": cost,
}
