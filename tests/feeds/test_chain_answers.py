"""What a feed's program may answer: the chain takes what is an answer, and anything else for a failure."""

import pytest
from support.manual_clock import ManualClock
from support.provider import T0, ZONE, Provider, at, reading, states

from carbonsched.feeds.base import Answer
from carbonsched.feeds.chain import Chain
from carbonsched.model.grid import Reading


def dump(**fields: object) -> Reading:
    """What a feed's program may make by going round the checks."""
    good = reading(0, 100)
    return Reading.model_construct(**(dict(good) | fields))


NO_ANSWERS = {
    "nothing": None,
    "a number": 212.0,
    "readings alone": (reading(0, 100),),
    "no tuple of readings": Answer(None),  # type: ignore[arg-type]
    "a row as a dict": Answer(({"start": T0, "g_per_kwh": 212.0},)),  # type: ignore[arg-type]
    "one of two is no reading": Answer((reading(0, 100), None)),  # type: ignore[arg-type]
    "a value that is text": Answer((dump(g_per_kwh="dirty"),)),
    "a time without a zone": Answer((dump(start=T0.replace(tzinfo=None)),)),
    "no source": Answer((dump(source=None),)),
    "a forecast that is none": Answer((reading(0, 100),), forecast=[212.0]),  # type: ignore[arg-type]
}


@pytest.mark.parametrize("case", NO_ANSWERS)
def test_what_is_no_answer_is_a_failure_like_any_other(case: str) -> None:
    a, b = Provider("a"), Provider("b", reading(0, 300))
    a.answer = lambda: NO_ANSWERS[case]  # type: ignore[assignment, return-value]
    clock = ManualClock(T0)
    chain = Chain([a, b], ZONE, clock)
    chain.poll_due()
    assert states(chain) == ["failing", "ok"]
    assert "the feed's program" in str(chain.status()[0].error)
    assert at(chain, 0) == 300
    a.gives(reading(0, 100))
    clock.advance(10)
    chain.poll_due()
    assert states(chain) == ["ok", "standby"]


@pytest.mark.parametrize("error", [SystemExit(3), RecursionError("deep"), MemoryError()])
def test_a_feed_that_would_end_the_thread_is_a_failure_like_any_other(error: BaseException) -> None:
    a, b = Provider("a"), Provider("b", reading(0, 300))
    a.fails(error)
    chain = Chain([a, b], ZONE, ManualClock(T0))
    chain.poll_due()
    assert states(chain) == ["failing", "ok"]
