"""The real daemon as systemd sees it: ready, alive, reloading, stopping; and silent when it does not get on."""

import itertools
import os
import re
import signal
import socket
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from carbonsched.ledger.ledger import Ledger

CONFIG = """
state_dir = "state"
pue = {pue}
zone = {{ name = "XX", basis = "average-direct" }}
feeds = [{feeds}{{ provider = "static", g_per_kwh = 100, basis = "average-direct", source = "a test" }}]
power = {{ gpu = "replay", replay_file = "watts.csv", host = "none", tick_s = {tick_s} }}
api = {{ socket = "{socket}" }}
ledger = {{ row_s = 0.2 }}
"""
WATCHDOG_S = 3.0
SHIFTED = """
import sys
from datetime import timedelta
from pathlib import Path
from carbonsched import daemon
from carbonsched.clock import SystemClock

class ShiftedClock(SystemClock):
    def now(self):
        return super().now() + timedelta(days=float(Path(sys.argv[2]).read_text() or 0))

daemon.SystemClock = ShiftedClock
sys.exit(daemon.run(Path(sys.argv[1])))
"""
"""The daemon on a wall clock that a file sets."""


@dataclass
class Watched:
    process: subprocess.Popen[str]
    listener: socket.socket
    folder: Path

    def message(self, seconds: float) -> str | None:
        """The next datagram, None where none comes for that long."""
        self.listener.settimeout(max(seconds, 0.001))
        try:
            return self.listener.recv(4096).decode()
        except TimeoutError:
            return None

    def until(self, start: str, seconds: float = 30.0) -> str:
        end = time.monotonic() + seconds
        while (left := end - time.monotonic()) > 0 and self.process.poll() is None:
            text = self.message(min(left, 0.5))
            if text is not None and text.startswith(start):
                return text
        pytest.fail(f"no {start} within {seconds} s; {(self.folder / 'log').read_text()}")


@pytest.fixture
def daemon(tmp_path: Path) -> Iterator[Watched]:
    with watched(tmp_path) as found:
        yield found


@contextmanager
def watched(
    tmp_path: Path, feeds: str = "", code: str = "", *more: str, tick_s: float = 0.2
) -> Iterator[Watched]:
    config = tmp_path / "config.toml"
    config.write_text(CONFIG.format(socket=tmp_path / "api.sock", pue=1.0, feeds=feeds, tick_s=tick_s))
    (tmp_path / "watts.csv").write_text("seconds,watts\n0,100\n60,100\n")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listener:
        listener.bind(str(tmp_path / "notify"))
        env = os.environ | {
            "NOTIFY_SOCKET": str(tmp_path / "notify"),
            "WATCHDOG_USEC": str(int(WATCHDOG_S * 1e6)),
        }
        cli = "import sys; from carbonsched.cli import main; sys.exit(main())"
        argv = [sys.executable, "-c", cli, "daemon", "--config", str(config)]
        if code:
            argv = [sys.executable, "-c", code, str(config), *more]
        with (tmp_path / "log").open("w") as log:
            process = subprocess.Popen(argv, env=env, stderr=log, text=True)
        try:
            yield Watched(process, listener, tmp_path)
        finally:
            process.kill()
            process.wait()


