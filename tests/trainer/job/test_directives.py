"""Directives, leases and waiting, without a model."""

import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from support.steer import directive, of, write_control

from trainer.job.directives import DirectiveSource, Granted, Stopped
from trainer.job.job_dir import JobDir


@pytest.fixture
def job(tmp_path: Path) -> Iterator[JobDir]:
    job = JobDir(tmp_path)
    yield job
    job.close()


def steering(job: JobDir, **options: Any) -> DirectiveSource:
    return DirectiveSource(0.7, job, patience_s=options.pop("patience_s", 0.2), grace_s=0.1, **options)


def later(seconds: float, job: JobDir, document: dict[str, Any]) -> threading.Timer:
    timer = threading.Timer(seconds, write_control, (job.path, document))
    timer.start()
    return timer


def test_without_a_job_the_answer_is_constant() -> None:
    alone = DirectiveSource(0.5)
    assert alone.ask(3, 24) == Granted(0.5, None)
    assert alone.poll(3) is None
    assert alone.lapse_reason() is None


def test_the_matching_directive_is_the_answer(job: JobDir) -> None:
    write_control(job.path, {"seq": 4, **directive(1, 0.3)})
    s = steering(job, patience_s=10.0)
    timer = later(0.2, job, {"seq": 5, **directive(0, 0.55)})
    assert s.ask(0, 0) == Granted(0.55, 5)
    timer.join()


START = {"seq": 0, **directive(-1, 0.65, max_steps=4)}
"""As the daemon leaves it where it starts a job."""


def test_nobody_answers_the_first_segment(job: JobDir) -> None:
    """Neither started by a daemon nor heard from one: a trainer run by hand."""
    s = steering(job)
    assert s.ask(0, 0) == Granted(0.7, None)
    assert s.lapse_reason() is None, "there is no lease to lapse"
    assert of(job.path, "waiting") == []


def test_the_lease_of_the_start_holds_where_the_daemon_went_away(job: JobDir) -> None:
    write_control(job.path, START)
    s = steering(job)
    assert s.ask(0, 0) == Granted(0.65, 0)
    assert "under the lease of directive 0" in of(job.path, "warning")[0]["message"]
    for _ in range(4):
        assert s.lapse_reason() is None
        s.count_step()
    assert "covers 4 steps" in (s.lapse_reason() or "")


def test_the_lease_of_the_start_is_no_answer(job: JobDir) -> None:
    write_control(job.path, START)
    s = steering(job, patience_s=10.0)
    timer = later(0.2, job, {"seq": 1, **directive(0, 0.5)})
    assert s.ask(0, 0) == Granted(0.5, 1)
    timer.join()


