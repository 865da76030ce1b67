"""The limit of a process's events in the journal: those that are foreseen, and an allowance for the others."""

from datetime import UTC, datetime, timedelta

import pytest

from carbonsched.model.protocol import Evaluated, Event, Resumed, SegmentDone, Warned
from carbonsched.supervisor.jobs.event_limit import BURST, EVERY, EventLimit

T = datetime(2026, 11, 22, 10, tzinfo=UTC)


def warning(at: datetime) -> Event:
    return Warned(at=at, message="slow")


def evaluation(at: datetime) -> Event:
    return Evaluated(at=at, when="segment", step=1, loss=2.0, samples=1, tokens=1, seconds=0.1)


def segment(at: datetime, k: int = 0) -> Event:
    figures = dict.fromkeys(("rho_directed", "rho_planned", "rho_realised"), 0.6)
    figures |= dict.fromkeys(("flops", "flops_full", "loss", "seconds"), 1.0)
    figures |= dict.fromkeys(("importance_seconds", "selection_seconds"), 0.0)
    rest = {"k": k, "first_step": 0, "steps": 1, "selected": ["a"], "directive_seq": None}
    return SegmentDone.parse({"at": at, **figures, **rest})


def taken(limit: EventLimit, event: Event, number: int) -> int:
    return sum(limit.admits(event, 4) for _ in range(number))


@pytest.mark.parametrize(
    ("make", "foreseen"),
    [(warning, 0), (evaluation, 3), (segment, 1)],
    ids=["warning", "evaluation", "segment"],
)
def test_one_a_minute_is_recorded_after_the_first_many(make: object, foreseen: int) -> None:
    assert callable(make)
    limit = EventLimit.of_process(T)
    assert taken(limit, make(T), 1000) == BURST + foreseen
    assert taken(limit, make(T + EVERY / 2), 1000) == 0
    assert taken(limit, make(T + EVERY), 1000) == 1
    assert taken(limit, make(T + 3 * EVERY), 1000) == 2
    assert taken(limit, make(T + timedelta(days=3)), 1000) == BURST, "what was not used is not saved up"
    assert limit.admits(Resumed(at=T, k=0, step=0), 4), "what makes no row is not limited"


def test_what_the_protocol_foresees_is_taken_however_fast_it_comes() -> None:
    limit, most = EventLimit.of_process(T), 500
    for k in range(most):
        assert limit.admits(segment(T, k), most)
        assert limit.admits(evaluation(T), most)
    assert [taken(limit, evaluation(T), 3), limit.due(T)] == [3, {}]
    assert taken(limit, segment(T, most), 100) == BURST, "no segment of this job"


def test_times_that_lie_before_the_process_or_go_back_give_nothing() -> None:
    limit = EventLimit.of_process(T)
    assert sum(taken(limit, warning(T - timedelta(days=n)), 1) for n in range(100, 0, -1)) == BURST
    assert taken(limit, warning(T + EVERY), 5) == 1
    assert taken(limit, warning(T), 5) == taken(limit, warning(T + EVERY), 5) == 0


def test_the_number_of_the_others_is_said_at_once_and_then_once_a_minute() -> None:
    limit = EventLimit.of_process(T)
    assert limit.due(T) == {}
    taken(limit, warning(T), BURST + 5)
    assert limit.due(T) == {"warning": 5}
    limit.note_said({"warning": 5}, T)
    taken(limit, warning(T), 3)
    taken(limit, segment(T), BURST + 3)
    assert limit.due(T + EVERY / 2) == {"segment_done": 2}
    assert limit.due(T + EVERY) == limit.unsaid() == {"warning": 3, "segment_done": 2}
    limit.note_said({"segment_done": 2}, T)
    limit.shift(timedelta(days=-1))
    assert limit.due(T - timedelta(days=1)) == {}, (
        "a clock that is set back by a day does not delay it by one"
    )
    assert limit.due(T - timedelta(days=1) + EVERY) == {"warning": 3}
