"""Leases: how long a directive holds without the daemon. First as pure functions, then on the rig."""

from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.planning import ENERGY, NOW, lease_inputs, planning_inputs, running
from support.rig import Rig, checked, spec

from carbonsched.model.job_state import JobState
from carbonsched.supervisor.control.decision import Outcome
from carbonsched.supervisor.control.leases import ease, exhaust, opening, renew
from carbonsched.supervisor.estimates.inputs import NO_FUNDS, Funds
from carbonsched.units import grams

TICK_G = grams(ENERGY.watts_high, 700.0, 1.0)


def test_the_lease_of_a_start_is_paid_by_what_is_left() -> None:
    directive = opening(lease_inputs(Funds(5.0, 0.0)), 0.7)
    assert (directive.seq, directive.k, directive.action, directive.rho) == (0, -1, "train", 0.7)
    held_s = (directive.lease.valid_until - NOW).total_seconds()
    assert 0 < grams(held_s * ENERGY.watts_high, 700.0, 1.0) < 5.0
    nothing = opening(lease_inputs(NO_FUNDS), 0.7)
    assert (nothing.lease.valid_until, nothing.lease.max_steps) == (NOW, 0)


def test_no_lease_reaches_past_the_allowed_hours() -> None:
    directive = opening(lease_inputs(Funds(500.0, 0.0), longest_s=40.0), 0.7)
    assert directive.lease.valid_until == NOW + timedelta(seconds=40)


def test_a_lease_that_is_half_over_is_renewed_and_nothing_else_changes() -> None:
    inputs = lease_inputs(Funds(100.0, 0.0))
    assert renew(inputs, running(held_s=160.0)) is None
    old = running(seq=4, held_s=140.0)
    decision = renew(inputs, old)
    assert decision is not None
    assert (decision.outcome, decision.plan, decision.journal) == (Outcome.GO_ON, None, False)
    new = decision.directive
    assert (new.seq, new.lease.valid_until) == (5, NOW + timedelta(seconds=300))
    assert new.model_copy(update={"seq": old.seq, "lease": old.lease}) == old


def test_a_lease_that_the_grams_no_longer_pay_for_is_cut() -> None:
    inputs = lease_inputs(Funds(2.0, 0.0))
    decision = renew(inputs, running(held_s=290.0))
    assert decision is not None
    held_s = (decision.directive.lease.valid_until - NOW).total_seconds()
    assert held_s < 100
    assert grams(held_s * ENERGY.watts_high, 700.0, 1.0) < 2.0


def test_only_a_directive_to_train_is_renewed_or_eased() -> None:
    inputs = planning_inputs(0.01)
    for directive in (None, running(action="wait", rho=None), running(action="stop", rho=None)):
        assert renew(inputs.lease, directive) is None
        assert ease(inputs, directive) is None


@settings(max_examples=100, deadline=None)
@given(
    budget_g=st.floats(0.0, 3.0),
    charged=st.floats(0.0, 1.0),
    held_s=st.floats(0.0, 300.0),
    stop_j=st.floats(0.0, 5000.0),
    longest_s=st.floats(1.0, 300.0),
    rho=st.floats(0.4, 1.0),
    seq=st.integers(1, 1000),
)
def test_a_renewal_never_grants_more_than_is_left(
    budget_g: float, charged: float, held_s: float, stop_j: float, longest_s: float, rho: float, seq: int
) -> None:
    inputs = lease_inputs(Funds(budget_g, budget_g * charged), stop_j=stop_j, longest_s=longest_s)
    decision = renew(inputs, running(seq=seq, held_s=held_s, rho=rho))
    must_stop = inputs.reserve_g > inputs.left_g
    if decision is None:
        assert not must_stop
        return
    directive = decision.directive
    assert directive.seq == seq + 1
    assert (decision.outcome is Outcome.STOP) == must_stop
    if must_stop:
        assert (directive.action, directive.rho, directive.lease.max_steps) == ("stop", None, 0)
        assert decision.ending is not None
        assert decision.ending.target is JobState.STOPPED
        return
    assert directive.rho == rho
    fresh_s = (directive.lease.valid_until - NOW).total_seconds()
    assert 0 < fresh_s <= longest_s + 1e-6
    assert grams((fresh_s + 1) * ENERGY.watts_high + stop_j, 700.0, 1.0) <= inputs.left_g + 1e-6


@settings(max_examples=40, deadline=None)
@given(budget_g=st.floats(0.05, 3.0), rho=st.floats(0.4, 1.0), seq=st.integers(1, 1000))
def test_easing_only_lowers_rho(budget_g: float, rho: float, seq: int) -> None:
    decision = ease(planning_inputs(budget_g, segments=6), running(seq=seq, rho=rho))
    if decision is None:
        return
    directive = decision.directive
    assert directive.rho is not None
    assert 0.4 - 1e-9 <= directive.rho < rho
    assert (directive.seq, directive.action, decision.outcome) == (seq + 1, "train", Outcome.GO_ON)
    assert decision.journal, "it is to be read why"


def test_what_follows_is_kept_back_by_easing() -> None:
    floor_g = 4 * 10 * 0.4 * 200 / 3.6e6 * 400
    decision = ease(planning_inputs(floor_g * 1.25 + 0.15), running(rho=1.0))
    assert decision is not None
    assert "for the rest of the segment instead of 1.000" in decision.directive.reason
    assert ease(planning_inputs(100.0), running(rho=1.0)) is None


