"""What a new daemon makes of the jobs that the one before left, in whatever moment that one was killed."""

import errno
import json
import logging
import os
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import update
from support.rig import ME, Played, Rig, checked, spec

from carbonsched.launch.base import ProcessStatus
from carbonsched.ledger.tables import JOBS
from carbonsched.model.files import save
from carbonsched.model.job_state import JobState
from carbonsched.supervisor.fault_isolation import PATIENCE_S
from carbonsched.supervisor.jobs.process_state import Ending, Seat


@pytest.fixture
def rig(tmp_path: Path) -> Rig:
    return Rig(tmp_path)


def reboot(rig: Rig, away_s: float = 0.0) -> None:
    rig.die()
    rig.clock.advance(away_s)
    rig.boot()


def waiting_long(rig: Rig) -> Played:
    """A job whose allowed half hour is over: told to checkpoint, to end and to come back tomorrow."""
    job = rig.submit(spec(allowed_hours=["12:00-12:30"]))
    rig.run(1)
    job.started()
    job.ready(0)
    rig.run(20)
    rig.clock.advance(29 * 60)
    rig.run(40)
    assert ("terminate", job.dir) in rig.launcher.asked
    return job


def test_a_long_wait_survives_a_restart(rig: Rig) -> None:
    job = waiting_long(rig)
    job.finish("stopped")
    assert job.show().state is JobState.WAITING
    reboot(rig, away_s=60)
    rig.run(5)
    assert job.show().state is JobState.WAITING, job.show().reason
    rig.clock.advance(12 * 3600)
    rig.run(2)
    assert job.show().state is JobState.WAITING, "its hour has not come"
    rig.clock.advance(11.5 * 3600)
    rig.run(2)
    assert job.show().state is JobState.RUNNING


def test_a_restart_between_the_call_to_end_and_the_end_forgets_neither(rig: Rig) -> None:
    job = waiting_long(rig)
    reboot(rig, away_s=2)
    job.finish("stopped")
    assert job.show().state is JobState.WAITING, job.show().reason
    assert rig.supervisor.runs[job.id].process.wake_at is not None


def test_a_cancelled_job_is_cancelled_though_the_daemon_was_restarted_before_it_ended(rig: Rig) -> None:
    job = rig.submit()
    rig.run(1)
    job.started()
    rig.service.cancel(job.id, ME)
    reboot(rig, away_s=1)
    job.finish("stopped")
    assert (job.show().state, job.show().reason) == (JobState.CANCELLED, "cancelled by root")


def test_a_resident_wait_whose_process_died_while_nobody_watched_is_charged_to_the_job(rig: Rig) -> None:
    job = rig.submit()
    rig.run(1)
    job.started()
    job.ready(0)
    rig.run(2)
    job.say("waiting", k=0, step=0, until=None, reason="a cleaner hour is near")
    rig.run(2)
    assert job.show().state is JobState.WAITING
    rig.supervisor.flush()
    rig.die()
    rig.clock.advance(100)
    rig.launcher.end(job.dir, signal=9)
    rig.clock.advance(100)
    rig.boot()
    rig.run(2)
    view = job.show()
    assert view.state is JobState.FAILED
    assert view.energy_j == pytest.approx(104 * 100, rel=0.05), "to its end, and not beyond"


