"""Commands that `carbonsched run` starts: metered as jobs are, and neither started nor, without the protocol, directed."""

import threading
import time
from pathlib import Path
from typing import Any

import pytest
from support.rig import ME, Played, Rig, spec

from carbonsched.errors import CarbonschedError, InputError, LedgerError, StateError
from carbonsched.launch.base import ProcessStatus
from carbonsched.model.command import RunEnd, RunRequest, RunStarted
from carbonsched.model.job import JobSpec
from carbonsched.model.job_state import JobState
from carbonsched.model.protocol import Directive
from carbonsched.report.document import build
from carbonsched.supervisor.commands import Commands


def ask(argv: tuple[str, ...] = ("make",), *, stop: bool = False, **fields: Any) -> RunRequest:
    return RunRequest.parse(
        {"name": "make", "command": {"argv": list(argv), "stop": stop}, "pid": 7, **fields}
    )


def begin(rig: Rig, **fields: Any) -> RunStarted:
    rig.supervisor.tick()  # a device's first reading says nothing yet
    return rig.service.begin_run(ask(**fields), ME)


def test_a_command_is_charged_from_its_start_to_its_end_and_no_longer(tmp_path: Path) -> None:
    rig = Rig(tmp_path)
    rig.run(5)
    started = begin(rig, labels={"project": "thesis"})
    rig.run(20)
    rig.clock.advance(0.5)
    total = rig.service.end_run(started.id, RunEnd(code=0), ME)
    rig.run(5)
    assert (total.state, total.exit_code, total.remaining) == (JobState.FINISHED, 0, 0)
    assert total.energy_j == pytest.approx(20.5 * 100)
    assert total.spent_g == pytest.approx(20.5 * 100 / 3.6e6 * 400)
    assert total.kinds == {"static": pytest.approx(total.spent_g)}
    assert (total.seconds, total.unknown_s, total.devices) == (20.5, 0, ("replay-0",))
    rig.supervisor.flush()
    assert sum(rig.energy().values()) == rig.metered_mj()
    assert rig.ledger.verify().ok
    shown = rig.service.show(started.id, ME)
    assert (shown.labels, shown.budget_g) == ({"project": "thesis"}, None)
    assert shown.spec.command is not None
    report = build(rig.ledger, started.id, now=rig.clock.now())
    assert report.totals.energy_j == pytest.approx(20.5 * 100)
    assert report.savings is None, "nothing was scheduled"


def test_the_meter_is_read_when_a_command_begins_and_when_it_ends(tmp_path: Path) -> None:
    """What a tick tells would be split by time, and a burst just before the command be charged to it in part."""
    rig = Rig(tmp_path)
    started = begin(rig)
    rig.service.end_run(started.id, RunEnd(code=0), ME)
    assert rig.supervisor.samples == 3, "one tick, and one at each end"


def test_one_tick_at_a_time_and_none_waits_for_one_that_hangs(tmp_path: Path) -> None:
    rig = Rig(tmp_path)
    entered, go_on = threading.Event(), threading.Event()
    read = rig.supervisor.meter.read

    def hang() -> Any:
        entered.set()
        go_on.wait(60)
        return read()

    rig.supervisor.meter.read = hang  # type: ignore[method-assign]
    thread = threading.Thread(target=rig.supervisor.tick)
    thread.start()
    try:
        assert entered.wait(60)
        rig.supervisor.tick(0.05)
        assert rig.supervisor.samples == 0, "it came back without a reading"
    finally:
        go_on.set()
        thread.join(60)
    assert rig.supervisor.samples == 1


def hung_for(rig: Rig, seconds: float) -> threading.Thread:
    """A tick of the daemon's own hangs in its meter; it has begun when this returns."""
    entered, read = threading.Event(), rig.supervisor.meter.read

    def hang() -> Any:
        if not entered.is_set():
            entered.set()
            time.sleep(seconds)
        return read()

    rig.supervisor.meter.read = hang  # type: ignore[method-assign]
    thread = threading.Thread(target=rig.supervisor.tick)
    thread.start()
    assert entered.wait(60)
    return thread


