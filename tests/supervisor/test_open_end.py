"""Jobs whose number of steps the daemon decides (`train.scheduler = "budget"`), by the real supervisor on a manual clock."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from support.open_auto import OpenAuto
from support.rig import ME, Played, Rig, checked, spec
from support.slow_auto import SlowAuto

from carbonsched.model.job import JobSpec
from carbonsched.supervisor.estimates.job_cost import stop_j

G_PER_S = 100 / 3.6e6 * 400
"""The rig's 100 W at its 400 g/kWh."""


def open_job(budget_g: float, most: int | None = None, method: str = "full", **carbon: Any) -> JobSpec:
    job = spec(budget_g=budget_g, **carbon).dump()
    job["train"] |= {
        "scheduler": "budget",
        "method": method,
        "segment": 60,
        "epochs": None,
        "max_steps": most,
    }
    return JobSpec.parse(job)


def play(
    rig: Rig,
    job: JobSpec,
    most: int | None = None,
    seconds: int = 1500,
    offers: Sequence[tuple[str, float, float | None]] = (),
) -> tuple[Played, OpenAuto]:
    foreseen = checked(rho_floor=0.4 if offers else 1.0).model_copy(
        update={"steps": None, "segments": None, "most_steps": most, "segment_steps": 60}
    )
    played = rig.submit(job, foreseen)
    auto = OpenAuto(played, most, offers=offers)
    while auto.over is None and seconds > 0:
        rig.run(10)
        seconds -= 10
    rig.run(3)
    return played, auto


@pytest.mark.parametrize(
    "watts", ["0,100\n3600,100\n", "0,100\n100,100\n101,140\n200,140\n201,90\n3600,90\n"]
)
def test_a_job_ends_annealed_with_its_budget_used_and_not_passed(tmp_path: Path, watts: str) -> None:
    """Five minutes of steps; the first is reckoned to take nearly twice what it does."""
    rig = Rig(tmp_path, watts=watts, extra={"zone": {"worst_g_per_kwh": 500}})
    job, auto = play(rig, open_job(300 * G_PER_S))
    shown = job.show()
    assert (shown.state, auto.over) == ("finished", "done"), shown.reason
    assert 0.95 <= shown.spent_g / (300 * G_PER_S) <= 1.0
    assert auto.rates[0] == 1.0
    cooldown = [rate for rate in auto.rates if rate < 1]
    assert 0.15 <= len(cooldown) / len(auto.rates) <= 0.45
    assert cooldown == sorted(cooldown, reverse=True)
    assert cooldown[-1] < 0.15
    assert shown.segments_done[-1].steps > 0


SHORT = {
    "9 steps": (9, 0.25, 1, (), 0.85),
    "20 steps, hardly any evaluation": (20, 0.02, 1, (), 0.91),
    "20 steps, the first ones slow": (20, 0.1, 2, (4.0, 2.5, 1.5), 0.91),
    "20 steps, a third of it evaluation and saving": (20, 0.35, 4, (), 0.91),
}


@pytest.mark.parametrize("case", SHORT)
def test_a_short_job_of_long_steps_uses_its_budget_too_and_ends_annealed(tmp_path: Path, case: str) -> None:
    """All in one segment, on a box that is reckoned to be six times as fast: no step but the job's own tells what they take."""
    steps, share, save_s, slow, least = SHORT[case]
    step_s = 5.0
    seconds = steps * step_s / (1 - share)
    rig = Rig(tmp_path, extra={"zone": {"worst_g_per_kwh": 500}})
    foreseen = checked(rho_floor=1.0).model_copy(
        update={"steps": None, "segments": None, "most_steps": None, "segment_steps": 60}
    )
    job = rig.submit(open_job(seconds * G_PER_S), foreseen)
    eval_s = max(round(0.4 * share * seconds) - save_s, 1)
    auto = SlowAuto(job, step_s=step_s, eval_s=eval_s, save_s=save_s, slow=slow)
    while auto.over is None and seconds > 0:
        rig.run(5)
        seconds -= 5
    rig.run(3)
    shown = job.show()
    assert (shown.state, auto.over) == ("finished", "done"), shown.reason
    assert least <= shown.spent_g / shown.budget_g <= 1.0
    assert auto.rates[-1] < 0.45, "annealed"
    assert sum(rate < 1 for rate in auto.rates) <= 0.4 * len(auto.rates)


