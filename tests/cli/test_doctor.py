"""What the daemon needs, looked at: each fault is named with its fix, and what cannot be looked at is not called good."""

import json
from pathlib import Path
from typing import Any

import pytest
import tomli_w
from support.box import Box
from support.command import Ran, cli

TRAINER = """#!/bin/sh
echo '["2.13.0", "5.24.0", false, 0]'
"""


def config(folder: Path, **parts: Any) -> Path:
    python = folder / "python"
    python.write_text(TRAINER)
    python.chmod(0o755)
    file = folder / "config.toml"
    whole = {
        "state_dir": str(folder / "state"),
        "zone": {"name": "DE", "basis": "average-lifecycle"},
        "feeds": [{"provider": "static"}],
        "power": {"gpu": "none"},
        "launch": {"python": str(python)},
    }
    file.write_text(tomli_w.dumps(whole | parts))
    return file


def checks(ran: Ran) -> dict[str, dict[str, Any]]:
    return {check["name"]: check for check in ran.doc["checks"]}


def test_a_box_in_order(box: Box, socket: Path, tmp_path: Path) -> None:
    ran = cli("doctor", "--config", config(tmp_path), "--json", socket=socket)
    found = checks(ran)
    assert set(found) == {"config", "daemon", "disk", "ledger", "power", "nvml", "feed", "clock", "trainer"}
    assert {name for name, check in found.items() if check["ok"] is False} <= {"clock"}
    assert found["nvml"]["ok"] is None, "no board is nothing to call good"
    assert "estimated" in (found["power"]["hint"] or "estimated")
    assert ran.code == (0 if found["clock"]["ok"] is not False else 1)
    assert "torch 2.13.0" in found["trainer"]["found"]


@pytest.mark.parametrize(
    ("parts", "name", "says"),
    [
        ({"feeds": [{"provider": "replay", "file": "/nowhere/trace.csv"}]}, "feed", "/nowhere/trace.csv"),
        ({"launch": {"python": "/nowhere/python"}}, "trainer", "carbonsched[train]"),
        ({"launch": {"python": "/bin/false"}}, "trainer", "carbonsched[train]"),
        ({"ledger": {"url": "sqlite:////dev/null"}}, "ledger", ""),
        ({"zone": {"name": "DE", "basis": "average"}}, "config", "zone.basis"),
        (
            {"power": {"gpu": "none", "clocks": "auto", "clocks_socket": "/nowhere/helper.sock"}},
            "clocks",
            "systemctl enable --now carbonsched-clocks",
        ),
    ],
)
def test_a_fault_is_named_and_the_rest_looked_at(
    parts: dict[str, Any], name: str, says: str, box: Box, socket: Path, tmp_path: Path
) -> None:
    ran = cli("doctor", "--config", config(tmp_path, **parts), "--json", socket=socket)
    found = checks(ran)
    assert ran.code == 1
    assert found[name]["ok"] is False
    assert says in f"{found[name]['found']} {found[name]['hint']}"
    assert found["daemon"]["ok"]
    assert len(found) == {"config": 3, "clocks": 10}.get(name, 9)


def test_without_a_daemon_and_for_people(tmp_path: Path) -> None:
    ran = cli("doctor", "--config", config(tmp_path), socket=tmp_path / "none.sock")
    assert ran.code == 1
    lines = ran.out.splitlines()
    assert lines[0].startswith("ok    config")
    [daemon] = [line for line in lines if line.startswith("FAILS daemon")]
    assert "start it: carbonsched daemon --config FILE" in daemon


def test_the_configs_own_socket_is_asked(box: Box, socket: Path, tmp_path: Path) -> None:
    ran = cli("doctor", "--config", config(tmp_path, api={"socket": str(socket)}), "--json")
    assert checks(ran)["daemon"]["ok"]


def test_a_config_is_checked_without_asking_anybody(tmp_path: Path) -> None:
    good = cli("config", "check", config(tmp_path), "--json")
    assert (good.code, checks(good)["feeds"]["ok"]) == (0, True)
    assert not (tmp_path / "state").exists()
    dead = {
        "provider": "prometheus",
        "url": "http://127.0.0.1:1",
        "query": "intensity",
        "basis": "average-lifecycle",
    }
    assert cli("config", "check", config(tmp_path, feeds=[dead])).code == 0


@pytest.mark.parametrize(
    ("parts", "says"),
    [
        ({"feedz": []}, "did you mean 'feeds'"),
        ({"feeds": [{"provider": "replay", "file": "/nowhere/trace.csv"}]}, "/nowhere/trace.csv"),
        ({"feeds": [{"provider": "static"}, {"provider": "static"}]}, "name"),
    ],
)
def test_a_bad_config_is_2(parts: dict[str, Any], says: str, tmp_path: Path) -> None:
    ran = cli("config", "check", config(tmp_path, **parts), "--json")
    assert ran.code == 2
    bad = [check["found"] for check in checks(ran).values() if check["ok"] is False]
    assert len(bad) == 1
    assert says in bad[0]
    assert json.loads(ran.out)


def test_all_that_is_wrong_is_told_at_once(tmp_path: Path) -> None:
    feeds = [{"provider": "static", "g_per_kwh": -300, "basis": "averge"}]
    ran = cli(
        "config", "check", config(tmp_path, pue=0.5, feedz=[], feeds=feeds, power={"tick_s": -1}), "--json"
    )
    found = [check["found"] for check in ran.doc["checks"]]
    assert "feedz: unknown key; did you mean 'feeds'?" in found[0]
    named = ["feedz", "pue", "feeds[0].basis", "feeds[0].g_per_kwh", "power.tick_s"]
    assert [line.split(": ")[1] for line in found] == named, "each field once, what was misspelt first"
    assert ran.code == 2
