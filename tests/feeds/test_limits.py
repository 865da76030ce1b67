"""The limits that providers state hold, whatever the clocks do."""

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.manual_clock import ManualClock

from carbonsched.feeds.limits import RequestCount
from carbonsched.feeds.transport import Limit, RetryLaterError

NOW = datetime(2026, 1, 1, tzinfo=UTC)


@given(st.lists(st.floats(0, 40), max_size=60))
def test_no_stretch_of_time_has_more_than_the_limit(pauses: list[float]) -> None:
    clock = ManualClock(NOW)
    count = RequestCount([Limit(5, per_s=60.0), Limit(3, per_s=10.0)], clock)
    made: list[float] = []
    for pause in pauses:
        clock.advance(pause)
        try:
            count.take(1)
        except RetryLaterError:
            continue
        made.append(clock.monotonic())
    for at in made:
        assert sum(at - 59.999 < other <= at for other in made) <= 5
        assert sum(at - 9.999 < other <= at for other in made) <= 3


def test_it_says_which_limit_and_when_to_come_back() -> None:
    clock = ManualClock(NOW)
    count = RequestCount([Limit(3, per_s=10.0)], clock)
    count.take(3)
    with pytest.raises(RetryLaterError, match="3 requests in 10 s") as caught:
        count.take(1)
    assert caught.value.after_s == 10.0
    clock.advance(10.1)
    count.take(3)


def test_a_clock_that_is_set_frees_no_request() -> None:
    clock = ManualClock(NOW)
    count = RequestCount([Limit(1, per_s=10.0)], clock)
    count.take(1)
    clock.at = datetime(2036, 1, 1, tzinfo=UTC)
    with pytest.raises(RetryLaterError):
        count.take(1)


def test_without_a_stated_limit_nothing_is_counted() -> None:
    count = RequestCount([], ManualClock(NOW))
    for _ in range(1000):
        count.take(3)
