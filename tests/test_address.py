"""Where the daemon listens: the first that is said of --socket, the environment, the config, and the usual places."""

from pathlib import Path

import pytest

from carbonsched.address import socket_path


def test_the_first_that_is_said_wins(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CARBONSCHED_SOCKET", "/env.sock")
    monkeypatch.setenv("XDG_RUNTIME_DIR", "/run/user/7")
    assert socket_path("/given.sock", "/config.sock") == Path("/given.sock")
    assert socket_path(None, "/config.sock") == Path("/env.sock")
    monkeypatch.delenv("CARBONSCHED_SOCKET")
    assert socket_path(None, "/config.sock") == Path("/config.sock")
    assert socket_path() == Path("/run/user/7/carbonsched/api.sock")
    monkeypatch.delenv("XDG_RUNTIME_DIR")
    assert socket_path() == Path("/run/carbonsched/api.sock")
