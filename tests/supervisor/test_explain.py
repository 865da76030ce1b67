"""`submit --explain` on a real box: priors first, then what the box was measured at; nothing is queued."""

from pathlib import Path

import pytest
from support.rig import ME, START, Played, Rig, checked, spec

from carbonsched.errors import InputError
from carbonsched.model.job_state import JobState
from carbonsched.model.protocol import SegmentDone
from carbonsched.model.views import Explained
from carbonsched.report.document import build as build_report
from carbonsched.supervisor.estimates.throughput import estimate_throughput

STEP_G = 2.0 * 75 / 3.6e6 * 400
"""Of a full step by the priors: 2e13 FLOP/s in fp32, 75 W, 400 g/kWh."""


@pytest.fixture
def rig(tmp_path: Path) -> Rig:
    return Rig(tmp_path)


def explain(rig: Rig, **carbon: object) -> Explained:
    return rig.service.explain(spec(**carbon), ME, checked())


def held_out(job: Played, when: str, step: int, loss: float) -> None:
    job.say("evaluated", when=when, step=step, loss=loss, samples=64, tokens=900, seconds=1.0)


def test_a_budget_that_is_plenty_is_full_speed_and_nothing_binds(rig: Rig) -> None:
    told = explain(rig)
    assert (told.action, told.rho, told.gain) == ("train", pytest.approx(1.0), pytest.approx(1.0))
    assert "budget" not in told.binds
    assert told.gain_per_more_g == 0.0
    assert [s.k for s in told.segments] == [0, 1, 2, 3]
    assert all(s.low_g < s.g < s.high_g for s in told.segments)
    steps_g = 40 * STEP_G
    assert steps_g < told.g < 2 * steps_g + told.loading_g
    assert told.low_g < told.g < told.high_g
    assert told.loading_g == pytest.approx(20 * 75 / 3.6e6 * 400)
    assert told.start is not None
    assert told.end is not None
    assert (told.start - START).total_seconds() == pytest.approx(20)
    assert (told.end - told.start).total_seconds() >= 80
    assert told.estimated
    assert any("assumed, nothing was trained in fp32" in text for text in told.assumptions)


def test_a_tight_budget_binds_and_a_gram_more_buys_gain(rig: Rig) -> None:
    full = explain(rig)
    told = explain(rig, budget_g=0.8 * full.g)
    assert "budget" in told.binds
    assert told.rho is not None
    assert 0.4 < told.rho < 1.0
    assert told.gain_per_more_g is not None
    assert told.gain_per_more_g > 0
    assert told.gain_per_more_hour is None
    assert told.g <= 0.8 * full.g
    nothing = explain(rig, budget_g=0.2)
    assert nothing.action == "stop"
    assert nothing.floor_g > 0.2
    assert nothing.reason.startswith("stop: budget below floor, needs ")
    assert nothing.reason.endswith("has 0.2 g"), "of the whole budget, not of what loading leaves"
    assert nothing.segments == ()


def test_nothing_is_queued_nor_recorded(rig: Rig) -> None:
    explain(rig)
    assert rig.service.jobs(ME).jobs == ()
    assert rig.ledger.jobs() == ()
    assert list((rig.root / "state" / "jobs").iterdir()) == []


def test_what_the_box_was_measured_at_takes_the_place_of_the_priors(rig: Rig) -> None:
    job = rig.submit()
    rig.run(1)
    job.started()
    for k in range(4):
        list(job.play(k))
    before_end = explain(rig)
    assert before_end.jobs_before == 1
    assert before_end.start is not None
    assert before_end.start > rig.clock.now()
    job.finish()
    told = explain(rig, budget_g=1000.0)
    assert any("measured on this box with this model" in text for text in told.assumptions)
    # 1e12 FLOPs a segment took 20 s: the job that was checked has 40 times 6e12
    assert told.end is not None
    assert told.start is not None
    assert (told.end - told.start).total_seconds() == pytest.approx(40 * 6e12 / 5e10, rel=0.05)
    assert told.energy_j == pytest.approx(100 * 40 * 6e12 / 5e10, rel=0.1)


def test_shares_rates_and_min_carbon_are_explained_in_their_own_words(rig: Rig) -> None:
    full = explain(rig)
    share = explain(rig, budget_g=None, budget_share=0.8)
    assert share.budget.startswith("0.8 of ")
    assert share.budget_g is not None
    assert share.budget_g < full.g
    lean = explain(rig, budget_g=None, objective="min-carbon", rho_mean=0.7, deadline="2h")
    assert lean.budget_g is None
    assert lean.rho == pytest.approx(0.7, abs=0.01)
    assert lean.g < full.g
    assert lean.g_per_more_hour == pytest.approx(0.0, abs=1e-3), "the grid is flat: hours save nothing"
    rate = explain(rig, budget_g=None, budget_rate_g_per_h=3.0)
    assert rate.budget_g == 3.0
    assert "up to 72 g" in rate.budget
    poor = explain(rig, budget_g=None, budget_rate_g_per_h=0.2)
    assert poor.action == "wait"
    assert "0.2 g/h" in poor.reason
    with pytest.raises(InputError, match="no pool 'lab'"):
        explain(rig, budget_g=None, pool="lab")