@given(budget_g=st.floats(0.0, 10.0), left_ticks=st.floats(-2.0, 4.0))
def test_the_last_net_holds_one_tick_before_the_budget(budget_g: float, left_ticks: float) -> None:
    funds = Funds(budget_g, budget_g - left_ticks * TICK_G)
    ending = exhaust(funds, TICK_G, 1.0, NOW)
    if ending is None:
        assert funds.charged_g + TICK_G <= budget_g
    else:
        assert funds.charged_g + TICK_G > budget_g
        assert ending.reason.startswith("stop: the budget is spent, ")


def test_what_ends_a_job_depends_on_whether_more_will_come() -> None:
    spent = Funds(1.0, 1.0, begun_g=0.4)
    stopped = exhaust(spent, TICK_G, 1.0, NOW)
    assert stopped is not None
    assert (stopped.target, stopped.wake_at) == (JobState.STOPPED, None)
    waits = exhaust(replace(spent, g_per_h=2.0, most_g=48.0), TICK_G, 1.0, NOW)
    assert waits is not None
    # its last try took 0.6 g: it comes back when twice of it is there
    assert (waits.target, waits.wake_at) == (JobState.WAITING, NOW + timedelta(hours=0.6))
    assert waits.reason.endswith("more accrues at 2 g/h")
    hopeless = exhaust(replace(spent, g_per_h=0.01, most_g=0.24), TICK_G, 1.0, NOW)
    assert hopeless is not None
    assert hopeless.target is JobState.STOPPED
    assert exhaust(Funds(None, 50.0), TICK_G, 1.0, NOW) is None, "there is no limit"


# ---- on the rig


def lease_s(rig: Rig, control: dict[str, Any]) -> float:
    until = datetime.fromisoformat(control["lease"]["valid_until"])
    return max((until - rig.clock.now()).total_seconds(), 0.0)


def test_a_start_leaves_a_lease_that_the_budget_pays_at_worst(tmp_path: Path) -> None:
    """Should the daemon die while the model loads, the trainer has this alone to go by."""
    rig = Rig(tmp_path)
    job = rig.submit(spec(budget_g=5.0, rho_start=0.7), checked())
    rig.run(1)
    control = job.control()
    assert (control["seq"], control["k"], control["action"], control["rho"]) == (0, -1, "train", 0.7)
    assert control["lease"]["max_steps"] > 0
    worst_g = lease_s(rig, control) * 100 / 3.6e6 * rig.config.zone.worst_g_per_kwh * rig.config.pue
    assert 0 < worst_g < 5.0
    assert lease_s(rig, control) < rig.config.plan.lease_s
    rich = Rig(tmp_path / "rich")
    other = rich.submit(spec(budget_g=500.0), checked())
    rich.run(1)
    assert lease_s(rich, other.control()) == pytest.approx(rich.config.plan.lease_s, abs=1)


def test_a_budget_that_is_not_known_yet_pays_for_no_start(tmp_path: Path) -> None:
    rig = Rig(tmp_path)
    job = rig.submit(spec(budget_g=None, budget_share=0.5))
    rig.run(1)
    assert job.control()["lease"]["max_steps"] == 0
    assert lease_s(rig, job.control()) == 0


def test_the_lease_of_the_start_is_replaced_by_the_plan(tmp_path: Path) -> None:
    rig = Rig(tmp_path)
    job = rig.submit()
    rig.run(1)
    job.started()
    rig.run(400)
    assert job.control()["seq"] == 0, "nothing is granted while it loads"
    job.ready(0)
    rig.run(1)
    assert (job.control()["seq"], job.control()["k"]) == (1, 0)


def test_the_lease_is_renewed_between_two_segments(tmp_path: Path) -> None:
    """A checkpoint, held-out rows, importance: all of it runs under a lease."""
    rig = Rig(tmp_path)
    job = rig.running()
    list(job.play(0))
    for _ in range(20):
        rig.run(30)
        assert lease_s(rig, job.control()) > 0
    assert (job.control()["k"], job.control()["action"]) == (0, "train")
    job.ready(1)
    rig.run(1)
    assert job.control()["k"] == 1


def test_between_two_segments_a_budget_ends_too(tmp_path: Path) -> None:
    rig = Rig(tmp_path)
    job = rig.running(spec(budget_g=1.5))
    list(job.play(0))
    for _ in range(600):
        rig.run(1)
        if job.control()["action"] == "stop":
            break
    else:
        pytest.fail("it was never told")
    job.finish("stopped")
    view = job.show()
    assert view.state is JobState.STOPPED, view.reason
    assert view.spent_g <= 1.5


def test_a_batch_that_takes_longer_than_a_step_is_kept_back(tmp_path: Path) -> None:
    rig = Rig(tmp_path)
    job = rig.submit()
    rig.run(1)
    job.started()
    job.ready(0)
    rig.run(1)
    run = rig.supervisor.runs[job.id]

    def reserve_g() -> float:
        found = rig.supervisor.control.estimates.problem_for(run)
        assert found is not None
        return found.reserve_g

    before = reserve_g()
    look = {"when": "segment", "step": 0, "loss": 1.0, "tokens": 80}
    job.say("evaluated", samples=80, seconds=20.0, **look)  # 20 batches of 4
    rig.run(1)
    assert reserve_g() == pytest.approx(before, rel=0.2)
    job.say("evaluated", samples=4, seconds=20.0, **look)
    rig.run(1)
    assert reserve_g() > 3 * before
