"""What an export's script recomputes of each effect, with Python alone, is what the report says, to 1e-9."""

import json
import math
import subprocess
import sys
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from support.job_history import GPU, T0, directive, done, interval, submitted, write_history

from carbonsched.ledger import Ledger
from carbonsched.ledger.effects import fitted
from carbonsched.model.base import rfc3339
from carbonsched.model.energy import EnergyDelta, EnergyMethod
from carbonsched.model.job import JobSpec
from carbonsched.model.job_state import JobState
from carbonsched.plan.energy_fit import EnergyFit
from carbonsched.report import build
from carbonsched.report.effects import Savings

NAMES = ("waste", "flops", "timing", "chosen", "forced", "mean_intensity", "clocks")
HOUR = timedelta(hours=1)


def run(folder: Path, *reports: Path) -> subprocess.CompletedProcess[str]:
    argv = [sys.executable, "-I", str(folder / "effects.py"), *map(str, reports)]
    return subprocess.run(argv, capture_output=True, text=True, check=False)


def compared(ledger: Ledger, folder: Path, *job_ids: str) -> dict[str, Savings]:
    """Export, run the script against the reports of these jobs, and hold each figure against them here, too."""
    ledger.export(folder / "out", T0)
    found: dict[str, Savings] = {}
    files = []
    for job_id in job_ids:
        report = build(ledger, job_id, now=T0 + 1000 * HOUR)
        assert report.savings is not None
        found[job_id] = report.savings
        files.append(folder / f"{job_id}.json")
        files[-1].write_text(json.dumps(report.dump()))
    ran = run(folder / "out", *files)
    assert ran.returncode == 0, ran.stderr
    *lines, said = ran.stdout.splitlines()
    assert said.endswith(f"{len(files)} reports agree to 1e-9")
    told = {each["job_id"]: each for each in map(json.loads, lines)}
    for job_id, savings in found.items():
        for name in NAMES:
            effect = getattr(savings, name)
            expected = None if effect is None else effect.saved_g
            actual = told[job_id][f"{name}_saved_g"]
            assert (actual is None) == (expected is None), (job_id, name)
            assert expected is None or math.isclose(actual, expected, rel_tol=1e-9, abs_tol=1e-9), (
                job_id,
                name,
            )
    return found


def settle(ledger: Ledger, hours: int, g: float) -> None:
    start, end = T0 + hours * HOUR, T0 + (hours + 1) * HOUR
    entry = {
        "start": rfc3339(start), "end": rfc3339(end), "g_per_kwh": g, "provider": "neso", "zone": "GB", "zones": ["GB"],
        "basis": "average-direct", "kind": "actual", "note": "", "issued_at": None, "fetched_at": rfc3339(end),
        "body_sha256": None, "was": {"g_per_kwh": 1.0, "provider": "neso", "kind": "actual"},
    }  # fmt: skip
    ledger.note(None, "settled", entry, "daemon", end)


def test_a_job_with_everything(tmp_path: Path) -> None:
    """Two accounts, settled hours, energy that was told late, a wait and an outage, lost work, and a locked clock."""
    with Ledger.open(f"sqlite:///{tmp_path / 'l.db'}") as ledger:
        ledger.note(None, "account", {"budget_account": "location", "supply": []}, "daemon", T0)
        end = write_history(ledger, submitted())
        ledger.note(None, "account", {"budget_account": "on-site", "supply": ["roof"]}, "daemon", end)
        settle(ledger, 1, 260.0)
        settle(ledger, 3, 90.0)
        rows = list(ledger.rows("scitldr-1"))
        middle = [row for row in rows if row["segment"] == 4 and row["board"] == GPU]
        from carbonsched.ledger.rows import moment

        ledger.note("scitldr-1", "clocks", {"mhz": 1125}, "daemon", moment(middle[0]["start_us"]))
        ledger.note(
            "scitldr-1",
            "clocks",
            {"mhz": None},
            "daemon",
            moment(middle[-1]["end_us"]) + timedelta(seconds=120),
        )
        # a stretch of the job's that was unknown, and told late
        ledger.append([interval(end, 60, None, job_id="scitldr-1", segment=7, rho=0.66)])
        late = EnergyDelta(
            device=GPU,
            start=end,
            end=end + timedelta(seconds=60),
            energy_mj=15_000_000,
            power_w=250.0,
            method=EnergyMethod.ESTIMATED,
            counter_epoch="boot-1:0",
            counter_start_mj=rows[-2]["counter_end_mj"] or 10**12,
            counter_end_mj=(rows[-2]["counter_end_mj"] or 10**12) + 15_000_000,
            recovered=True,
            reason="told late",
            meter="nvml",
        )
        assert len(ledger.recover(late)) == 1
        savings = compared(ledger, tmp_path, "scitldr-1")["scitldr-1"]
    for name in NAMES:
        effect = getattr(savings, name)
        assert effect is not None, name
        assert effect.saved_g, f"{name} is something to compare"