@pytest.mark.parametrize("steps", [6, 9])
def test_a_first_guess_four_times_too_dear_ends_no_job_before_its_first_step(
    tmp_path: Path, steps: int
) -> None:
    """By the guess the grams pay for one or two steps; a first pass says so, no step has told yet."""
    step_s = 5.0
    rig = Rig(tmp_path, extra={"zone": {"worst_g_per_kwh": 500}})
    foreseen = checked(rho_floor=1.0).model_copy(
        update={"steps": None, "segments": None, "most_steps": None, "segment_steps": 60}
    )
    job = rig.submit(open_job((steps * step_s + 12) * G_PER_S), foreseen)
    auto = SlowAuto(job, step_s=step_s, eval_s=2, believed_s=4 * step_s)
    for _ in range(40):
        rig.run(5)
        if auto.over is not None:
            break
    rig.run(3)
    shown = job.show()
    assert (shown.state, auto.over) == ("finished", "done"), shown.reason
    assert len(auto.rates) >= steps - 2
    assert shown.spent_g <= shown.budget_g
    assert auto.rates[-1] < 0.45, "annealed"


def test_nothing_is_kept_back_for_a_step_behind_the_last_one(tmp_path: Path) -> None:
    """A stop cannot fall into another step there, so what is kept is a checkpoint alone."""
    rig = Rig(tmp_path, extra={"zone": {"worst_g_per_kwh": 500}})
    foreseen = checked(rho_floor=1.0).model_copy(
        update={"steps": None, "segments": None, "most_steps": None, "segment_steps": 60}
    )
    job = rig.submit(open_job(100 * G_PER_S), foreseen)
    auto = SlowAuto(job, step_s=5.0, eval_s=4)
    costs, run = rig.supervisor.control.estimates.costs, rig.supervisor.runs[job.id]
    kept: dict[bool, list[float]] = {True: [], False: []}
    while auto.over is None and rig.clock.monotonic() < 200:
        rig.run(1)
        told = run.directive
        if run.progress.ready is not None and told is not None and told.phase == "cooldown":
            last = auto.step == (told.cooldown_from or 0) + (told.cooldown_steps or 0) - 1
            kept[last].append(stop_j(run, costs.estimate(run), rig.clock.now()))
    assert auto.over == "done"
    assert max(kept[False]) > 400
    assert 0 < max(kept[True]) < 200, "a second of saving"


@pytest.mark.parametrize("finished", [True, False])
def test_killed_at_the_end_of_its_budget_it_is_finished_where_it_had_said_so(
    tmp_path: Path, finished: bool
) -> None:
    """It has saved all by then: what is left is Python's own way out, which may take seconds."""
    rig = Rig(tmp_path, extra={"zone": {"worst_g_per_kwh": 500}})
    job = rig.submit(open_job(30 * G_PER_S), checked(rho_floor=1.0))
    rig.run(2)
    job.started(segments=None, steps=None, most_steps=None)
    if finished:
        job.say("finished", step=10, reason="done")
    for _ in range(60):  # it goes on drawing power, whatever it is told
        rig.run(1)
    shown = job.show()
    assert shown.state == ("finished" if finished else "stopped"), shown.reason
    assert shown.spent_g <= shown.budget_g


def test_a_deadline_ends_it_annealed_and_in_time(tmp_path: Path) -> None:
    rig = Rig(tmp_path, extra={"zone": {"worst_g_per_kwh": 500}})
    job, auto = play(rig, open_job(5000 * G_PER_S, deadline="150s"))
    shown = job.show()
    assert (shown.state, auto.over) == ("finished", "done"), shown.reason
    lasted = (shown.ended_at - shown.submitted_at).total_seconds()
    assert 130 <= lasted <= 150
    assert auto.rates[-1] < 0.15


def test_a_bound_is_kept_and_the_phase_is_told(tmp_path: Path) -> None:
    rig = Rig(tmp_path, extra={"zone": {"worst_g_per_kwh": 500}})
    job, auto = play(rig, open_job(5000 * G_PER_S, most=200), most=200, seconds=20)
    shown = job.show()
    assert (shown.steps, shown.segments) == (None, None), "not decided yet"
    assert (shown.steps_expected, shown.phase) == (200, "stable")
    assert "stable, then a cooldown from about step 160 to about step 200 (estimated)" in shown.reason
    seen = set()
    while auto.over is None:
        rig.run(5)
        seen.add((job.show().phase, auto.step > 160))
    rig.run(3)
    assert {("stable", False), ("cooldown", True)} <= seen
    assert ("cooldown", False) not in seen, "told before it began, and shown when it had"
    assert auto.over == "done"
    assert len(auto.rates) == 200
    assert [rate < 1 for rate in auto.rates] == [step >= 160 for step in range(200)]