def test_a_daemons_life_as_systemd_sees_it(daemon: Watched) -> None:
    assert "checks the ledger" in daemon.until("EXTEND_TIMEOUT_USEC=80000000")
    ready = daemon.until("READY=1")
    assert "STATUS=carbonsched" in ready
    assert (daemon.folder / "api.sock").is_socket(), "ready means reachable"

    pings = []
    while len(pings) < 4:
        daemon.until("WATCHDOG=1", WATCHDOG_S)
        pings.append(time.monotonic())
    gaps = [later - earlier for earlier, later in itertools.pairwise(pings)]
    assert max(gaps) <= WATCHDOG_S / 2, "sd_watchdog_enabled(3) asks for a ping at half the time"

    written = daemon.folder / "config.toml"
    good = CONFIG.format(socket=daemon.folder / "api.sock", pue=1.5, feeds="", tick_s=0.2)
    waits = good.replace("tick_s = 0.2", "tick_s = 0.3")
    for text, answer in (
        (good, "configuration reloaded at"),
        (waits, "reloaded at .* but for what waits for a restart: power"),
        ("pue = 0.5" + good.split("pue = 1.5")[1], "kept as it was at .*: "),
    ):
        written.write_text(text)
        daemon.process.send_signal(signal.SIGHUP)
        assert "MONOTONIC_USEC=" in daemon.until("RELOADING=1")
        assert re.search(answer, daemon.until("READY=1"))
    assert "configuration reloaded" in (daemon.folder / "log").read_text()

    daemon.process.send_signal(signal.SIGTERM)
    daemon.until("STOPPING=1")
    assert daemon.process.wait(20) == 0


def test_a_daemon_that_ticks_once_a_minute_is_not_taken_for_dead(tmp_path: Path) -> None:
    with watched(tmp_path, tick_s=60.0) as daemon:
        daemon.until("READY=1")
        end = time.monotonic() + WATCHDOG_S
        while time.monotonic() < end:
            daemon.until("WATCHDOG=1", WATCHDOG_S / 2)


def test_a_network_that_is_down_holds_up_neither_the_first_tick_nor_the_end(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0), backlog=8) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}"
        feed = f'{{ provider = "neso", url = "{url}", timeout = "60s" }}, '
        with watched(tmp_path, feed) as daemon:
            daemon.until("READY=1")
            ready = time.monotonic()
            daemon.until(
                "WATCHDOG=1", 2.0
            )  # a tick was completed; the main thread looks at that every 0.75 s
            assert time.monotonic() - ready < 2.0
            silent.settimeout(5.0)
            silent.accept()[0].close()  # it was asked, and nobody has answered yet
            daemon.process.send_signal(signal.SIGTERM)
            daemon.until("STOPPING=1", 2.0)
            assert daemon.process.wait(5) == 0


def test_a_clock_that_is_set_by_years_is_ticked_on_under(tmp_path: Path) -> None:
    """Forward, back, and into the past: as many ticks as before, no memory, and the end is heard."""
    (tmp_path / "days").write_text("0")
    with watched(tmp_path, "", SHIFTED, str(tmp_path / "days")) as daemon:
        daemon.until("WATCHDOG=1")
        before = rss_mb(daemon.process.pid)
        for days in (30, 3650, 0, -300, 0):
            (tmp_path / "days.new").write_text(str(days))
            (tmp_path / "days.new").replace(tmp_path / "days")
            for _ in range(2):
                daemon.until("WATCHDOG=1", WATCHDOG_S)
        assert rss_mb(daemon.process.pid) - before < 20
        daemon.process.send_signal(signal.SIGTERM)
        assert daemon.process.wait(5) == 0
        assert "the wall clock was set by +" in (tmp_path / "log").read_text()
        assert "Traceback" not in (tmp_path / "log").read_text()
        with Ledger.open(f"sqlite:///{tmp_path}/state/ledger.db", read_only=True) as ledger:
            assert ledger.verify().ok, ledger.verify().problem


def rss_mb(pid: int) -> float:
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


@pytest.mark.slow
def test_a_daemon_whose_ledger_is_stuck_stops_pinging(daemon: Watched) -> None:
    daemon.until("WATCHDOG=1")
    other = sqlite3.connect(daemon.folder / "state" / "ledger.db", isolation_level=None)
    try:
        other.execute("BEGIN EXCLUSIVE")
        end = time.monotonic() + WATCHDOG_S  # what was done last counts for half of the watchdog's time
        while (left := end - time.monotonic()) > 0:
            daemon.message(left)
        assert daemon.message(WATCHDOG_S) is None, "systemd has to see that nothing is recorded any more"
        other.execute("ROLLBACK")
    finally:
        other.close()
    daemon.until("WATCHDOG=1", 10)
