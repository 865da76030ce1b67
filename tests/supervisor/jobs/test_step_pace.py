"""The pace of the steps under way, from step events."""

from datetime import UTC, datetime, timedelta

import pytest

from carbonsched.model.protocol import Step
from carbonsched.supervisor.jobs.step_pace import StepPace

START = datetime(2026, 11, 1, tzinfo=UTC)


def told(step: int, after_s: float, rho: float = 1.0, seconds: float = 2.0) -> Step:
    at = START + timedelta(seconds=after_s)
    return Step(at=at, k=0, step=step, steps=None, loss=None, lr=1e-3, seconds=seconds, rho=rho)


def test_slow_first_steps_are_outgrown() -> None:
    pace, at, seen = StepPace(), 0.0, []
    for step, takes in enumerate((8.0, 6.0, 4.0, *[2.0] * 9), start=1):
        at += takes
        pace.add(told(step, at, seconds=takes))
        found = pace.estimate()
        assert found is not None
        seen.append((found.seconds, found.sd))
    assert seen[0] == (8.0, 0.5), "one step tells little"
    assert seen[-1][0] == pytest.approx(2.0)
    assert seen[-1][1] < 0.1 < seen[2][1]


def test_several_steps_an_event_and_a_change_of_rho_lose_nothing() -> None:
    pace = StepPace()
    for step, at in ((3, 1.0), (8, 2.0), (13, 3.0)):
        pace.add(told(step, at, rho=0.5, seconds=0.2))
    assert pace.estimate() == (0.5, pytest.approx(0.2), pytest.approx(0.1732, abs=1e-3), 10)
    pace.add(told(15, 9.0, rho=1.0, seconds=0.4))  # a selection was made meanwhile
    found = pace.estimate()
    assert found is not None
    assert (found.rho, found.seconds, found.steps) == (1.0, pytest.approx(0.4), 10)


def test_what_is_no_step_is_left_out_and_a_segment_begins_anew() -> None:
    pace = StepPace()
    pace.add(told(1, 2.0))
    pace.add(told(2, 4.0))
    pace.interrupt(START + timedelta(seconds=30))  # a checkpoint
    assert pace.began == START + timedelta(seconds=30)
    pace.add(told(3, 32.0))
    pace.add(told(4, 34.0))
    found = pace.estimate()
    assert found is not None
    assert (found.seconds, found.steps) == (2.0, 2)
    pace.add(told(4, 34.0))  # the same again, and a clock that was set back
    pace.add(told(5, 20.0))
    assert pace.estimate() == found
    pace.forget()
    assert (pace.estimate(), pace.began) == (None, None)
