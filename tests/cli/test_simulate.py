"""`simulate` from a trace file to its document; what the planner makes of it is tested in tests/plan."""

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from support.box import JOB_TOML, cli

from carbonsched.plan.simulate import SimResult

BEGIN = datetime(2022, 3, 1, tzinfo=UTC)


@pytest.fixture
def trace(tmp_path: Path) -> Path:
    """Ten days; every day twelve hours at 100 g/kWh, then twelve at 400."""
    path = tmp_path / "trace.csv"
    hours = (BEGIN + timedelta(hours=h) for h in range(240))
    rows = (f"{at:%Y-%m-%dT%H:%M:%SZ},{100 if at.hour < 12 else 400}" for at in hours)
    path.write_text("datetime,g_per_kwh\n" + "\n".join(rows) + "\n")
    return path


def asked(trace: Path, /, **changed: object) -> list[str]:
    options: dict[str, object] = {
        "trace": trace,
        "start": "2022-03-05T00:00:00Z",
        "segments": 10,
        "segment-kwh": 1,
        "segment-hours": 1,
        "fixed-share": 0.2,
        "budget-g": 800,
    }
    options |= {name.replace("_", "-"): value for name, value in changed.items()}
    return [f"--{name}={value}" for name, value in options.items() if value is not None]


def test_one_document_within_the_budget(trace: Path) -> None:
    ran = cli("simulate", *asked(trace), "--no-pause", "--json")
    assert (ran.code, ran.err) == (0, "")
    result = SimResult.parse(ran.doc)
    assert result.policy == "mpc"
    assert len(result.segments) == 10
    assert 700 < result.spent_g <= 800
    # all ten hours are clean: E(ρ) = 0.2 + 0.8ρ kWh at 100 g/kWh, so 80 g an hour buy ρ = 0.75
    assert result.flops_ratio == pytest.approx(0.75, abs=0.02)
    assert result.spent_g == pytest.approx(sum(segment.spent_g for segment in result.segments))


def test_people_get_a_table(trace: Path) -> None:
    ran = cli("simulate", *asked(trace, policy="constant"))
    assert ran.code == 0
    assert "constant, forecast persistence" in ran.out
    assert "2022-03-05 00:00:00Z" in ran.out


def test_gain_from_a_frontier(trace: Path, tmp_path: Path) -> None:
    path = tmp_path / "f.json"
    points = [
        {"rho": 0.4, "importance": 0.0},
        {"rho": 0.5, "importance": 9.0},
        {"rho": 1.0, "importance": 10.0},
    ]
    path.write_text(json.dumps({"frontier": points}))
    result = SimResult.parse(cli("simulate", *asked(trace, gain=path), "--json").doc)
    assert result.gain > 0.9 > result.flops_ratio


@pytest.mark.parametrize(
    ("changed", "says"),
    [
        ({"start": "then"}, "--start: 'then' is not a time"),
        ({"start": "2023-01-01T00:00:00Z"}, "--start: the trace covers"),
        ({"segments": None}, "--segments: is missing; give it, or --job"),
        ({"segment_kwh": None}, "--segment-kwh: is missing"),
        ({"budget_g": None}, "--budget-g: is missing"),
        ({"budget_g": -1}, "--budget-g: must be above 0"),
        ({"rho_min": 0.9, "rho_max": 0.5}, "--rho-min"),
        ({"forecast": "column"}, "no forecast_g_per_kwh column"),
        ({"gain": "none.json"}, "--gain: none.json cannot be read"),
        ({"trace": "none.csv"}, "none.csv"),
    ],
)
def test_bad_input_names_the_option(changed: dict[str, object], says: str, trace: Path) -> None:
    ran = cli("simulate", *asked(trace, **changed), "--json")
    assert (ran.code, ran.out) == (2, "")
    assert says in ran.err
    assert ran.err.count("\n") == 1


@pytest.mark.parametrize(
    "text", ["{}", "[]", '{"frontier": []}', '{"frontier": [{"rho": 2, "importance": 1}]}']
)
def test_frontier_that_is_none(text: str, trace: Path, tmp_path: Path) -> None:
    (tmp_path / "f.json").write_text(text)
    ran = cli("simulate", *asked(trace, gain=tmp_path / "f.json"))
    assert ran.code == 2
    assert "--gain" in ran.err


def test_job_file_gives_what_options_do_not(trace: Path, tmp_path: Path) -> None:
    checked = {
        "ok": True, "model": "m", "params": 1, "rows": 1, "validation_rows": 0, "steps": 400, "segments": 4,
        "rho_floor": 0.5, "step_flops_full": 3.6e15, "batch": 4, "seq": 128,
    }  # fmt: skip
    python = tmp_path / "python"
    python.write_text(f"#!/bin/sh\necho '{json.dumps(checked)}'\n")
    python.chmod(0o755)
    job = tmp_path / "job.toml"
    job.write_text(
        JOB_TOML.replace("budget_g = 120.0", 'budget_share = 0.8\ndeadline = "36h"\nmay_pause = false')
    )
    argv = ["--trace", trace, "--start", "2022-03-05T00:00:00Z", "--job", job, "--python", python, "--json"]
    ran = cli("simulate", *argv, "--flops-per-s", "1e14", "--watts", "1000")
    result = SimResult.parse(ran.doc)
    # 100 steps of 3.6 PFLOPs at 100 TFLOP/s last an hour, 1 kWh at 1 kW: 4 kWh at 100 g/kWh × 0.8
    assert result.budget_g == pytest.approx(320)
    assert len(result.segments) == 4
    assert min(segment.rho for segment in result.segments) >= 0.5
    assert ran.err.count("assumes") == 2
    assert SimResult.parse(cli("simulate", *argv, "--budget-g", "350", "--segments", "2").doc).budget_g == 350
