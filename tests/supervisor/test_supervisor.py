"""The tick, with everything real but time, the device and the trainer's process."""

from itertools import pairwise
from pathlib import Path

import pytest
from support.rig import ME, Rig, checked, spec

from carbonsched.errors import DeniedError, StateError
from carbonsched.launch.base import ProcessStatus
from carbonsched.model.job import Owner
from carbonsched.model.job_state import JobState


@pytest.fixture
def rig(tmp_path: Path) -> Rig:
    return Rig(tmp_path)


def test_a_job_goes_from_the_queue_to_its_end_and_pays_for_all_it_used(rig: Rig) -> None:
    rig.run(5)
    job = rig.submit()
    assert job.show().state is JobState.QUEUED
    rig.run(1)
    assert job.show().state is JobState.RUNNING
    job.started()
    rig.run(3)
    rhos = [rho for k in range(4) for rho in job.play(k)]
    assert rhos == [pytest.approx(1.0)] * 4, "100 g are plenty for 9 kJ: nothing has to be saved"
    job.finish()
    rig.run(5)
    view = job.show()
    assert view.state is JobState.FINISHED
    assert [s.k for s in view.segments_done] == [0, 1, 2, 3]
    rig.supervisor.flush()
    assert sum(rig.energy().values()) == rig.metered_mj()
    assert view.energy_j == pytest.approx(rig.ledger.totals(job.id).energy_j)
    assert view.spent_g == pytest.approx(view.energy_j / 3.6e6 * 400)
    assert rig.ledger.verify().ok


def test_a_job_that_stops_early_has_finished_and_says_why(rig: Rig) -> None:
    job = rig.running()
    for k in range(2):
        for _ in job.play(k):
            pass
        job.say(
            "evaluated", when="segment", step=10 * k + 10, loss=1.0 + k, samples=8, tokens=80, seconds=0.5
        )
    job.say("evaluated", when="after", step=10, loss=1.0, samples=8, tokens=80, seconds=0.5)
    job.say("finished", step=20, reason="done", early="early stop after step 20")
    rig.launcher.end(job.dir)
    rig.run(2)
    view = job.show()
    assert (view.state, view.reason) == (JobState.FINISHED, "early stop after step 20")
    assert [s.k for s in view.segments_done] == [0, 1]
    rig.supervisor.flush()
    assert sum(rig.energy().values()) == rig.metered_mj()


def test_the_test_rows_to_come_are_kept_back(rig: Rig) -> None:
    tails = []
    for test_rows in (0, 40):
        job = rig.submit(spec(f"rows-{test_rows}"))
        rig.run(1)
        job.say("started", pid=1, segments=4, steps=40, params=1000, device="cpu", test_rows=test_rows)
        job.say(
            "evaluated",
            when="before",
            step=0,
            loss=1.0,
            samples=8,
            tokens=80,
            seconds=3.0,
            metrics={"generated_rows": 4},
        )
        job.ready(0)
        rig.run(1)
        run = rig.supervisor.runs[job.id]
        tails.append(rig.supervisor.control.estimates.costs.estimate(run).tail_s)
        job.finish()
        rig.run(1)
    assert tails[1] - tails[0] == pytest.approx(3.0 / 4 * 40)


def test_a_tight_budget_lowers_rho_and_is_kept(rig: Rig) -> None:
    full_g = 4 * 10 * 2 * 100 / 3.6e6 * 400
    job = rig.running(spec(budget_g=full_g * 0.85))
    rhos = [rho for k in range(4) for rho in job.play(k)]
    job.finish()
    assert min(rhos) < 0.9
    assert job.show().spent_g <= full_g * 0.85


def test_a_budget_below_the_floor_stops_with_the_grams_it_needs(rig: Rig) -> None:
    job = rig.submit(spec(budget_g=0.05))
    rig.run(1)
    job.started()
    job.ready(0)
    rig.run(1)
    directive = job.control()
    assert directive["action"] == "stop"
    assert "needs" in directive["reason"]
    assert " g" in directive["reason"]
    job.finish("stopped")
    assert job.show().state is JobState.STOPPED


