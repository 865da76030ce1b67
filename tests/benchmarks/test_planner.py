"""The script behind docs/planner.md, on small made-up traces: what it claims must hold there too."""

import csv
import json
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pytest

from benchmarks.planner.__main__ import kind_of, main, read, read_polls
from carbonsched.errors import InputError

T0 = datetime(2022, 1, 1, tzinfo=UTC)


@pytest.fixture(scope="module")
def traces(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """60 days by the hour with a forecast column, 80 days of half-hourly polls, and a file that is no trace."""
    folder = tmp_path_factory.mktemp("traces")
    rng = np.random.default_rng(3)
    hours = np.arange(80 * 24)
    shock = np.convolve(rng.normal(0, 0.05, len(hours)), 0.9 ** np.arange(40))[: len(hours)]
    g = 300 * np.exp(0.3 * np.sin(2 * np.pi * hours / 24) + shock)
    with (folder / "made.csv").open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["datetime", "g_per_kwh", "forecast_g_per_kwh"])
        for h in hours[: 60 * 24]:
            provider = g[h] * float(np.exp(rng.normal(0.1, 0.2)))
            rows.writerow([(T0 + timedelta(hours=int(h))).isoformat(), g[h], provider if h % 50 else ""])
    with (folder / "polls.csv").open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["polled_at", "datetime", "g_per_kwh"])
        for h in hours[2:]:
            if 900 < h < 960:
                continue
            at = T0 + timedelta(hours=int(h))
            rows.writerow(
                [(at + timedelta(minutes=4)).isoformat(), (at - timedelta(hours=1)).isoformat(), g[h - 1]]
            )
            rows.writerow(
                [
                    (at + timedelta(minutes=34)).isoformat(),
                    (at - timedelta(hours=1)).isoformat(),
                    g[h - 1] * 1.01,
                ]
            )
    (folder / "other.csv").write_text("oootime,North\n2023-06-08 00:00:00,425\n")
    return folder


def run(traces: Path, tmp_path: Path, *options: str) -> dict[str, list[dict[str, object]]]:
    out = tmp_path / "report.json"
    assert main(["--traces", str(traces), "--out", str(out), *options]) == 0
    return json.loads(out.read_text())


def test_a_file_is_told_by_its_header(traces: Path):
    kinds = {path.name: kind_of(path) for path in traces.glob("*.csv")}
    assert kinds == {"made.csv": "trace", "polls.csv": "polls", "other.csv": None}


def test_a_trace_is_read_as_the_feeds_read_it(traces: Path):
    made = read(traces / "made.csv")
    assert made.forecast is not None
    assert np.isnan(made.forecast[0])


def test_polls_are_what_was_known_and_what_was_settled(traces: Path):
    known, final = read_polls(traces / "polls.csv")
    assert len(known.at) == 2 * len(final.at)
    # the second poll of an hour revises the first by 1%
    assert final.g[5] == pytest.approx(known.g[10] * 1.01)


def test_fixed_slots_reach_the_oracle_with_a_perfect_forecast(traces: Path, tmp_path: Path):
    rows = run(traces, tmp_path, "--table", "fixed_slots", "--starts", "1")["fixed_slots"]
    assert {r["segments"] for r in rows} == {24, 72, 168}
    assert {r["policy"] for r in rows} == {"mpc", "constant", "dual"}
    assert all(r["share"] >= 0.995 for r in rows if r["forecast"] == "perfect")
    assert all(r["over_budget"] == 0 for r in rows)


def test_adversarial_runs_never_pass_the_budget_by_more_than_a_tick(traces: Path, tmp_path: Path):
    rows = run(traces, tmp_path, "--table", "adversarial", "--adversarial", "30")["adversarial"]
    assert rows[0]["runs"] == 30
    assert rows[0]["passed_budget_by_more_than_a_tick"] == 0


def test_real_polls_end_inside_the_budget_as_decided(traces: Path, tmp_path: Path):
    (row,) = run(traces, tmp_path, "--table", "polled", "--starts", "5")["polled"]
    assert row["decided_over_budget_max"] <= 0
    # all hours were revised upwards by one percent after the first look
    assert 0 < row["settled_over_budget_mean"] < 0.02


@pytest.mark.slow
def test_pauses_and_cost_tables(traces: Path, tmp_path: Path):
    # a process of its own: the peak of this one is what other tests left
    out = tmp_path / "report.json"
    argv = [
        "--traces",
        str(traces),
        "--out",
        str(out),
        "--table",
        "pauses",
        "--table",
        "cost",
        "--starts",
        "5",
    ]
    subprocess.run(
        [sys.executable, "-m", "benchmarks.planner.__main__", *argv], check=True, capture_output=True
    )
    report = json.loads(out.read_text())
    for row in report["pauses"]:
        assert row["saved_against_full"] > row["saved_against_constant"] > 0
        assert row["late"] == 0
    assert report["cost"][-1]["peak_memory_mb"] < 200
    long = [row for row in report["cost"] if "hourly_segments" in row]
    assert [row["pauses"] for row in long] == [False, False, True, True]
    assert all(row["done"] and row["late_s"] == 0 for row in long)


def test_a_run_that_was_broken_off_goes_on_behind_its_last_case(
    traces: Path, tmp_path: Path, capsys, monkeypatch
):
    monkeypatch.setattr("benchmarks.planner.cases._CHUNK", 4)
    whole = run(traces, tmp_path, "--table", "adversarial", "--adversarial", "10")["adversarial"]
    assert [row["runs"] for row in whole] == [4, 4, 2]
    out = tmp_path / "report.json"
    out.write_text(json.dumps({"adversarial": whole[:2]}))
    capsys.readouterr()
    again = run(traces, tmp_path, "--table", "adversarial", "--adversarial", "10", "--resume")
    assert again["adversarial"] == whole
    assert capsys.readouterr().err.count("adversarial") == 1
    with pytest.raises(InputError, match="--resume: needs --out"):
        main(["--traces", str(traces), "--resume"])
    assert main(["--traces", str(traces), "--out", str(out), "--markdown"]) == 0
    printed = capsys.readouterr().out.splitlines()
    assert printed[0] == "### adversarial"
    assert printed[2].startswith("| first | runs | passed_budget_by_more_than_a_tick |")
    assert len(printed) == 4 + len(whole)


def test_the_discount_gains_where_frontiers_fall_and_costs_nothing_where_not(traces: Path, tmp_path: Path):
    rows = run(traces, tmp_path, "--table", "discounted", "--starts", "8")["discounted"]
    assert all(r["discounted"] > r["not_discounted"] for r in rows)
    assert all(r["flat_discounted"] > r["flat_not_discounted"] - 0.01 for r in rows)
