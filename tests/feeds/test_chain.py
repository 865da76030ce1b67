import itertools
import threading
from datetime import datetime, timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.manual_clock import ManualClock
from support.provider import T0, ZONE, Provider, at, minutes, reading, source, states

from carbonsched.errors import FeedError, InputError
from carbonsched.feeds.base import Answer
from carbonsched.feeds.chain import Chain
from carbonsched.feeds.transport import RetryLaterError
from carbonsched.feeds.zone import Zone
from carbonsched.model.grid import Basis, Forecast, ForecastPoint, Kind, Reading


def test_the_first_healthy_feed_is_used_and_the_next_is_left_alone() -> None:
    a, b = Provider("a", reading(0, 100)), Provider("b", reading(0, 900))
    chain = Chain([a, b], ZONE, ManualClock(T0))
    assert states(chain) == ["untried", "untried"]
    chain.poll_due()
    assert at(chain, 0) == 100
    assert (a.polls, b.polls) == (1, 0)
    assert states(chain) == ["ok", "standby"]


def test_the_next_feed_steps_in_when_the_first_fails_and_back_out_again() -> None:
    clock = ManualClock(T0)
    a, b = Provider("a", reading(-60, 50)), Provider("b", reading(0, 900, provider="b"))
    chain = Chain([a, b], ZONE, clock)
    chain.poll_due()
    assert at(chain, 0) == 50  # held: its last value is still young enough
    a.fails(FeedError("a: HTTP 500"))
    clock.advance(300)
    chain.poll_due()
    assert states(chain) == ["failing", "ok"]
    assert chain.status()[0].error == "a: HTTP 500"
    assert chain.status()[0].last_success == T0
    assert at(chain, 5) == 900
    a.gives(reading(0, 100))
    clock.advance(300)
    chain.poll_due()
    assert states(chain) == ["ok", "standby"]
    assert at(chain, 6) == 100


def test_polls_keep_their_distance_and_failures_back_off() -> None:
    clock = ManualClock(T0)
    a = Provider("a", reading(0, 100, length=600))
    chain = Chain([a], ZONE, clock)
    for _ in range(10):
        chain.poll_due()
        clock.advance(29)
    assert a.polls == 1
    a.fails(FeedError("down"))
    asked: list[float] = []
    for second in range(3000):
        before = a.polls
        chain.poll_due()
        if a.polls > before:
            asked.append(second)
        clock.advance(1)
    gaps = [b - a for a, b in itertools.pairwise(asked)]
    assert gaps[:7] == [5, 10, 20, 40, 80, 160, 320]
    assert max(gaps) <= 900


def test_a_provider_that_says_when_to_come_back_is_heeded() -> None:
    clock = ManualClock(T0)
    a = Provider("a")
    a.fails(RetryLaterError("a: HTTP 429", 600))
    chain = Chain([a], ZONE, clock)
    chain.poll_due()
    clock.advance(599)
    chain.poll_due()
    assert a.polls == 1
    clock.advance(1)
    chain.poll_due()
    assert a.polls == 2


def test_a_feed_is_asked_once_as_soon_as_its_value_runs_out() -> None:
    clock = ManualClock(T0)
    a = Provider("a", reading(-29, 100))
    chain = Chain([a], ZONE, clock)
    chain.poll_due()
    clock.advance(60)
    for _ in range(5):
        chain.poll_due()
        clock.advance(1)
    assert a.polls == 2


def test_a_value_that_ran_out_is_held_for_max_age_and_says_so() -> None:
    clock = ManualClock(T0)
    a = Provider("a", reading(0, 100), max_age_s=3600)
    chain = Chain([a], ZONE, clock)
    chain.poll_due()
    clock.advance(3600)
    chain.poll_due()
    held = chain.reading_at(clock.now())
    assert held is not None
    assert (held.g_per_kwh, held.source.kind) == (100, Kind.ESTIMATED)
    assert (held.start, held.end) == (T0 + minutes(30), T0 + minutes(90))
    assert "held" in held.source.note
    assert states(chain) == ["ok"]
    clock.advance(1800)
    assert chain.reading_at(clock.now()) is None
    assert states(chain) == ["stale"]
    view = chain.view(1)
    assert view.now.g_per_kwh is None
    assert "no feed knows" in (view.now.reason or "")


