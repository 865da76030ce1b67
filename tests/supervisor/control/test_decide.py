"""What is decided from given inputs: without a supervisor, a clock or a file."""

from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.planning import ENERGY, NOW, planning_inputs, running
from support.rig import ME, spec
from support.trainer_events import READY

from carbonsched.ledger.ledger import spec_sha256
from carbonsched.model.job import SubmittedJob
from carbonsched.model.job_state import JobState
from carbonsched.model.protocol import EVENTS, Directive
from carbonsched.plan.objective import NO_LIMIT_G, BudgetRate, Objective
from carbonsched.plan.problem import Slot
from carbonsched.supervisor.control.decide import Due, decide, find_due
from carbonsched.supervisor.control.decision import Decision, Outcome
from carbonsched.supervisor.jobs.event_follower import EventFollower
from carbonsched.supervisor.jobs.job_run import JobRun, PlanNote
from carbonsched.units import grams

FULL_G = 4 * 10 * 200 / 3.6e6 * 400
"""Of all steps of the inputs at full speed."""


def lease_g(decision: Decision, worst_g_per_kwh: float = 700.0) -> float:
    """What the lease may take at the worst: its seconds at the highest power."""
    seconds = (decision.directive.lease.valid_until - NOW).total_seconds()
    return grams(max(seconds, 0.0) * ENERGY.watts_high, worst_g_per_kwh, 1.0)


def test_plenty_is_full_speed() -> None:
    decision = decide(planning_inputs(100.0, last_seq=6))
    assert decision.outcome is Outcome.GO_ON
    assert decision.ending is None
    directive = decision.directive
    assert (directive.seq, directive.k, directive.action) == (7, 0, "train")
    assert directive.rho == pytest.approx(1.0)
    assert directive.lease.valid_until == NOW + timedelta(seconds=300)
    assert decision.end_s == pytest.approx(80.0)


def test_the_segment_under_way_is_the_one_that_is_answered() -> None:
    inputs = planning_inputs(100.0)
    segments = tuple(replace(s, k=s.k + 3) for s in inputs.remaining.segments)
    inputs = replace(
        inputs,
        remaining=replace(inputs.remaining, segments=segments),
        problem=replace(inputs.problem, segments=segments),
    )
    assert decide(inputs).directive.k == 3


def test_a_budget_below_the_floor_stops_with_what_it_needs() -> None:
    decision = decide(planning_inputs(0.4 * FULL_G * 0.5))
    assert decision.outcome is Outcome.STOP
    assert (decision.directive.action, decision.directive.rho) == ("stop", None)
    assert decision.ending is not None
    assert decision.ending.target is JobState.STOPPED
    assert decision.directive.reason == decision.ending.reason
    assert decision.ending.reason.startswith("stop: budget below floor, needs ")


def test_where_no_lease_can_be_granted_it_stops_though_the_plan_would_train() -> None:
    """The plan's own reserve is that of the problem; the lease has the last word."""
    inputs = planning_inputs(1.0, lease={"stop_j": 1e5}, reserve_g=0.0)
    decision = decide(inputs)
    assert decision.plan is not None
    assert decision.plan.action == "train"
    assert decision.outcome is Outcome.STOP
    assert "a step, a checkpoint and the stop may take" in decision.directive.reason


def test_a_job_without_a_budget_is_not_limited() -> None:
    inputs = planning_inputs(None)
    assert inputs.left_g == NO_LIMIT_G
    decision = decide(replace(inputs, objective=Objective(rho_mean=0.7)))
    assert decision.directive.action == "train"
    assert decision.directive.reason.startswith("min-carbon: mean rho 0.700")


def dirty_then_clean(minutes: float) -> tuple[Slot, ...]:
    end = minutes * 60
    return (Slot(0.0, end, 600.0, 600.0), Slot(end, 86_400.0, 50.0, 50.0))


@pytest.mark.parametrize(
    ("minutes", "outcome"), [(5.0, Outcome.WAIT_RESIDENT), (50.0, Outcome.WAIT_GONE)], ids=["short", "long"]
)
def test_a_short_wait_keeps_the_process_and_a_long_one_does_not(minutes: float, outcome: Outcome) -> None:
    # full speed takes 1.3 g in the dirty hours and 0.11 g in the clean ones
    inputs = planning_inputs(
        0.9, may_pause=True, slots=dirty_then_clean(minutes), reserve_g=0.05, lease={"stop_j": 100.0}
    )
    decision = decide(inputs)
    assert decision.outcome is outcome, decision.directive.reason
    until = NOW + timedelta(minutes=minutes)
    assert (decision.directive.action, decision.directive.rho) == ("wait", None)
    assert decision.directive.until == until
    if outcome is Outcome.WAIT_GONE:
        assert decision.ending is not None
        assert (decision.ending.target, decision.ending.wake_at) == (JobState.WAITING, until)
    else:
        assert decision.ending is None


def test_a_budget_that_grows_waits_for_more_instead_of_stopping() -> None:
    rate = BudgetRate(g_per_h=2.0, level_g=0.0, most_g=48.0, resident_s=0.0)
    decision = decide(planning_inputs(1.0, 1.0, rate=rate))
    assert decision.directive.action == "wait"
    assert decision.outcome is Outcome.WAIT_GONE, "no wait is resident where idle power would drain it"
    assert decision.ending is not None
    assert decision.ending.wake_at is not None
    assert decision.ending.wake_at > NOW


