"""What people see: nothing lost at 80 columns, estimates marked, unknown never 0."""

import io
import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.box import Box
from support.command import cli

from carbonsched.cli.grid import every_nth, sparkline
from carbonsched.cli.output import suit
from carbonsched.model.grid import GridView
from carbonsched.model.job_state import JobState
from carbonsched.model.pools import PoolJob, PoolView


def busy(box: Box, name: str = "scitldr-smollm2") -> str:
    entry = box.add(name)
    box.go(entry, JobState.RUNNING, "the budget binds: 100 g left for 5 segments " * 4)
    box.segment(entry)
    return entry.id


def test_ps_shows_a_running_job_in_80_columns(box: Box, socket: Path) -> None:
    job_id = busy(box)
    lines = cli("ps", socket=socket).out.splitlines()
    assert all(len(line) <= 80 for line in lines)
    for shown in (job_id, "alice", "running", "2/5", "0.600", "322", "20/120", "2.5", "4h 00m"):
        assert shown in lines[1]
    assert len(lines) == 2


@pytest.mark.parametrize(
    ("columns", "shown", "left_out"),
    [
        (40, ["STATE", "g/BUDGET", "running", "20/120"], ["OWNER", "LOSS"]),
        (60, ["SEG", "LEFT", "4h 00m"], ["OWNER"]),
    ],
)
def test_a_narrow_terminal_goes_without_columns_and_keeps_ids_whole(
    box: Box,
    socket: Path,
    monkeypatch: pytest.MonkeyPatch,
    columns: int,
    shown: list[str],
    left_out: list[str],
) -> None:
    job_id = busy(box, "tiny")
    monkeypatch.setenv("COLUMNS", str(columns))
    for command in ("ps", "top"):
        lines = cli(command, socket=socket).out.splitlines()
        rows = [line for line in lines if line.startswith(("ID", job_id))]
        assert len(rows) == 2, f"the id is whole: {lines}"
        assert all(len(line) <= columns for line in rows)
        assert all(any(word in row for row in rows) for word in shown)
        assert not any(word in rows[0] for word in left_out)


def test_ps_says_when_a_queued_job_should_start(box: Box, socket: Path) -> None:
    entry = box.add("later")
    at = datetime.now(UTC) + timedelta(hours=3, minutes=5, seconds=30)
    box.starts[entry.id] = (at, "after 2 jobs on gpu 0")
    assert "in 3h 05m" in cli("ps", socket=socket).out
    assert "in about 3h 05m (estimated), after 2 jobs on gpu 0" in cli("show", entry.id, socket=socket).out
    box.starts[entry.id] = (None, "the box is drained by ada")
    assert "not known: the box is drained by ada" in cli("show", entry.id, socket=socket).out


def test_ps_keeps_every_figure_when_the_name_is_long(box: Box, socket: Path) -> None:
    job_id = busy(box, "n" * 60)
    text = cli("ps", socket=socket).out
    assert "20/120" in text
    assert "4h 00m" in text
    assert "".join(
        line.split(" ")[0] for line in text.splitlines()[1:-1] + text.splitlines()[-1:]
    ).startswith(job_id)


def test_estimated_energy_is_marked_and_explained(box: Box, socket: Path) -> None:
    box.estimated = True
    job_id = busy(box)
    listed = cli("ps", socket=socket).out
    assert "~20/120" in listed
    assert "~ estimated, not metered" in listed
    shown = cli("show", job_id, socket=socket).out
    assert "~20 g of 120 g" in shown
    assert "~100 kJ" in shown


def test_ps_of_an_idle_box_says_what_to_do(socket: Path) -> None:
    assert cli("ps", socket=socket).out == "no jobs; submit one: carbonsched submit JOB.toml\n"
    assert cli("ps", "--json", socket=socket).doc == {"jobs": [], "left_out": 0, "drained": None}