def test_another_feeds_true_value_goes_before_a_held_one_and_a_fallback_comes_last() -> None:
    clock = ManualClock(T0 + minutes(40))
    a = Provider("a", reading(0, 100), every_s=3600)
    b = Provider("b", reading(30, 200, provider="b"), every_s=3600)
    c = Provider("c", reading(-600, 300, length=5000, kind=Kind.FALLBACK), local=True)
    chain = Chain([a, b, c], ZONE, clock)
    chain.poll_due()
    assert at(chain, 40) == 100  # held: nobody was asked for anything better
    assert at(chain, -1) == 300
    a.fails(FeedError("down"))
    clock.advance(3600)
    chain.poll_due()
    assert (at(chain, 20), at(chain, 40), at(chain, 61)) == (100, 200, 100)
    clock.advance(3600)
    assert at(chain, 160) == 300


def test_a_gap_in_what_a_provider_sends_is_held_until_the_next_value_alone() -> None:
    clock = ManualClock(T0 + minutes(100))
    chain = Chain([Provider("a", reading(0, 100), reading(60, 200))], ZONE, clock)
    chain.poll_due()
    held = chain.reading_at(T0 + minutes(45))
    assert held is not None
    assert (held.g_per_kwh, held.start, held.end) == (100, T0 + minutes(30), T0 + minutes(60))
    assert at(chain, 60) == 200


def test_what_a_less_trusted_feed_says_meanwhile_is_no_change() -> None:
    clock = ManualClock(T0 + minutes(40))
    a, b = (
        Provider("a", reading(0, 100, length=60)),
        Provider("b", *(reading(i, i, length=5) for i in range(0, 60, 5))),
    )
    b.local = True
    chain = Chain([a, b], ZONE, clock)
    chain.poll_due()
    clock.advance(60 * 60)
    assert at(chain, 59) == 100
    assert chain.next_change(T0) == T0 + minutes(60)


@pytest.mark.parametrize("value", [-0.1, 2000.5, 1e300])
def test_an_absurd_value_is_refused_with_the_reason(value: float) -> None:
    chain = Chain([Provider("a", reading(0, value))], ZONE, ManualClock(T0))
    chain.poll_due()
    assert chain.reading_at(T0) is None
    [status] = chain.status()
    assert status.state == "failing"
    assert "an intensity lies between 0 and 2000" in (status.error or "")


def test_good_values_beside_an_absurd_one_are_kept() -> None:
    a = Provider("a", reading(-30, -5), reading(0, 100), reading(30, 100, length=0))
    chain = Chain([a], ZONE, ManualClock(T0))
    chain.poll_due()
    assert at(chain, 0) == 100
    assert states(chain) == ["ok"]
    assert "refused -5 g/kWh" in (chain.status()[0].error or "")


def test_a_reading_of_another_basis_is_refused() -> None:
    marginal = reading(0, 100).model_copy(update={"source": source(basis=Basis.MARGINAL_DIRECT)})
    chain = Chain([Provider("a", marginal)], ZONE, ManualClock(T0))
    chain.poll_due()
    assert "basis marginal-direct" in (chain.status()[0].error or "")


def test_a_feed_of_another_basis_is_refused_at_once() -> None:
    first, other = Provider("a"), Provider("b")
    first.basis = Basis.MARGINAL_DIRECT
    with pytest.raises(
        InputError, match=r"feeds\[1\]: b speaks average-direct but zone\.basis is marginal-direct"
    ):
        Chain([first, other], Zone(basis=Basis.MARGINAL_DIRECT), ManualClock(T0))


def test_a_programming_error_in_a_feed_does_not_end_the_daemon(caplog: pytest.LogCaptureFixture) -> None:
    a = Provider("a")
    a.fails(ZeroDivisionError("oops"))
    chain = Chain([a, Provider("b", reading(0, 7, provider="b"))], ZONE, ManualClock(T0))
    chain.poll_due()
    assert at(chain, 0) == 7
    assert "ZeroDivisionError" in (chain.status()[0].error or "")


def test_a_poll_that_changes_nothing_leaves_the_same_reading_so_that_rows_stay_joined() -> None:
    clock = ManualClock(T0)
    a = Provider("a", reading(0, 100))
    chain = Chain([a], ZONE, clock)
    chain.poll_due()
    first = chain.reading_at(T0)
    clock.advance(300)
    later = reading(0, 100).model_copy(update={"source": source(fetched=clock.now())})
    a.gives(later)
    chain.poll_due()
    assert a.polls == 2
    assert chain.reading_at(T0) is first


def test_a_revision_replaces_what_it_overlaps() -> None:
    clock = ManualClock(T0 + minutes(20))
    a = Provider("a", reading(0, 100, kind=Kind.FORECAST), reading(30, 110))
    chain = Chain([a], ZONE, clock)
    chain.poll_due()
    a.gives(reading(0, 90))
    clock.advance(301)
    chain.poll_due()
    revised = chain.reading_at(T0)
    assert revised is not None
    assert (revised.g_per_kwh, revised.source.kind) == (90, Kind.ACTUAL)


