"""Waiting and following: exit codes by outcome, a line a change, a daemon that comes and goes."""

import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from rich.console import Console
from support.box import Box, Entry, serving
from support.command import cli
from support.rig import ME

from carbonsched.cli.progress import Panel, line, panel
from carbonsched.model.job import Owner
from carbonsched.model.job_state import JobState
from carbonsched.model.views import Acted, JobDetail


@contextmanager
def meanwhile(act: Callable[[], None]) -> Iterator[None]:
    thread = threading.Thread(target=act)
    thread.start()
    yield
    thread.join()


def running(box: Box) -> Entry:
    entry = box.add()
    box.go(entry, JobState.RUNNING, "rho 0.600 at 200 g/kWh")
    return entry


@pytest.mark.parametrize(
    ("outcome", "code"),
    [(JobState.FINISHED, 0), (JobState.FAILED, 4), (JobState.CANCELLED, 5), (JobState.STOPPED, 6)],
)
def test_exit_code_tells_the_outcome(outcome: JobState, code: int, box: Box, socket: Path) -> None:
    entry = running(box)
    box.go(entry, outcome, "so it went")
    ran = cli("wait", entry.id, "--json", socket=socket)
    assert ran.code == code
    assert Acted.parse(ran.doc) == Acted(id=entry.id, state=outcome, reason="so it went")
    assert cli("wait", entry.id, socket=socket).code == code


def test_a_line_for_every_change(box: Box, socket: Path) -> None:
    entry = running(box)

    def act() -> None:
        for _ in range(2):
            time.sleep(0.15)
            box.segment(entry)
        time.sleep(0.15)
        box.go(entry, JobState.FINISHED, "done")

    with meanwhile(act):
        ran = cli("wait", entry.id, socket=socket)
    lines = ran.out.splitlines()
    assert ran.code == 0
    assert [text.split(" | ")[1] for text in lines] == [
        "segment 1/5",
        "segment 2/5",
        "segment 3/5",
        "segment 2/5 done",
    ]
    for shown in ("200 g/kWh (replay, actual, synthetic)", "planned 0.597 realised 0.595", "100 kJ", "20 g of 120 g",
                  "322 W", "loss 2.5", "left 4h 00m"):  # fmt: skip
        assert shown in lines[1]


def test_live_panel_has_all_of_it(box: Box) -> None:
    entry = running(box)
    box.segment(entry)
    job, grid = box.show(entry.id, ME), box.grid(0).now
    console = Console(width=80, record=True, file=open("/dev/null", "w"))  # noqa: SIM115, PTH123
    console.print(panel(job, grid))
    console.file.close()
    text = console.export_text()
    for shown in (
        "2/5",
        "200 g/kWh",
        "0.600 directed",
        "0.597",
        "0.595",
        "20 g of 120 g",
        "███░",
        "322 W",
        "2.5",
        "4h 00m",
    ):
        assert shown in text
    with Panel() as live:
        live.update(job, grid)
    assert "segment 2/5" in line(job, grid)


def test_intensity_that_nobody_knows_is_said(box: Box) -> None:
    box.g_per_kwh = None
    entry = running(box)
    assert "intensity not known: every feed failed" in line(box.show(entry.id, ME), box.grid(0).now)


def asked(box: Box, monkeypatch: pytest.MonkeyPatch) -> threading.Event:
    """Set once somebody has been told of a job: on a loaded machine the command is slow to come to it."""
    told, show = threading.Event(), box.show

    def telling(job_id: str, actor: Owner) -> JobDetail:
        shown = show(job_id, actor)
        told.set()
        return shown

    monkeypatch.setattr(box, "show", telling)
    return told