def test_ps_lists_ids_alone_and_what_a_filter_lets_through(box: Box, socket: Path) -> None:
    running, queued = busy(box, "a"), box.add("b").id
    assert cli("ps", "-q", socket=socket).out == f"{running}\n{queued}\n"
    assert cli("ps", "-q", "--filter", "state=queued", socket=socket).out == f"{queued}\n"
    both = cli("ps", "--filter", "state=queued", "--filter", "state=running", "--json", socket=socket)
    assert [job["id"] for job in both.doc["jobs"]] == [running, queued]
    assert cli("ps", "--owner", "nobody", socket=socket).out == "no such jobs\n"
    assert cli("ps", "--owner", "alice", "--filter", "name=b", "-q", socket=socket).out == f"{queued}\n"
    for wrong in ("label", "state", "state=done", "colour=red", "=queued"):
        ran = cli("ps", "--filter", wrong, socket=socket)
        assert (ran.code, ran.out) == (2, "")
        assert "--filter" in ran.err


def test_ps_finds_by_labels_and_show_names_them(box: Box, socket: Path) -> None:
    a = box.add("a", labels={"project": "thesis", "who": "ada"}).id
    b = box.add("b", labels={"project": "demo"}).id
    box.add("c")
    for wanted, ids in (("project", [a, b]), ("project=demo", [b]), ("project=none", []), ("who", [a])):
        listed = cli("ps", "--filter", f"label={wanted}", "--json", socket=socket).doc["jobs"]
        assert [job["id"] for job in listed] == ids
    both = cli("ps", "-q", "--filter", "label=project", "--filter", "label=who=ada", socket=socket)
    assert both.out == f"{a}\n"
    assert "project=thesis, who=ada" in cli("show", a, socket=socket).out


def test_top_shows_the_box_in_80_columns_and_what_is_not_over(box: Box, socket: Path) -> None:
    job_id, over = busy(box), busy(box, "over")
    box.go(box.entries[over], JobState.FINISHED)
    text = cli("top", socket=socket).out
    assert all(len(line) <= 80 for line in text.splitlines())
    for shown in ("200 g/kWh (replay", "1 running; 322 W", job_id):
        assert shown in text
    assert over not in text
    lines = cli("top", "-n", "2", "-i", "0.2", "--json", socket=socket).out.splitlines()
    seen = [json.loads(line) for line in lines]
    assert [[job["id"] for job in one["jobs"]] for one in seen] == [[job_id]] * 2
    assert seen[0]["grid"]["g_per_kwh"] == 200


def test_ps_says_how_many_it_leaves_out(box: Box, socket: Path) -> None:
    box.over_shown = 2
    ids = [busy(box, f"job{n}") for n in range(5)]
    for n in (0, 1, 2, 3):
        box.go(box.entries[ids[n]], JobState.FINISHED)
    text = cli("ps", socket=socket).out
    assert "2 that ended before are left out; carbonsched ps --all lists them" in text
    assert [job_id in text for job_id in ids] == [False, False, True, True, True]
    doc = cli("ps", "--json", socket=socket).doc
    assert ([job["id"] for job in doc["jobs"]], doc["left_out"]) == (ids, 0), "scripts get every job"
    every = cli("ps", "--all", socket=socket).out
    assert all(job_id in every for job_id in ids)
    assert "left out" not in every


def test_pools_show_price_parts_and_weights_in_80_columns(box: Box, socket: Path) -> None:
    assert cli("pools", socket=socket).out.startswith("no pools; add [[pools]]")
    job = PoolJob(
        id="scitldr-smollm2-7f3a1c", name="scitldr-smollm2", owner="alice", state=JobState.RUNNING, weight=2.0,
        spent_g=40.2, part_g=101.0, floor_g=None, reason="the budget binds",
    )  # fmt: skip
    box.pool_views = tuple(
        PoolView(
            name=name, granted_g=500.0, g_per_h=rate, spent_g=317.5, left_g=182.5, held_g=101.0,
            gain_per_more_g=0.0041, price="one more gram in this pool buys 0.41% of a whole job's gain",
            jobs=(job,), jobs_over=2,
        )
        for name, rate in (("lab", None), ("endless", 3.0))
    )  # fmt: skip
    text = cli("pools", socket=socket).out
    lines = text.splitlines()
    assert all(len(line) <= 80 for line in lines)
    assert lines[:2] == ["lab: 182.5 g left of 500 g", "  317.5 g spent, 2 jobs over, 101 g held by its jobs"]
    assert "0.41% of a whole job's gain" in text
    assert lines[4].split() == ["scitldr-smollm2-7f3a1c", "alice", "running", "2", "40.2", "101", "-"]
    assert "endless: 182.5 g left of 500 g, grows by 3 g/h" in text
    assert [p["name"] for p in cli("pools", "--json", socket=socket).doc["pools"]] == ["lab", "endless"]