@pytest.mark.parametrize("method", ["lora", "greentrainer+lora", "full"])
@pytest.mark.parametrize("own", [None, 1.3e16])
def test_the_users_own_run_and_a_pause(tmp_path: Path, method: str, own: float | None) -> None:
    with Ledger.open(f"sqlite:///{tmp_path / 'l.db'}") as ledger:
        job = submitted("a")
        spec = JobSpec.parse(job.spec.dump() | {"train": {"epochs": 2, "method": method}})
        ledger.add_job(job.model_copy(update={"spec": spec, "sha256": spec.sha256}))
        states = [(0, JobState.RUNNING), (2, JobState.PAUSED), (4, JobState.QUEUED), (5, JobState.RUNNING)]
        for hour, state in states:
            ledger.set_state("a", state, "asked", "ada", T0 + (hour + 0.4) * HOUR)
        for n in range(8):
            works = n in (0, 1, 5, 6)
            mine: dict[str, Any] = (
                {"job_id": "a", "segment": int(n > 3), "rho": 0.5 + 0.2 * (n > 3)} if works else {}
            )
            at = T0 + n * HOUR + timedelta(minutes=24)
            ledger.append([interval(at, 3600, 900_000_000 + n, g_per_kwh=150.0 + 40 * n, **mine)])
        for k, hour in ((0, 0), (1, 5)):
            start = T0 + hour * HOUR + timedelta(minutes=24)
            told = done(k, start + 2 * HOUR, 0.5 + 0.2 * k).model_copy(update={"flops_own": own})
            ledger.save_segment("a", told, start, start + 2 * HOUR, directive(k, start, 0.5))
        savings = compared(ledger, tmp_path, "a")["a"]
    assert savings.forced.saved_g
    if method == "greentrainer+lora":
        assert (savings.flops.saved_g is None) == (own is None)


def test_a_report_that_says_something_else_is_named(tmp_path: Path) -> None:
    with Ledger.open(f"sqlite:///{tmp_path / 'l.db'}") as ledger:
        write_history(ledger, submitted())
        compared(ledger, tmp_path, "scitldr-1")
    path = tmp_path / "scitldr-1.json"
    report = json.loads(path.read_text())
    report["savings"]["timing"]["saved_g"] += 1e-6
    path.write_text(json.dumps(report))
    ran = run(tmp_path / "out", path)
    assert (ran.returncode, ran.stderr[:5]) == (1, "BAD: ")
    assert "g by timing, the report says" in ran.stderr
    for text in ("{", "[]", '{"job_id": "nobody", "savings": {}}'):
        path.write_text(text)
        ran = run(tmp_path / "out", path)
        assert (ran.returncode, ran.stderr[:5], ran.stderr.count("\n")) == (1, "BAD: ", 1)


def test_its_line_is_the_planners() -> None:
    """With an outlier, whose weight the rounds take down."""
    points = [(0.4, 55.0), (0.5, 66.0), (0.7, 80.0), (0.9, 96.0), (1.0, 300.0)]
    fit = EnergyFit.prior(2.0, 50.0)
    for rho, joules in points:
        fit = fit.observe(rho, 10, 10 * joules, 20.0)
    line = fit.energy_line()
    full, c0, noise, covariance = fitted(points, 100.0)
    assert (full, c0, noise) == pytest.approx((line.full, line.c0, line.noise), rel=1e-11)
    assert covariance == pytest.approx(line.covariance, rel=1e-9)
    assert fitted([], 100.0)[:2] == (100.0, EnergyFit.prior(2.0, 50.0).energy_line().c0)