def test_a_daemon_killed_in_mid_segment_goes_on_without_losing_a_millijoule(rig: Rig) -> None:
    job = rig.submit()
    rig.run(1)
    job.started()
    rig.run(2)
    list(job.play(0))
    job.ready(1)
    rig.run(7)
    rig.die()
    rig.clock.advance(5)
    job.done(1, job.control()["rho"], 12.0)
    rig.clock.advance(3)
    job.ready(2)
    rig.clock.advance(2)
    rig.boot()
    rig.run(10)
    assert job.show().state is JobState.RUNNING
    assert job.control()["k"] == 2
    rig.supervisor.flush()
    rows = list(rig.ledger.rows())
    assert sum(r["energy_mj"] for r in rows) == rig.metered_mj()
    assert all(a["end_us"] == b["start_us"] for a, b in pairwise(rows))
    bridged = [r for r in rows if r["bridged"]]
    assert {r["segment"] for r in bridged} == {1, 2}, "the gap is charged to the segments that ran in it"
    assert [s.k for s in job.show().segments_done] == [0, 1]
    assert rig.ledger.verify().ok


def test_a_job_killed_in_mid_segment_fails_and_resume_goes_on(rig: Rig) -> None:
    job = rig.submit()
    rig.run(1)
    job.started()
    list(job.play(0))
    job.ready(1)
    rig.run(5)
    rig.launcher.end(job.dir, signal=9)
    rig.run(3)
    view = job.show()
    assert view.state is JobState.FAILED
    assert "killed by signal 9" in view.reason
    wasted = view.energy_j
    rig.service.resume(job.id, ME)
    rig.run(1)
    assert job.show().state is JobState.RUNNING
    job.started(first_step=10)
    for k in (1, 2, 3):
        list(job.play(k))
    job.finish()
    view = job.show()
    assert view.state is JobState.FINISHED
    assert view.energy_j > wasted + 3 * 10 * 2 * 100 * 0.9, "what was lost stays on the account"
    rig.supervisor.flush()
    assert sum(rig.energy().values()) == rig.metered_mj()


def test_pause_waits_for_the_checkpoint_and_resume_starts_again(rig: Rig) -> None:
    job = rig.submit()
    rig.run(1)
    job.started()
    job.ready(0)
    rig.run(2)
    acted = rig.service.pause(job.id, ME)
    assert acted.state is JobState.RUNNING
    assert ("terminate", job.dir) in rig.launcher.asked
    rig.run(2)
    job.finish("stopped")
    assert job.show().state is JobState.PAUSED
    rig.service.resume(job.id, ME)
    rig.run(1)
    assert job.show().state is JobState.RUNNING


def test_a_job_that_will_not_end_is_killed(rig: Rig) -> None:
    job = rig.submit()
    rig.run(1)
    job.started()
    rig.service.cancel(job.id, ME)
    rig.run(rig.config.launch.stop_s + 3)
    assert ("kill", job.dir) in rig.launcher.asked
    assert job.show().state is JobState.CANCELLED


def test_only_the_owner_root_and_the_daemons_user_may_cancel(rig: Rig) -> None:
    job = rig.submit()
    stranger = Owner(uid=4242, gid=4242, pid=1, user="stranger")
    with pytest.raises(DeniedError, match="only root"):
        rig.service.cancel(job.id, stranger)


def test_one_job_at_a_time_without_a_second_device(rig: Rig) -> None:
    first, second = rig.submit(), rig.submit(spec("second"))
    rig.run(2)
    assert (first.show().state, second.show().state) == (JobState.RUNNING, JobState.QUEUED)
    first.started()
    for k in range(4):
        list(first.play(k))
    first.finish()
    rig.run(2)
    assert second.show().state is JobState.RUNNING


def test_leases_are_renewed_while_the_daemon_lives(tmp_path: Path) -> None:
    rig = Rig(tmp_path, extra={"plan": {"lease_s": 20}})
    job = rig.submit()
    rig.run(1)
    job.started()
    job.ready(0)
    rig.run(1)
    first = job.control()
    rig.run(40)
    later = job.control()
    assert later["seq"] > first["seq"]
    assert later["lease"]["valid_until"] > first["lease"]["valid_until"]
    assert (later["action"], later["rho"], later["k"]) == ("train", first["rho"], 0)


