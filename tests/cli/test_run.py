"""`carbonsched run` with real commands: their streams, signals and exit codes, and what is in the books of them."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest
from support.command import cli
from support.http_server import Reply
from support.http_server import serve as serve_http
from support.metered import CONFIG
from support.processes import gone, until

from carbonsched.api.app import create_app
from carbonsched.api.server import serve
from carbonsched.cli.run_alone import Alone, metering
from carbonsched.launch.cpu_time import box_s
from carbonsched.ledger.ledger import Ledger
from carbonsched.model.job_state import JobState


@pytest.fixture
def config(tmp_path: Path) -> Path:
    (tmp_path / "watts.csv").write_text("seconds,watts\n0,100\n3600,100\n")
    path = tmp_path / "config.toml"
    path.write_text(CONFIG)
    return path


def alone(tmp_path: Path, *words: object, options: tuple[object, ...] = ()) -> tuple[int, str, str]:
    ran = cli(
        *("run", "--ledger", tmp_path / "mine.db", "--config", tmp_path / "config.toml"),
        *(*options, "--", *words),
    )
    return ran.code, ran.out, ran.err


def test_without_a_daemon_it_writes_the_same_rows_and_says_the_total(tmp_path: Path, config: Path) -> None:
    out = tmp_path / "total.json"
    options = ("-o", out, "--name", "first", "-l", "project=thesis")
    code, _, err = alone(tmp_path, "sh", "-c", "sleep 0.3; exit 3", options=options)
    assert code == 3
    assert "first-" in err
    assert "failed (ended with exit code 3)" in err
    assert "at 400 g/kWh (static)" in err
    assert "on replay-0" in err
    total = json.loads(out.read_text())
    assert total["exit_code"] == 3
    assert 0.25 <= total["seconds"] <= 5
    assert total["energy_j"] == pytest.approx(100 * total["seconds"], rel=0.05)
    assert total["spent_g"] == pytest.approx(total["energy_j"] / 3.6e6 * 1.5 * 400)
    assert alone(tmp_path, "true")[0] == 0, "the same ledger goes on"
    with Ledger.open(f"sqlite:///{tmp_path / 'mine.db'}", read_only=True) as ledger:
        assert ledger.verify().ok
        states = {job.spec.name: job.state for job in ledger.jobs()}
        assert states == {"first": JobState.FAILED, "true": JobState.FINISHED}
        assert ledger.totals(total["id"]).grams == total["spent_g"]
        assert ledger.job(total["id"]).spec.labels == {"project": "thesis"}


def test_json_leaves_stdout_to_the_total(
    tmp_path: Path, config: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    code, out, _ = alone(tmp_path, "sh", "-c", "echo words", options=("--json",))
    assert code == 0
    assert json.loads(out)["state"] == "finished"
    streams = capfd.readouterr()
    assert (streams.out, "words" in streams.err) == ("", True)


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (("no-such-command",), 127),
        (("",), 127),
        (("/etc/passwd",), 126),
        (("sh", "-c", "kill -9 $$"), 137),
    ],
)
def test_the_exit_code_is_the_commands_own(
    tmp_path: Path, config: Path, words: tuple[str, ...], code: int
) -> None:
    assert alone(tmp_path, *words)[0] == code


def test_a_command_of_no_name_is_not_found_and_that_is_said(tmp_path: Path, config: Path) -> None:
    """As env, timeout and a shell do it."""
    argv = [*(sys.executable, "-m", "carbonsched", "run", "--ledger", "mine.db"), "--config", str(config)]
    ran = subprocess.run([*argv, "--", ""], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert (ran.returncode, ran.stderr.splitlines()[0]) == (127, "carbonsched: '': not found")


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--stop",), "--stop: needs a budget; add --budget-g"),
        (("--warn", "0.5"), "--warn: needs a budget"),
        (("--intensity", "300"), "--intensity: is the daemon's to know"),
        (("--ledger", "sqlite:///x.db", "--intensity", "3"), "--ledger: sqlite:/x.db is a URL; give a file"),
        (("--ledger", ".", "--intensity", "3"), "--ledger: names no file"),
        (("--ledger", "mine.db", "--intensity", "3", "-o", "."), "--output: . is a folder; give a file"),
        (("--ledger", "x.db"), "--ledger: needs to know the grid; add --intensity"),
        (("--budget-g", "-1"), "carbonsched: --budget-g: must be above 0"),
        (("--budget-g", "nan"), "carbonsched: --budget-g: must be a finite number"),
        (("--name", "a b"), "carbonsched: --name: must be 1 to 64 letters"),
        (("--label", "a="), "carbonsched: --label a: is empty"),
        (("--budget-g", "1", "--warn", "2"), "carbonsched: --warn: must be above 0 and 1 at most, is 2"),
        (("--grace", "-1"), "carbonsched: --grace: must be 0 to 3600 s, is -1"),
        (("--ledger", "x.db", "--intensity", "1e9"), "carbonsched: --intensity: must be 0 to 2000 g/kWh"),
        (("--ledger", "x.db", "--intensity", "-1"), "carbonsched: --intensity: must be 0 to 2000 g/kWh"),
        (("--ledger", "x.db", "--intensity", "nan"), "carbonsched: --intensity: must be 0 to 2000 g/kWh"),
        (
            ("--ledger", "no/such/folder/x.db", "--intensity", "3"),
            "no/such/folder; make it first, or name another place",
        ),
        (("--ledger", "/etc/passwd", "--intensity", "3"), "--ledger: /etc/passwd is no ledger; name a file"),
        (("--label", "x"), "--label: 'x' is no KEY=VALUE"),
        (
            ("--device", "GPU-x", "--ledger", "x.db", "--intensity", "300"),
            "--device: 'GPU-x' is no board here",
        ),
    ],
)
def test_bad_options_are_one_line_and_nothing_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, options: tuple[str, ...], words: str
) -> None:
    monkeypatch.chdir(tmp_path)
    ran = cli("run", *options, "--", "touch", "ran")
    assert (ran.code, ran.err.count("\n")) == (2, 1)
    assert words in ran.err
    assert not (tmp_path / "ran").exists()
    assert not (tmp_path / "no").exists()


def test_a_second_run_on_a_ledger_is_told_who_has_it(tmp_path: Path, config: Path) -> None:
    go = tmp_path / "go"
    argv = [sys.executable, "-m", "carbonsched", "run", "--ledger", "mine.db", "--config", str(config)]
    script = f"echo begun; until [ -e {go} ]; do sleep 0.05; done"
    with subprocess.Popen([*argv, "--", "sh", "-c", script], stdout=subprocess.PIPE, cwd=tmp_path) as first:
        assert first.stdout is not None
        first.stdout.readline()
        code, _, err = alone(tmp_path, "touch", tmp_path / "ran")
        go.touch()
    assert (code, (tmp_path / "ran").exists()) == (1, False)
    assert f"is in use by process {first.pid}, carbonsched run; one process at a time" in err


def test_what_it_leaves_behind_without_a_daemon_is_told_by_a_report(tmp_path: Path, config: Path) -> None:
    pid_file, ledger = tmp_path / "pid", tmp_path / "mine.db"
    code, _, err = alone(tmp_path, "sh", "-c", f"sleep 60 >/dev/null 2>&1 & echo $! >{pid_file}")
    os.kill(int(pid_file.read_text()), signal.SIGKILL)
    assert code == 0
    said = err.rpartition("by a next run with this ledger: carbonsched ")[2].split()
    told = cli(*said)
    assert (said[:2], told.code) == (["report", "--job"], 0), told.err
    assert json.loads(told.out)["job_id"] == said[2]
    told = cli("report", "--job", "latest", "--ledger", ledger)
    assert (told.code, "--job: the ledger has no job latest; give a whole id" in told.err) == (2, True)


def test_without_a_daemon_that_answers_nothing_runs(tmp_path: Path) -> None:
    ran = cli("run", "--socket", tmp_path / "none.sock", "--", "touch", tmp_path / "ran")
    assert ran.code == 3
    assert not (tmp_path / "ran").exists()
    assert signal.pthread_sigmask(signal.SIG_BLOCK, ()) == set(), "what it held back is let through again"


def test_one_that_was_killed_with_its_command_is_over_before_the_next_is_charged(
    tmp_path: Path, config: Path
) -> None:
    argv = [*(sys.executable, "-m", "carbonsched", "run", "--name", "killed"), *("--ledger", "mine.db")]
    argv += ["--config", str(config), "--", "sh", "-c", "echo $$; exec sleep 600"]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, cwd=tmp_path, text=True) as process:
        assert process.stdout is not None
        pid = int(process.stdout.readline())
        process.kill()
        os.kill(pid, signal.SIGKILL)
    until(lambda: gone(pid), 60)
    time.sleep(2)
    code, _, err = alone(tmp_path, "sh", "-c", "sleep 5 & exit 0")
    assert code == 0
    assert "is shared with" not in err
    assert "unknown" not in err
    assert " 0 s" not in err
    with Ledger.open(f"sqlite:///{tmp_path / 'mine.db'}", read_only=True) as ledger:
        [killed] = [job for job in ledger.jobs() if job.spec.name == "killed"]
        assert killed.state is JobState.FAILED
        assert ledger.totals(killed.id).bridged_mj == 0, "nothing of the time in which nobody metered"
        assert ledger.verify().ok


IGNORES = ("sh", "-c", "trap '' TERM; while :; do sleep 0.05; done")


def test_a_budget_holds_for_a_command_that_ignores_sigterm(tmp_path: Path, config: Path) -> None:
    out = tmp_path / "total.json"
    budget_g = 10 * 100 / 3.6e6 * 1.5 * 400
    options = ("--stop", "--budget-g", f"{budget_g:.6f}", "-o", out)
    code, _, err = alone(tmp_path, *IGNORES, options=options)
    total = json.loads(out.read_text())
    assert (code, total["state"]) == (137, "stopped")
    assert budget_g / 4 < total["spent_g"] < budget_g
    assert (
        "--grace: 30 s at its present power take more than half of the budget of 0.167 g; it gets 5 s" in err
    )
    code, _, err = alone(tmp_path, *IGNORES, options=(*options, "--grace", "1"))
    total = json.loads(out.read_text())
    assert (code, total["state"]) == (137, "stopped")
    assert budget_g / 2 < total["spent_g"] < budget_g
    assert "--grace" not in err


# ---- with a daemon: its service behind a real socket, its clock, meter and launcher real


@pytest.fixture
def served(tmp_path: Path, config: Path) -> Iterator[Alone]:
    with metering(tmp_path / "box.db", config, None) as box:
        server = serve(create_app(box.service), tmp_path / "api.sock")
        server.start()
        yield box
        server.stop()


def started(tmp_path: Path, *words: str, pipe: int = subprocess.PIPE) -> "subprocess.Popen[str]":
    argv = [sys.executable, "-m", "carbonsched", "run", "--socket", str(tmp_path / "api.sock"), *words]
    return subprocess.Popen(argv, stdin=pipe, stdout=pipe, stderr=pipe, text=True)


SCRIPT = """
read word; echo "word $word"; echo oops >&2
trap 'echo told; exit 7' TERM
touch ready
while :; do sleep 0.05; done
"""


def test_streams_signals_and_exit_code_pass_through(
    tmp_path: Path, served: Alone, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    process = started(tmp_path, "--", "sh", "-c", SCRIPT)
    assert process.stdin is not None
    process.stdin.write("hello\n")
    process.stdin.flush()
    until(lambda: (tmp_path / "ready").exists(), 60)
    process.send_signal(signal.SIGTERM)
    out, err = process.communicate(timeout=60)
    assert (process.returncode, out) == (7, "word hello\ntold\n")
    assert err.startswith("oops\n")
    assert "failed (ended with exit code 7)" in err
    [job] = served.service.jobs(served.owner).jobs
    assert job.energy_j > 0


def test_a_budget_is_warned_of_and_kept_and_a_killed_cli_leaves_command_and_books_whole(
    tmp_path: Path, config: Path
) -> None:
    pid_file = tmp_path / "pid"
    with metering(tmp_path / "box.db", config, None) as box:
        server = serve(create_app(box.service), tmp_path / "api.sock")
        server.start()
        bounded = started(tmp_path, "--share", "--budget-g", "0.01", "--stop", "--", "sleep", "60")
        words = ("--share", "--", "sh", "-c", f"echo $$ >{pid_file}; exec sleep 60")
        killed = started(tmp_path, *words, pipe=subprocess.DEVNULL)
        until(lambda: pid_file.exists() and pid_file.read_text() != "", 60)
        pid = int(pid_file.read_text())
        killed.kill()
        killed.wait(10)
        assert not gone(pid), "the command goes on"
        _, err = bounded.communicate(timeout=60)
        assert (bounded.returncode, "its budget of 0.01 g is spent" in err) == (143, True)
        jobs = {job.name: job for job in box.service.jobs(box.owner).jobs}
        assert jobs["sleep"].state is JobState.STOPPED
        job_id, spent_g = jobs["sh"].id, jobs["sh"].spent_g
        assert jobs["sh"].state is JobState.RUNNING
        until(lambda: box.service.show(job_id, box.owner).spent_g > spent_g, 60)
        server.stop()
    time.sleep(0.2)  # nobody meters
    with metering(tmp_path / "box.db", config, None) as box:
        assert box.service.show(job_id, box.owner).state is JobState.RUNNING, "it is taken up again"
        os.kill(pid, signal.SIGKILL)
        until(lambda: box.service.show(job_id, box.owner).state is JobState.FAILED, 60)
        assert "not there to see how" in box.service.show(job_id, box.owner).reason
        assert box.service.audit().ok


BURN = "import time\nwhile time.process_time() < {seconds}: pass"


def test_of_two_commands_and_a_stranger_each_pays_for_the_processors_time_it_took(
    tmp_path: Path, config: Path
) -> None:
    """Real processes on this box: one command computes, one sleeps, and somebody who is no job of ours computes beside them."""
    config.write_text(CONFIG.replace('gpu = "replay"', 'gpu = "none"').replace('host = "none"', 'host = "codecarbon"').replace(
        'replay_file = "watts.csv"\n', ""
    ))  # fmt: skip
    with metering(tmp_path / "box.db", config, None) as box:
        server = serve(create_app(box.service), tmp_path / "api.sock")
        server.start()
        asleep = started(tmp_path, "--name", "asleep", "--", "sleep", "60")
        until(lambda: any(job.state is JobState.RUNNING for job in box.service.jobs(box.owner).jobs), 60)
        stranger = subprocess.Popen([sys.executable, "-c", "while True: pass"])
        try:
            # a child of its own does half of it, and is waited for
            code = f"{sys.executable} -c '{BURN.format(seconds=1)}'; exec {sys.executable} -c '{BURN.format(seconds=1)}'"
            before_s = box_s() or 0.0
            burning = started(tmp_path, "--name", "burning", "--", "sh", "-c", code)
            _, err = burning.communicate(timeout=120)
            assert burning.returncode == 0, err
            busy_s = (box_s() or 0.0) - before_s
        finally:
            stranger.kill()
            stranger.wait()
        asleep.send_signal(signal.SIGTERM)
        asleep.communicate(timeout=60)
        server.stop()
    with Ledger.open(f"sqlite:///{tmp_path / 'box.db'}", read_only=True) as ledger:
        assert ledger.verify().ok
        ids = {job.spec.name: job.id for job in ledger.jobs()}
        mine = [row for row in ledger.rows(ids["burning"]) if row["reason"] and "by 2 jobs" in row["reason"]]
        start, end = min(row["start_us"] for row in mine), max(row["end_us"] for row in mine)

        def joules(job_id: str | None) -> float:
            """Over the time in which both commands lived."""
            return sum(
                row["energy_mj"] / 1000
                for row in ledger.rows()
                if row["job_id"] == job_id and start <= row["start_us"] and row["end_us"] <= end
            )

        burnt, slept, box_j = joules(ids["burning"]), joules(ids["asleep"]), joules(None)
    assert slept > 0, "the idle share is of both"
    # the sleeper's is the idle share, and the burner has as much of that
    active_j = burnt - slept
    part, expected = active_j / (active_j + box_j), 2.0 / busy_s
    assert 0.4 * expected < part < min(2.5 * expected, 0.8), "who computes pays for it"
    # on a box that is busy with others, too, the stranger is one of several: it got at least about as much time as the command
    assert box_j > 0.5 * active_j, "what a stranger takes is no job's"


def test_a_feed_of_the_pue_that_says_nothing_or_is_refused_is_told_on_stderr(
    tmp_path: Path, config: Path
) -> None:
    """There is no daemon whose log would tell."""

    def answer(path: str) -> Reply:
        at = parse_qs(urlsplit(path).query).get("time", ["0"])[0]
        data = {"resultType": "vector", "result": [{"metric": {}, "value": [float(at), "118"]}]}
        return Reply(json.dumps({"status": "success", "data": data}).encode())

    with serve_http(answer) as server:
        for url, why in ((server.url, "one lies between 1 and 10"), ("http://127.0.0.1:9", "127.0.0.1:9")):
            config.write_text(f'{CONFIG}[pue_feed]\nurl = "{url}"\nquery = "pue"\ntimeout = "2s"\n')
            code, _, err = alone(tmp_path, "true")
            [told] = [line for line in err.splitlines() if "pue_feed" in line]
            assert code == 0
            assert why in told
            assert told.endswith("; a PUE of 1.5 is charged (test)")


def test_where_nothing_can_be_metered_no_ledger_is_left_behind(tmp_path: Path, config: Path) -> None:
    config.write_text(
        CONFIG.replace('gpu = "replay"', 'gpu = "intel"').replace('replay_file = "watts.csv"\n', "")
    )
    before = sorted(tmp_path.iterdir())
    code, _, err = alone(tmp_path, "touch", tmp_path / "ran")
    assert (code, err.count("\n")) == (1, 1), err
    assert sorted(tmp_path.iterdir()) == before
