"""Jobs that go on against their directives, or fall silent: said once where people look, and with a way out."""

import logging
import re
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from support.rig import ME, Played, Rig, spec

from carbonsched.model.job import JobSpec, QueuePart
from carbonsched.model.job_state import JobState
from carbonsched.model.notification import Happening, Notification


@pytest.fixture
def rig(tmp_path: Path) -> Rig:
    rig = Rig(tmp_path, extra={"launch": {"silent_s": 600, "stop_s": 60}})
    rig.told = list[Notification]()  # type: ignore[attr-defined]
    rig.supervisor.notifier.send = rig.told.append  # type: ignore[attr-defined]
    return rig


def told(rig: Rig) -> list[Notification]:
    return [each for each in rig.told if each.event is Happening.UNRESPONSIVE]  # type: ignore[attr-defined]


def step(job: Played, k: int = 0, number: int = 1, rho: float = 0.5, seconds: float = 1.0) -> None:
    job.say("step", k=k, step=number, steps=40, loss=2.0, lr=1e-3, seconds=seconds, rho=rho)


def tell_to_wait(rig: Rig, job: Played) -> None:
    """For an hour, as for a dirty one."""
    run = rig.supervisor.runs[job.id]
    assert run.directive is not None
    more = {"action": "wait", "rho": None, "reason": "dirty", "until": rig.clock.now() + timedelta(hours=1)}
    run.direct(run.directive.model_copy(update=more))


def silent_for(limit: str | None, **queue: Any) -> JobSpec:
    return spec().model_copy(update={"queue": QueuePart.parse({"silence_limit": limit} | queue)})


def test_a_silent_job_is_told_once_and_again_when_it_answers(
    rig: Rig, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, logger="carbonsched.supervisor.responsiveness")
    job = rig.running()
    job.ready(0)
    rig.run(1)
    step(job)
    rig.run(598)
    assert "said nothing" not in job.show().reason
    rig.run(20)
    view = job.show()
    assert view.state is JobState.RUNNING
    assert "it has said nothing for 10m" in view.reason
    assert "at step 1" in view.reason
    assert f"carbonsched pause {job.id}" in view.reason
    assert len(told(rig)) == 1
    assert "it has said nothing for" in told(rig)[0].reason
    assert sum("said nothing" in str(entry.get("text")) for entry in view.history) == 1
    assert sum(r.levelno == logging.WARNING and job.id in r.message for r in caplog.records) == 1
    step(job, number=2)
    rig.run(2)
    assert "said nothing" not in job.show().reason
    assert any("it answers again" in r.message for r in caplog.records)
    rig.run(620)
    assert len(told(rig)) == 2


def test_the_metrics_count_them_by_kind(rig: Rig) -> None:
    def unresponsive() -> dict[str, float]:
        found = re.findall(
            r'^carbonsched_jobs_unresponsive\{kind="(\w+)"\} (\S+)$', rig.service.metrics(ME), re.MULTILINE
        )
        return {kind: float(n) for kind, n in found}

    job = rig.running(spec(rho_max=0.5))
    job.ready(0)
    rig.run(1)
    step(job)
    assert unresponsive() == {"silent": 0.0, "deaf": 0.0}
    rig.run(620)
    assert unresponsive() == {"silent": 1.0, "deaf": 0.0}
    for number in range(2, 8):
        step(job, number=number, rho=1.0)
        rig.run(15)
    assert unresponsive() == {"silent": 0.0, "deaf": 1.0}


def test_a_long_step_is_no_silence(rig: Rig) -> None:
    job = rig.running()
    job.ready(0)
    rig.run(1)
    step(job, seconds=60.0)
    rig.run(1000)
    assert told(rig) == []
    rig.run(210)
    assert len(told(rig)) == 1


def test_a_job_that_was_told_to_wait_may_be_silent(rig: Rig) -> None:
    job = rig.running()
    job.ready(0)
    rig.run(1)
    tell_to_wait(rig, job)
    job.say("waiting", k=0, step=0, until=None, reason="dirty")
    rig.run(900)
    assert told(rig) == []


def test_a_suspended_box_makes_nobody_silent(rig: Rig) -> None:
    job = rig.running()
    job.ready(0)
    rig.run(1)
    step(job)
    rig.run(300)
    rig.clock.suspend(3600)
    rig.run(200)
    assert told(rig) == []


def test_who_trains_on_though_told_to_wait_is_ended(rig: Rig) -> None:
    job = rig.running()
    job.ready(0)
    rig.run(1)
    tell_to_wait(rig, job)
    for number in range(1, 60):
        step(job, number=number)
        rig.run(1)
    assert told(rig) == []
    for number in range(60, 66):
        step(job, number=number)
        rig.run(1)
    assert ("terminate", job.dir) in rig.launcher.asked
    assert len(told(rig)) == 1
    job.finish("stopped")
    view = job.show()
    assert view.state is JobState.FAILED
    assert "it trains on at step" in view.reason
    assert "though it was told to wait" in view.reason


def test_who_trains_above_its_rho_is_told_and_left_running(rig: Rig) -> None:
    job = rig.running(spec(rho_max=0.5))
    job.ready(0)
    rig.run(1)
    directed = job.control()["rho"]
    assert directed < 0.95
    for number in range(1, 5):
        step(job, number=number, rho=1.0)
        rig.run(15)
    for number in range(5, 9):
        step(job, number=number, rho=1.0)
        rig.run(1)
    view = job.show()
    assert view.state is JobState.RUNNING
    assert f"it trains at rho 1.000, though it was directed {directed:.3f}" in view.reason
    assert [each.event for each in told(rig)] == [Happening.UNRESPONSIVE]


@pytest.mark.parametrize("attempts", [1, 2])
def test_a_jobs_own_limit_ends_it_and_tries_again(rig: Rig, attempts: int) -> None:
    job = rig.running(silent_for("2m", max_attempts=attempts))
    job.ready(0)
    rig.run(1)
    step(job)
    rig.run(118)
    assert ("terminate", job.dir) not in rig.launcher.asked
    rig.run(4)
    assert ("terminate", job.dir) in rig.launcher.asked
    rig.launcher.end(job.dir)
    rig.run(2)
    view = job.show()
    assert view.state is (JobState.FAILED if attempts == 1 else JobState.WAITING)
    assert "its queue.silence_limit is over: it has said nothing for 2m" in view.reason
    if attempts == 2:
        rig.run(61)
        assert job.show().state is JobState.RUNNING


def test_a_job_that_is_being_paused_is_not_told_of(rig: Rig) -> None:
    job = rig.running()
    rig.service.pause(job.id, ME)
    rig.run(700)
    assert told(rig) == []
