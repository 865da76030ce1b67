"""`drain` and `undrain` as an operator types them."""

import json
from pathlib import Path

from support.box import Box
from support.command import cli


def test_drain_says_who_why_and_what_runs_on(box: Box, socket: Path) -> None:
    box.add()
    ran = cli("drain", "--reason", "new disks", "--socket", str(socket))
    assert ran.code == 0
    assert ran.out.endswith(": new disks; 1 run on, 2 wait\n")
    assert "no job is started: the box is drained by " in cli("ps", "--socket", str(socket)).out
    assert "box   the box is drained by " in cli("top", "--socket", str(socket)).out
    ran = cli("undrain", "--socket", str(socket))
    assert (ran.code, ran.out) == (0, "jobs are started again; 2 wait\n")
    assert "drained" not in cli("ps", "--socket", str(socket)).out


def test_drain_waits_until_nothing_runs(box: Box, socket: Path) -> None:
    ran = cli("drain", "--wait", "--socket", str(socket), "--json")
    assert ran.code == 0
    assert (json.loads(ran.out)["drained"], json.loads(ran.out)["live"]) == (True, 0)