@settings(max_examples=60, deadline=None)
@given(
    budget_g=st.floats(0.0, 3.0),
    charged=st.floats(0.0, 1.0),
    segments=st.integers(1, 6),
    steps=st.integers(1, 40),
    g_per_kwh=st.floats(10.0, 700.0),
    stop_j=st.floats(0.0, 5000.0),
    last_seq=st.integers(0, 1000),
    may_pause=st.booleans(),
)
def test_no_decision_passes_the_budget(
    budget_g: float,
    charged: float,
    segments: int,
    steps: int,
    g_per_kwh: float,
    stop_j: float,
    last_seq: int,
    may_pause: bool,
) -> None:
    inputs = planning_inputs(
        budget_g,
        budget_g * charged,
        segments=segments,
        steps=steps,
        g_per_kwh=g_per_kwh,
        last_seq=last_seq,
        may_pause=may_pause,
        lease={"stop_j": stop_j},
    )
    decision, left_g = decide(inputs), inputs.left_g
    directive, plan = decision.directive, decision.plan
    assert plan is not None
    assert directive.seq == last_seq + 1
    assert directive.k == inputs.k
    # the seconds of the lease and its steps, each for itself, keep within what is left
    assert lease_g(decision) <= left_g + 1e-9
    step_g = grams(ENERGY.joules(directive.rho or 0.4, 1), 700.0, 1.0)
    assert directive.lease.max_steps * step_g <= left_g + 1e-9
    if directive.action == "train":
        assert directive.rho is not None
        assert 0.4 - 1e-9 <= directive.rho <= 1.0 + 1e-9
        assert directive.lease.max_steps > 0 or left_g < inputs.lease.reserve_g + step_g * 1.2
        assert inputs.lease.reserve_g <= left_g
        assert (decision.outcome, decision.ending) == (Outcome.GO_ON, None)
    else:
        assert directive.rho is None
    if left_g < inputs.lease.reserve_g:
        assert directive.action == "stop", "what is left does not even pay for the stop"
    if plan.action == "stop":
        assert decision.outcome is Outcome.STOP
    if decision.outcome is Outcome.STOP:
        assert decision.ending is not None
        assert decision.ending.target is JobState.STOPPED
        assert directive.reason == decision.ending.reason


@settings(max_examples=30, deadline=None)
@given(budget_g=st.floats(0.05, 3.0), more=st.floats(0.0, 2.0))
def test_more_grams_never_lower_rho(budget_g: float, more: float) -> None:
    less, rich = (decide(planning_inputs(g)).directive.rho or 0.0 for g in (budget_g, budget_g + more))
    assert rich >= less - 1e-3


def test_the_same_inputs_are_decided_alike() -> None:
    inputs = planning_inputs(0.7)
    assert decide(inputs) == decide(inputs)


# ---- what is due


@pytest.fixture
def run() -> JobRun:
    """A job whose first segment waits for its directive since second 10 of the monotonic clock."""
    asked = spec()
    job = SubmittedJob(id="one", spec=asked, owner=ME, submitted_at=NOW, sha256=spec_sha256(asked))
    run = JobRun(job, Path(), EventFollower(Path()), JobState.RUNNING, "", 100.0)
    run.begin(NOW, ("GPU-0",))
    ready = EVENTS.validate_python(READY | {"at": NOW})
    run.progress.fold(ready, now_s=10.0, alive_from=NOW)
    return run


def answered(run: JobRun, at_s: float = 11.0, **fields: object) -> None:
    run.direct(running().model_copy(update=fields))
    run.note_plan(PlanNote(made_s=at_s))


def due(run: JobRun, now_s: float = 20.0, later_s: float = 0.0) -> Due:
    return find_due(run, NOW + timedelta(seconds=later_s), now_s)


def test_a_segment_that_is_ready_is_planned_once(run: JobRun) -> None:
    assert due(run) is Due.PLAN
    answered(run)
    assert due(run) is Due.RENEW
    run.request_plan()
    assert due(run) is Due.PLAN, "its budget was changed"
    answered(run)
    answered(run, k=7)
    assert due(run) is Due.PLAN, "what it was told is of another segment"
    answered(run, at_s=9.0)
    assert due(run) is Due.PLAN, "what it was told is older than the segment's frontier"


def test_a_segment_that_runs_long_is_eased(run: JobRun) -> None:
    answered(run)
    assert due(run, 70.0) is Due.RENEW
    assert due(run, 71.0) is Due.EASE
    run.note_easing(71.0)
    assert due(run, 130.0) is Due.RENEW
    assert due(run, 131.0) is Due.EASE


def test_a_wait_is_planned_anew_when_it_is_over(run: JobRun) -> None:
    until = NOW + timedelta(seconds=60)
    answered(run, action="wait", rho=None, until=until)
    assert due(run, later_s=59.0) is Due.NOTHING
    assert due(run, later_s=60.0) is Due.PLAN
    answered(run, action="stop", rho=None)
    assert due(run, now_s=500.0) is Due.NOTHING


def test_between_two_segments_only_the_lease_is_looked_after(run: JobRun) -> None:
    answered(run)
    run.progress.ready = None
    assert due(run) is Due.RENEW
    run.progress.finished = EVENTS.validate_python(
        {"at": NOW, "event": "finished", "step": 40, "reason": "done"}
    )  # type: ignore[assignment]
    assert due(run) is Due.NOTHING


def test_nothing_is_due_while_it_loads(run: JobRun) -> None:
    run.begin(NOW, ("GPU-0",))
    assert run.loading
    assert due(run) is Due.NOTHING


def test_a_directive_says_what_the_trainer_needs(run: JobRun) -> None:
    """What is decided is a whole document of the protocol."""
    directive = decide(planning_inputs(0.7)).directive
    assert Directive.model_validate_json(directive.model_dump_json()) == directive
