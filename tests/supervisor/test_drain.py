"""A drained box starts nothing, through restarts, and says why; what runs goes on."""

import sys
from pathlib import Path

import pytest
from support.rig import ME, Rig

from carbonsched.errors import DeniedError, StateError
from carbonsched.model.command import RunRequest
from carbonsched.model.job import Owner
from carbonsched.model.job_state import JobState

BOB = Owner(uid=12346, gid=12346, pid=1, user="bob")


@pytest.fixture
def rig(tmp_path: Path) -> Rig:
    return Rig(tmp_path, extra={"launch": {"slots": 2}}, devices=2)


def test_jobs_wait_through_a_restart_and_start_once_it_is_undrained(rig: Rig) -> None:
    runs = rig.running()
    told = rig.service.drain("new disks", ME)
    assert (told.drained, told.live, told.queued) == (True, 1, 0)
    waits = rig.submit()
    rig.run(2)
    rig.die()
    rig.boot()
    rig.run(2)
    assert rig.ledger.job(runs.id).state is JobState.RUNNING
    assert rig.ledger.job(waits.id).state is JobState.QUEUED
    assert waits.show().reason == "the box is drained by root: new disks"
    assert rig.service.jobs(ME).drained == "the box is drained by root: new disks"
    assert "carbonsched_drained 1.0" in rig.service.metrics(ME)
    told = rig.service.undrain(ME)
    assert (told.drained, told.reason, told.queued) == (False, "", 1)
    assert waits.show().reason == "undrained by root"
    rig.run(2)
    assert rig.ledger.job(waits.id).state is JobState.RUNNING
    rig.die()
    rig.boot()
    assert rig.service.jobs(ME).drained is None


def test_a_metered_command_is_refused_meanwhile(rig: Rig) -> None:
    rig.service.drain("", ME)
    asked = RunRequest.parse({"name": "make", "command": {"argv": [sys.executable]}, "pid": 1})
    with pytest.raises(StateError, match="the box is drained by root; wait, or run it without carbonsched"):
        rig.service.begin_run(asked, ME)


def test_only_admins_drain_and_undrain(rig: Rig) -> None:
    for change in (lambda: rig.service.drain("x", BOB), lambda: rig.service.undrain(BOB)):
        with pytest.raises(DeniedError, match="only an admin of carbonsched"):
            change()
    assert not rig.service.drained().drained


def test_a_job_that_is_being_started_is_not_told_as_one_that_waits(rig: Rig) -> None:
    rig.submit()
    rig.supervisor.starter.starts.tick_wait_s = 0.0
    rig.run(1)
    told = rig.service.drain("new disks", ME)
    assert (told.live, told.queued) == (1, 0)
