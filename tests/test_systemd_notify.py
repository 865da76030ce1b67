"""What arrives on a real notification socket."""

import os
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from carbonsched.systemd_notify import Notifier


@pytest.fixture(params=["path", "abstract"])
def listener(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[socket.socket, str]]:
    address = str(tmp_path / "notify") if request.param == "path" else f"@carbonsched-test-{os.getpid()}"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as server:
        server.bind("\0" + address[1:] if address.startswith("@") else address)
        server.settimeout(5)
        yield server, address


def test_every_message_of_a_daemons_life(listener: tuple[socket.socket, str]) -> None:
    server, address = listener
    notifier = Notifier.from_env({"NOTIFY_SOCKET": address, "WATCHDOG_USEC": "3000000"})
    assert notifier.watchdog_s == 3.0
    notifier.ready("serving\n2 jobs")
    assert server.recv(4096) == b"READY=1\nSTATUS=serving 2 jobs"
    notifier.status("idle")
    assert server.recv(4096) == b"STATUS=idle"
    notifier.watchdog()
    assert server.recv(4096) == b"WATCHDOG=1"
    notifier.reloading()
    first, second = server.recv(4096).decode().split("\n")
    assert first == "RELOADING=1"
    sent_us = int(second.removeprefix("MONOTONIC_USEC="))
    assert 0 <= time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000 - sent_us < 5_000_000
    notifier.ready()
    assert server.recv(4096) == b"READY=1"
    notifier.stopping()
    assert server.recv(4096) == b"STOPPING=1"


def test_no_ping_where_systemd_set_no_watchdog(listener: tuple[socket.socket, str]) -> None:
    server, address = listener
    notifier = Notifier.from_env({"NOTIFY_SOCKET": address})
    assert notifier.watchdog_s is None
    notifier.watchdog()
    notifier.stopping()
    assert server.recv(4096) == b"STOPPING=1"


@pytest.mark.parametrize(
    "env",
    [
        {"WATCHDOG_USEC": "0"},
        {"WATCHDOG_USEC": "soon"},
        {"WATCHDOG_USEC": "-5"},
        {"WATCHDOG_USEC": "1000000", "WATCHDOG_PID": "1"},
    ],
)
def test_a_watchdog_that_is_off_or_meant_for_another_process_is_none(env: dict[str, str]) -> None:
    assert Notifier.from_env({"NOTIFY_SOCKET": "/run/x", **env}).watchdog_s is None


def test_a_watchdog_meant_for_us_is_taken() -> None:
    env = {"NOTIFY_SOCKET": "/run/x", "WATCHDOG_USEC": "500000", "WATCHDOG_PID": str(os.getpid())}
    assert Notifier.from_env(env).watchdog_s == 0.5


def test_outside_systemd_nothing_is_sent_and_nothing_fails(tmp_path: Path) -> None:
    for notifier in (Notifier.from_env({}), Notifier(str(tmp_path / "gone"), 1.0)):
        notifier.ready("x")
        notifier.reloading()
        notifier.watchdog()
        notifier.stopping()