def test_show_wraps_reason_and_lists_segments(box: Box, socket: Path) -> None:
    job_id = busy(box)
    text = cli("show", job_id, socket=socket).out
    assert all(len(line) <= 80 for line in text.splitlines())
    for shown in (
        "0.597", "0.595", "every gradient is 0", "HISTORY", "the daemon", "allenai/scitldr", "20 g of 120 g, 16.7%"
    ):  # fmt: skip
        assert shown in text
    assert " ".join(text.split()).count("the budget binds: 100 g left for 5 segments") >= 4


def test_show_tells_rho_of_the_users_own_run_where_it_is_another(box: Box, socket: Path) -> None:
    entry = box.add()
    box.segment(entry, rho_own=0.595)  # everything was to be trained
    assert "without selection" not in cli("show", entry.id, socket=socket).out
    box.segment(entry, rho_own=0.873)
    text = cli("show", entry.id, socket=socket).out
    assert "trains without selection: 0.595 (segment 1), 0.873 (segment 2)" in " ".join(text.split())
    assert all(len(line) <= 80 for line in text.splitlines())


def test_show_tells_what_waste_was_left_out(box: Box, socket: Path) -> None:
    text = " ".join(cli("show", busy(box), socket=socket).out.split())
    assert (
        "takes 50.0% of a stock Trainer's FLOPs (padding 20.0%, logits without a label 30.0%; estimated"
        in text
    )


def test_show_of_a_share_that_is_not_resolved(box: Box, socket: Path) -> None:
    entry = box.add(carbon={"budget_share": 0.6})
    assert "not resolved yet (share 0.6 of full fine-tuning)" in cli("show", entry.id, socket=socket).out


def test_show_of_an_ended_job_says_nothing_about_now(box: Box, socket: Path) -> None:
    job_id = busy(box)
    box.go(box.entries[job_id], JobState.FINISHED, "done")
    text = cli("show", job_id, socket=socket).out
    assert "directed" not in text
    assert "now" not in text
    assert "between its floor and 1" in text


def test_markup_in_a_name_of_others_is_text(box: Box, socket: Path) -> None:
    entry = box.add()
    box.go(entry, JobState.RUNNING, "[bold]stop[/bold] :smile: [/]")
    assert "[bold]stop[/bold] :smile: [/]" in cli("show", entry.id, socket=socket).out


def test_grid_now_ahead_and_feeds(box: Box, socket: Path) -> None:
    text = cli("grid", "--forecast", "3", socket=socket).out
    for shown in (
        "200 g/kWh (replay, actual, synthetic)",
        "DE, average-lifecycle",
        "▁▅█",
        "220",
        "replay  ok",
    ):
        assert shown in text
    assert len(GridView.parse(cli("grid", "--forecast", "3", "--json", socket=socket).doc).forecast) == 3
    for shown in (
        "by replay",
        "FORECASTS OF replay, DE: 400 in 17 d, held against what it then told; g/kWh, % of the mean",
        "6-12 h 40 12.5 (6.2%) -3.0 (-1.5%) 20.0 (10.0%) +1.0 (+0.5%)",
        "FORECASTS OF other, DE: not scored yet: 5 h of forecasts kept",
    ):
        assert shown in " ".join(text.split())
    assert "3-6 h" not in text
    assert "FORECAST " not in cli("grid", "--forecast", "0", socket=socket).out
    box.g_per_kwh = None
    assert "not known: every feed failed" in cli("grid", "--forecast", "0", socket=socket).out


