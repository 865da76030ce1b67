"""The daemon as one process: what it leaves out, and how it comes and goes."""

import contextlib
import json
import logging
import os
import platform
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Literal

import pytest
from support.daemon import CONFIG, DaemonProcess
from support.http_server import Reply, serve
from support.job_history import harm
from support.small_disk import SmallDisk, small_disk

from carbonsched import daemon
from carbonsched.daemon_log import LineFormatter
from carbonsched.errors import LedgerError

HEAVY = ("torch", "transformers", "datasets", "accelerate", "peft")
PLANNER = (
    "numpy",
    "carbonsched.supervisor.estimates",
    "carbonsched.supervisor.control",
    "carbonsched.plan.planner",
)
"""What comes with the first job: `Supervisor.control` is the door."""

RUN = """
import os, signal, sys, threading, time
from pathlib import Path
from carbonsched.daemon import run
def end():
    while signal.getsignal(signal.SIGTERM) is signal.SIG_DFL:  # a busy box imports for seconds
        time.sleep(0.05)
    time.sleep(1.5)
    os.kill(os.getpid(), signal.SIGTERM)
threading.Thread(target=end, daemon=True).start()
code = run(Path(sys.argv[1]))
print(code, [name for name in sys.argv[2:] if name in sys.modules])
"""


def test_a_daemon_at_rest_leaves_the_trainers_libraries_and_the_planner_out(tmp_path: Path) -> None:
    box = DaemonProcess(tmp_path)
    argv = [sys.executable, "-c", RUN, str(box.root / "config.toml"), *HEAVY, *PLANNER]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=60, check=False)
    assert done.stdout.strip() == "0 []", done.stderr


ARENAS = """
import ctypes, sys, threading
from carbonsched.daemon import keep_one_arena
print(keep_one_arena())
libc = ctypes.CDLL(None)
libc.malloc.restype, libc.malloc.argtypes = ctypes.c_void_p, [ctypes.c_size_t]
together = threading.Barrier(4)
def take():
    together.wait()
    ctypes.CDLL(None).malloc(20_000)
threads = [threading.Thread(target=take) for _ in range(4)]
for each in threads: each.start()
for each in threads: each.join()
libc.fopen.restype = ctypes.c_void_p
file = libc.fopen(sys.argv[1].encode(), b"w")
libc.malloc_info(0, ctypes.c_void_p(file))
libc.fclose(ctypes.c_void_p(file))
print(open(sys.argv[1]).read().count("<heap "))
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="has arenas in glibc alone")
def test_the_daemons_threads_take_memory_from_one_place(tmp_path: Path) -> None:
    argv = [sys.executable, "-c", ARENAS, str(tmp_path / "memory.xml")]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=60, check=False)
    assert done.stdout.split() == ["True", "1"], done.stderr


def test_python_does_not_look_through_all_that_was_imported_at_its_end(tmp_path: Path) -> None:
    """A second and more of CPU, most of it a last search for cycles, after everything was closed."""
    box, program = DaemonProcess(tmp_path), RUN + "print(sum(os.times()[:4]), flush=True)\n"
    argv = [sys.executable, "-c", program, str(box.root / "config.toml")]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as process:
        assert process.stdout is not None
        code, closed = process.stdout.read().decode().splitlines()
        _, status, used = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    assert (process.returncode, code) == (0, "0 []")
    assert used.ru_utime + used.ru_stime - float(closed) < 0.25 * float(closed)


def test_sigterm_ends_it_cleanly_and_the_ledger_verifies(tmp_path: Path) -> None:
    """On a state folder whose ledger vanished, as well: once somebody has said so."""
    box, ledger = DaemonProcess(tmp_path), tmp_path / "state" / "ledger.db"
    lost = tmp_path / "state" / "jobs" / "lost-0a0a0a"
    lost.mkdir(parents=True)
    (lost / "run.json").write_text("{}")
    refused = box.cli("daemon", "--config", str(box.root / "config.toml"), check=False)
    said = refused.stderr.splitlines()[-1]  # the replay has told where it begins
    assert refused.returncode == 2
    assert f"ledger.url: {ledger} is not there, but folders of job lost-0a0a0a are in {lost.parent}" in said
    assert "start once with --new-ledger" in said
    assert not ledger.exists()
    box.start("--new-ledger")
    assert box.get("/v1/grid")["now"]["g_per_kwh"] in (300, 500)
    assert box.stop() == 0
    assert not box.socket.exists()
    box.start()
    assert box.get("/v1/audit")["ok"]
    assert box.stop() == 0
    harm(ledger, "segments")
    with pytest.raises(LedgerError, match="the database file is damaged"):
        daemon.run(box.root / "config.toml")


@pytest.mark.parametrize(
    ("uid", "level", "words", "kind"),
    [
        (0, "INFO", "each job runs as the user who submitted it", "local"),
        (999, "INFO", "each job runs as the user who submitted it", "systemd"),
        (999, "WARNING", "jobs run as 999, not as their submitters: each is handed the files that its submitter and 999 may read", "local"),
        (1000, "INFO", "other jobs' folders, the hub's cache and tokens are readable", "local"),
    ],
)  # fmt: skip
def test_a_daemon_says_whose_processes_jobs_are_and_what_they_can_read(
    uid: int,
    level: str,
    words: str,
    kind: Literal["local", "systemd"],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level("INFO")
    monkeypatch.setattr(os, "geteuid", lambda: uid)
    monkeypatch.setattr(daemon, "name_of", str)
    daemon._log_whose_jobs(kind)
    (record,) = caplog.records
    assert (record.levelname, words in record.getMessage()) == (level, True)


def test_a_ledger_is_the_daemons_alone_and_jobs_are_not_listed(tmp_path: Path) -> None:
    box = DaemonProcess(tmp_path).start()
    assert box.stop() == 0
    modes = {name: (tmp_path / name).stat().st_mode & 0o777 for name in ("state/ledger.db", "state/jobs")}
    assert modes == {"state/ledger.db": 0o600, "state/jobs": 0o711}


def test_a_second_daemon_on_the_same_state_is_refused(tmp_path: Path) -> None:
    box = DaemonProcess(tmp_path).start()
    second = box.cli("daemon", "--config", str(box.root / "config.toml"), check=False)
    assert second.returncode == 1
    assert len(second.stderr.strip().splitlines()) == 1, second.stderr
    assert box.stop() == 0


TRAINER = """#!{python}
import json, os, signal, sys, time
from datetime import UTC, datetime
from pathlib import Path

