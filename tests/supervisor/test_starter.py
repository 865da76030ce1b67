"""Starting jobs: a launcher that takes its time holds up nobody, and what is asked meanwhile holds."""

import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from support.replay_launcher import ReplayLauncher
from support.rig import ME, Rig, spec

from carbonsched.errors import LaunchError
from carbonsched.model.job_state import JobState
from carbonsched.model.protocol import RunRecord


@dataclass
class Slow(ReplayLauncher):
    """Every start waits until the test lets it go on."""

    go: threading.Event = field(default_factory=threading.Event)
    error: Exception | None = None

    def start(self, *args: Any, **kwargs: Any) -> RunRecord:
        assert self.go.wait(60)
        if self.error is not None:
            raise self.error
        return ReplayLauncher.start(self, *args, **kwargs)


def slow(rig: Rig) -> Slow:
    assert isinstance(rig.launcher, Slow)
    return rig.launcher


@pytest.fixture
def rig(tmp_path: Path) -> Rig:
    rig = Rig(tmp_path, extra={"launch": {"slots": 2}}, devices=2, launchers=Slow)
    slow(rig).go.set()
    return rig


def hold(rig: Rig) -> threading.Event:
    slow(rig).go.clear()
    rig.supervisor.starter.starts.tick_wait_s = 0.01
    return slow(rig).go


def let(rig: Rig, go: threading.Event) -> None:
    go.set()
    rig.supervisor.starter.starts.wait()
    rig.run(1)


def test_others_are_metered_and_directed_while_one_is_started(rig: Rig) -> None:
    first = rig.running()
    go = hold(rig)
    second = rig.submit()
    began = time.monotonic()
    rig.run(5)
    first.ready(0)
    rig.run(1)
    assert first.control()["k"] == 0
    assert rig.service.jobs(ME).jobs[1].reason == "is being started"
    assert time.monotonic() - began < 30
    charged = rig.supervisor.runs[first.id].account.spent_mj
    rig.run(1)
    assert rig.supervisor.runs[first.id].account.spent_mj == charged + 100_000
    assert (
        rig.supervisor.runs[second.id].account.spent_mj == 600_000
    )  # its board is its own from the beginning
    let(rig, go)
    assert second.show().state is JobState.RUNNING
    assert sum(row["account"] == "unknown" for row in rig.ledger.rows()) == 0


@pytest.mark.parametrize("act", ["cancel", "pause"])
def test_what_is_asked_of_a_job_that_is_being_started_comes_to_pass(rig: Rig, act: str) -> None:
    go = hold(rig)
    played = rig.submit()
    rig.run(2)
    getattr(rig.service, act)(played.id, ME)
    rig.run(2)
    assert played.show().state is JobState.QUEUED
    let(rig, go)
    assert rig.launcher.asked[-1] == ("terminate", played.dir)
    rig.launcher.end(played.dir)
    rig.run(1)
    wanted = {"cancel": JobState.CANCELLED, "pause": JobState.PAUSED}[act]
    assert played.show().state is wanted


@pytest.mark.parametrize(
    ("late", "error", "asked", "wanted"),
    [
        (True, LaunchError("the shim did not start in 30 s"), None, JobState.FAILED),
        (False, LaunchError("the shim did not start in 30 s"), None, JobState.FAILED),
        (True, LaunchError("the shim did not start in 30 s"), "cancel", JobState.CANCELLED),
        (True, RuntimeError("nobody thought of it"), None, JobState.FAILED),
        (False, OSError(28, "disk full"), None, JobState.QUEUED),
    ],
)
def test_a_start_that_fails_leaves_no_process_and_the_seat_free(
    rig: Rig, late: bool, error: Exception, asked: str | None, wanted: JobState
) -> None:
    go = hold(rig)
    if not late:
        rig.supervisor.starter.starts.tick_wait_s = 60.0
        go.set()
    slow(rig).error = error
    played = rig.submit()
    rig.run(2)
    if asked:
        rig.service.cancel(played.id, ME)
    let(rig, go)
    shown = played.show()
    assert shown.state is wanted
    assert str(error).split("]")[-1].strip() in shown.reason or asked
    slow(rig).error = None
    rig.supervisor.starter.starts.tick_wait_s = 60.0
    if wanted is JobState.FAILED:
        rig.service.resume(played.id, ME)
    rig.run(2)
    assert played.show().state is (wanted if asked else JobState.RUNNING)


def test_a_daemon_that_is_killed_in_a_start_finds_what_became_of_it(rig: Rig) -> None:
    go = hold(rig)
    played = rig.submit()
    rig.run(2)
    starts = rig.supervisor.starter.starts
    rig.die()
    go.set()
    starts.wait()
    rig.boot()
    rig.run(1)
    assert played.show().state is JobState.RUNNING
    assert len(rig.launcher.argv) == 1


def test_the_end_of_the_daemon_waits_for_a_start_and_notes_it(rig: Rig) -> None:
    go = hold(rig)
    played = rig.submit(spec())
    rig.run(1)
    threading.Timer(0.05, go.set).start()
    rig.supervisor.stop()
    assert rig.ledger.job(played.id).state is JobState.RUNNING


def test_a_start_for_which_there_is_no_thread_is_tried_again(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    def none_left(thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    job = rig.submit()
    with monkeypatch.context() as patched:
        patched.setattr("threading.Thread.start", none_left)
        rig.run(3)
        assert rig.ledger.job(job.id).state is JobState.QUEUED
    rig.run(2)
    assert rig.ledger.job(job.id).state is JobState.RUNNING
