"""That what was decided reaches the job: also where the disk refuses control.json for a while."""

from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
from support.rig import Rig, checked, spec

from carbonsched.model.job_state import JobState


def block(job_dir: Path) -> Path:
    """In the way of the next control.json: a full disk, as a process that is root can meet it."""
    path = job_dir / ".control.json.tmp"
    path.mkdir()
    return path


def test_a_directive_that_could_not_be_written_is_written_later(tmp_path: Path) -> None:
    rig = Rig(tmp_path)
    job = rig.submit()
    rig.run(1)
    job.started()
    obstacle = block(job.dir)
    job.ready(0)
    rig.run(3)
    assert not (job.dir / "control.json").exists() or job.control()["k"] != 0 or job.control()["seq"] < 2
    run = rig.supervisor.runs[job.id]
    assert run.plan is None, "nothing is taken for said that was not"
    obstacle.rmdir()
    rig.run(1)
    assert (job.control()["k"], job.control()["action"]) == (0, "train")
    assert run.plan is not None


def test_a_stop_does_not_wait_for_the_disk(tmp_path: Path) -> None:
    rig = Rig(tmp_path)
    job = rig.submit(spec(budget_g=0.9))
    rig.run(1)
    job.started()
    job.ready(0)
    rig.run(2)
    assert job.control()["action"] == "train"
    block(job.dir)
    for _ in range(120):
        rig.run(1)
        if ("terminate", job.dir) in rig.launcher.asked:
            break
    else:
        pytest.fail("it was never told")
    job.finish("stopped")
    view = job.show()
    assert view.state is JobState.STOPPED, view.reason
    assert view.reason.startswith("stop: ")
    assert view.spent_g <= 0.9


def test_a_stop_that_is_not_obeyed_is_enforced(tmp_path: Path) -> None:
    rig = Rig(tmp_path, extra={"launch": {"stop_s": 5}})
    job = rig.submit(spec(budget_g=0.05))
    rig.run(1)
    job.started()
    job.ready(0)
    rig.run(1)
    assert job.control()["action"] == "stop"
    rig.run(8)
    assert ("kill", job.dir) in rig.launcher.asked
    assert job.show().state is JobState.STOPPED


# ---- leases


def lease_s(rig: Rig, control: dict[str, Any]) -> float:
    until = datetime.fromisoformat(control["lease"]["valid_until"])
    return max((until - rig.clock.now()).total_seconds(), 0.0)


def test_a_start_leaves_a_lease_that_the_budget_pays_at_worst(tmp_path: Path) -> None:
    """Should the daemon die while the model loads, the trainer has this alone to go by."""
    rig = Rig(tmp_path)
    job = rig.submit(spec(budget_g=5.0, rho_start=0.7), checked())
    rig.run(1)
    control = job.control()
    assert (control["seq"], control["k"], control["action"], control["rho"]) == (0, -1, "train", 0.7)
    assert control["lease"]["max_steps"] > 0
    worst_g = lease_s(rig, control) * 100 / 3.6e6 * rig.config.zone.worst_g_per_kwh * rig.config.pue
    assert 0 < worst_g < 5.0
    assert lease_s(rig, control) < rig.config.plan.lease_s
    rich = Rig(tmp_path / "rich")
    other = rich.submit(spec(budget_g=500.0), checked())
    rich.run(1)
    assert lease_s(rich, other.control()) == pytest.approx(rich.config.plan.lease_s, abs=1)


def test_a_budget_that_is_not_known_yet_pays_for_no_start(tmp_path: Path) -> None:
    rig = Rig(tmp_path)
    job = rig.submit(spec(budget_g=None, budget_share=0.5))
    rig.run(1)
    assert job.control()["lease"]["max_steps"] == 0
    assert lease_s(rig, job.control()) == 0


def test_the_lease_of_the_start_is_replaced_by_the_plan(tmp_path: Path) -> None:
    rig = Rig(tmp_path)
    job = rig.submit()
    rig.run(1)
    job.started()
    rig.run(400)
    assert job.control()["seq"] == 0, "nothing is granted while it loads"
    job.ready(0)
    rig.run(1)
    assert (job.control()["seq"], job.control()["k"]) == (1, 0)


def test_the_lease_is_renewed_between_two_segments(tmp_path: Path) -> None:
    """A checkpoint, held-out rows, importance: all of it runs under a lease."""
    rig = Rig(tmp_path)
    job = rig.running()
    list(job.play(0))
    for _ in range(20):
        rig.run(30)
        assert lease_s(rig, job.control()) > 0
    assert (job.control()["k"], job.control()["action"]) == (0, "train")
    job.ready(1)
    rig.run(1)
    assert job.control()["k"] == 1


def test_between_two_segments_a_budget_ends_too(tmp_path: Path) -> None:
    rig = Rig(tmp_path)
    job = rig.running(spec(budget_g=1.5))
    list(job.play(0))
    for _ in range(600):
        rig.run(1)
        if job.control()["action"] == "stop":
            break
    else:
        pytest.fail("it was never told")
    job.finish("stopped")
    view = job.show()
    assert view.state is JobState.STOPPED, view.reason
    assert view.spent_g <= 1.5


def test_a_batch_that_takes_longer_than_a_step_is_kept_back(tmp_path: Path) -> None:
    rig = Rig(tmp_path)
    job = rig.submit()
    rig.run(1)
    job.started()
    job.ready(0)
    rig.run(1)
    run = rig.supervisor.runs[job.id]

    def reserve_g() -> float:
        found = rig.supervisor.control.estimates.problem_for(run)
        assert found is not None
        return found.reserve_g

    before = reserve_g()
    look = {"when": "segment", "step": 0, "loss": 1.0, "tokens": 80}
    job.say("evaluated", samples=80, seconds=20.0, **look)  # 20 batches of 4
    rig.run(1)
    assert reserve_g() == pytest.approx(before, rel=0.2)
    job.say("evaluated", samples=4, seconds=20.0, **look)
    rig.run(1)
    assert reserve_g() > 3 * before