stopped = []
signal.signal(signal.SIGTERM, lambda *_: stopped.append(1))
def say(event, **fields):
    at = datetime.now(UTC).isoformat(timespec="milliseconds")
    with (Path(sys.argv[4]) / "events.jsonl").open("a") as file:
        file.write(json.dumps(dict(at=at, event=event, **fields)) + "\\n")
say("started", pid=os.getpid(), segments=1, steps=900, params=1, device="cpu")
say("segment_ready", k=0, segments=1, first_step=0, steps=900, steps_left=900, importance_batches=1,
    frontier=[dict(rho=0.4, importance=0.1), dict(rho=1.0, importance=1.0)], flops_full=1e12, rho_floor=0.4,
    seconds_per_step=1.0, importance_seconds=0.1)
for _ in range(2000):
    if not stopped:
        time.sleep(0.05)
say("finished", step=0, reason="stopped")
"""


def test_a_job_is_adopted_before_anybody_can_ask_for_its_end(tmp_path: Path) -> None:
    """A daemon comes back to a job while the grid's feed hangs: a cancel in that while ends the process for real.

    Where a small file system may be mounted, the disk is full when it comes, and stays so for a while.
    """
    with small_disk(tmp_path / "box" / "state", 3) as disk:
        _come_back(tmp_path, disk)


def _steered(box: DaemonProcess, job_id: str, after: int) -> int:
    """The number of the first directive after that one."""
    deadline = time.monotonic() + 60
    while True:
        with contextlib.suppress(OSError, ValueError):  # not there yet, or just being written
            said = json.loads((box.root / "state" / "jobs" / job_id / "control.json").read_text())
            if said["k"] == 0 and said["seq"] > after:
                return int(said["seq"])
        assert time.monotonic() < deadline, (box.root / "daemon.log").read_text()
        time.sleep(0.1)


def _come_back(tmp_path: Path, disk: SmallDisk | None) -> None:
    script = tmp_path / "trainer.py"
    script.write_text(TRAINER.format(python=sys.executable))
    script.chmod(0o755)
    base = CONFIG.replace('name = "XX"', 'name = "XX"\nbasis = "average-direct"')
    launch = f'[launch]\npython = "{script}"\n[plan]\nlease_s = 1\n'
    box = DaemonProcess(tmp_path / "box", config=base + launch).start()
    job = {"name": "tiny", "model": {"name_or_path": "m"}, "data": {"name_or_path": "d"}}
    job_id = box.post("/v1/jobs", {"spec": job | {"carbon": {"budget_g": 50.0}}})["id"]
    box.until(job_id, lambda job: job["state"] == "running")
    pid = json.loads((box.root / "state" / "jobs" / job_id / "run.json").read_text())["pid"]
    said = _steered(box, job_id, after=0)
    box.kill()
    if disk is not None:
        disk.fill()
    answers = threading.Event()

    def hang(_: str) -> Reply:
        answers.wait(60)
        return Reply(status=404)

    with serve(hang) as provider:
        feed = f'[[feeds]]\nprovider = "neso"\nurl = "{provider.url}"\ntimeout = "60s"\n'
        (box.root / "config.toml").write_text(base.replace("[[feeds]]", feed + "[[feeds]]") + launch)
        try:
            box.start()
            assert provider.paths, "it waits for the feed"
            said = _steered(box, job_id, after=said)
            if disk is not None:
                disk.fill()  # what the start had set free, too
                _steered(box, job_id, after=_steered(box, job_id, after=said))
                disk.free()
            box.post(f"/v1/jobs/{job_id}/cancel", {})
            state = box.get(f"/v1/jobs/{job_id}")["state"]
            exited = (box.root / "state" / "jobs" / job_id / "exit.json").exists()
            assert state == "running" or exited, "not over before its process is"
            answers.set()
            box.until(job_id, lambda job: job["state"] == "cancelled")
            deadline = time.monotonic() + 20  # ended, it stays a zombie until its shim has looked
            while Path(f"/proc/{pid}").exists():
                assert time.monotonic() < deadline
                time.sleep(0.1)
            assert box.get("/v1/audit")["ok"]
            assert (box.root / "state" / "ledger.db.reserve").stat().st_blocks
        finally:
            answers.set()
            assert box.stop() == 0
    logged = (box.root / "daemon.log").read_text()
    assert "Traceback" not in logged
    if disk is not None:
        assert logged.count("are kept in memory") in (1, 2), "one line a minute"
        assert "the ledger takes rows again" in logged


def test_a_budget_is_charged_with_the_sites_own_supply_counted(tmp_path: Path) -> None:
    """Feed, supply and board are replayed: both accounts are told, the smaller one is charged, and every gram follows."""
    script = tmp_path / "trainer.py"
    script.write_text(TRAINER.format(python=sys.executable))
    script.chmod(0o755)
    supply = '[[supply]]\nprovider = "replay"\nfile = "roof.csv"\nunit = "kw"\nkind = "solar"\nhour_s = 4\nlabel = "made up"\n'
    launch = f'[launch]\npython = "{script}"\n'
    box = DaemonProcess(tmp_path / "box", config='budget_account = "on-site"\n' + CONFIG + supply + launch)
    # at 100 W and a PUE of 1.2 a third of the box's energy
    (box.root / "roof.csv").write_text("datetime,kw\n2026-01-01T00:00Z,0.04\n2026-01-01T01:00Z,0.04\n")
    box.start()
    job = {"name": "tiny", "model": {"name_or_path": "m"}, "data": {"name_or_path": "d"}}
    job_id = box.post("/v1/jobs", {"spec": job | {"carbon": {"budget_g": 50.0}}})["id"]
    box.until(job_id, lambda job: job["state"] == "running" and job["energy_j"] > 100)
    box.post(f"/v1/jobs/{job_id}/cancel", {})
    told = box.until(job_id, lambda job: job["state"] == "cancelled")
    assert told["spent_g"] == told["on_site_g"]
    assert told["on_site_g"] == pytest.approx(
        told["location_g"] * 2 / 3 + told["energy_j"] / 3.6e6 * 1.2 * 44.5 / 3, rel=0.02
    )
    shown = box.get("/v1/grid")["supply"]
    assert (shown["kw"], shown["provider"], shown["feeds"][0]["state"]) == (0.04, "replay", "ok")
    report = box.get(f"/v1/report?job={job_id}&format=json")
    sums = report["totals"]
    assert (sums["spent_g"], sums["location_g"], sums["on_site_g"]) == tuple(
        pytest.approx(told[name]) for name in ("spent_g", "location_g", "on_site_g")
    )
    assert report["budget_accounts"] == ["on-site"]
    assert any("Two accounts" in note for note in report["notes"])
    assert box.stop() == 0
    assert box.json("audit", "verify", "--ledger", f"sqlite:///{box.root}/state/ledger.db")["ok"]


def test_sighup_takes_over_a_changed_pue_and_keeps_the_old_config_when_the_new_one_is_bad(
    tmp_path: Path,
) -> None:
    box = DaemonProcess(tmp_path).start()
    assert box.process is not None
    file = box.root / "config.toml"

    def says(text: str) -> bool:
        for _ in range(100):
            if text in (box.root / "daemon.log").read_text():
                return True
            time.sleep(0.05)
        return False

    file.write_text(box.config.replace("pue = 1.2", "pue = 0.5"))
    box.process.send_signal(signal.SIGHUP)
    assert says("configuration kept as it was: config.toml: pue")
    file.write_text(box.config.replace("pue = 1.2", "pue = 1.5"))
    box.process.send_signal(signal.SIGHUP)
    assert says("configuration reloaded")
    assert box.stop() == 0


def test_nobody_forges_a_line_of_the_log() -> None:
    formatter = LineFormatter("%(levelname)s %(name)s: %(message)s")
    try:
        int("x\nWARNING carbonsched: forged\x1b[2J")
    except ValueError as e:
        e.add_note("WARNING carbonsched: forged\x1b[2J")
        record = logging.LogRecord("job", logging.ERROR, "", 0, "a\nERROR b\x1b[2J", (), sys.exc_info())
    lines = formatter.format(record).splitlines()
    assert lines[0] == "ERROR job: a ERROR b\\x1b[2J"
    assert all(line.startswith("  | ") for line in lines[1:])
    assert "\x1b" not in formatter.format(record)
