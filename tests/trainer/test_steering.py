"""Directives, leases and waiting, without a model."""

import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from support.steer import directive, of, write_control

from trainer.job import JobDir
from trainer.steering import Answer, Steering, Stopped


@pytest.fixture
def job(tmp_path: Path) -> Iterator[JobDir]:
    job = JobDir(tmp_path)
    yield job
    job.close()


def steering(job: JobDir, **options: Any) -> Steering:
    return Steering(0.7, job, patience_s=options.pop("patience_s", 0.2), grace_s=0.1, **options)


def later(seconds: float, job: JobDir, document: dict[str, Any]) -> threading.Timer:
    timer = threading.Timer(seconds, write_control, (job.path, document))
    timer.start()
    return timer


def test_without_a_job_the_answer_is_constant() -> None:
    alone = Steering(0.5)
    assert alone.ask(3, 24) == Answer(0.5, None)
    assert alone.look(3) is None
    assert alone.lapsed() is None


def test_the_matching_directive_is_the_answer(job: JobDir) -> None:
    write_control(job.path, {"seq": 4, **directive(1, 0.3)})
    s = steering(job, patience_s=10.0)
    timer = later(0.2, job, {"seq": 5, **directive(0, 0.55)})
    assert s.ask(0, 0) == Answer(0.55, 5)
    timer.join()


def test_nobody_answers_the_first_segment(job: JobDir) -> None:
    s = steering(job)
    assert s.ask(0, 0) == Answer(0.7, None)
    assert s.lapsed() is None, "there is no lease to lapse"
    assert of(job.path, "waiting") == []


def test_a_daemon_that_says_wait_is_waited_for(job: JobDir) -> None:
    write_control(
        job.path, {"seq": 1, **directive(0, action="wait", until="2099-01-01T00:00:00Z", reason="dirty")}
    )
    os.utime(job.path / "control.json", (time.time() + 5, time.time() + 5))
    s = steering(job)
    timer = later(0.5, job, {"seq": 2, **directive(0, 0.9)})
    assert s.ask(0, 0) == Answer(0.9, 2)
    timer.join()
    (waiting,) = of(job.path, "waiting")
    assert waiting["until"] == "2099-01-01T00:00:00.000Z"
    assert waiting["reason"] == "dirty"
    assert len(of(job.path, "resumed")) == 1


def test_a_later_segment_goes_on_while_the_old_lease_holds(job: JobDir) -> None:
    write_control(job.path, {"seq": 1, **directive(0, 0.6)})
    s = steering(job)
    s.ask(0, 0)
    assert s.ask(1, 8) == Answer(0.6, 1)
    assert "under the lease of directive 1" in of(job.path, "warning")[0]["message"]


def test_a_later_segment_waits_where_no_lease_holds(job: JobDir) -> None:
    write_control(job.path, {"seq": 1, **directive(0, 0.6, max_steps=8)})
    s = steering(job)
    s.ask(0, 0)
    for _ in range(8):
        s.step_started()
    timer = later(0.6, job, {"seq": 2, **directive(1, 0.5)})
    assert s.ask(1, 8) == Answer(0.5, 2)
    timer.join()
    assert "waiting for the daemon" in of(job.path, "waiting")[0]["reason"]


def test_a_lease_lapses_by_time_and_by_steps(job: JobDir) -> None:
    write_control(job.path, {"seq": 1, **directive(0, 0.6, lease_s=0.3)})
    s = steering(job)
    s.ask(0, 0)
    assert s.lapsed() is None
    time.sleep(0.35)
    assert "ended at" in (s.lapsed() or "")
    write_control(job.path, {"seq": 2, **directive(0, 0.6, max_steps=1)})
    assert s.look(0) is not None
    assert s.lapsed() is None
    s.step_started()
    assert "covers 1 steps" in (s.lapsed() or "")


def test_a_lapsed_directive_is_no_answer(job: JobDir) -> None:
    write_control(job.path, {"seq": 1, **directive(0, 0.6, lease_s=-1)})
    assert steering(job).ask(0, 0) == Answer(0.7, None)


def test_stop_and_signal_end_the_waiting(job: JobDir) -> None:
    s = steering(job, patience_s=10.0)
    timer = later(0.1, job, {"seq": 1, **directive(0, action="stop", reason="budget below floor")})
    with pytest.raises(Stopped, match="budget below floor"):
        s.ask(0, 0)
    timer.join()
    with pytest.raises(Stopped, match="signal"):
        Steering(0.7, JobDir(job.path), stopping=lambda: True).hold(0, 3, "lapsed")


def test_what_was_said_to_the_process_before_is_not_obeyed(job: JobDir) -> None:
    write_control(job.path, {"seq": 9, **directive(0, action="stop", reason="old")})
    os.utime(job.path / "control.json", (1, 1))
    assert steering(job).ask(0, 0) == Answer(0.7, None)


def test_a_count_that_begins_anew_is_still_heard(job: JobDir) -> None:
    """control.json of an earlier life for segment 0, then a daemon that counts from 1 again for segment 1."""
    write_control(job.path, {"seq": 1, **directive(0, 0.6)})
    s = steering(job, patience_s=30.0)
    timer = later(0.2, job, {"seq": 1, **directive(1, 0.5)})
    assert s.ask(1, 8) == Answer(0.5, 1)
    timer.join()


def test_a_look_reports_each_directive_once(job: JobDir) -> None:
    s = steering(job)
    write_control(job.path, {"seq": 1, **directive(0, 0.6)})
    s.ask(0, 0)
    assert s.look(0) is None
    write_control(job.path, {"seq": 2, **directive(5, 0.4)})
    assert s.look(0) is None, "it is for another segment"
    write_control(job.path, {"seq": 3, **directive(0, 0.4)})
    found = s.look(0)
    assert found is not None
    assert found.rho == 0.4
    assert s.look(0) is None