def test_nothing_that_lies_ahead_is_shown_before_its_time() -> None:
    clock = ManualClock(T0)
    chain = Chain([Provider("a", reading(0, 100), reading(30, 55))], ZONE, clock)
    chain.poll_due()
    assert at(chain, 45) == 100
    assert [r.g_per_kwh for r in chain.history(T0 - minutes(60))] == [100]
    assert chain.next_change(T0) == T0 + minutes(30)
    clock.advance(1800)
    assert at(chain, 30) == 55
    assert [r.g_per_kwh for r in chain.history(T0 + minutes(30))] == [55]


def test_history_takes_the_more_trusted_feed_where_two_overlap() -> None:
    a, b = (
        Provider("a", reading(-90, 1), reading(0, 2)),
        Provider("b", reading(-60, 3), reading(-10, 4), local=True),
    )
    fallback = Provider("c", reading(-600, 5, length=6000, kind=Kind.FALLBACK), local=True)
    chain = Chain([a, b, fallback], ZONE, ManualClock(T0))
    chain.poll_due()
    assert [r.g_per_kwh for r in chain.history(T0 - minutes(500))] == [1, 3, 2]


def test_with_a_fallback_alone_history_is_the_fallback() -> None:
    chain = Chain(
        [Provider("c", reading(-60, 5, length=600, kind=Kind.FALLBACK), local=True)], ZONE, ManualClock(T0)
    )
    chain.poll_due()
    assert [r.g_per_kwh for r in chain.history(T0 - minutes(30))] == [5]
    assert at(chain, 0) == 5


def forecast(*values: float) -> Forecast:
    points = tuple(
        ForecastPoint(start=T0 + minutes(60 * i), end=T0 + minutes(60 * i + 60), g_per_kwh=v)
        for i, v in enumerate(values)
    )
    return Forecast(issued_at=T0, source=source(kind=Kind.FORECAST), points=points)


def test_a_forecast_loses_its_past_its_absurd_points_and_survives_a_failing_feed() -> None:
    clock = ManualClock(T0)
    a = Provider("a")
    a.gives(reading(0, 100), forecast=forecast(1, 2, -3, 4))
    chain = Chain([a], ZONE, clock)
    assert chain.forecast() is None
    chain.poll_due()
    a.fails(FeedError("down"))
    clock.advance(3600)
    chain.poll_due()
    found = chain.forecast()
    assert found is not None
    assert [p.g_per_kwh for p in found.points] == [2, 4]
    assert [p.g_per_kwh for p in chain.view(1).forecast] == [2]
    assert chain.view(0).forecast == (), "none was asked for"
    clock.advance(4 * 3600)
    assert chain.forecast() is None


def test_memory_is_bounded() -> None:
    clock = ManualClock(T0)
    chain = Chain([Provider("a", *(reading(-i, i % 7, length=1) for i in range(6000)))], ZONE, clock)
    chain.poll_due()
    assert len(chain.history(T0 - timedelta(days=300))) == 4096
    assert at(chain, 0) == 0


def test_feeds_of_this_box_are_asked_before_the_network() -> None:
    here, seen = Provider("here", reading(0, 500), local=True), []
    far = Provider("far")
    chain = Chain([far, here], ZONE, ManualClock(T0))

    def hang() -> Answer:
        seen.append(at(chain, 0))
        raise FeedError("no answer within 10 s")

    far.answer = hang
    chain.poll_due()
    assert seen == [500], "known while the network still keeps us"


