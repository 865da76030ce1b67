"""That what was decided reaches the job: also where the disk refuses control.json for a while."""

from pathlib import Path

import pytest
from support.rig import Rig, spec

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