def test_energy_is_charged_at_the_intensity_of_its_hour(tmp_path: Path) -> None:
    trace = tmp_path / "trace.csv"
    hours = [100, 500] * 24
    rows = [f"2026-01-{1 + h // 24:02}T{h % 24:02}:00:00Z,{g}" for h, g in enumerate(hours)]
    trace.write_text("datetime,g_per_kwh\n" + "\n".join(rows) + "\n")
    feed = {"provider": "replay", "file": str(trace), "hour_s": 20, "anchor": "2026-11-01T12:00:00Z"}
    rig = Rig(tmp_path, extra={"feeds": [feed]})
    rig.run(100)
    rig.supervisor.flush()
    charged = [(r["g_per_kwh"], r["energy_mj"]) for r in rig.ledger.rows()]
    by_intensity = {g: sum(mj for h, mj in charged if h == g) for g in {g for g, _ in charged}}
    assert by_intensity[100.0] == pytest.approx(60 * 100_000, rel=0.02)
    assert by_intensity[500.0] == pytest.approx(40 * 100_000, rel=0.02)
    assert all(r["time_compression"] == 180 for r in rig.ledger.rows())


def test_a_job_waits_for_a_cleaner_hour_and_goes_on(tmp_path: Path) -> None:
    trace = tmp_path / "trace.csv"
    day = [600] * 4 + [60] * 20
    rows = [f"2026-01-{d:02}T{h:02}:00:00Z,{g},{g}" for d in (1, 2, 3) for h, g in enumerate(day)]
    trace.write_text("datetime,g_per_kwh,forecast_g_per_kwh\n" + "\n".join(rows) + "\n")
    feed = {"provider": "replay", "file": str(trace), "hour_s": 30, "anchor": "2026-11-01T12:00:00Z"}
    # 100 W in its first pass, 2 W while it waits through two minutes, then 100 W: waiting must be cheaper than training
    quiet = "0,2\n6,100\n9,2\n125,100\n1862.5,100\n"
    rig = Rig(tmp_path, watts=quiet, extra={"feeds": [feed], "zone": {"worst_g_per_kwh": 700}})
    rig.run(5)
    clean_g = 4 * 10 * 2 * 100 / 3.6e6 * 60
    job = rig.submit(spec(budget_g=clean_g * 4, may_pause=True, deadline="1h"))
    rig.run(1)
    job.started()
    rig.run(2)
    job.ready(0)
    rig.run(1)
    directive = job.control()
    assert directive["action"] == "wait", directive["reason"]
    job.say("waiting", k=0, step=0, until=directive["until"], reason=directive["reason"])
    rig.run(2)
    assert job.show().state is JobState.WAITING
    for _ in range(200):
        rig.run(1)
        if job.control()["action"] == "train":
            break
    assert job.control()["action"] == "train"
    assert rig.chain.reading_at(rig.clock.now()).g_per_kwh == 60  # type: ignore[union-attr]
    job.say("resumed", k=0, step=0)
    rig.run(1)
    assert job.show().state is JobState.RUNNING


def test_budget_share_becomes_grams_at_the_first_segment(rig: Rig) -> None:
    job = rig.submit(spec(budget_g=None, budget_share=0.7))
    rig.run(1)
    assert job.show().budget_g is None
    job.started()
    job.ready(0)
    rig.run(1)
    budget = job.show().budget_g
    full_g = 4 * 10 * 2 * 100 / 3.6e6 * 400
    assert budget == pytest.approx(0.7 * full_g, rel=0.25), "overheads come on top of the steps"
    assert any(entry["kind"] == "budget" for entry in job.show().history)


def test_a_full_disk_loses_no_energy(rig: Rig) -> None:
    rig.run(12)
    append = rig.ledger.append
    calls = []

    def refuse(rows: object) -> None:
        calls.append(rows)
        raise OSError("disk full")

    rig.ledger.append = refuse  # type: ignore[method-assign, assignment]
    rig.run(25)
    assert calls
    rig.ledger.append = append  # type: ignore[method-assign]
    rig.run(12)
    rig.supervisor.flush()
    rows = list(rig.ledger.rows())
    assert sum(r["energy_mj"] for r in rows) == rig.metered_mj()
    assert all(a["end_us"] == b["start_us"] for a, b in pairwise(rows))


