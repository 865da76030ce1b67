"""Runs many jobs of open end over recorded traces with bad forecasts: `python -m benchmarks.open_end --traces DIR`.

Jobs of half an hour to a day are drawn at random: starts, power, steps, deadlines, what a step is reckoned to take at first (off by up
to 40%), how even its power is. Forecasts are persistence, or the trace's own column. One JSON document on stdout: how much of the
budgets was used, how many were passed, how many jobs ended annealed.
"""

import argparse
import csv
import json
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from carbonsched.feeds.trace import COLUMNS, read_trace
from carbonsched.plan.simulation.open_end import OpenEndResult, OpenJob, simulate_open_end
from carbonsched.plan.simulation.request import SimRequest, TraceArrays

_HOUR_S = 3600.0


def draw(trace: TraceArrays, count: int, seed: int) -> Iterator[tuple[SimRequest, OpenJob]]:
    """`count` jobs on one trace."""
    random = np.random.default_rng(seed)
    for n in range(count):
        hours = float(np.exp(random.uniform(np.log(0.5), np.log(24.0))))
        step_s = float(np.exp(random.uniform(np.log(0.2), np.log(10.0))))
        watts = float(random.uniform(60.0, 700.0))
        job = OpenJob(
            step_j=step_s * watts,
            step_s=step_s,
            length=max(int(hours * _HOUR_S / step_s / random.integers(4, 40)), 2),
            share=float(random.choice([0.1, 0.2])),
            tail_s=float(random.uniform(0.002, 0.02) * hours * _HOUR_S),
            believed=float(random.uniform(0.6, 1.4)),
            noise=float(random.uniform(0.01, 0.08)),
            seed=n,
        )
        pauses, deadline = bool(random.integers(2)), None
        if pauses or random.integers(2):
            deadline = hours * float(random.choice([1.5, 3.0]))
        reach_s = (deadline or 3 * hours) * _HOUR_S
        first = int(np.searchsorted(trace.at, float(trace.at[0]) + 28 * 86_400.0))
        last = int(np.searchsorted(trace.at, trace.end - reach_s - 86_400.0)) - 1
        start = datetime.fromtimestamp(float(trace.at[int(random.integers(first, last))]), UTC)
        budget_g = watts * hours / 1000.0 * float(np.mean(trace.g))
        column = trace.forecast is not None and not np.isnan(trace.forecast).all()
        yield (
            SimRequest(
                trace=trace,
                start=start,
                segments=max(int(reach_s // _HOUR_S), 1),
                segment_kwh=watts / 1000.0,
                segment_hours=1.0,
                fixed_share=1.0,
                budget_g=budget_g,
                forecast="column" if column and n % 2 else "persistence",
                rho_min=1.0,
                may_pause=pauses,
                deadline_hours=deadline,
                idle_w=0.1 * watts,
                oracle=False,
            ),
            job,
        )


def summary(results: list[OpenEndResult]) -> dict[str, Any]:
    """What is told of many jobs; those that their deadline ended are told apart: it binds them, and not their budget."""
    bound = [r for r in results if r.annealed and r.used >= 0.5 and r.reason == "done"]
    used = sorted(r.used for r in results if not r.by_deadline)
    return {
        "jobs": len(results),
        "annealed": sum(r.annealed for r in results),
        "passed": sum(r.used > 1 for r in results),
        "late": sum(r.late_s > 60.0 for r in results),
        "ended_by_deadline": sum(r.by_deadline for r in results),
        "used_mean": round(float(np.mean(used)), 4) if used else None,
        "used_low_5": round(float(np.quantile(used, 0.05)), 4) if used else None,
        "used_least": round(used[0], 4) if used else None,
        "used_most": round(max(r.used for r in results), 4),
        "cooldown_share_mean": round(float(np.mean([r.cooldown_steps / max(r.steps, 1) for r in bound])), 4),
        "not_annealed": [r.reason for r in results if not r.annealed][:10],
    }


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--traces", type=Path, required=True, help="folder of CSV files datetime,g_per_kwh[,…]"
    )
    parser.add_argument("--jobs", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args(argv)
    traces = [read_trace(path) for path in sorted(options.traces.glob("*.csv")) if _is_trace(path)]
    arrays = [TraceArrays(trace.times, trace.g_per_kwh, trace.forecast) for trace in traces]
    results: list[OpenEndResult] = []
    for n, trace in enumerate(arrays):
        share = options.jobs // len(arrays) + (n < options.jobs % len(arrays))
        for request, job in draw(trace, share, options.seed + n):
            results.append(simulate_open_end(request, job))
            sys.stderr.write(f"\r{len(results)}/{options.jobs}")
    sys.stderr.write("\n")
    sys.stdout.write(json.dumps(summary(results), indent=2) + "\n")
    return 0


def _is_trace(path: Path) -> bool:
    with path.open(newline="", encoding="utf-8-sig") as file:
        header = [name.strip() for name in next(csv.reader(file), [])]
    return header in (list(COLUMNS[:2]), list(COLUMNS))


if __name__ == "__main__":
    raise SystemExit(main())