@pytest.mark.parametrize(
    ("shares", "method", "steps"),
    [((), "full", 210), ((0.25,), "tokens", 420)],
    ids=["full with fewer steps beats tensors", "tokens bring more for the grams"],
)
def test_auto_takes_as_many_steps_of_the_setting_that_brings_most_and_ends_annealed(
    tmp_path: Path, shares: Sequence[float], method: str, steps: int
) -> None:
    """A third of the grams that all 700 full steps would take; what the end keeps weighs more in so short a job."""
    rig = Rig(tmp_path, extra={"zone": {"worst_g_per_kwh": 500}})
    offers: list[tuple[str, float, float | None]]
    offers = [("full", 1.0, None), *(("greentrainer", rho, None) for rho in (0.5, 0.6, 0.7, 0.8))]
    offers += [("tokens", 0.5, share) for share in shares]
    budget_g = 120 * G_PER_S
    job, auto = play(rig, open_job(budget_g, 700, "auto"), most=700, seconds=600, offers=offers)
    shown = job.show()
    assert (shown.state, auto.over) == ("finished", "done"), shown.reason
    assert 0.9 <= shown.spent_g / budget_g <= 1.0
    assert set(auto.trained) == {method}
    assert len(auto.rates) == pytest.approx(steps, rel=0.15)
    cooldown = [rate for rate in auto.rates if rate < 1]
    assert 0.15 <= len(cooldown) / len(auto.rates) <= 0.45
    assert cooldown == sorted(cooldown, reverse=True)
    assert cooldown[-1] < 0.15


def test_a_trainer_of_protocol_1_cannot_train_it_and_others_are_told_no_more_than_they_know(
    tmp_path: Path,
) -> None:
    rig = Rig(tmp_path)
    old = rig.submit(spec())
    rig.run(1)
    assert "protocol" not in old.control(), "before it has spoken"
    old.started(protocol=1)
    old.ready(0)
    rig.run(2)
    assert old.control()["k"] == 0
    assert not {"protocol", "phase", "setting", "clocks"} & set(old.control())
    notes = [h["text"] for h in old.show().history if h["kind"] == "note"]
    assert notes == ["its trainer speaks protocol 1: it is told no setting, no phase and no clocks"]
    old.finish()

    job = rig.submit(open_job(50.0))
    rig.run(1)
    job.started(protocol=1)
    rig.run(1)
    rig.launcher.end(job.dir)
    rig.run(2)
    assert job.show().state == "failed"
    assert (
        "'budget' takes a trainer that speaks protocol 2, the one of launch.python speaks 1"
        in job.show().reason
    )


@pytest.mark.parametrize("method", ["auto", "lora"])
def test_explain_tells_no_number_of_steps_that_nothing_is_known_of(tmp_path: Path, method: str) -> None:
    """A model so small that by the board's rating a step takes a microsecond."""
    rig = Rig(tmp_path)
    foreseen = checked(rho_floor=0.4 if method == "auto" else 0.68).model_copy(
        update={"steps": None, "segments": None, "segment_steps": 60, "step_flops_full": 6e6}
    )
    told = rig.service.explain(open_job(4.0, method=method), ME, foreseen)
    assert (told.action, told.steps, told.segments_in_all, told.gain) == ("train", None, None, None)
    assert (told.segments, told.losses, told.gain_per_more_g) == ((), (), None)
    assert (told.steps_unknown or "").startswith("nothing of the kind was trained here yet")
    assert "step 1" not in told.reason
    assert told.reason.endswith("as many steps as that pays for, a cooldown at their end")
    assert 0.9 * 4.0 <= told.g <= 4.0
    assert told.rho == pytest.approx(1.0 if method == "auto" else 0.68)
    bound = foreseen.model_copy(update={"most_steps": 200})
    told = rig.service.explain(open_job(4.0, 200, method=method), ME, bound)
    assert (told.steps, told.steps_unknown, told.segments_in_all) == (200, None, 4)
    assert told.gain == pytest.approx(1.0)
    assert told.end is not None


def test_explain_tells_fewer_steps_where_full_ones_bring_more(tmp_path: Path) -> None:
    rig = Rig(tmp_path)
    foreseen = checked().model_copy(
        update={"steps": None, "segments": None, "segment_steps": 60, "most_steps": 400}
    )
    told = rig.service.explain(open_job(4.0, 400, method="auto"), ME, foreseen)
    assert told.steps is not None
    assert 0.5 * 400 < told.steps < 0.6 * 400
    assert told.gain == pytest.approx(told.steps / 400, abs=0.01)
    assert told.end is not None
    assert told.segments_in_all == len(told.segments) == 4
    assert told.reason.startswith("auto: full; for the same grams and time tensors at rho ")