def test_without_a_lease_what_a_daemon_started_waits(job: JobDir, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CARBONSCHED_JOB_DIR", str(job.path))
    s = steering(job)
    timer = later(0.6, job, {"seq": 1, **directive(0, 0.5)})
    assert s.ask(0, 0) == Granted(0.5, 1)
    timer.join()
    assert "waiting for the daemon" in of(job.path, "waiting")[0]["reason"]
    assert len(of(job.path, "resumed")) == 1


def test_a_lease_that_pays_for_nothing_waits(job: JobDir) -> None:
    write_control(job.path, {"seq": 0, **directive(-1, 0.65, lease_s=0, max_steps=0)})
    s = steering(job)
    timer = later(0.6, job, {"seq": 1, **directive(0, 0.5)})
    assert s.ask(0, 0) == Granted(0.5, 1)
    timer.join()


def test_a_daemon_that_says_wait_is_waited_for(job: JobDir) -> None:
    s = steering(job)
    write_control(
        job.path, {"seq": 1, **directive(0, action="wait", until="2099-01-01T00:00:00Z", reason="dirty")}
    )
    timer = later(0.5, job, {"seq": 2, **directive(0, 0.9)})
    assert s.ask(0, 0) == Granted(0.9, 2)
    timer.join()
    (waiting,) = of(job.path, "waiting")
    assert waiting["until"] == "2099-01-01T00:00:00.000Z"
    assert waiting["reason"] == "dirty"
    assert len(of(job.path, "resumed")) == 1


def test_a_later_segment_goes_on_while_the_old_lease_holds(job: JobDir) -> None:
    write_control(job.path, {"seq": 1, **directive(0, 0.6)})
    s = steering(job)
    s.ask(0, 0)
    assert s.ask(1, 8) == Granted(0.6, 1)
    assert "under the lease of directive 1" in of(job.path, "warning")[0]["message"]


def test_a_later_segment_waits_where_no_lease_holds(job: JobDir) -> None:
    write_control(job.path, {"seq": 1, **directive(0, 0.6, max_steps=8)})
    s = steering(job)
    s.ask(0, 0)
    for _ in range(8):
        s.count_step()
    timer = later(0.6, job, {"seq": 2, **directive(1, 0.5)})
    assert s.ask(1, 8) == Granted(0.5, 2)
    timer.join()
    assert "waiting for the daemon" in of(job.path, "waiting")[0]["reason"]


def test_a_lease_lapses_by_time_and_by_steps(job: JobDir) -> None:
    write_control(job.path, {"seq": 1, **directive(0, 0.6, lease_s=0.3)})
    s = steering(job)
    s.ask(0, 0)
    assert s.lapse_reason() is None
    time.sleep(0.35)
    assert "ended at" in (s.lapse_reason() or "")
    write_control(job.path, {"seq": 2, **directive(0, 0.6, max_steps=1)})
    assert s.poll(0) is not None
    assert s.lapse_reason() is None
    s.count_step()
    assert "covers 1 step" in (s.lapse_reason() or "")


def test_a_lapsed_directive_is_no_answer(job: JobDir) -> None:
    write_control(job.path, {"seq": 1, **directive(0, 0.6, lease_s=-1)})
    s = steering(job)
    timer = later(0.4, job, {"seq": 2, **directive(0, 0.8)})
    assert s.ask(0, 0) == Granted(0.8, 2)
    timer.join()


def test_stop_and_signal_end_the_waiting(job: JobDir) -> None:
    s = steering(job, patience_s=10.0)
    timer = later(0.1, job, {"seq": 1, **directive(0, action="stop", reason="budget below floor")})
    with pytest.raises(Stopped, match="budget below floor"):
        s.ask(0, 0)
    timer.join()
    with pytest.raises(Stopped, match="signal"):
        DirectiveSource(0.7, JobDir(job.path), stopping=lambda: True).wait(0, 3, "lapsed")


def test_what_was_said_to_the_process_before_is_not_obeyed(job: JobDir) -> None:
    write_control(job.path, {"seq": 9, **directive(0, action="stop", reason="old")})
    os.utime(job.path / "control.json", (time.time() + 60, time.time() + 60))
    assert steering(job).ask(0, 0) == Granted(0.7, None)


def test_a_stop_is_heard_though_the_clock_was_set_back(job: JobDir) -> None:
    s = steering(job, patience_s=10.0)
    write_control(job.path, {"seq": 1, **directive(0, action="stop", reason="budget below floor")})
    os.utime(job.path / "control.json", (time.time() - 3600, time.time() - 3600))
    with pytest.raises(Stopped, match="budget below floor"):
        s.ask(0, 0)


# ---- between the steps of two segments


def trained(job: JobDir, **lease: Any) -> DirectiveSource:
    """Segment 0 is over, under directive 1."""
    write_control(job.path, {"seq": 1, **directive(0, 0.6, **lease)})
    s = steering(job)
    s.ask(0, 0)
    for _ in range(4):
        s.count_step()
    return s


def test_work_that_is_no_step_goes_on_under_the_lease(job: JobDir) -> None:
    s = trained(job, max_steps=4)
    s.check_lease()
    assert of(job.path, "waiting") == [], "steps are counted, not what is measured"


def test_work_that_is_no_step_waits_for_the_lease_to_be_renewed(job: JobDir) -> None:
    s = trained(job, lease_s=0.1)
    time.sleep(0.15)
    timer = later(0.3, job, {"seq": 2, **directive(0, 0.6)})
    s.check_lease()
    timer.join()
    (waiting,), (resumed,) = of(job.path, "waiting"), of(job.path, "resumed")
    assert (waiting["k"], waiting["step"]) == (resumed["k"], resumed["step"]) == (0, 4)
    assert "ended at" in waiting["reason"]
    s.check_lease()
    assert len(of(job.path, "waiting")) == 1


def test_a_stop_ends_work_that_is_no_step(job: JobDir) -> None:
    s = trained(job)
    write_control(job.path, {"seq": 2, **directive(0, action="stop", reason="budget spent")})
    with pytest.raises(Stopped, match="budget spent"):
        s.check_lease()


def test_before_the_first_step_there_is_no_lease_to_wait_for(job: JobDir) -> None:
    """The daemon has to hear of the segment first."""
    write_control(job.path, {"seq": 0, **directive(-1, 0.65, lease_s=0)})
    s = steering(job)
    s.check_lease()
    assert of(job.path, "waiting") == []


def test_a_renewal_between_two_segments_is_followed_and_no_answer(job: JobDir) -> None:
    s = trained(job, lease_s=0.2)
    write_control(job.path, {"seq": 2, **directive(0, 0.6)})
    time.sleep(0.25)
    assert s.ask(1, 4) == Granted(0.6, 2), "nobody answered, but the lease holds"
    assert "under the lease of directive 2" in of(job.path, "warning")[0]["message"]


def test_a_start_without_a_daemon_waits_at_the_border_for_any_renewal(job: JobDir) -> None:
    write_control(job.path, {"seq": 0, **directive(-1, 0.65, lease_s=0.5)})
    s = steering(job)
    assert s.ask(0, 0).seq == 0
    s.count_step()
    time.sleep(0.4)
    timer = later(0.3, job, {"seq": 1, **directive(-1, 0.65)})
    s.check_lease()
    timer.join()
    assert of(job.path, "waiting")[0]["k"] == 0


def test_a_count_that_begins_anew_is_still_heard(job: JobDir) -> None:
    """control.json of an earlier life for segment 0, then a daemon that counts from 1 again for segment 1."""
    write_control(job.path, {"seq": 1, **directive(0, 0.6)})
    s = steering(job, patience_s=30.0)
    timer = later(0.2, job, {"seq": 1, **directive(1, 0.5)})
    assert s.ask(1, 8) == Granted(0.5, 1)
    timer.join()


def test_a_look_reports_each_directive_once(job: JobDir) -> None:
    s = steering(job)
    write_control(job.path, {"seq": 1, **directive(0, 0.6)})
    s.ask(0, 0)
    assert s.poll(0) is None
    write_control(job.path, {"seq": 2, **directive(5, 0.4)})
    assert s.poll(0) is None, "it is for another segment"
    write_control(job.path, {"seq": 3, **directive(0, 0.4)})
    found = s.poll(0)
    assert found is not None
    assert found.rho == 0.4
    assert s.poll(0) is None