def test_a_budget_is_not_passed_while_loading(rig: Rig) -> None:
    """No lease covers loading: the last net kills before one more tick could pass the budget."""
    budget_g = 0.1
    job = rig.submit(spec(budget_g=budget_g))
    rig.run(1)
    for _ in range(60):
        rig.run(1)
        if job.show().state.ended:
            break
    view = job.show()
    assert view.state is JobState.STOPPED
    assert ("kill", job.dir) in rig.launcher.asked
    assert 0 < view.spent_g <= budget_g


def test_rho_is_lowered_in_mid_segment_when_what_follows_needs_the_grams(rig: Rig) -> None:
    full_g = 400 * 2 * 100 / 3.6e6 * 400
    job = rig.submit(spec(budget_g=full_g * 0.62))
    job.steps, job.segment = 400, 100
    rig.run(1)
    job.started()
    rig.run(1)
    job.ready(0)
    rig.run(1)
    first = job.control()
    assert first["action"] == "train"
    # a throttled device: five steps, planned for ten seconds, take over two minutes at full power
    job.say("step", k=0, step=5, steps=400, loss=2.0, lr=1e-4, seconds=2.0, rho=first["rho"])
    rig.run(140)
    eased = job.control()
    assert eased["action"] == "train"
    assert eased["k"] == 0
    assert 0.4 <= eased["rho"] < first["rho"] - 0.05
    assert "for the rest of the segment" in eased["reason"]
    assert eased["seq"] > first["seq"]


def test_a_fall_of_the_frontiers_is_learned_for_the_plan(rig: Rig) -> None:
    job = rig.running()
    for k in range(3):
        for _ in job.play(k):
            pass
    job.ready(3)
    rig.run(1)
    run = rig.supervisor.runs[job.id]
    assert sorted(run.progress.gains) == [0, 1, 2, 3]
    # the tests' frontier is the same every time: nothing is discounted
    even = rig.supervisor.control.estimates.problem_for(run)
    assert even is not None
    assert even.decay == pytest.approx(1.0)
    run.progress.gains.update({0: 8.0, 1: 4.0, 2: 2.0, 3: 1.0})
    falling = rig.supervisor.control.estimates.problem_for(run)
    assert falling is not None
    assert falling.decay < 0.9


def test_resume_of_a_job_that_is_over_changes_nothing(tmp_path: Path) -> None:
    rig = Rig(tmp_path, extra={"pools": [{"name": "lab", "budget_g": 300.0}]})
    first = rig.running(spec("first", budget_g=None, pool="lab"), checked())
    for k in range(4):
        list(first.play(k))
    first.finish()
    with pytest.raises(StateError, match="is finished"):
        rig.service.resume(first.id, ME)
    second = rig.submit(spec("second", budget_g=None, pool="lab"), checked())
    rig.run(1)
    view = second.show()
    assert view.state is JobState.RUNNING, view.reason
    assert list(rig.supervisor.runs) == [second.id]


def test_a_process_that_runs_though_nobody_recorded_its_start_is_taken_over(rig: Rig) -> None:
    job = rig.submit()
    run = rig.launcher.start(job.dir, ["x"], {}, ME)
    rig.run(5)
    assert job.show().state is JobState.RUNNING
    assert rig.launcher.poll(job.dir).run == run
    assert job.show().energy_j > 0


def test_a_start_whose_record_was_refused_is_recorded_later(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    rig.run(1)
    job = rig.submit()
    rig.run_on_a_full_disk(3, monkeypatch)
    started = rig.launcher.poll(job.dir).run
    assert started is not None
    rig.run(1)
    assert job.show().state is JobState.RUNNING
    assert rig.launcher.poll(job.dir).run == started, "not started twice"
    assert job.show().energy_j == pytest.approx(3 * 100)


def test_a_job_whose_processes_are_killed_before_its_first_word_gives_up_its_board(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its shim went along, so nothing says when; as on a real box time passes between the meter's reading and the look at it."""
    poll = rig.launcher.poll

    def later(job_dir: Path) -> ProcessStatus:
        rig.clock.advance(0.01)
        return poll(job_dir)

    monkeypatch.setattr(type(rig.launcher), "poll", lambda _, job_dir: later(job_dir))
    job = rig.submit()
    rig.run(2)
    rig.launcher.statuses[job.dir] = ProcessStatus("lost", run=poll(job.dir).run)
    rig.run(5)
    view = job.show()
    assert view.state is JobState.FAILED, view.reason
    assert "vanished" in view.reason
    assert view.energy_j < 5 * 100
