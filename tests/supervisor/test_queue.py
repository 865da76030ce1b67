"""`[queue]`: which job starts when, how often one is tried, and how long a try may take; all of it over a restart."""

from pathlib import Path
from typing import Any

import pytest
from support.rig import ME, Played, Rig, spec

from carbonsched.errors import InputError, LaunchError
from carbonsched.model.job import JobSpec, Owner
from carbonsched.model.job_state import JobState
from carbonsched.model.queue_settings import QueuePart


def queued(name: str = "tiny", **queue: Any) -> JobSpec:
    return JobSpec.parse(spec(name).dump() | {"queue": queue})


def states(rig: Rig, *jobs: Played) -> list[JobState]:
    return [rig.ledger.job(job.id).state for job in jobs]


@pytest.fixture
def rig(tmp_path: Path) -> Rig:
    return Rig(tmp_path)


def restart(rig: Rig) -> None:
    rig.die()
    rig.boot()


def test_higher_priority_starts_first_and_of_one_priority_the_older(rig: Rig) -> None:
    first = rig.submit()
    rig.run(1)
    jobs = {
        name: rig.submit(queued(name, priority=p)) for name, p in (("a", -1), ("b", 0), ("c", 5), ("d", 5))
    }
    restart(rig)
    order = []
    for over in (first, jobs["c"], jobs["d"], jobs["b"]):
        rig.service.cancel(over.id, ME)
        rig.launcher.end(over.dir)
        rig.run(2)
        order += [name for name, job in jobs.items() if rig.ledger.job(job.id).state is JobState.RUNNING]
    assert order == ["c", "d", "b", "a"]


def test_priority_above_others_is_for_admins(rig: Rig) -> None:
    bob = Owner(uid=12346, gid=12346, pid=1, user="bob")
    with pytest.raises(InputError, match=r"queue.priority: 1 puts it before"):
        rig.service.submit(queued(priority=1), bob)
    assert rig.service.submit(queued(priority=-1), bob).state is JobState.QUEUED


def test_a_job_comes_after_others_and_says_which_one_holds_it_up(rig: Rig) -> None:
    first = rig.running()
    second = rig.submit(queued("second", after=["tiny", first.id[:6]]))
    assert rig.ledger.job(second.id).spec.queue.after == (first.id,)
    free = rig.submit(queued("third"))
    rig.run(2)
    assert second.show().reason == f"waits for {first.id}, which is running"
    rig.launcher.end(first.dir, code=1)
    rig.run(2)
    assert states(rig, first, second, free) == [JobState.FAILED, JobState.QUEUED, JobState.RUNNING]
    assert "which is failed; resume that one" in second.show().reason
    restart(rig)
    rig.service.cancel(free.id, ME)
    rig.launcher.end(free.dir)
    rig.service.resume(first.id, ME)
    rig.run(2)
    first.started()
    rig.run(1)
    first.finish()
    rig.run(2)
    assert states(rig, first, second) == [JobState.FINISHED, JobState.RUNNING]


@pytest.mark.parametrize("before", ["nobody", "gone"])
def test_what_will_never_finish_cannot_be_waited_for(rig: Rig, before: str) -> None:
    gone = rig.submit(spec("gone"))
    rig.service.cancel(gone.id, ME)
    with pytest.raises(InputError, match=r"queue.after: (there is no job nobody|gone-.* was cancelled)"):
        rig.submit(queued(after=[before]))


@pytest.mark.parametrize("restarted", [False, True])
def test_a_job_that_failed_and_was_removed_is_not_to_be_resumed_for_those_that_wait(
    rig: Rig, restarted: bool
) -> None:
    first = rig.running()
    second = rig.submit(queued("second", after=[first.id]))
    rig.launcher.end(first.dir, code=1)
    rig.run(2)
    assert "which is failed; resume that one" in second.show().reason
    rig.service.remove(first.id, ME)
    if restarted:
        restart(rig)
    rig.run(2)
    said = f"waits for {first.id}, which is failed and removed and will never finish; cancel {second.id}"
    assert second.show().reason == said
    with pytest.raises(InputError, match=r"queue.after: tiny-.* was removed, it will never finish"):
        rig.submit(queued("third", after=[first.id]))


def test_a_job_that_finished_and_was_removed_holds_up_none_that_comes_after_it(rig: Rig) -> None:
    first = rig.running()
    rig.run(2)
    first.finish()
    rig.run(2)
    rig.service.remove(first.id, ME)
    second = rig.submit(queued("second", after=[first.id]))
    rig.run(2)
    assert states(rig, first, second) == [JobState.FINISHED, JobState.RUNNING]


def test_a_job_that_was_cancelled_is_not_to_be_resumed_for_those_that_wait(rig: Rig) -> None:
    first = rig.submit(queued("first", hold=True))
    second = rig.submit(queued("second", after=[first.id]))
    rig.service.cancel(first.id, ME)
    rig.run(2)
    assert second.show().reason == (
        f"waits for {first.id}, which is cancelled and will never finish; cancel {second.id}"
    )