def test_a_start_that_could_not_be_recorded_is_not_disowned(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    rig.run(2)
    job = rig.submit()
    rig.run_on_a_full_disk(1, monkeypatch)
    started = rig.launcher.poll(job.dir).run
    assert started is not None
    rig.supervisor.flush()
    reboot(rig, away_s=10)
    rig.run(1)
    assert job.show().state is JobState.RUNNING
    assert rig.launcher.poll(job.dir).run == started, "not started twice"
    rig.run(10)
    assert job.show().energy_j == pytest.approx(20 * 100, rel=0.15)


def test_each_life_of_a_job_is_told_from_the_one_before(rig: Rig) -> None:
    job = rig.submit()
    rig.run(20)
    job.started()
    rig.run(1)
    list(job.play(0))
    rig.service.pause(job.id, ME)
    rig.run(5)
    job.finish("stopped")
    rig.clock.advance(3600)
    rig.service.resume(job.id, ME)
    rig.run(3)
    before = rig.supervisor.runs[job.id]
    seen = (
        before.progress.load_s,
        before.loading,
        before.process.segment,
        before.progress.finished,
        before.account.begun_g,
    )
    reboot(rig)
    rig.run(2)
    after = rig.supervisor.runs[job.id]
    assert (after.progress.load_s, after.loading, after.process.segment, after.progress.finished) == seen[:4]
    assert after.progress.load_s == pytest.approx(20, abs=2)
    assert after.account.begun_g == pytest.approx(seen[4], rel=0.01)
    # it ends while loading: not by the word of its first life
    rig.launcher.end(job.dir, code=1)
    rig.run(2)
    assert job.show().state is JobState.FAILED
    rig.supervisor.flush()
    rows = [row for row in rig.ledger.rows() if row["job_id"] == job.id]
    assert rows[-1]["segment"] is None, "loading belongs to no segment"


def test_a_segment_done_again_teaches_by_its_second_attempt_alone(rig: Rig) -> None:
    job = rig.running()
    list(job.play(0))
    job.ready(1)
    rig.run(16)
    rig.service.pause(job.id, ME)
    job.finish("stopped")
    rig.service.resume(job.id, ME)
    rig.run(3)
    job.started(first_step=10)
    rig.run(1)
    list(job.play(1))
    fit = rig.supervisor.control.estimates.costs.fits.get(job.id)
    assert fit is not None
    model = fit.model()
    assert model.joules_full / model.seconds_full == pytest.approx(100, rel=0.05), "the device draws 100 W"
    list(job.play(2))  # the first of a process tells of no overhead that the next will have
    model = rig.supervisor.control.estimates.costs.fits[job.id].model()
    assert model.overhead_s > 0
    assert model.overhead_j / model.overhead_s == pytest.approx(100, rel=0.05), "the device draws 100 W"


@pytest.mark.parametrize("text", ["", '{"seq": 1', "\x00\x00"])
@pytest.mark.parametrize("name", ["check.json", "control.json"])
def test_a_damaged_document_is_not_known_and_told(
    rig: Rig, caplog: pytest.LogCaptureFixture, name: str, text: str
) -> None:
    job = rig.submit(None, checked())
    other = rig.submit(spec("other"), checked())
    rig.run(1)
    job.started()
    job.ready(0)
    rig.run(2)
    rig.die()
    (job.dir / name).write_text(text)
    with caplog.at_level(logging.WARNING):
        rig.boot()
    assert f"{job.id}/{name}" in caplog.text
    rig.run(3)
    assert job.show().state is JobState.RUNNING
    assert job.control()["action"] == "train"
    assert other.show().state is JobState.QUEUED


def test_a_clock_set_back_while_the_daemon_was_away_does_not_disown_a_job(rig: Rig) -> None:
    job = rig.submit()
    rig.run(1)
    job.started()
    rig.run(11)  # a first row, and one of ten seconds
    rig.die()
    rig.clock.at -= timedelta(hours=1)
    rig.boot()
    rig.run(100)
    assert rig.supervisor.runs[job.id].account.spent_mj == pytest.approx(111 * 100_000, rel=0.05)


def a_line(at: str) -> Callable[[Rig, Played], None]:
    def write(_rig: Rig, job: Played) -> None:
        with (job.dir / "events.jsonl").open("a") as file:
            file.write(
                json.dumps({"at": at, "event": "waiting", "k": 0, "step": 0, "until": at, "reason": ""})
                + "\n"
            )

    return write


def something_else(name: str, make: Callable[[Path], None]) -> Callable[[Rig, Played], None]:
    def put(_rig: Rig, job: Played) -> None:
        (job.dir / name).unlink(missing_ok=True)
        make(job.dir / name)

    return put


def a_row(**columns: str) -> Callable[[Rig, Played], None]:
    def write(rig: Rig, job: Played) -> None:
        with rig.ledger.transaction() as connection:
            connection.execute(update(JOBS).where(JOBS.c.id == job.id).values(**columns))

    return write


def a_spec(edit: Callable[[dict[str, Any]], object]) -> Callable[[Rig, Played], None]:
    def write(rig: Rig, job: Played) -> None:
        submitted = json.loads((job.dir / "spec.json").read_text())
        edit(submitted)
        a_row(submitted=json.dumps(submitted))(rig, job)

    return write


BAD = {
    "the first time there is": a_line("0001-01-01T00:00:00+14:00"),
    "the last time there is": a_line("9999-12-31T23:59:59-12:00"),
    "events.jsonl is a folder": something_else("events.jsonl", Path.mkdir),
    "events.jsonl is a pipe": something_else("events.jsonl", os.mkfifo),
    "events.jsonl is a link": something_else("events.jsonl", lambda path: path.symlink_to("/dev/zero")),
    "control.json is a folder": something_else("control.json", Path.mkdir),
    "control.json is a pipe": something_else("control.json", os.mkfifo),
    "check.json is a folder": something_else("check.json", Path.mkdir),
    "a state nobody knows": a_row(state="suspended"),
    "a spec with a key of tomorrow": a_spec(lambda job: job["spec"]["carbon"].update(colour="green")),
    "a spec with a value that is refused by now": a_spec(lambda job: job["spec"]["train"].update(lr=-1.0)),
    "a spec without a part": a_spec(lambda job: job["spec"].pop("carbon")),
    "a spec of another job": a_spec(lambda job: job.update(id="another")),
    "a spec that is no JSON": a_row(submitted="{"),
}


QUEUED = (
    "events.jsonl is a folder",
    "control.json is a folder",
    "a state nobody knows",
    "a spec that is no JSON",
)


@pytest.mark.parametrize(
    ("spoil", "started"),
    [*((spoil, True) for spoil in BAD.values()), *((BAD[name], False) for name in QUEUED)],
    ids=[*BAD, *(f"{name} of a queued job" for name in QUEUED)],
)
def test_whatever_is_wrong_with_one_job_the_daemon_starts_and_the_others_go_on(
    tmp_path: Path, spoil: Callable[[Rig, Played], None], started: bool
) -> None:
    rig = Rig(tmp_path, extra={"launch": {"slots": 2}}, devices=2)
    bad = rig.submit(spec("bad"))
    if started:
        rig.run(1)
        bad.started()
        rig.run(1)
    spoil(rig, bad)
    good = rig.submit(spec("good"))
    reboot(rig, away_s=5)
    rig.run(3)
    good.started()
    good.ready(0)
    rig.run(3)
    assert good.control()["action"] == "train"
    shown = {view.id: view for view in rig.service.jobs(ME).jobs}
    assert set(shown) == {bad.id, good.id}
    rig.clock.advance(PATIENCE_S)
    rig.run(3)
    shown = {view.id: view for view in rig.service.jobs(ME).jobs}
    assert shown[good.id].state is JobState.RUNNING
    assert (
        shown[bad.id].state is not JobState.QUEUED
        or "aside" in shown[bad.id].reason
        or "control" in shown[bad.id].reason
    )
    if ("terminate", bad.dir) in rig.launcher.asked:
        rig.launcher.end(bad.dir, code=0)
        rig.run(15)
        assert bad.id not in rig.supervisor.runs, "its device is free again"
    rig.supervisor.flush()
    balances = rig.ledger.verify().conservation
    assert balances
    assert all(balance.ok for balance in balances)


def test_a_folder_that_cannot_be_read_for_a_while_is_gone_on_with(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = rig.running()
    list(job.play(0))
    spent = job.show().energy_j
    real = os.open

    def failing(path: object, *args: object, **named: object) -> int:
        if str(path).endswith("events.jsonl"):
            raise OSError(errno.EIO, "Input/output error", str(path))
        return real(path, *args, **named)  # type: ignore[arg-type]

    with monkeypatch.context() as patch:
        patch.setattr(os, "open", failing)
        rig.supervisor.flush()
        reboot(rig, away_s=5)
        rig.run(20)
        view = rig.service.jobs(ME).jobs[0]
        assert "Input/output error" in view.reason
        assert view.energy_j > spent, "it is charged all the while"
        assert job.show().reason == view.reason
    rig.run(70)
    assert "Input/output error" not in job.show().reason
    list(job.play(1))
    assert [segment.k for segment in job.show().segments_done] == [0, 1]


def test_a_job_that_ended_before_its_start_was_recorded_is_not_run_again(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The ledger refuses the move to running, the job ends, the daemon is killed: run.json and exit.json say what was."""
    rig.run(2)
    job = rig.submit()
    rig.run_on_a_full_disk(1, monkeypatch)
    rig.supervisor.flush()
    rig.die()
    rig.clock.advance(50)
    job.started()
    job.say("finished", step=40, reason="done")
    rig.launcher.end(job.dir, code=0)
    rig.clock.advance(50)
    rig.launcher.argv.clear()
    rig.boot()
    rig.run(3)
    assert (job.show().state, job.show().reason) == (JobState.FINISHED, "done")
    assert not rig.launcher.argv, "not started again"
    assert job.show().energy_j == pytest.approx(51 * 100, rel=0.05), "from its start to its end"


@pytest.mark.parametrize("code", [0, 1])
@pytest.mark.parametrize("ran_before", ["", "paused", "stopped"])
def test_a_job_of_which_a_ledger_that_was_put_back_knows_nothing_is_taken_up(
    rig: Rig, code: int, ran_before: str, caplog: pytest.LogCaptureFixture
) -> None:
    """It knows the job as queued, or as over: what run.json and exit.json tell counts."""
    rig.run(3)
    job = rig.submit()
    if ran_before:
        rig.run(2)
        job.started()
        rig.run(1)
        if ran_before == "paused":
            rig.service.pause(job.id, ME)
        else:
            rig.supervisor.control.director.end(
                rig.supervisor.runs[job.id], Ending(JobState.STOPPED, "budget")
            )
        job.finish("stopped")
        assert job.show().state == ran_before
        if ran_before == "paused":
            rig.service.resume(job.id, ME)
        else:
            reboot(rig)
            assert job.id not in rig.supervisor.runs, "its last process is known"
    rig.supervisor.flush()
    before = job.show().energy_j
    rig.die()
    rig.clock.advance(1)
    # by the daemon of the newer ledger
    save(job.dir / "run.json", rig.launcher.start(job.dir, ["x"], {}, ME))
    rig.clock.advance(60)
    job.started()
    if code == 0:
        job.say("finished", step=40, reason="done")
    rig.launcher.end(job.dir, code=code)
    rig.clock.advance(60)
    rig.launcher.argv.clear()
    rig.boot()
    rig.run(3)
    assert job.show().state is (JobState.FINISHED if code == 0 else JobState.FAILED)
    assert not rig.launcher.argv, "not started again"
    assert job.show().energy_j - before == pytest.approx(60 * 100, rel=0.05)
    assert f"job {job.id}: the ledger does not know its last process, it is taken up" in caplog.text
    reboot(rig)
    rig.run(1)
    assert job.show().state.ended


def test_a_start_that_did_not_come_to_pass_is_made(rig: Rig) -> None:
    """The daemon is killed between the note and the launch, of a job that had ended before."""
    job = rig.running()
    rig.service.pause(job.id, ME)
    job.finish("stopped")
    rig.service.resume(job.id, ME)
    rig.supervisor.journal.note_start(rig.supervisor.runs[job.id], Seat(("replay",)))
    rig.launcher.argv.clear()
    reboot(rig, away_s=5)
    rig.run(2)
    assert job.show().state is JobState.RUNNING
    assert job.dir in rig.launcher.argv


def test_a_device_is_not_given_on_while_processes_of_the_job_before_are_on_it(rig: Rig) -> None:
    first = rig.running()
    second = rig.submit(spec("second"))
    rig.launcher.left[first.dir] = 2
    rig.launcher.end(first.dir, signal=9)
    rig.run(5)
    assert second.show().state is JobState.QUEUED
    assert "2 of its processes run on" in first.show().reason
    spent = first.show().energy_j
    rig.run(5)
    assert first.show().energy_j == pytest.approx(spent + 500, rel=0.01), "what they use is its own"
    rig.launcher.left.clear()
    rig.run(2)
    assert (first.show().state, second.show().state) == (JobState.FAILED, JobState.RUNNING)


def test_a_process_that_cannot_be_told_to_live_or_not_is_not_dead(rig: Rig) -> None:
    job = rig.running()
    alive = rig.launcher.poll(job.dir)
    rig.launcher.statuses[job.dir] = ProcessStatus(
        "unknown", problem="run.json cannot be read: Input/output error"
    )
    rig.run(30)
    view = job.show()
    assert view.state is JobState.RUNNING
    assert "Input/output error" in view.reason
    reboot(rig)
    rig.run(3)
    assert job.show().state is JobState.RUNNING
    rig.launcher.statuses[job.dir] = alive
    rig.run(1)
    assert "Input/output error" not in job.show().reason
    rig.launcher.statuses[job.dir] = ProcessStatus(
        "unknown", problem="run.json cannot be read: Input/output error"
    )
    rig.run(70)
    assert job.show().state is JobState.FAILED
    assert "Input/output error" in job.show().reason
