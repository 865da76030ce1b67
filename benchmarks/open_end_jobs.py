"""Real jobs of open end on a replayed grid: `python -m benchmarks.open_end_jobs --out DIR`, resumable.

Ten jobs (`train.scheduler = "budget"`), one after the other: real trainer processes of a small random model on the Debian pairs, the real daemon, the
synthetic week of `examples/` at an hour in eight seconds, a meter that replays an uneven power curve. Methods, cooldowns and budgets differ. How long loading
takes depends on what else a box does, so a job's budget is set with its first step: what it has spent, and so many seconds more at the mean power. From there on
every second of the process counts. One JSON document on stdout: how much of what was set was used, whether a budget was passed, and whether the job
ended annealed, told by the learning rate of its last step.
"""

import argparse
import json
import os
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.daemon_box import OVER, ROOT, Box, write_model
from carbonsched.units import grams

_WATTS = "seconds,watts\n0,110\n20,110\n21,140\n45,140\n46,90\n70,90\n71,125\n3600,125\n"
_MEAN_W = 120.0
_G_PER_KWH = 350.0
"""About the week's mean; only the size of the budgets rests on it."""
_ANNEALED = 0.35
"""Of the highest learning rate: a last step at more than that was not cooled down."""
_CONFIG = """
state_dir = "state"
[zone]
name = "XX-SYNTHETIC"
worst_g_per_kwh = 560
[[feeds]]
provider = "replay"
file = "{week}"
hour_s = 8
phase_h = {phase}
label = "synthetic"
[power]
gpu = "replay"
host = "none"
replay_file = "watts.csv"
tick_s = 1
[api]
socket = "api.sock"
"""
_JOB = """
name = "{name}"
[model]
name_or_path = "../model"
[data]
name_or_path = "{data}"
max_length = 160
[train]
method = "{method}"
scheduler = "budget"
cooldown = {cooldown}
segment = {segment}
batch_size = 4
lr = 3e-4
threads = 1
keep_checkpoints = 1
[carbon]
budget_g = 100.0
may_pause = false
"""


@dataclass(frozen=True, slots=True)
class Case:
    """One job.

    Example:
        >>> Case("full", seconds=90.0).name
        'full-90s-20'
    """

    method: str
    seconds: float
    """That the budget lasts from the first step on, at the mean power and intensity."""
    cooldown: float = 0.2
    segment: int = 60

    @property
    def name(self) -> str:
        return f"{self.method}-{self.seconds:.0f}s-{round(self.cooldown * 100)}"


CASES = (
    Case("full", 90.0),
    Case("tokens", 90.0),
    Case("lora", 90.0),
    Case("greentrainer", 100.0),
    Case("auto", 100.0),
    Case("full", 150.0, 0.1),
    Case("tokens", 150.0, 0.1, 25),
    Case("auto", 150.0, 0.1),
    Case("full", 60.0, 0.2, 500),
    Case("full", 240.0, 0.2, 100),
)


def figures(job: dict[str, Any], events: Iterator[dict[str, Any]], before_g: float) -> dict[str, Any]:
    """What is told of a job that is over. job: as `show` has it; before_g: what it had spent when its budget was set."""
    rates, evaluated, done = [], [], []
    for event in events:
        if event["event"] == "step":
            rates.append(event["lr"])
        elif event["event"] == "evaluated":
            evaluated.append(event["loss"])
        elif event["event"] == "segment_done":
            done.append(event)
    cooled = bool(rates) and rates[-1] <= _ANNEALED * max(rates)
    return {
        "state": job["state"],
        "reason": job["reason"],
        "steps": sum(d["steps"] for d in done),
        "methods": sorted({(d["setting"] or {}).get("method", "") for d in done} - {""}),
        "before_g": before_g,
        "spent_g": job["spent_g"],
        "budget_g": job["budget_g"],
        "used": round((job["spent_g"] - before_g) / (job["budget_g"] - before_g), 4),
        "passed": job["spent_g"] > job["budget_g"],
        "annealed": job["state"] == "finished" and cooled,
        "last_rate": round(rates[-1] / max(rates), 4) if rates else None,
        "loss_before": evaluated[0] if evaluated else None,
        "loss": evaluated[-1] if len(evaluated) > 1 else None,
    }


def summary(found: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """Of all jobs."""
    used = sorted(one["used"] for one in found.values())
    return {
        "jobs": len(found),
        "annealed": sum(one["annealed"] for one in found.values()),
        "passed": sum(one["passed"] for one in found.values()),
        "used_mean": round(sum(used) / len(used), 4) if used else None,
        "used_least": used[0] if used else None,
        "used_most": used[-1] if used else None,
        "each": found,
    }


def run_case(out: Path, case: Case, phase: int) -> dict[str, Any]:
    """One job under a daemon of its own."""
    folder = out / case.name
    folder.mkdir(parents=True, exist_ok=True)
    week, data = ROOT / "examples" / "grid-week.csv", ROOT / "examples" / "debian-pairs" / "train.jsonl"
    (folder / "watts.csv").write_text(_WATTS, encoding="utf-8")
    (folder / "config.toml").write_text(_CONFIG.format(week=week, phase=phase), encoding="utf-8")
    job = _JOB.format(
        name=case.name, data=data, method=case.method, cooldown=case.cooldown, segment=case.segment
    )  # fmt: skip
    (folder / "job.toml").write_text(job, encoding="utf-8")
    box = Box(folder)
    box.start()
    try:
        job_id = box.ask("submit", "job.toml")["id"]
        before_g = box.until(job_id, "running", *OVER, step=1)["spent_g"]
        budget_g = before_g + grams(_MEAN_W * case.seconds, _G_PER_KWH, 1.0)
        box.ask("budget", job_id, "--grams", f"{budget_g:.6f}")
        view = box.until(job_id, *OVER)
        events = (folder / "state" / "jobs" / job_id / "events.jsonl").read_text(encoding="utf-8")
        return figures(view, (json.loads(line) for line in events.splitlines()), before_g)
    finally:
        box.close()


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--out", type=Path, required=True, help="folder of boxes and results; run again to go on"
    )
    parser.add_argument("--jobs", type=int, default=len(CASES), help="how many of the ten")
    options = parser.parse_args(argv)
    out: Path = options.out.resolve()
    out.mkdir(parents=True, exist_ok=True)
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    if not (out / "model" / "config.json").exists():
        write_model(out / "model", layers=6, hidden=256)
    found: dict[str, dict[str, Any]] = {}
    for n, case in enumerate(CASES[: options.jobs]):
        kept = out / f"{case.name}.json"
        if not kept.exists():
            result = run_case(out, case, phase=(17 + 29 * n) % 168)
            kept.write_text(json.dumps(result), encoding="utf-8")
        found[case.name] = json.loads(kept.read_text(encoding="utf-8"))
        one = found[case.name]
        sys.stderr.write(f"{case.name}: {one['state']}, used {one['used']:.1%}, {one['steps']} steps\n")
    sys.stdout.write(json.dumps(summary(found), indent=2) + "\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
