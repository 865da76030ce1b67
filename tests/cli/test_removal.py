"""`rm` and `prune` as somebody types them."""

import json
import os
import pwd
from pathlib import Path

import pytest
from support.box import Box
from support.command import cli

from carbonsched.model.job import Owner
from carbonsched.model.job_state import JobState

ME = pwd.getpwuid(os.getuid()).pw_name


def over(box: Box, name: str, state: JobState = JobState.FINISHED, user: str = ME) -> str:
    entry = box.add(name)
    entry.owner = Owner(uid=os.getuid(), gid=0, user=user)
    box.go(entry, JobState.RUNNING)
    box.go(entry, state)
    return entry.id


def test_rm_removes_several_and_says_what_it_could_not(box: Box, socket: Path) -> None:
    gone, runs = over(box, "gone"), box.add("runs")
    ran = cli("rm", gone, runs.id, "--socket", str(socket))
    assert ran.code == 1
    assert ran.out == f"{gone} removed: 12.3 MB freed, its rows in the ledger stay\n"
    assert ran.err == f"carbonsched: job {runs.id} is queued; carbonsched cancel {runs.id} ends it\n"
    assert list(box.entries) == [runs.id]


def test_prune_takes_ones_own_that_ended_so_long_ago(box: Box, socket: Path) -> None:
    mine, failed = over(box, "mine"), over(box, "failed", JobState.FAILED)
    theirs = over(box, "theirs", user="eve")
    ran = cli("prune", "--older-than", "1h", "--dry-run", "--socket", str(socket))
    assert (ran.code, ran.out) == (0, f"{mine} finished, of {ME}: would be removed\n")
    ran = cli("prune", "--older-than", "1h", "--dry-run", "--json", "--socket", str(socket))
    assert ran.doc["jobs"] == [{"id": mine, "freed_bytes": None}], (
        "nothing is freed, and how much would be is not known"
    )
    ran = cli("prune", "--older-than", "1h", "--json", "--socket", str(socket))
    assert [job["id"] for job in json.loads(ran.out)["jobs"]] == [mine]
    assert list(box.entries) == [failed, theirs]
    ran = cli("prune", "--older-than", "1h", "--owner", "*", "--state", "failed", "--socket", str(socket))
    assert list(box.entries) == [theirs]
    assert cli("prune", "--older-than", "1h", "--socket", str(socket)).out == "no such jobs\n"


@pytest.mark.parametrize(
    ("argv", "says"),
    [
        (["prune"], "Missing option '--older-than'"),
        (["prune", "--older-than", "soon"], "--older-than: 'soon' is no duration; write it like 30d or 12h"),
        (["prune", "--older-than", "1d", "--state", "running"], "--state: 'running' is not how a job ends"),
    ],
)
def test_bad_usage_is_one_line_and_2(argv: list[str], says: str) -> None:
    ran = cli(*argv)
    assert ran.code == 2
    assert says in ran.err