def test_allowed_hours_move_the_start(rig: Rig) -> None:
    told = explain(rig, allowed_hours=["22:00-06:00"])
    assert told.action == "wait"
    assert told.start is not None
    assert told.start.isoformat() == "2026-11-01T22:00:00+00:00"


def test_jobs_of_which_no_energy_is_known_say_nothing_of_power(rig: Rig) -> None:
    """Segments without a metered joule: the rated figures stand in; with one that was metered, its own do."""
    job = rig.submit(spec("dark"))
    rig.ledger.set_state(job.id, JobState.RUNNING, "on", "test", START)
    done = SegmentDone(
        at=START, k=0, first_step=0, steps=10, rho_directed=1, rho_planned=1, rho_realised=1, flops=1e13,
        flops_full=1e13, loss=None, seconds=10, importance_seconds=0, selection_seconds=0, selected=(),
        directive_seq=None,
    )  # fmt: skip
    rig.ledger.save_segment(job.id, done, START, START, None)
    assert (
        "assumed, nothing was trained in fp32"
        in estimate_throughput(rig.ledger, rig.meter.devices, spec()).source
    )
    assert explain(rig).g > 0
    rig.service.cancel(job.id, ME)
    lit = rig.submit(spec("lit"))
    rig.run(1)
    lit.started()
    for k in range(4):
        for _ in lit.play(k):
            pass
    lit.finish()
    dark = rig.submit(spec("dark2"))
    rig.ledger.set_state(dark.id, JobState.RUNNING, "on", "test", START)
    rig.ledger.save_segment(dark.id, done, START, START, None)
    assert (
        "measured on this box with this model"
        in estimate_throughput(rig.ledger, rig.meter.devices, spec()).source
    )


def test_the_loss_to_expect_is_a_share_at_first_and_nats_once_a_job_of_the_data_has_shown_it(
    rig: Rig,
) -> None:
    told = explain(rig, budget_g=30.0)
    assert told.loss_relative
    assert 0.4 < told.losses[0].loss < 1.0
    assert told.losses[0].low < told.losses[0].loss < told.losses[0].high
    assert "no loss of this model and data" in (told.loss_basis or "")
    job = rig.submit()
    rig.run(1)
    job.started()
    held_out(job, "before", 0, 2.3)
    for k in range(4):
        list(job.play(k))
    held_out(job, "after", 40, 1.7)
    job.finish()
    report = build_report(rig.ledger, job.id, now=rig.clock.now())
    assert report.foretold is not None
    assert (report.foretold.first.seen, report.foretold.last.seen) == (1.7, 1.7)
    assert report.foretold.first.low < report.foretold.first.loss < report.foretold.first.high
    assert (
        report.foretold.last.high - report.foretold.last.low
        < report.foretold.first.high - report.foretold.first.low
    )
    full = explain(rig, budget_g=1000.0)
    least = explain(rig, budget_g=0.75 * full.g)
    assert not full.loss_relative
    assert full.loss_basis == "1 earlier job of this model and data"
    assert 1.5 < full.losses[0].loss < 1.9
    assert full.losses[0].high - full.losses[0].low < 0.3
    assert full.losses[0].loss <= least.losses[0].loss + 1e-9
    assert [loss.budget_g for loss in full.losses] == [1000.0, 500.0]
    assert explain(rig, budget_g=0.2).losses == (), "what is not trained has no loss to expect"


def test_a_job_of_method_auto_is_told_its_setting_and_why_and_learns_from_its_losses(rig: Rig) -> None:
    job = rig.running(spec(method="auto", budget_g=40 * STEP_G))
    held_out(job, "before", 0, 2.3)
    points = [("full", 1.0, 0.4), ("greentrainer", 0.6, 0.2)]
    offered = [
        {"setting": {"method": m, "gradient_share": None}, "rho": rho, "gain": g, "low": 0.0, "high": 1.0}
        for m, rho, g in points
    ]
    job.ready(0, points=offered)
    rig.run(1)
    told = job.control()
    assert told["setting"]["method"] in ("full", "greentrainer")
    assert told["rho"] in (1.0, 0.6)
    assert told["reason"].startswith("auto: ")
    assert "worth" in told["reason"]
    job.done(0, told["rho"], 20.0)
    rig.run(1)
    plenty = rig.service.explain(spec(method="auto", budget_g=1000.0), ME, checked())
    assert plenty.reason.startswith("auto: full for 40 steps, worth 100% of all full steps")
    assert plenty.losses


@pytest.mark.parametrize(
    ("bounds", "settings"),
    [
        ({"rho_max": 0.45}, "auto: tensors at rho 0.45 for 40 steps"),
        ({"rho_max": 0.72}, "auto: tensors at rho 0.70 for 40 steps"),
        ({"rho_min": 0.9}, "auto: full for 40 steps"),
        ({"budget_g": None, "budget_rate_g_per_h": 50.0}, "rho 1.000"),
        ({"budget_g": None, "objective": "min-carbon", "rho_mean": 0.7, "deadline": "2h"}, "min-carbon"),
    ],
)
def test_auto_keeps_to_the_bounds_of_rho_and_trains_at_a_rho_where_settings_do_not_apply(
    rig: Rig, bounds: dict[str, object], settings: str
) -> None:
    told = rig.service.explain(spec(method="auto", **{"budget_g": 100.0} | bounds), ME, checked())
    assert told.reason.startswith(settings)
    assert told.losses