def test_a_tick_that_hangs_delays_the_total_and_does_not_cut_it_short(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("carbonsched.supervisor.commands.HUNG_S", 0.05)
    rig = Rig(tmp_path)
    started = begin(rig)
    rig.run(5)
    thread = hung_for(rig, 0.5)
    total = rig.service.end_run(started.id, RunEnd(code=7), ME)
    thread.join(60)
    assert (total.state, total.reason) == (JobState.FAILED, "ended with exit code 7")
    assert total.energy_j == pytest.approx(500)
    assert total.notes == ()


def test_an_end_that_is_not_charged_in_time_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("carbonsched.supervisor.commands.HUNG_S", 0.05)
    monkeypatch.setattr("carbonsched.supervisor.commands.END_S", 0.1)
    rig = Rig(tmp_path)
    started = begin(rig)
    thread = hung_for(rig, 2)
    total = rig.service.end_run(started.id, RunEnd(code=0), ME)
    thread.join(60)
    assert total.state is JobState.RUNNING
    assert ["not charged yet" in note for note in total.notes] == [True]
    rig.run(2)
    assert rig.service.show(started.id, ME).state is JobState.FINISHED


@pytest.mark.parametrize(
    ("told", "state", "words"),
    [
        (RunEnd(code=3), JobState.FAILED, "exit code 3"),
        (RunEnd(signal=9), JobState.FAILED, "signal 9"),
    ],
)
def test_its_exit_is_on_record(tmp_path: Path, told: RunEnd, state: JobState, words: str) -> None:
    rig = Rig(tmp_path)
    started = begin(rig)
    rig.run(2)
    total = rig.service.end_run(started.id, told, ME)
    assert total.state is state
    assert words in total.reason
    assert total.exit_code == (3 if told.code else 137)


def test_it_ended_when_who_started_it_says(tmp_path: Path) -> None:
    rig = Rig(tmp_path)
    started = begin(rig)
    rig.run(3)
    at = rig.clock.now()
    rig.clock.advance(0.9)
    assert rig.service.end_run(started.id, RunEnd(code=0, at=at), ME).seconds == pytest.approx(3)


def test_it_warns_of_its_budget_once_and_is_stopped_there_only_where_that_was_asked(tmp_path: Path) -> None:
    rig = Rig(tmp_path)
    budget_g = 60 * 100 / 3.6e6 * 400
    command = {"argv": ["make"], "stop": True, "grace_s": 0}
    warned = begin(rig, budget_g=budget_g)
    stopped = begin(rig, budget_g=budget_g / 2, command=command, share=True)
    assert "is shared with" in stopped.notes[0]
    rig.run(56)
    texts = [entry.get("text", "") for entry in rig.ledger.history(stopped.id, kinds=("note",))]
    assert sum("are spent" in text for text in texts) == 1
    status = rig.service.run_status(stopped.id, ME)
    assert status.ending is None
    assert status.spent_g > (status.warn_g or 0)
    while (status := rig.service.run_status(stopped.id, ME)).ending is None:
        rig.run(1)
    assert "its budget" in (status.ending or "")
    assert ("terminate", rig.supervisor.job_dir(stopped.id)) in rig.launcher.asked
    total = rig.service.end_run(stopped.id, RunEnd(signal=15), ME)
    assert (total.state, total.exit_code) == (JobState.STOPPED, 143)
    assert total.spent_g is not None
    assert total.spent_g <= budget_g / 2
    rig.run(60)
    status = rig.service.run_status(warned.id, ME)
    assert (status.state, status.ending) == (JobState.RUNNING, None), "it was to be warned alone"
    assert status.spent_g > budget_g


G_PER_S = 100 / 3.6e6 * 400
"""Of the rig's board on its grid."""


@pytest.mark.parametrize(
    ("budget_s", "grace_s", "gets_s"), [(200, 30, 30), (200, 0, 0), (40, 30, 20), (10, 600, 5)]
)
def test_one_that_ignores_sigterm_is_told_early_enough_and_killed_within_its_budget(
    tmp_path: Path, budget_s: float, grace_s: float, gets_s: float
) -> None:
    """A budget of so many seconds of its power: what it spends until SIGKILL is kept back, half of the budget at most."""
    rig = Rig(tmp_path)
    command = {"argv": ["make"], "stop": True, "grace_s": grace_s}
    started = begin(rig, command=command, budget_g=budget_s * G_PER_S)
    rig.run(1)
    assert rig.service.run_status(started.id, ME).grace_s == pytest.approx(gets_s)
    while (status := rig.service.run_status(started.id, ME)).ending is None:
        assert not status.kill
        rig.run(1)
    told_s = status.spent_g / G_PER_S
    assert budget_s - gets_s - 8 <= told_s <= budget_s - gets_s, (
        "no earlier than it must, at the worst of one tick"
    )
    while not rig.service.run_status(started.id, ME).kill:
        rig.run(1)
    rig.run(1)
    assert ("kill", rig.supervisor.job_dir(started.id)) in rig.launcher.asked
    total = rig.service.end_run(started.id, RunEnd(signal=9), ME)
    assert total.state is JobState.STOPPED
    assert total.spent_g is not None
    assert total.spent_g <= budget_s * G_PER_S


def test_without_stop_no_grace_is_kept_back_and_a_budget_below_a_tick_is_said(tmp_path: Path) -> None:
    rig = Rig(tmp_path)
    started = begin(rig, budget_g=1e-6)
    rig.run(3)
    status = rig.service.run_status(started.id, ME)
    assert (status.ending, status.kill, status.grace_s, started.notes) == (None, False, None, ())
    *_, note = begin(rig, budget_g=1e-6, stop=True, share=True).notes
    assert "more than its budget of 0.000001 g: it is stopped at once" in note


def test_one_that_does_not_end_is_killed(tmp_path: Path) -> None:
    rig = Rig(tmp_path)
    started = begin(rig, command={"argv": ["make"], "grace_s": 5})
    rig.run(1)
    rig.service.cancel(started.id, ME)
    rig.run(4)
    assert not rig.service.run_status(started.id, ME).kill
    rig.run(3)
    assert [what for what, _ in rig.launcher.asked] == ["terminate", "kill"]
    assert rig.service.show(started.id, ME).state is JobState.CANCELLED


def test_one_that_speaks_the_protocol_is_steered_where_it_has_a_budget(tmp_path: Path) -> None:
    rig = Rig(tmp_path)
    started = begin(rig, budget_g=100.0)
    folder = rig.supervisor.job_dir(started.id)
    opening = Directive.model_validate_json((folder / "control.json").read_text())
    assert opening.k == -1, "a lease lies there before it says anything"
    played = Played(rig, started.id)
    assert started.env["CARBONSCHED_JOB_DIR"] == str(folder)
    rig.run(1)
    played.started()
    rig.run(1)
    for k in range(2):
        assert [0.4 <= rho <= 1 for rho in played.play(k)] == [True]
    assert len(rig.service.show(started.id, ME).segments_done) == 2
    played.finish()
    assert rig.service.show(started.id, ME).state is JobState.FINISHED


def test_without_a_budget_it_finds_no_folder_of_orders(tmp_path: Path) -> None:
    rig = Rig(tmp_path)
    started = begin(rig)
    assert set(started.env) == {"CARBONSCHED_RUN_DIR"}


@pytest.mark.parametrize("gone", [False, True])
def test_a_daemon_that_is_restarted_goes_on_with_it(tmp_path: Path, gone: bool) -> None:
    rig = Rig(tmp_path)
    started = begin(rig)
    rig.run(12)
    rig.die()
    rig.clock.advance(8)
    if gone:
        rig.launcher.statuses[rig.supervisor.job_dir(started.id)] = lost(rig, started.id)
    rig.boot()
    rig.run(4)
    if not gone:
        assert rig.service.show(started.id, ME).state is JobState.RUNNING
        total = rig.service.end_run(started.id, RunEnd(code=0), ME)
        assert (total.state, total.seconds) == (JobState.FINISHED, pytest.approx(24))
    else:
        assert rig.service.show(started.id, ME).state is JobState.RUNNING, "its exit may still be told"
        rig.run(3)
        shown = rig.service.show(started.id, ME)
        assert shown.state is JobState.FAILED
        assert "not there to see how" in shown.reason
    rig.supervisor.flush()
    assert rig.ledger.verify().ok
    assert sum(rig.energy().values()) == rig.metered_mj()
    assert rig.service.jobs(ME).jobs[0].id == started.id


def lost(rig: Rig, job_id: str) -> ProcessStatus:
    return ProcessStatus("lost", rig.launcher.statuses[rig.supervisor.job_dir(job_id)].run)


def test_a_board_that_a_job_uses_is_refused_or_shared_and_said(tmp_path: Path) -> None:
    rig = Rig(tmp_path, devices=2)
    job = rig.running()
    board = rig.supervisor.runs[job.id].process.devices[0]
    with pytest.raises(StateError, match=f"{board} is used by {job.id}.*--share"):
        begin(rig, devices=[board])
    other = begin(rig)
    assert board not in other.devices
    with pytest.raises(StateError, match="no board is free"):
        begin(rig)
    assert not [run for run in rig.supervisor.runs.values() if run.id not in (job.id, other.id)]
    shared = begin(rig, devices=[board], share=True)
    assert shared.notes == (f"board {board} is shared with {job.id}: the energy is split equally, estimated",)
    rig.run(10)
    total = rig.service.end_run(shared.id, RunEnd(code=0), ME)
    assert total.energy_j == pytest.approx(500)
    assert total.estimated


def test_a_command_keeps_its_board_from_jobs_and_takes_no_slot(tmp_path: Path) -> None:
    rig = Rig(tmp_path, devices=2)
    begin(rig, devices=["all"])
    job = rig.submit()
    rig.run(2)
    assert rig.service.show(job.id, ME).state is JobState.QUEUED, "its board is not free"
    assert rig.supervisor.placement.slots() == 2


@pytest.mark.parametrize(
    ("devices", "words"),
    [
        (["GPU-none"], "'GPU-none' is no board here"),
        (["9"], "'9' is no board here"),
        (["host", "0"], "host goes with no other"),
    ],
)
def test_a_board_that_is_not_there_is_named(tmp_path: Path, devices: list[str], words: str) -> None:
    with pytest.raises(InputError, match=words):
        begin(Rig(tmp_path), devices=devices)


def test_nothing_is_kept_of_one_that_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rig = Rig(tmp_path)

    def refuse(*_: object) -> None:
        raise LedgerError("disk full")

    monkeypatch.setattr(rig.ledger, "set_state", refuse)
    with pytest.raises(CarbonschedError, match="disk full"):
        begin(rig)
    assert (rig.supervisor.runs, rig.ledger.job_ids()) == ({}, set())
    assert list((tmp_path / "state" / "jobs").iterdir()) == []


def test_what_takes_a_start_by_the_daemon_is_refused(tmp_path: Path) -> None:
    rig = Rig(tmp_path)
    started = begin(rig, budget_g=5.0)
    for act in (rig.service.pause, rig.service.resume):
        with pytest.raises(StateError, match="a command that carbonsched run started"):
            act(started.id, ME)
    rig.service.end_run(started.id, RunEnd(code=1), ME)
    with pytest.raises(StateError, match="a command that carbonsched run started"):
        rig.service.resume(started.id, ME)
    with pytest.raises(StateError, match="its budget is closed"):
        rig.service.budget(started.id, 9.0, ME)
    with pytest.raises(InputError, match="carbonsched run"):
        rig.service.submit(rig.ledger.job(started.id).spec, ME)
    with pytest.raises(InputError, match="meter is for carbonsched run"):
        JobSpec.parse(spec().dump() | {"carbon": {"objective": "meter"}})
    job = rig.submit()
    with pytest.raises(CarbonschedError, match="none of carbonsched run"):
        rig.service.end_run(job.id, RunEnd(code=0), ME)


def test_one_that_was_killed_with_who_started_it_while_the_daemon_was_away_ends_where_it_was_last_seen(
    tmp_path: Path,
) -> None:
    """The energy of the time that nobody metered is nobody's, and it is over before the next command begins."""
    rig = Rig(tmp_path)
    killed = begin(rig)
    rig.run(12)
    rig.supervisor.flush()
    rig.die()
    rig.launcher.statuses[rig.supervisor.job_dir(killed.id)] = lost(rig, killed.id)
    rig.launcher.starters = False
    for _ in range(2):  # each new daemon, or `carbonsched run --ledger`, is as short as the next
        rig.clock.advance(60)
        rig.boot()
        after = begin(rig)
        assert after.notes == (), "it shares with nobody"
        rig.run(2)
        rig.service.end_run(after.id, RunEnd(code=0), ME)
        shown = rig.service.show(killed.id, ME)
        assert (shown.state, shown.energy_j) == (JobState.FAILED, pytest.approx(1200))
        assert shown.reason.endswith("last seen alive at 2026-11-01 12:00:12 UTC")
        assert rig.service.show(after.id, ME).energy_j == pytest.approx(200)
        rig.supervisor.flush()
        rig.die()
    rig.boot()
    assert rig.ledger.verify().ok
    assert sum(rig.energy().values()) == rig.metered_mj()


def test_who_waited_for_the_daemon_tells_of_an_end_while_it_was_away_before_that_time_is_charged(
    tmp_path: Path,
) -> None:
    rig = Rig(tmp_path)
    started = begin(rig)
    rig.run(12)
    rig.supervisor.flush()
    rig.die()
    rig.clock.advance(30)
    ended = rig.clock.now()
    rig.launcher.statuses[rig.supervisor.job_dir(started.id)] = lost(rig, started.id)
    rig.clock.advance(30)
    rig.boot()

    def tell() -> None:
        time.sleep(0.3)
        rig.service.end_run(started.id, RunEnd(code=0, at=ended), ME)

    thread = threading.Thread(target=tell)
    thread.start()
    Commands(rig.supervisor).hear_ends(60)
    thread.join(60)
    shown = rig.service.show(started.id, ME)
    assert (shown.state, shown.energy_j) == (JobState.FINISHED, pytest.approx(4200))


def test_nobody_is_waited_for_who_is_gone(tmp_path: Path) -> None:
    rig = Rig(tmp_path)
    started = begin(rig)
    rig.run(1)
    rig.die()
    rig.launcher.statuses[rig.supervisor.job_dir(started.id)] = lost(rig, started.id)
    rig.launcher.starters = False
    rig.boot()
    before = time.monotonic()
    Commands(rig.supervisor).hear_ends(60)
    assert time.monotonic() - before < 30


def test_one_that_leaves_a_process_tells_what_it_used_up_to_its_own_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A meter tells no more often than it can: a host's load over less than a quarter of a second says nothing."""
    rig = Rig(tmp_path)
    rig.run(1)
    started = begin(rig)
    rig.clock.advance(0.2)
    read, calls = rig.supervisor.meter.read, 0

    def late() -> Any:
        nonlocal calls
        calls += 1
        rig.clock.advance(0.05)
        return read() if calls > 3 else ()

    rig.supervisor.meter.read = late  # type: ignore[method-assign]
    monkeypatch.setattr(type(rig.launcher), "note_exit", lambda *_: None)  # what it left runs on
    total = rig.service.end_run(started.id, RunEnd(code=0), ME)
    assert (total.state, total.remaining) == (JobState.RUNNING, 1)
    assert total.energy_j == pytest.approx(40, rel=0.2)
    assert total.notes == ()
