"""Holds `auto` against what people do by hand, at equal grams on recorded grids: `python -m benchmarks.settings_on_grids --traces DIR`.

Each job may spend a share of what stock full fine-tuning of it would emit at the trace's mean, by a deadline of so many times as long as
that would take. The planner, the step dial and the guard of the daemon decide (`carbonsched.plan.simulation.open_end`); what a step of a setting
is worth, in full steps, is what small runs have shown (`carbonsched.model.methods.efficiency`). So this compares plans, not trained models:
the championship of docs/results.md trains. One JSON document on stdout.
"""

import argparse
import json
import sys
from collections.abc import Iterator, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from carbonsched.feeds.trace import read_trace
from carbonsched.model.methods.efficiency import prior_efficiency
from carbonsched.plan.problem import PlanPoint
from carbonsched.plan.simulation.open_end import OpenJob, simulate_open_end
from carbonsched.plan.simulation.request import SimRequest, TraceArrays

TRACES = (
    "es-2022-lifecycle.csv",
    "us-cal-ciso-2022-lifecycle.csv",
    "caiso-2019-2020-with-forecast.csv",
)
DEADLINES = (1.5, 3.0)
STOCK_HOURS, WATTS = 12.0, 300.0
"""Of stock full fine-tuning."""
WASTE_FREE = 0.62
"""FLOPs of a full step without waste ÷ those of a stock one (docs/results.md, Waste)."""
STEP_S = 4.0
"""Of a full step without waste."""
STEPS = round(STOCK_HOURS * 3600.0 * WASTE_FREE / STEP_S)
"""That the data has: so many full steps are all of them."""
FLOOR = 0.34
"""Of ρ, without waste."""
LEVEL = 0.005
"""Policies whose steps are worth as much to so much are level."""


class Policy(NamedTuple):
    """Who decides what."""

    name: str
    points: tuple[PlanPoint, ...]
    pauses: bool


def point(method: str, rho: float) -> PlanPoint:
    """A setting with what its step takes: joules and seconds in proportion to ρ."""
    share = max((3 * rho - 1) / 2, 0.0) if method == "tokens" else None
    worth = prior_efficiency(method, rho, floor=FLOOR, share=share).median
    return PlanPoint(
        method, rho, WATTS * STEP_S * rho, STEP_S * rho, worth, share=share, whole_job=method == "lora"
    )


FULL, LORA = point("full", 1.0), point("lora", 0.71)
MIXED = (
    FULL,
    *(point("tokens", r) for r in (0.45, 0.55, 0.75)),
    *(point("greentrainer", r) for r in (0.5, 0.6, 0.8)),
)
POLICIES = (
    Policy("auto", (*MIXED, LORA), pauses=True),
    Policy("auto without adapters", MIXED, pauses=True),
    Policy("full with fewer steps and pauses", (FULL,), pauses=True),
    Policy("full with fewer steps", (FULL,), pauses=False),
    Policy("constant rho 0.8", (point("greentrainer", 0.8),), pauses=False),
    Policy("constant rho 0.6", (point("greentrainer", 0.6),), pauses=False),
    Policy("LoRA in the cleanest hours", (LORA,), pauses=True),
    Policy("LoRA", (LORA,), pauses=False),
)


def requests(
    trace: TraceArrays, share: float, deadline: float, count: int, seed: int
) -> Iterator[SimRequest]:
    """Jobs that begin at times drawn over the trace."""
    random = np.random.default_rng(seed)
    reach_s = deadline * STOCK_HOURS * 3600.0
    first = int(np.searchsorted(trace.at, float(trace.at[0]) + 28 * 86_400.0))
    last = int(np.searchsorted(trace.at, trace.end - reach_s - 86_400.0)) - 1
    column = trace.forecast is not None and not np.isnan(trace.forecast).all()
    budget_g = share * WATTS * STOCK_HOURS / 1000.0 * float(np.mean(trace.g))
    for _ in range(count):
        yield SimRequest(
            trace=trace,
            start=datetime.fromtimestamp(float(trace.at[int(random.integers(first, last))]), UTC),
            segments=max(int(reach_s // 3600.0), 1),
            segment_kwh=WATTS / 1000.0,
            segment_hours=1.0,
            fixed_share=1.0,
            budget_g=budget_g,
            forecast="column" if column else "persistence",
            rho_min=1.0,
            may_pause=True,
            deadline_hours=deadline * STOCK_HOURS,
            idle_w=0.1 * WATTS,
            oracle=False,
        )


def run(request: SimRequest, policy: Policy, seed: int) -> dict[str, float]:
    """One job by one policy: what its steps are worth in full ones, what of the budget was used."""
    job = OpenJob(
        step_j=WATTS * STEP_S,
        step_s=STEP_S,
        length=max(STEPS // 10, 1),
        tail_s=60.0,
        most=None,
        seed=seed,
        points=policy.points,
    )
    went = simulate_open_end(replace(request, may_pause=policy.pauses), job)
    return {
        "worth": went.worth,
        "used": went.used,
        "annealed": float(went.annealed),
        "late": float(went.late_s > 60.0),
    }


def compare(runs: dict[str, Sequence[dict[str, float]]]) -> list[dict[str, Any]]:
    """A line a policy, beside what `auto` came to on the same jobs."""
    lines = []
    for policy, found in runs.items():
        against = np.array([a["worth"] / b["worth"] for a, b in zip(found, runs["auto"], strict=True)])
        lines.append(
            {
                "policy": policy,
                "full_steps_worth": round(float(np.mean([r["worth"] for r in found])), 1),
                "against_auto": round(float(against.mean()), 4),
                "against_auto_least": round(float(against.min()), 4),
                "against_auto_most": round(float(against.max()), 4),
                "better_than_auto_in": int((against > 1 + LEVEL).sum()),
                "used": round(float(np.mean([r["used"] for r in found])), 4),
                "passed": sum(r["used"] > 1 for r in found),
                "annealed": sum(r["annealed"] == 1 for r in found),
                "late": sum(r["late"] == 1 for r in found),
            }
        )
    return lines


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--traces", type=Path, required=True, help="folder of the traces")
    parser.add_argument("--trace", action="append", help=f"file in it; without: {', '.join(TRACES)}")
    parser.add_argument("--jobs", type=int, default=20, help="a trace and deadline")
    parser.add_argument("--share", type=float, default=0.4, help="of the grams of stock full fine-tuning")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args(argv)
    document: dict[str, Any] = {"share": options.share, "jobs": options.jobs, "grids": []}
    for name in options.trace or TRACES:
        found = read_trace(options.traces / name)
        trace = TraceArrays(found.times, found.g_per_kwh, found.forecast)
        for deadline in DEADLINES:
            asked = list(requests(trace, options.share, deadline, options.jobs, options.seed))
            runs: dict[str, Sequence[dict[str, float]]] = {}
            for policy in POLICIES:
                sys.stderr.write(f"{name}, {deadline:g} times as long: {policy.name}\n")
                runs[policy.name] = [run(one, policy, n) for n, one in enumerate(asked)]
            document["grids"].append({"trace": name, "deadline": deadline, "policies": compare(runs)})
    sys.stdout.write(json.dumps(document, indent=2) + "\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
