"""What scripts rely on: exit codes, one line of error, one JSON document, where the socket is looked for."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from support.box import JOB_TOML, Box
from support.command import cli

from carbonsched.cli import main
from carbonsched.model.audit import Balance
from carbonsched.model.job_state import JobState
from carbonsched.model.views import JobDetail, JobList, Version

COMMAND = [sys.executable, "-m", "carbonsched"]


def one_line(err: str) -> str:
    assert err.count("\n") == 1, err
    assert err.startswith("carbonsched: ")
    return err


def test_process_prints_one_document_and_exits_0(box: Box, socket: Path) -> None:
    entry = box.add()
    done = subprocess.run([*COMMAND, "ps", "--json", "--socket", socket], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    assert JobList.parse(json.loads(done.stdout)).jobs[0].id == entry.id


def test_process_without_daemon_exits_3_with_the_mend(tmp_path: Path) -> None:
    done = subprocess.run(
        [*COMMAND, "ps", "--json", "--socket", tmp_path / "none"], capture_output=True, text=True
    )
    assert (done.returncode, done.stdout) == (3, "")
    assert "start it: carbonsched daemon --config FILE" in one_line(done.stderr)


def test_help_is_quick_and_does_not_load_the_heavy_half() -> None:
    code = (
        "import sys; from carbonsched.cli import main; main(['--help'])\n"
        "heavy = {'httpx', 'fastapi', 'uvicorn', 'pydantic', 'numpy', 'sqlalchemy', 'codecarbon', 'torch'}\n"
        "print(sorted(heavy & set(sys.modules)), file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stderr.strip() == "[]"
    assert "submit" in done.stdout


@pytest.mark.parametrize(
    ("argv", "says"),
    [
        (["pss"], "No such command"),
        (["ps", "--jsn"], "No such option"),
        (["show"], "Missing argument 'ID'"),
        (["grid", "--forecast", "soon"], "--forecast: must be "),
        (["grid", "--forecast", "-1"], "--forecast: must be "),
        (
            ["report", "--format", "docx", "--job", "x"],
            "--format: there is no format 'docx'; choose one of json, csv",
        ),
        (["daemon"], "Missing option '--config'"),
        (["report"], "give --job ID, or --from TIME"),
        (["report", "--to", "2026-11-01T00:00:00Z"], "--from: is missing"),
        (["report", "--job", "x", "--json", "--format", "csv"], "exclude each other"),
        (["report", "--job", ""], "--job: is empty; give one"),
        (["report", "--user", " "], "--user: is empty; give one"),
        (["report", "--label", "", "--from", "2026-11-01"], "--label: is empty; give one"),
        (["report", "--job", "x", "--user", "ada"], "--user, --label and --site exclude each other"),
        (["report", "--from", "nope"], "--from: 'nope' is not a time"),
        (["report", "--from", "2026-11-01", "--to", "x" * 5000], "--to: 'xxx"),
        (["report", "--from", "2026-11-01", "--to", "2026-10-01"], "--to: 2026-10-01 is not after --from"),
        (["report", "--from", "2099-11-01"], "--from: 2099-11-01 is to come, and the report ends now"),
    ],
)
def test_bad_usage_is_one_line_and_2(argv: list[str], says: str) -> None:
    ran = cli(*argv)
    assert (ran.code, ran.out) == (2, "")
    assert says in one_line(ran.err)
    assert len(ran.err) < 1500, "what is long is not printed whole"


@pytest.mark.parametrize(
    "argv",
    [["ps"], ["show", "x"], ["wait", "x"], ["logs", "x"], ["cancel", "x"], ["grid"], ["audit", "verify"]],
)
def test_no_daemon_is_3(argv: list[str], tmp_path: Path) -> None:
    ran = cli(*argv, socket=tmp_path / "none")
    assert (ran.code, ran.out) == (3, "")
    one_line(ran.err)


def test_stale_socket_is_3(tmp_path: Path) -> None:
    from carbonsched.api.server import bind

    bind(tmp_path / "api.sock").close()
    ran = cli("ps", socket=tmp_path / "api.sock")
    assert ran.code == 3
    assert "nobody answers" in one_line(ran.err)


@pytest.mark.parametrize("command", ["show", "logs", "wait", "cancel", "pause", "resume"])
def test_unknown_job_is_bad_input(command: str, socket: Path) -> None:
    ran = cli(command, "nope", "--json", socket=socket)
    assert (ran.code, ran.out) == (2, "")
    assert one_line(ran.err) == "carbonsched: there is no job nope; carbonsched ps lists them\n"


def test_job_id_is_never_a_path(socket: Path) -> None:
    assert cli("cancel", "../../v1/jobs", socket=socket).code == 2


def test_daemon_that_fails_inside_is_1(box: Box, socket: Path) -> None:
    box.broken = RuntimeError("inside")
    ran = cli("ps", socket=socket)
    assert ran.code == 1
    assert "RuntimeError" in one_line(ran.err)


def test_debug_shows_where_it_went_wrong(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--debug", "ps", "--socket", str(tmp_path / "none")]) == 3
    assert "Traceback" in capsys.readouterr().err
    assert main(["ps", "--debug", "--socket", str(tmp_path / "none")]) == 3
    assert "Traceback" in capsys.readouterr().err


def test_socket_before_the_command_behind_it_and_from_the_environment(
    socket: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert cli("--socket", socket, "ps").code == 0
    assert cli("--socket", tmp_path / "none", "ps", "--socket", socket).code == 0
    assert cli("ps").code == 3
    monkeypatch.setenv("CARBONSCHED_SOCKET", str(socket))
    assert cli("ps").code == 0
    monkeypatch.delenv("CARBONSCHED_SOCKET")
    (tmp_path / "carbonsched").mkdir()
    (tmp_path / "carbonsched" / "api.sock").symlink_to(socket)
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    assert cli("ps").code == 0


def test_proxies_of_the_environment_are_not_asked(socket: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    monkeypatch.setenv("ALL_PROXY", "http://127.0.0.1:9")
    assert cli("ps", socket=socket).code == 0


def test_version_with_and_without_a_daemon(socket: Path, tmp_path: Path) -> None:
    assert Version.parse(cli("version", "--json", socket=socket).doc).pid == 1
    alone = cli("version", "--json", socket=tmp_path / "none")
    assert alone.code == 0
    assert Version.parse(alone.doc).pid is None
    assert "not reachable" in cli("version", socket=tmp_path / "none").out
    assert "trainer" in cli("version", socket=socket).out
    assert cli("--version").out == "carbonsched 0.1.0\n"


def test_no_command_shows_help() -> None:
    ran = cli()
    assert ran.code == 0
    assert "submit" in ran.out


@pytest.mark.parametrize(
    ("verb", "before", "after"),
    [
        ("cancel", JobState.QUEUED, JobState.CANCELLED),
        ("pause", JobState.QUEUED, JobState.PAUSED),
        ("resume", JobState.PAUSED, JobState.QUEUED),
    ],
)
def test_actions(verb: str, before: JobState, after: JobState, box: Box, socket: Path) -> None:
    entry = box.add()
    if before is not JobState.QUEUED:
        box.go(entry, before)
    ran = cli(verb, entry.id, "--json", socket=socket)
    assert ran.code == 0
    assert (ran.doc["id"], ran.doc["state"]) == (entry.id, after)


def test_action_the_state_forbids_is_1(box: Box, socket: Path) -> None:
    entry = box.add()
    box.go(entry, JobState.CANCELLED)
    ran = cli("pause", entry.id, socket=socket)
    assert (ran.code, ran.out) == (1, "")
    assert "is cancelled, it cannot become paused" in one_line(ran.err)


def test_audit_says_no_with_1(box: Box, socket: Path) -> None:
    assert cli("audit", "verify", socket=socket).out == "ok: 7 rows verify\n"
    bad = {"ok": False, "first_bad": 4, "problem": "row 4 was changed after it was written"}
    box.audit_result = box.audit_result.model_copy(update=bad)
    ran = cli("audit", "verify", "--json", socket=socket)
    assert (ran.code, ran.doc["first_bad"]) == (1, 4)
    assert "row 4 was changed" in cli("audit", "verify", socket=socket).out


def test_audit_says_whether_every_joule_was_charged_once(box: Box, socket: Path) -> None:
    balance = Balance(
        board="gpu", counter_epoch="b:0", charged_mj=9_000, counted_mj=9_000, holes_mj=0, ok=True
    )
    box.audit_result = box.audit_result.model_copy(update={"conservation": (balance, balance)})
    assert (
        cli("audit", "verify", socket=socket).out
        == "ok: 7 rows verify; 18 J on 2 counters, each joule charged once\n"
    )
    broken = balance.model_copy(update={"counted_mj": 8_000, "ok": False})
    bad = {"ok": False, "conservation": (broken,), "problem": "conservation is broken on board gpu"}
    box.audit_result = box.audit_result.model_copy(update=bad)
    ran = cli("audit", "verify", "--json", socket=socket)
    assert (ran.code, ran.doc["first_bad"], ran.doc["conservation"][0]["ok"]) == (1, None, False)
    assert set(ran.doc["heads"]) == {"intervals", "journal"}
    shown = cli("audit", "verify", socket=socket)
    assert (shown.code, shown.out) == (1, "not ok: conservation is broken on board gpu (7 rows)\n")


def test_audit_reads_a_ledger_without_a_daemon(tmp_path: Path) -> None:
    from carbonsched.ledger.ledger import Ledger

    url = f"sqlite:///{tmp_path / 'ledger.db'}"
    Ledger.open(url).close()
    ran = cli("audit", "verify", "--ledger", url, "--json")
    assert (ran.code, ran.doc["ok"], ran.doc["rows"]) == (0, True, 0)
    missing = cli("audit", "verify", "--ledger", f"sqlite:///{tmp_path / 'none.db'}")
    assert missing.code in (1, 2)
    one_line(missing.err)


def test_ctrl_c_while_waiting_leaves_the_job_and_ends_with_130(
    box: Box, socket: Path, tmp_path: Path
) -> None:
    (tmp_path / "job.toml").write_text(JOB_TOML)
    entry = box.add()
    box.go(entry, JobState.RUNNING)
    waiting = subprocess.Popen(
        [*COMMAND, "wait", entry.id, "--socket", socket],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert waiting.stdout is not None
    assert waiting.stdout.readline().startswith(f"{entry.id} running")
    os.kill(waiting.pid, signal.SIGINT)
    _, err = waiting.communicate(timeout=10)
    assert waiting.returncode == 130
    assert f"job {entry.id} goes on" in one_line(err)
    assert entry.state is JobState.RUNNING


def test_reader_that_leaves_early_is_no_traceback(box: Box, socket: Path) -> None:
    for n in range(300):
        box.add(f"job{n}")
    listing = subprocess.Popen(
        [*COMMAND, "ps", "--json", "--socket", socket], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    assert listing.stdout is not None
    assert listing.stderr is not None
    listing.stdout.read(10)
    listing.stdout.close()
    time.sleep(0)
    assert b"Traceback" not in listing.stderr.read()
    listing.stderr.close()
    listing.wait(10)


def test_show_json_is_the_whole_job(box: Box, socket: Path) -> None:
    entry = box.add()
    box.go(entry, JobState.RUNNING)
    box.segment(entry)
    detail = JobDetail.parse(cli("show", entry.id, "--json", socket=socket).doc)
    assert [segment.k for segment in detail.segments_done] == [0]


@pytest.mark.parametrize("command", ["show", "logs", "wait", "cancel", "pause", "budget", "report"])
def test_a_job_is_meant_by_first_letters_name_or_as_latest(command: str, box: Box, socket: Path) -> None:
    other, entry = box.add("other"), box.add("mine")
    box.log_file(entry).write_text("")
    for job in (other, entry):
        if command in ("wait",):
            box.go(job, JobState.RUNNING)
            box.go(job, JobState.FINISHED)
    more = {"budget": ["--grams", "150"], "report": ["--format", "json"]}.get(command, [])
    for reference in ("min", "mine", entry.id, "latest"):
        if command in ("cancel", "pause"):
            entry.state = JobState.QUEUED
        given = ["--job", reference] if command == "report" else [reference]
        ran = cli(command, *given, *more, "--json", socket=socket)
        assert ran.code == 0, ran.err
        if command != "report":
            assert ran.doc["id"] == entry.id


@pytest.mark.parametrize("command", ["show", "logs", "cancel"])
def test_what_names_no_job_is_bad_input(command: str, box: Box, socket: Path) -> None:
    box.add("mine")
    for reference in ("", "."):
        ran = cli(command, reference, socket=socket)
        assert ran.code == 2
        assert "ID: " in one_line(ran.err)


def test_what_fits_two_jobs_is_refused_with_their_ids(box: Box, socket: Path) -> None:
    ids = [box.add("sum").id for _ in range(2)]
    ran = cli("cancel", "sum", socket=socket)
    assert ran.code == 2
    assert all(job_id in one_line(ran.err) for job_id in ids)
    assert all(entry.state is JobState.QUEUED for entry in box.entries.values())


def test_several_jobs_at_once_and_one_that_cannot_be(box: Box, socket: Path) -> None:
    entries = [box.add(name) for name in ("a", "b", "c")]
    box.go(entries[1], JobState.CANCELLED)
    ran = cli("pause", "a", "b", "c", "a", "--json", socket=socket)
    assert ran.code == 1
    assert [job["id"] for job in ran.doc["jobs"]] == [entries[0].id, entries[2].id]
    assert "is cancelled" in one_line(ran.err)
    assert [entry.state for entry in entries] == [JobState.PAUSED, JobState.CANCELLED, JobState.PAUSED]


def test_json_before_the_command(box: Box, socket: Path) -> None:
    box.add()
    assert cli("--json", "ps", socket=socket).doc == cli("ps", "--json", socket=socket).doc
