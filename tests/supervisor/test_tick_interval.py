"""How far apart ticks come, and what the guard makes of it."""

import logging
from pathlib import Path

import pytest
from support.manual_clock import ManualClock
from support.rig import START, Rig, spec

from carbonsched.model.job_state import JobState
from carbonsched.supervisor.tick_interval import HALF_LIFE_S, MOST_S, TickInterval


def test_a_late_tick_is_said_once_a_minute_and_remembered_for_a_while(
    caplog: pytest.LogCaptureFixture,
) -> None:
    clock = ManualClock(START)
    interval = TickInterval(clock, lambda: 1.0)
    gaps = (0.0, 1.0, 1.9, 12.0, 5.0)
    for gap in gaps:
        clock.advance(gap)
        interval.note()
    assert interval.late == 2
    assert interval.last_s == pytest.approx(5.0)
    assert 11.5 < interval.tick_s <= 12.0
    assert [record.levelno for record in caplog.records] == [logging.WARNING]
    assert "12.0 s after the one before, power.tick_s is 1" in caplog.text
    clock.advance(4 * HALF_LIFE_S)
    assert interval.tick_s == 1.0
    clock.advance(3600)
    interval.note()
    assert interval.tick_s == MOST_S


def test_a_box_that_slept_was_not_late() -> None:
    clock = ManualClock(START)
    interval = TickInterval(clock, lambda: 1.0)
    interval.note()
    clock.suspend(3600.0)
    clock.advance(1.0)
    interval.note()
    assert (interval.late, interval.last_s, interval.tick_s) == (0, 1.0, 1.0)


@pytest.mark.parametrize("late", [True, False])
def test_a_job_is_ended_so_early_that_a_tick_as_late_as_the_last_does_not_pass_its_budget(
    tmp_path: Path, late: bool
) -> None:
    rig = Rig(tmp_path)
    played = rig.running(spec(budget_g=2.0))
    run = rig.supervisor.runs[played.id]
    if late:
        rig.clock.advance(20.0)
        rig.supervisor.tick()
    while run.state.live and run.alive and played.id in rig.supervisor.runs and run.process.target is None:
        rig.run(1)
    assert run.process.target is JobState.STOPPED
    at_once, left = run.charged_g, 2.0 - run.charged_g
    rig.clock.advance(15.0)  # the next tick is late as well
    rig.supervisor.tick()
    used = run.charged_g - at_once if run.alive else left
    assert (left >= used) or not late
    assert (left < 100.0 * 15 / 3.6e6 * 400) == (not late)