def test_daemon_restarted_meanwhile_is_waited_for(
    box: Box, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    entry = running(box)
    told = asked(box, monkeypatch)
    path = tmp_path / "api.sock"
    ran = []
    with serving(box, path):
        waiting = threading.Thread(target=lambda: ran.append(cli("wait", entry.id, socket=path)))
        waiting.start()
        assert told.wait(60)
        time.sleep(0.3)  # the answer is on its way
    time.sleep(0.2)
    assert waiting.is_alive()
    box.go(entry, JobState.FINISHED, "done")
    with serving(box, path):
        waiting.join(60)
    assert ran[0].code == 0
    assert "waiting for the daemon" in ran[0].out


def test_daemon_that_stays_away_is_3_in_the_end(
    box: Box, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("carbonsched.cli.wait.PATIENCE_S", 0.2)
    entry = running(box)
    told = asked(box, monkeypatch)
    ran = []
    with serving(box, tmp_path / "api.sock") as path:
        waiting = threading.Thread(target=lambda: ran.append(cli("wait", entry.id, "--json", socket=path)))
        waiting.start()
        assert told.wait(60)
        time.sleep(0.3)
    waiting.join(60)
    assert (ran[0].code, ran[0].out) == (3, "")


def test_logs_whole_and_as_json(box: Box, socket: Path) -> None:
    entry = box.add()
    assert cli("logs", entry.id, socket=socket).out == ""
    box.log_file(entry).write_bytes("loss 2.5 ü\nloss 2.4".encode())
    assert cli("logs", entry.id, socket=socket).out == "loss 2.5 ü\nloss 2.4"
    assert cli("logs", entry.id, "--json", socket=socket).doc == {
        "id": entry.id,
        "text": "loss 2.5 ü\nloss 2.4",
    }


def test_logs_over_a_log_that_was_begun_anew(box: Box, socket: Path) -> None:
    entry = box.add()
    log = box.log_file(entry)
    old, begun = (
        log.with_name(f"{log.stem}.1{log.suffix}"),
        "carbonsched: 2026-11-01T12:00:00Z the log goes on here",
    )
    old.write_text("before\n")
    log.write_text(f"{begun}, its first 107 bytes are in log.1.txt or gone\nafter\n")
    ran = cli("logs", entry.id, socket=socket)
    assert ran.out == old.read_text() + log.read_text()
    assert "100 bytes of the log are gone" in ran.err
    log.unlink()
    assert cli("logs", entry.id, socket=socket).out == "before\n"
    (log.parent / "run.json").touch()
    old.unlink()
    ran = cli("logs", entry.id, socket=socket)
    assert (ran.code, ran.out) == (1, "")
    assert "was deleted from the job directory" in ran.err


@pytest.mark.parametrize("lines", [0, 1, 3, 4000, 40_000])
def test_last_lines_of_a_log(lines: int, box: Box, socket: Path) -> None:
    entry = box.add()
    text = [f"line {n} {'x' * (n % 70)}" for n in range(20_000)] + ["not ended yet"]
    box.log_file(entry).write_text("\n".join(text))
    shown = cli("logs", entry.id, "--tail", str(lines), socket=socket).out
    assert shown == "\n".join(text[-lines:] if lines else [])


@pytest.mark.parametrize(
    ("since", "shown"),
    [("1970-01-01", "one\ntwo\n"), ("30m", "two\n"), ("2h", "one\ntwo\n"), ("2100-01-01", "")],
)
def test_logs_since_a_time_or_so_long_ago(since: str, shown: str, box: Box, socket: Path) -> None:
    entry = box.add()
    box.log_file(entry).write_text("one\ntwo\n")
    now = time.time()
    (box.folder / "written.txt").write_text(f"{now - 3600:.3f} 0\n{now - 60:.3f} 4\nhalf a li")
    assert cli("logs", entry.id, "--since", since, socket=socket).out == shown


@pytest.mark.parametrize(
    ("since", "lines", "shown"),
    [("30m", 1, "three\n"), ("30m", 9, "two\nthree\n"), ("2100-01-01", 3, ""), ("2h", 0, "")],
)
def test_last_lines_of_what_was_written_since(
    since: str, lines: int, shown: str, box: Box, socket: Path
) -> None:
    entry = box.add()
    box.log_file(entry).write_text("one\ntwo\nthree\n")
    now = time.time()
    (box.folder / "written.txt").write_text(f"{now - 3600:.3f} 0\n{now - 60:.3f} 4\n")
    assert cli("logs", entry.id, "--since", since, "--tail", str(lines), socket=socket).out == shown


def test_logs_since_what_is_no_time(box: Box, socket: Path) -> None:
    entry = box.add()
    box.log_file(entry).write_text("one\n")
    assert cli("logs", entry.id, "--since", "1h", socket=socket).err.endswith("begun by an older version\n")
    for wrong, said in (("soon", "since: 'soon' is not a time"), ("-5m", "since: '-5m' is not a time")):
        refused = cli("logs", entry.id, f"--since={wrong}", socket=socket)
        assert (refused.code, said in refused.err) == (2, True), refused.err


def test_logs_longer_than_one_piece(box: Box, socket: Path) -> None:
    entry = box.add()
    text = "".join(f"step {n}\n" for n in range(80_000))
    box.log_file(entry).write_text(text)
    assert cli("logs", entry.id, socket=socket).out == text


def test_logs_followed_to_the_jobs_end(box: Box, socket: Path) -> None:
    entry = running(box)

    def act() -> None:
        with box.log_file(entry).open("w") as file:
            for n in range(5):
                file.write(f"half {n} ")
                file.flush()
                time.sleep(0.05)
                file.write(f"whole {n}\n")
                file.flush()
            file.write("last words")
        box.go(entry, JobState.FINISHED)

    with meanwhile(act):
        ran = cli("logs", "-f", entry.id, "--json", socket=socket)
    lines = [json.loads(text) for text in ran.out.splitlines()]
    assert [row["line"] for row in lines] == [*(f"half {n} whole {n}" for n in range(5)), "last words"]
    assert all(row["id"] == entry.id for row in lines)
