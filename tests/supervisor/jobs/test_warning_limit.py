"""The limit of a process's warnings in the journal."""

from datetime import UTC, datetime, timedelta

from carbonsched.model.protocol import Resumed, Warned
from carbonsched.supervisor.jobs.warning_limit import BURST, EVERY, WarningLimit

T = datetime(2026, 11, 22, 10, tzinfo=UTC)


def taken(limit: WarningLimit, at: datetime, number: int) -> int:
    return sum(limit.admits(Warned(at=at, message="slow")) for _ in range(number))


def test_one_a_minute_is_recorded_after_the_first_many() -> None:
    limit = WarningLimit(T)
    assert taken(limit, T, 1000) == BURST
    assert taken(limit, T + EVERY / 2, 1000) == 0
    assert taken(limit, T + EVERY, 1000) == 1
    assert taken(limit, T + 3 * EVERY, 1000) == 2
    assert taken(limit, T + timedelta(days=3), 1000) == BURST, "what was not used is not saved up"
    assert limit.admits(Resumed(at=T, k=0, step=0)), "warnings alone are limited"


def test_times_that_lie_before_the_process_or_go_back_give_nothing() -> None:
    limit = WarningLimit(T)
    assert sum(taken(limit, T - timedelta(days=n), 1) for n in range(100, 0, -1)) == BURST
    assert taken(limit, T + EVERY, 5) == 1
    assert taken(limit, T, 5) == taken(limit, T + EVERY, 5) == 0


def test_the_number_of_the_others_is_said_at_once_and_then_once_a_minute() -> None:
    limit = WarningLimit(T)
    assert limit.due(T) == 0
    taken(limit, T, BURST + 5)
    assert limit.due(T) == 5
    limit.note_said(5, T)
    taken(limit, T, 3)
    assert limit.due(T + EVERY / 2) == 0
    assert limit.due(T + EVERY) == limit.unsaid == 3
    limit.shift(timedelta(days=-1))
    assert limit.due(T - timedelta(days=1)) == 0, "a clock that is set back by a day does not delay it by one"
    assert limit.due(T - timedelta(days=1) + EVERY) == 3
