"""`simulate` from a trace file to its document; what the planner makes of it is tested in tests/plan."""

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from xml.etree import ElementTree

import pytest
from support.box import JOB_TOML
from support.command import cli

from carbonsched.plan.simulation.result import SimResult
from carbonsched.plan.simulation.sweep import Sweep

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


def test_a_sweep_runs_every_start_policy_and_budget_with_each_other(trace: Path, tmp_path: Path) -> None:
    plot = tmp_path / "sweep.svg"
    many = asked(trace, budget_g=None, policy="full,mpc")
    ran = cli("simulate", *many, "--start=2022-03-06T00:00:00Z", "--budget-g=700", "--budget-g=1500",
              "--policy=constant", "--no-pause", "--json", f"--plot={plot}")  # fmt: skip
    assert (ran.code, ran.err) == (0, "")
    result = Sweep.parse(ran.doc)
    assert len(result.runs) == 2 * 2 * 3
    assert [(c.policy, c.budget_g, c.runs) for c in result.cases] == [
        (p, b, 2) for b in (700.0, 1500.0) for p in ("mpc", "constant", "full")
    ]
    # one of them is the run that stands alone
    alone = SimResult.parse(cli("simulate", *asked(trace, budget_g=700), "--no-pause", "--json").doc)
    assert {
        (r.spent_g, r.gain, r.oracle_gain) for r in result.runs if r.start == BEGIN + timedelta(days=4)
    } >= {(alone.spent_g, alone.gain, alone.oracle_gain)}
    drawn = ElementTree.fromstring(plot.read_text())  # noqa: S314
    assert drawn.tag.endswith("svg")
    assert {"mpc", "constant", "full"} <= set(drawn.itertext())


def test_random_starts_are_drawn_again_by_their_seed_and_a_table_sums_up(trace: Path) -> None:
    argv = [*asked(trace, start=None), "--no-pause", "--starts=4"]
    first, again, other = (
        Sweep.parse(cli("simulate", *argv, *more, "--json").doc) for more in ((), (), ("--seed=3",))
    )
    assert first == again
    assert {r.start for r in first.runs} != {r.start for r in other.runs}
    assert len(first.runs) == 4
    table = cli("simulate", *argv)
    assert "Budget passed in 0 of 4 runs." in table.out
    assert table.err == ""


def test_a_budget_as_a_share_of_full_fine_tuning(trace: Path) -> None:
    ran = cli("simulate", *asked(trace, budget_g=None, budget_share=0.6, pue=1.5), "--no-pause", "--json")
    # ten clean hours at 1 kWh and 100 g/kWh
    assert SimResult.parse(ran.doc).budget_g == pytest.approx(0.6 * 10 * 100 * 1.5)
    assert ran.err == "carbonsched: note: full fine-tuning at the mean intensity emits 1500 g\n"
    argv = asked(trace, budget_g=None, budget_share=0.6)
    both = Sweep.parse(
        cli("simulate", *argv, "--start=2022-03-06T12:00:00Z", "--budget-share=0.8", "--json").doc
    )
    # the other start has ten dirty ones: the mean of both
    assert [case.budget_g for case in both.cases] == pytest.approx([0.6 * 2500, 0.8 * 2500])


def test_a_gap_in_the_trace_is_said(trace: Path) -> None:
    rows = trace.read_text().splitlines()
    # rows of 5 March 04:00 to 09:00 are missing; a gap before the start is no matter
    trace.write_text("\n".join(rows[:20] + rows[30:101] + rows[107:]) + "\n")
    ran = cli("simulate", *asked(trace), "--json")
    assert ran.code == 0
    assert ran.err == (
        "carbonsched: note: the trace has 1 gap behind the start, the longest of 7 h from 2022-03-05T03:00:00Z on; "
        "the row before a gap is taken to hold\n"
    )


def test_a_missed_deadline_and_an_unfinished_run_are_said(trace: Path) -> None:
    late = cli("simulate", *asked(trace, deadline_hours=4))
    assert "Finished  2022-03-05 05:12:00Z, 1h 12m AFTER the deadline" in late.out
    poor = cli("simulate", *asked(trace, budget_g=300, policy="full"), "--no-pause")
    assert "Finished  no, 2 of 10 segments" in poor.out