@pytest.mark.parametrize("restarted", [False, True])
def test_a_process_that_dies_is_started_again_so_often_and_ever_later(rig: Rig, restarted: bool) -> None:
    played = rig.submit(queued(max_attempts=3, backoff="30s"))
    waits = []
    for attempt in (1, 2, 3):
        rig.run(1)
        while played.show().state is not JobState.RUNNING:
            rig.run(1)
            waits.append(attempt)
        rig.launcher.end(played.dir, signal=9)
        rig.run(1)
        if attempt < 3:
            assert played.show().state is JobState.WAITING
            assert f"attempt {attempt} of 3 failed, the next in" in played.show().reason
        if restarted:
            restart(rig)
    assert played.show().state is JobState.FAILED
    assert 28 <= waits.count(2) <= 31
    assert 58 <= waits.count(3) <= 61
    rig.service.resume(played.id, ME)
    rig.run(1)
    rig.launcher.end(played.dir, signal=9)
    rig.run(1)
    assert played.show().state is JobState.WAITING  # a resume gives all attempts anew


def test_a_launch_that_fails_counts_as_an_attempt(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise LaunchError("the shim did not start in 30 s")

    played = rig.submit(queued(max_attempts=2, backoff=10))
    with monkeypatch.context() as patch:
        patch.setattr(type(rig.launcher), "start", refuse)
        rig.run(1)
    assert played.show().state is JobState.WAITING
    rig.run(12)
    assert played.show().state is JobState.RUNNING


def test_what_the_daemon_ends_or_a_person_pauses_is_not_tried_again(rig: Rig) -> None:
    played = rig.running(queued(max_attempts=5, time_limit="60s"))
    rig.run(57)
    assert rig.launcher.asked == []
    restart(rig)
    rig.run(3)
    assert rig.launcher.asked == [("terminate", played.dir)]
    rig.launcher.end(played.dir, code=0)
    rig.run(1)
    shown = played.show()
    assert (shown.state, shown.reason.split(";")[0]) == (JobState.FAILED, "its time limit of 1m 00s is over")
    assert shown.reason.endswith(
        f"carbonsched resume {played.id} starts it from the beginning: it has no checkpoint yet"
    )
    rig.service.resume(played.id, ME)
    rig.run(30)
    assert played.show().state is JobState.RUNNING
    rig.service.pause(played.id, ME)
    rig.launcher.end(played.dir, code=1)
    rig.run(1)
    assert played.show().state is JobState.PAUSED


def test_a_held_job_starts_when_it_is_released(rig: Rig) -> None:
    played = rig.submit(queued(hold=True))
    rig.run(2)
    restart(rig)
    rig.run(2)
    assert played.show().state is JobState.PAUSED
    assert f"carbonsched release {played.id}" in played.show().reason
    rig.service.resume(played.id, ME)
    rig.run(1)
    assert played.show().state is JobState.RUNNING


def test_one_key_makes_one_job_of_its_owner_until_it_has_failed(rig: Rig) -> None:
    asked = queued(dedupe_key='night "1" 100%_ü')
    first = rig.service.submit(asked, ME)
    assert rig.service.submit(asked, ME).id == first.id
    bob = Owner(uid=12346, gid=12346, pid=1, user="bob")
    assert rig.service.submit(asked, bob).id != first.id
    assert rig.service.submit(queued(dedupe_key="night"), ME).id != first.id
    restart(rig)
    assert rig.service.submit(asked, ME).id == first.id
    rig.service.cancel(first.id, ME)
    again = rig.service.submit(asked, ME)
    assert again.id != first.id
    assert rig.service.submit(asked, ME).id == again.id


def test_a_job_that_is_being_cancelled_is_not_given_for_its_dedupe_key(rig: Rig) -> None:
    asked = queued(dedupe_key="nightly")
    first = rig.running(asked)
    rig.service.cancel(first.id, ME)
    assert rig.ledger.job(first.id).state is JobState.RUNNING, "it checkpoints first"
    assert rig.service.submit(asked, ME).id != first.id


def test_waiting_between_attempts_is_doubled_up_to_an_hour() -> None:
    queue = QueuePart.parse({"backoff": "10m"})
    assert [queue.backoff_s(n) for n in (1, 2, 3, 4, 99)] == [600, 1200, 2400, 3600, 3600]


@pytest.mark.parametrize("saved", [False, True])
def test_what_a_resume_would_do_is_said_as_it_is(rig: Rig, saved: bool) -> None:
    played = rig.running()
    if saved:
        list(played.play(0))
        played.say("checkpoint", k=0, step=10, path="checkpoints/checkpoint-10", seconds=0.1, bytes=10)
    rig.run(1)
    rig.launcher.end(played.dir, signal=9)
    rig.run(2)
    does = (
        "goes on from the last checkpoint, of step 10"
        if saved
        else "starts it from the beginning: it has no checkpoint yet"
    )
    assert played.show().reason == f"killed by signal 9; carbonsched resume {played.id} {does}"
