"""Reruns every figure of docs/planner.md: `python -m carbonsched.plan.evaluate --traces DIR`.

Traces are CSV files `datetime,g_per_kwh[,forecast_g_per_kwh]`; `polled_at,datetime,g_per_kwh` is a log of real polls.
One JSON document on stdout (or --out), progress on stderr. --table picks some of the tables, --starts how many random
starts a case has.
"""

import argparse
import csv
import json
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from carbonsched.errors import InputError
from carbonsched.plan.planner import solve
from carbonsched.plan.policies import Policy
from carbonsched.plan.problem import EnergyModel, Problem, Segment, Slot
from carbonsched.plan.simulate import LINEAR, Grid, Knows, SimRequest, SimResult, simulate
from carbonsched.units import J_PER_KWH

Row = dict[str, Any]
Frontier = tuple[tuple[float, float], ...]

C0, RHO_MIN = 0.2, 0.4
_FLOOR = C0 + (1 - C0) * RHO_MIN
_HISTORY_H = 30 * 24
_TICK_S = 1.0


def read(path: Path) -> Grid | None:
    """A trace file as a Grid; None where its columns are others than a trace's."""
    with path.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    if not rows or not {"datetime", "g_per_kwh"} <= rows[0].keys() or "polled_at" in rows[0]:
        return None
    said = None
    if "forecast_g_per_kwh" in rows[0]:
        said = [float(r["forecast_g_per_kwh"]) if r["forecast_g_per_kwh"] else None for r in rows]
    return Grid([_time(r["datetime"]) for r in rows], [float(r["g_per_kwh"]) for r in rows], said)


def read_polls(path: Path) -> tuple[Grid, Grid] | None:
    """A log of polls as two grids: what was known when, and what was finally settled for each hour."""
    with path.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    if not rows or "polled_at" not in rows[0]:
        return None
    known = {_time(r["polled_at"]): float(r["g_per_kwh"]) for r in rows}
    final = {_time(r["datetime"]): float(r["g_per_kwh"]) for r in rows}
    return tuple(Grid(sorted(d), [d[t] for t in sorted(d)]) for d in (known, final))  # type: ignore[return-value]


def _time(text: str) -> datetime:
    return datetime.fromisoformat(text).astimezone(UTC)


def starts(grid: Grid, hours: float, count: int, seed: int) -> list[int]:
    """Random rows with a month of history before and `hours` of trace behind them."""
    first = int(np.searchsorted(grid.at, grid.at[0] + _HISTORY_H * 3600.0))
    last = int(np.searchsorted(grid.at, grid.end - hours * 3600.0, side="right")) - 1
    if last <= first:
        return []
    return [int(i) for i in np.random.default_rng(seed).integers(first, last, count)]


def job(grid: Grid, row: int, n: int, share: float = 0.5, **more: Any) -> SimRequest:
    """n hourly kWh on fixed slots; the budget lies at `share` between what all-ρ_min and all-full emit."""
    at = float(grid.at[row])
    seconds = np.append(at + 3600.0 * np.arange(n), at + 3600.0 * n)
    held = np.append(0.0, np.cumsum(np.diff(grid.edges) * grid.g))
    full = float(np.interp(seconds[-1], grid.edges, held) - np.interp(at, grid.edges, held)) / 3600.0
    floor = full * _FLOOR
    base = SimRequest(
        grid, datetime.fromtimestamp(at, UTC), n, 1.0, 1.0, C0, floor + share * (full - floor), tick_s=_TICK_S
    )
    return replace(base, **{"may_pause": False, "rho_min": RHO_MIN, **more})


def share_of_oracle(result: SimResult, floor_gain: float) -> float:
    """Above-floor gain over the oracle's; for linear gain: above-floor FLOPs."""
    best = (result.oracle_gain or 0.0) - floor_gain
    return (result.gain - floor_gain) / best if best > 1e-9 else 1.0