@pytest.mark.parametrize("days", [30, 3650])
def test_a_clock_that_is_set_forward_and_back_finds_the_feeds_as_they_were(
    days: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("carbonsched.feeds.value_chain._KEEP", 64)
    clock = ManualClock(T0)
    a = Provider("a", every_s=3600.0)

    def answer() -> Answer:
        start = clock.now()
        rows = [
            Reading(start=start + minutes(i), end=start + minutes(i + 1), g_per_kwh=100, source=source())
            for i in range(64)
        ]
        forecast = Forecast(
            issued_at=start,
            source=source(),
            points=(ForecastPoint(start=start, end=start + minutes(9), g_per_kwh=1),),
        )
        return Answer(tuple(rows) if start > T0 + timedelta(days=9) else tuple(rows[:1]), forecast)

    a.answer = answer
    chain = Chain([a], ZONE, clock)
    chain.poll_due()
    for step in (timedelta(days=days), -timedelta(days=days)):
        clock.at += step
        clock.advance(1)
        chain.poll_due()
        assert chain.reading_at(clock.now()) is not None
        known = chain.forecast()
        assert known is not None
        assert known.issued_at == clock.now()
    assert a.polls == 3, "it is asked at once when the clock was set, and else in its turn"


def test_two_threads_do_not_poll_at_once_and_readers_do_not_wait() -> None:
    entered, leave = threading.Event(), threading.Event()
    a = Provider("a")

    def slow() -> Answer:
        entered.set()
        leave.wait(5)
        return Answer((reading(0, 100),))

    a.answer = slow
    chain = Chain([a], ZONE, ManualClock(T0))
    poller = threading.Thread(target=chain.poll_due)
    poller.start()
    entered.wait(5)
    chain.poll_due()
    assert chain.reading_at(T0) is None
    assert states(chain) == ["untried"]
    leave.set()
    poller.join(5)
    assert a.polls == 1
    assert at(chain, 0) == 100


pieces = st.lists(
    st.tuples(st.integers(-300, 60), st.integers(1, 60), st.integers(0, 3), st.booleans()),
    min_size=1,
    max_size=25,
)


@settings(deadline=None, max_examples=60)
@given(pieces, st.integers(-400, 0), st.integers(0, 120))
def test_a_walk_along_changes_meets_every_value_and_ends(
    rows: list[tuple[int, int, int, bool]], start: int, max_age: int
) -> None:
    """Between two changes the reading is one and the same, which is what the ledger's cuts rely on."""
    feeds = [Provider("a", max_age_s=60.0 * max_age), Provider("b", max_age_s=60.0 * max_age, local=True)]
    for feed, own in zip(feeds, (True, False), strict=True):
        given_rows = [reading(s, v, length=n, provider=feed.name) for s, n, v, first in rows if first is own]
        feed.answer = lambda given_rows=given_rows: Answer(tuple(given_rows))  # type: ignore[misc]
    clock = ManualClock(T0)
    chain = Chain(feeds, ZONE, clock)
    chain.poll_due()
    t: datetime | None = T0 + minutes(start)
    steps = 0
    while t is not None and t <= clock.now():
        here, following = chain.reading_at(t), chain.next_change(t)
        assert following is None or following > t
        end = clock.now() if following is None else min(following, clock.now())
        inside = t
        while inside < end:
            assert chain.reading_at(inside) == here
            inside += minutes(1)
        t, steps = following, steps + 1
        assert steps < 200
    seen = chain.history(T0 - minutes(1000))
    assert all(a.end <= b.start for a, b in itertools.pairwise(seen))


def looking(name: str, clock: ManualClock, hours: float = 48.0) -> Provider:
    """A feed that tells the hour that runs, with a forecast; none with hours = 0."""
    feed = Provider(name, every_s=60.0)
    points = tuple(
        ForecastPoint(start=T0 + minutes(60 * h), end=T0 + minutes(60 * (h + 1)), g_per_kwh=100.0)
        for h in range(int(hours))
    )
    said = Forecast(issued_at=T0, source=source(name, Kind.FORECAST), points=points)
    feed.answer = lambda: Answer(
        (reading((clock.now() - T0) // minutes(60) * 60, 100, 60),), said if hours else None
    )
    return feed


@pytest.mark.parametrize(
    ("feeds", "polls"),
    [
        ({"a": 48, "b": 48, "c": 48}, {"a": 1440, "b": 24, "c": 0}),  # two look ahead
        ({"a": 0, "b": 48, "c": 48}, {"a": 1440, "b": 24, "c": 24}),  # the first does not
        (
            {"a": 48, "b": 0, "c": 48},
            {"a": 1440, "b": 2, "c": 24},
        ),  # the second has none: it is left alone for a day
        ({"a": 48, "b": 48, "c": 0}, {"a": 1440, "b": 24, "c": 0}),
    ],
)
def test_a_second_forecast_is_asked_for_once_an_hour_where_it_is_wanted(
    feeds: dict[str, int], polls: dict[str, int]
) -> None:
    for wanted in (1, 2):
        clock = ManualClock(T0)
        providers = [looking(name, clock, hours) for name, hours in feeds.items()]
        chain = Chain(providers, ZONE, clock)
        chain.forecasts_wanted = wanted
        for _ in range(1440):
            chain.poll_due()
            clock.advance(60)
        found = {feed.name: feed.polls for feed in providers}
        assert found == (polls if wanted == 2 else {"a": 1440, "b": 0, "c": 0})
        assert states(chain) == ["ok", "standby", "standby"]


def test_a_second_feed_that_fails_is_asked_no_oftener() -> None:
    clock = ManualClock(T0)
    first, second = looking("a", clock), looking("b", clock)
    second.fails(FeedError("b: HTTP 500"))
    chain = Chain([first, second], ZONE, clock)
    chain.forecasts_wanted = 2
    for _ in range(600):
        chain.poll_due()
        clock.advance(60)
    assert second.polls == 10