def test_the_plot_begins_at_the_start_also_where_the_job_waits(trace: Path, tmp_path: Path) -> None:
    plot = tmp_path / "one.svg"
    argv = asked(trace, start="2022-03-05T18:00:00Z", deadline_hours=60, plot=plot)
    result = SimResult.parse(cli("simulate", *argv, "--json").doc)
    assert result.segments[0].start >= datetime(2022, 3, 6, tzinfo=UTC)
    assert any(text.endswith("05 Mar") for text in ElementTree.fromstring(plot.read_text()).itertext())  # noqa: S314


def test_an_empty_forecast_column_is_none(trace: Path) -> None:
    rows = trace.read_text().splitlines()
    trace.write_text("\n".join([rows[0] + ",forecast_g_per_kwh", *(row + "," for row in rows[1:])]) + "\n")
    ran = cli("simulate", *asked(trace, forecast="column"))
    assert (ran.code, ran.out) == (2, "")
    assert "--forecast: the trace's forecast_g_per_kwh is empty; use --forecast persistence" in ran.err


def test_allowed_hours_are_kept(trace: Path, tmp_path: Path) -> None:
    plot = tmp_path / "one.svg"
    argv = asked(
        trace, start="2022-03-05T10:00:00Z", budget_g=4000, plot=plot, **{"allowed-hours": "20:00-02:00"}
    )
    result = SimResult.parse(cli("simulate", *argv, "--timezone=Europe/Berlin", "--no-pause", "--json").doc)
    assert result.segments[0].start == datetime(2022, 3, 5, 19, tzinfo=UTC)
    assert all(s.start.hour >= 19 or s.start.hour < 1 for s in result.segments)
    assert result.finished_at == datetime(2022, 3, 6, 23, tzinfo=UTC)
    assert plot.read_text().startswith("<svg")


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
        ({"start": None}, "--start: give either --start or --starts"),
        ({"starts": 5}, "--start: give either --start or --starts"),
        (
            {"start": None, "starts": 5, "segments": 500},
            "--starts: the trace is 240 h long, the job may take 500 h",
        ),
        ({"policy": "mpc,best"}, "--policy: there is no 'best'; choose from mpc, auto, constant"),
        ({"allowed-hours": "22-6"}, "--allowed-hours: '22-6' is not a span of hours"),
        ({"allowed-hours": "22:00-06:00", "timezone": "Mars"}, "--timezone: 'Mars' is no time zone"),
        ({"plot": "nowhere/x.svg"}, "--plot: "),
        ({"plot": "x.png"}, "--plot: cannot draw .png; give a FILE.svg"),
        ({"start": "2023-01-01T00:00:00Z"}, "--start: the trace covers"),
        ({"segments": None}, "--segments: is missing; give it, or --job"),
        ({"segment_kwh": None}, "--segment-kwh: is missing"),
        ({"budget_g": None}, "--budget-g: is missing"),
        ({"budget_g": -1}, "--budget-g: must be above 0"),
        (
            {"budget_g": None, "budget_share": 60},
            "--budget-share: must be above 0 and 1 at most, is 60; give e.g. 0.6",
        ),
        ({"budget_share": "nan"}, "--budget-share: must be above 0 and 1 at most"),
        (
            {"deadline_hours": -3},
            "--deadline-hours: must be above 0 and 87600 (ten years) at most, is -3; give hours",
        ),
        ({"deadline_hours": 0}, "--deadline-hours: must be above 0 and 87600 (ten years) at most"),
        ({"deadline_hours": "nan"}, "--deadline-hours: must be above 0 and 87600 (ten years) at most"),
        ({"deadline_hours": "inf"}, "--deadline-hours: must be above 0 and 87600 (ten years) at most"),
        ({"pue": "inf"}, "--pue: must be 1 to 100, is inf"),
        ({"watts": 0}, "--watts: must be above 0, is 0"),
        ({"flops_per_s": "nan"}, "--flops-per-s: must be above 0"),
        ({"start": None, "starts": 3, "seed": -1}, "--seed: must be 0 or more, is -1"),
        ({"start": None, "starts": 0}, "--starts: must be 1 to 100000, is 0"),
        ({"start": "2022-03-05T00:00:00"}, "--start: '2022-03-05T00:00:00' has no time zone; write it like"),
        ({"start": "5"}, "--start: '5' is not a time"),
        (
            {"start": "2022-03-10T23:00:00Z"},
            "--start: the trace covers 2022-03-01T00:00:00Z to 2022-03-11T00:00:00Z",
        ),
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
