"""A budget that is changed while a job runs, waits or was stopped: what happens, who may, and what stays on record."""

import json
import sqlite3
from pathlib import Path

import pytest
from support.rig import ME, Played, Rig, spec

from carbonsched.errors import DeniedError, InputError, StateError
from carbonsched.model.job import Owner
from carbonsched.model.job_state import JobState
from carbonsched.report import build, render

FULL_G = 4 * 10 * 2 * 100 / 3.6e6 * 400


@pytest.fixture
def rig(tmp_path: Path) -> Rig:
    return Rig(tmp_path)


def begun(rig: Rig, **carbon: object) -> Played:
    return rig.running(spec(**carbon))


def test_a_running_job_is_planned_anew_at_once(rig: Rig) -> None:
    job = begun(rig, budget_g=FULL_G * 0.85)
    job.ready(0)
    rig.run(1)
    before = job.control()
    assert before["rho"] < 0.95
    rig.run(3)
    done = rig.service.budget(job.id, 50.0, ME)
    assert (done.from_g, done.budget_g) == (pytest.approx(FULL_G * 0.85), 50.0)
    assert 0 < done.spent_g < 1
    rig.run(1)
    after = job.control()
    assert after["seq"] > before["seq"]
    assert (after["k"], after["action"], after["rho"]) == (0, "train", pytest.approx(1.0))
    rig.service.budget(job.id, FULL_G * 0.8, ME)
    rig.run(1)
    assert job.control()["rho"] < 0.95, "lowered again, in the same segment"


def test_a_job_stopped_on_its_budget_goes_on_when_it_is_raised(rig: Rig) -> None:
    job = begun(rig, budget_g=0.2)
    job.ready(0)
    rig.run(1)
    assert job.control()["action"] == "stop"
    job.finish("stopped")
    assert job.show().state is JobState.STOPPED
    lowered = rig.service.budget(job.id, 0.15, ME)
    assert lowered.state is JobState.STOPPED, "less does not wake it"
    raised = rig.service.budget(job.id, 10.0, ME)
    assert raised.state is JobState.QUEUED
    rig.run(1)
    job.started()
    rhos = [rho for k in range(4) for rho in job.play(k)]
    job.finish()
    assert len(rhos) == 4
    assert job.show().state is JobState.FINISHED
    assert job.show().budget_g == 10.0


def test_who_when_old_and_new_are_in_the_ledger_the_report_and_the_audit(rig: Rig) -> None:
    job = begun(rig)
    at = rig.clock.now()
    rig.service.budget(job.id, 42.0, ME)
    (entry,) = rig.ledger.history(job.id, kinds=("budget",))
    assert (entry["actor"], entry["from_g"], entry["budget_g"]) == ("root", 100.0, 42.0)
    assert entry["uid"] == 0
    assert entry["at"].startswith(at.strftime("%Y-%m-%dT%H:%M:%S"))
    rig.run(1)
    report = build(rig.ledger, job_id=job.id, now=rig.clock.now())
    document = json.loads(render(report, rig.ledger, "json"))
    (change,) = document["job"]["budget_changes"]
    assert (change["actor"], change["from_g"], change["budget_g"]) == ("root", 100.0, 42.0)
    assert "42" in render(report, rig.ledger, "html")
    assert rig.ledger.verify().ok
    rig.supervisor.flush()
    rig.ledger.close()
    with sqlite3.connect(rig.config.ledger_url.removeprefix("sqlite:///")) as forged:
        forged.execute("update jobs set budget_g = 4200.0")
    forged.close()
    rig.boot()
    found = rig.ledger.verify()
    assert not found.ok
    assert found.problem is not None
    assert "budget_g" in found.problem


def test_a_raised_budget_outlives_the_daemon(rig: Rig) -> None:
    job = begun(rig, budget_g=FULL_G * 0.85)
    rig.service.budget(job.id, 50.0, ME)
    rig.die()
    rig.boot()
    assert job.show().budget_g == 50.0
    job.ready(0)
    rig.run(1)
    assert job.control()["rho"] == pytest.approx(1.0)


def test_what_cannot_be_is_refused_in_one_line(rig: Rig) -> None:
    job = begun(rig)
    rig.run(30)
    with pytest.raises(InputError, match=r"--grams: 0\.1 g are not above the .* g already spent"):
        rig.service.budget(job.id, 0.1, ME)
    with pytest.raises(DeniedError, match="only root"):
        rig.service.budget(job.id, 200.0, Owner(uid=4242, gid=1, pid=1, user="stranger"))
    rig.service.cancel(job.id, ME)
    rig.launcher.end(job.dir)
    rig.run(1)
    with pytest.raises(StateError, match="is cancelled: its budget is closed"):
        rig.service.budget(job.id, 200.0, ME)
    rated = rig.submit(spec(budget_g=None, budget_rate_g_per_h=5.0))
    with pytest.raises(StateError, match="grows by 5 g/h"):
        rig.service.budget(rated.id, 200.0, ME)