def fixed_slots(grids: dict[str, Grid], count: int, frontier: Frontier) -> Iterator[Row]:
    """No pause, E = 0.2 + 0.8ρ, ρ in [0.4, 1], budget half-way: every policy against the exact oracle."""
    floor_gain = _gain_at(frontier, RHO_MIN)
    for name, grid in grids.items():
        cases: list[tuple[Policy, Knows]] = [("mpc", "perfect"), ("mpc", "persistence")]
        if grid.said is not None:
            cases.append(("mpc", "column"))
        cases += [("constant", "persistence"), ("dual", "persistence")]
        for n in (24, 72, 168):
            for policy, knows in cases:
                rows = starts(grid, n + 24, count if policy == "mpc" else max(count // 3, 1), n)
                shares, done, over = [], 0, 0
                for row in rows:
                    result = simulate(job(grid, row, n, policy=policy, forecast=knows, frontier=frontier))
                    shares.append(share_of_oracle(result, floor_gain))
                    done += result.finished
                    over += result.spent_g > result.budget_g
                if rows:
                    yield {
                        "trace": name,
                        "segments": n,
                        "policy": policy,
                        "forecast": knows,
                        "starts": len(rows),
                        "share": round(float(np.mean(shares)), 4),
                        "p5": round(float(np.quantile(shares, 0.05)), 4),
                        "done": round(done / len(rows), 4),
                        "over_budget": over,
                    }


def adversarial(grids: dict[str, Grid], count: int, _: Frontier) -> Iterator[Row]:
    """Biased forecasts, spikes, gaps, power outliers beyond what the guard was told: is the budget ever passed?"""
    rng = np.random.default_rng(11)
    names = sorted(grids)
    worst_g, passed, late, unfinished, stopped = 0.0, 0, 0.0, 0, 0
    for i in range(count):
        grid = grids[names[i % len(names)]]
        n = int(rng.integers(3, 13))
        row = starts(grid, n + 240, 1, int(rng.integers(1 << 31)))[0]
        spoilt = _spoil(grid, row, n, rng)
        request = job(
            spoilt,
            int(np.searchsorted(spoilt.at, grid.at[row], side="right")) - 1,
            n,
            float(rng.uniform(-0.1, 1.1)),
            forecast=("column", "persistence")[i % 2],
            may_pause=bool(rng.integers(2)),
            deadline_hours=float(n * rng.uniform(1.2, 2.5)),
            power_factor=tuple(rng.choice([0.8, 1.0, 1.0, 1.15, 1.8], n).tolist()),
            watts_high=1250.0,
            worst_g_per_kwh=3 * float(grid.g.max()),
            sigma=0.05,
            reserve_j=20_000.0,
            oracle=False,
        )
        # rows may have been dropped at the start: begin where the last one left stands
        result = simulate(replace(request, start=datetime.fromtimestamp(float(grid.at[row]), UTC)))
        # 1,800 W pass the 1,250 W the guard was told: what a tick of those can emit is the allowed excess
        tick_g = (1800.0 - 1250.0) * _TICK_S / J_PER_KWH * 3 * float(grid.g.max())
        excess = result.spent_g - result.budget_g
        worst_g = max(worst_g, excess)
        passed += excess > tick_g
        late = max(late, result.missed_deadline_s)
        unfinished += not result.finished
        stopped += not result.segments
    yield {
        "runs": count,
        "passed_budget_by_more_than_a_tick": passed,
        "largest_excess_g": round(worst_g, 6),
        "not_finished": unfinished,
        "of_these_refused_at_once": stopped,
    }


def _spoil(grid: Grid, row: int, n: int, rng: np.random.Generator) -> Grid:
    """A copy whose future breaks its past: level shift, spikes ×3, a gap of up to 88 h, a biased forecast."""
    first, stop = max(0, row - _HISTORY_H), min(len(grid.at), row + 4 * n + 120)
    at, g = grid.at[first:stop].copy(), grid.g[first:stop].copy()
    here = row - first
    g[here + 1 :] *= rng.uniform(0.6, 1.6)
    spikes = rng.integers(here, len(g), 4)
    g[spikes] *= 3
    g = np.minimum(g, 3 * grid.g.max())
    said = g * (1 + rng.uniform(-0.5, 0.5)) * np.exp(rng.normal(0, 0.1, len(g)))
    keep = np.ones(len(g), dtype=bool)
    hole = here + int(rng.integers(-60, 4))
    keep[max(hole, 1) : hole + int(rng.integers(0, 89))] = False
    times = [datetime.fromtimestamp(float(t), UTC) for t in at[keep]]
    return Grid(times, g[keep].tolist(), said[keep].tolist())


def pauses(grids: dict[str, Grid], count: int, frontier: Frontier) -> Iterator[Row]:
    """A deadline of 1.5 and 2 times full speed: grams at the gain `mpc` reaches, for each other policy; of whole jobs."""
    for name, grid in grids.items():
        for slack in (1.5, 2.0):
            n, rows = 24, starts(grid, 24 * 2 + 24, count, int(slack * 10))
            table: dict[str, list[float]] = {}
            whole: list[bool] = []
            for row in rows:
                asked = job(
                    grid,
                    row,
                    n,
                    may_pause=True,
                    deadline_hours=n * slack,
                    frontier=frontier,
                    time_follows_rho=False,
                )
                ours = simulate(asked)
                whole.append(ours.finished)
                if not ours.finished:
                    continue
                rho = _rho_of(frontier, ours.gain)
                same = replace(asked, budget_g=1e12, oracle=False, rho_min=rho, rho_max=rho)
                flat = simulate(replace(same, policy="full", may_pause=False))
                waited = simulate(replace(same, policy="threshold"))
                full = simulate(replace(asked, budget_g=1e12, oracle=False, policy="full", may_pause=False))
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
            if any(whole):
                means = {key: round(float(np.mean(v)), 4) for key, v in table.items()}
                yield {
                    "trace": name,
                    "deadline": slack,
                    "segments": n,
                    "starts": len(rows),
                    "done": round(sum(whole) / len(whole), 4),
                    **means,
                }


def polled(path: Path, count: int) -> Iterator[Row]:
    """Real polls with their gaps, lags and revisions: 14-day jobs on both accounts, as decided and as settled."""
    read_in = read_polls(path)
    if read_in is None:
        return
    known, final = read_in
    held = np.append(0.0, np.cumsum(np.diff(final.edges) * final.g))
    ratios, decided, done = [], [], 0
    for row in starts(known, 15 * 24, count, 5):
        result = simulate(job(known, row, 14 * 24, oracle=False))
        joules = [C0 + (1 - C0) * s.rho for s in result.segments]
        ends = [
            np.interp([s.start.timestamp(), s.end.timestamp()], final.edges, held) for s in result.segments
        ]
        settled = sum(
            j * s.done * float(b - a) / 3600.0
            for j, s, (a, b) in zip(joules, result.segments, ends, strict=True)
        )
        ratios.append(settled / result.budget_g - 1)
        decided.append(result.spent_g / result.budget_g - 1)
        done += result.finished
    if ratios:
        yield {
            "trace": path.name,
            "days": 14,
            "starts": len(ratios),
            "decided_over_budget_max": round(max(decided), 5),
            "settled_over_budget_mean": round(float(np.mean(ratios)), 5),
            "settled_over_budget_max": round(max(ratios), 5),
            "settled_over_budget_min": round(min(ratios), 5),
            "done": round(done / len(ratios), 4),
        }


def cost(grids: dict[str, Grid], count: int, _: Frontier) -> Iterator[Row]:
    """CPU seconds on one core of a re-plan with 168 segments, 7 days at 15 minutes and 25 ρ, and of a long run."""
    rng = np.random.default_rng(2)
    t = np.arange(672) * 900.0
    g = 300 + 100 * np.sin(2 * np.pi * t / 86_400) + rng.normal(0, 20, len(t))
    slots = tuple(Slot(float(a), float(a) + 900, float(v), float(v) * 1.1) for a, v in zip(t, g, strict=True))
    for pause in (False, True):
        for n in (24, 84, 168):
            energy = EnergyModel(J_PER_KWH, C0, 3600.0, 1 / 3)
            budget = n * 300 * (_FLOOR + 0.5 * (1 - _FLOOR))
            problem = Problem(
                tuple(Segment(k, 1, LINEAR) for k in range(n)),
                slots,
                energy,
                budget,
                RHO_MIN,
                1.0,
                may_pause=pause,
                deadline_s=7 * 86_400.0 if pause else None,
            )
            hint = solve(problem).price
            yield {
                "replan_segments": n,
                "pauses": pause,
                "cold_ms": _milliseconds(problem),
                "warm_ms": _milliseconds(replace(problem, price_hint=hint)),
            }
    name, grid = max(grids.items(), key=lambda item: len(item[1].at))
    row = starts(grid, 8760, 1, 1)
    if row and count > 1:
        began = time.process_time()
        result = simulate(job(grid, row[0], min(8760, len(grid.at) - row[0] - 48), oracle=False))
        yield {
            "year_on": name,
            "segments": len(result.segments),
            "cpu_s": round(time.process_time() - began, 1),
            "done": result.finished,
            "spent_of_budget": round(result.spent_g / result.budget_g, 5),
        }
    # VmHWM, not ru_maxrss: that one is inherited from whoever started us
    peak_kb = int(Path("/proc/self/status").read_text().split("VmHWM:")[1].split()[0])
    yield {"peak_memory_mb": round(peak_kb * 1024 / 1e6)}


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


TABLES: dict[str, Callable[[dict[str, Grid], int, Frontier], Iterator[Row]]] = {
    "fixed_slots": fixed_slots,
    "adversarial": adversarial,
    "pauses": pauses,
    "cost": cost,
}


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m carbonsched.plan.evaluate", description=__doc__)
    parser.add_argument("--traces", type=Path, required=True, help="folder of trace CSV files")
    parser.add_argument(
        "--table", action="append", choices=[*TABLES, "polled"], help="only these; may repeat"
    )
    parser.add_argument(
        "--starts", type=int, default=200, help="random starts a case (pauses: a fifth, polled: a tenth)"
    )
    parser.add_argument("--adversarial", type=int, default=10_000, help="adversarial runs")
    parser.add_argument(
        "--frontier", type=Path, help="FRONTIER.json of a measured model instead of linear gain"
    )
    parser.add_argument("--only", default="", help="only traces whose file name has this in it")
    parser.add_argument("--out", type=Path, help="write the JSON here instead of to stdout")
    options = parser.parse_args(argv)
    frontier: Frontier = LINEAR
    if options.frontier:
        points = json.loads(options.frontier.read_text())["frontier"]
        frontier = tuple((p["rho"], p["importance"]) for p in points)
    files = [p for p in sorted(options.traces.glob("*.csv")) if options.only in p.name]
    grids = {p.name: g for p in files if (g := read(p)) is not None}
    if not grids and not files:
        raise InputError("--traces", f"no CSV file in {options.traces}", "give the folder with the traces")
    counts = {
        "fixed_slots": options.starts,
        "adversarial": options.adversarial,
        "pauses": max(options.starts // 5, 2),
        "cost": options.starts,
    }
    report: dict[str, list[Row]] = {}
    wanted = options.table or [*TABLES, "polled"]
    for table in wanted:
        source = (
            (row for p in files for row in polled(p, max(options.starts // 10, 2)))
            if table == "polled"
            else TABLES[table](grids, counts[table], frontier)
        )
        for row in source:
            report.setdefault(table, []).append(row)
            sys.stderr.write(f"{table}: {json.dumps(row)}\n")
            sys.stderr.flush()
    text = json.dumps(report, indent=1)
    if options.out:
        options.out.write_text(text + "\n", encoding="utf-8")
    else:
        sys.stdout.write(text + "\n")
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except InputError as e:
        sys.stderr.write(f"{e}\n")
        sys.exit(e.exit_code)