def test_report_to_stdout_and_to_a_file(box: Box, socket: Path, tmp_path: Path) -> None:
    job_id = busy(box)
    assert cli("report", "--job", job_id, "--json", socket=socket).doc["format"] == "json"
    assert cli("report", "--job", job_id, socket=socket).doc["job"] == job_id
    span = ("--from", "2026-11-01T00:00:00Z", "--to", "2026-11-02T00:00:00Z")
    assert cli("report", *span, socket=socket).doc["start"] == "2026-11-01T00:00:00.000Z"
    path = tmp_path / "r.csv"
    ran = cli("report", "--job", job_id, "--format", "csv", "-o", path, socket=socket)
    assert (ran.code, ran.out) == (0, "")
    assert path.read_bytes().startswith(b"job,start,end,format\r\n")
    away = cli("report", "--job", job_id, "-o", tmp_path / "no" / "r.json", socket=socket)
    assert away.code == 2
    assert "--output" in away.err
    some = cli("report", "--user", "ada", "-l", "project=x", "-l", "team", socket=socket).doc
    assert (some["user"], some["labels"]) == ("ada", ["project=x", "team"])
    pdf = cli("report", "--job", job_id, "--format", "pdf", "-o", tmp_path / "r.pdf", socket=socket)
    assert (pdf.code, "written to" in pdf.err) == (0, True) or (pdf.code, pdf.err.count("\n")) == (2, 1)
    wrong = cli("report", "--from", "soon", "--to", "later", socket=socket)
    assert wrong.code == 2
    assert "is not a time" in wrong.err


@given(st.lists(st.floats(min_value=0, max_value=1000), min_size=1, max_size=400))
def test_sparkline_shows_lowest_and_highest(values: list[float]) -> None:
    line = sparkline(values)
    assert len(line) == min(48, len(values))
    if len(values) <= 48 and max(values) > min(values):
        assert line[values.index(min(values))] == "▁"
        assert line[values.index(max(values))] == "█"


def test_long_forecast_is_thinned_from_its_first_point() -> None:
    points = tuple(range(100))
    thin = every_nth(points, 24)  # type: ignore[arg-type]
    assert thin[0] == 0
    assert len(thin) <= 24


def test_what_others_wrote_steers_no_terminal(box: Box, socket: Path) -> None:
    entry = box.add()
    box.go(entry, JobState.RUNNING, "\x1b[2J\x1b]0;title\x07 gone\r\x9b1m\u202eback")
    for command in (("show", entry.id), ("ps",), ("pause", entry.id), ("wait", "--json", entry.id)):
        if command[0] == "wait":
            box.go(entry, JobState.CANCELLED, "\x1b[2J")
        out = cli(*command, socket=socket).out
        assert not set(out) & {"\x1b", "\x07", "\r", "\x9b", "\u202e"}, command
    assert "\\x1b[2J" in cli("show", entry.id, socket=socket).out


@pytest.mark.parametrize(
    ("encoding", "written"),
    [
        ("ascii", b"rho 0.500 - 3 uJ ?"),
        ("latin-1", b"rho 0.500 - 3 \xb5J ?"),
        ("utf-8", "ρ 0.500 − 3 µJ 水".encode()),
    ],
)
def test_a_locale_without_our_letters_spells_them(encoding: str, written: bytes) -> None:
    raw = io.BytesIO()
    stream = io.TextIOWrapper(raw, encoding=encoding, write_through=True)
    suit(stream)
    stream.write("ρ 0.500 − 3 µJ 水")
    assert raw.getvalue() == written


@pytest.mark.parametrize("columns", [40, 60, 80, 120, 200])
def test_a_long_list_looks_as_a_short_one_does(
    columns: int, box: Box, socket: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is printed by other means, for the table's take seconds for ten thousand jobs."""
    monkeypatch.setenv("COLUMNS", str(columns))
    for name in ("a", "with-a-long-name-" + "x" * 40, "tiny"):
        box.add(name=name)
    short = cli("ps", socket=socket).out
    monkeypatch.setattr("carbonsched.cli.ps.LONG", 0)
    long = cli("ps", socket=socket).out
    assert [line.rstrip() for line in long.splitlines()] == [line.rstrip() for line in short.splitlines()]
    assert "tiny" in long
