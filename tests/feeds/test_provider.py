"""What the feeds over HTTP share."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from pathlib import Path
from typing import Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.http_server import Reply, serve
from support.manual_clock import ManualClock

from carbonsched.errors import FeedError, InputError
from carbonsched.feeds.base import Answer, Site
from carbonsched.feeds.http import HttpTransport
from carbonsched.feeds.http_settings import HttpSettings
from carbonsched.feeds.provider import Answered, HttpFeed, Value, intervals, offered, place
from carbonsched.feeds.transport import AnswerError, Body, Limit, RetryLaterError
from carbonsched.feeds.zone import Zone
from carbonsched.model.grid import Basis, Kind, Source

NOW = datetime(2026, 1, 1, 12, tzinfo=UTC)
HOUR = timedelta(hours=1)


class SunSettings(HttpSettings):
    provider: Literal["sun"] = "sun"

    def build(self, site: Site) -> "SunFeed":
        return SunFeed(self, site, "XX", Basis.AVERAGE_DIRECT)


class _Now(Answered):
    value: Value


class SunFeed(HttpFeed):
    SHOWN, LIMITS = "the Sun", (Limit(6, per_s=60.0),)

    def poll(self) -> Answer:
        body = self.ask("/now", {"zone": self.zone})
        value = self.parse(_Now, body.json).value
        return Answer(self.readings([(NOW, NOW + HOUR, value)], self.source(Kind.ACTUAL, body)))


def site(tmp_path: Path) -> Site:
    return Site(Zone(name="XX"), ManualClock(NOW), tmp_path, HttpTransport(backoff_s=0.01))


def test_a_reading_carries_where_it_came_from(tmp_path: Path) -> None:
    with serve(lambda path: Reply(b'{"value": 120, "unit": "g"}')) as server:
        reading = SunSettings(url=server.url).build(site(tmp_path)).poll().readings[0]
    assert server.paths == ["/now?zone=XX"]
    assert (reading.g_per_kwh, reading.source.kind, reading.source.fetched_at) == (120.0, Kind.ACTUAL, NOW)
    assert len(reading.source.body_sha256 or "") == 64


def test_two_feeds_of_one_provider_share_its_limit(tmp_path: Path) -> None:
    with serve(lambda path: Reply(b'{"value": 120}')) as server:
        here = site(tmp_path)
        feeds = [SunSettings(url=server.url, name=name).build(here) for name in ("a", "b")]
        for feed in feeds:
            feed.poll()
        with pytest.raises(RetryLaterError, match="limit of 6 requests in 60 s"):
            feeds[0].poll()
    assert len(server.paths) == 2


@pytest.mark.parametrize(
    "answer", [b'{"value": "120"}', b'{"value": true}', b"[]", b"{}", b'{"value": 1e999}']
)
def test_what_is_not_documented_is_told_in_one_line(tmp_path: Path, answer: bytes) -> None:
    with serve(lambda path: Reply(answer)) as server:
        feed = SunSettings(url=server.url).build(site(tmp_path))
        with pytest.raises(FeedError, match=r"the answer is not what the Sun documents: |is not JSON"):
            feed.poll()


def test_what_is_missing_beside_the_rest_is_said_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    feed = SunSettings().build(site(tmp_path))

    def fail() -> None:
        raise FeedError("down")

    for _ in range(3):
        assert feed.unless_missing("forecast", fail) is None
    assert caplog.text.count("no forecast: down") == 1
    assert feed.unless_missing("forecast", lambda: 7) == 7


class SkySettings(HttpSettings):
    provider: Literal["sky"] = "sky"

    def build(self, site: Site) -> "SkyFeed":
        return SkyFeed(self, site, "XX", Basis.AVERAGE_DIRECT)


class SkyFeed(SunFeed):
    LIMITS, LIMITS_EACH_PATH, TRIES = (Limit(1, per_s=60.0),), True, 1


def test_a_limit_of_one_request_a_path_is_kept_even_where_the_provider_fails(tmp_path: Path) -> None:
    with serve(lambda path: Reply(b"{}", 503)) as server:
        feed = SkySettings(url=server.url).build(site(tmp_path))
        for path in ("/now", "/then"):
            with pytest.raises(FeedError, match="HTTP 503"):
                feed.ask(path)
        with pytest.raises(RetryLaterError, match="limit of 1 requests in 60 s"):
            feed.ask("/now")
    assert server.paths == ["/now", "/then"]


@given(
    st.lists(st.tuples(st.integers(0, 400), st.floats(0, 1000)), max_size=40),
    st.sampled_from([5, 15, 60]),
)
def test_intervals_ascend_without_overlap_and_fill_no_hole(
    points: list[tuple[int, float]], minutes: int
) -> None:
    step, longest = timedelta(minutes=minutes), timedelta(hours=1)
    found = intervals(((NOW + timedelta(minutes=m), v) for m, v in points), step, longest)
    assert [start for start, _, _ in found] == sorted({NOW + timedelta(minutes=m) for m, _ in points})
    for (start, end, _), (following, _, _) in pairwise(found):
        assert start < end <= following
        assert end - start <= longest
        assert end == following or following - start > longest


def source(feed: HttpFeed, kind: Kind) -> Source:
    return feed.source(kind, Body(None, sha256="0" * 64))


def test_what_is_known_stands_before_the_forecast_and_nothing_overlaps(tmp_path: Path) -> None:
    feed = SunSettings().build(site(tmp_path))
    known = feed.readings([(NOW - HOUR, NOW, 1.0), (NOW, NOW + HOUR / 4, 2.0)], source(feed, Kind.ACTUAL))
    ahead = [(NOW + i * HOUR, NOW + (i + 1) * HOUR, 10.0 + i) for i in range(-2, 4)]
    answer = feed.answer(known, ahead, source(feed, Kind.FORECAST))
    assert [(r.start - NOW, r.end - NOW, r.g_per_kwh) for r in answer.readings] == [
        (-HOUR, 0 * HOUR, 1.0),
        (0 * HOUR, HOUR / 4, 2.0),
        (HOUR / 4, HOUR, 10.0),
        (HOUR, 2 * HOUR, 11.0),
    ]
    assert answer.forecast is not None
    assert [point.start for point in answer.forecast.points] == [NOW + i * HOUR for i in range(4)]


def test_a_forecast_says_a_time_once_whatever_is_told_twice_or_overlaps(tmp_path: Path) -> None:
    feed = SunSettings().build(site(tmp_path))
    told = [
        (NOW, NOW + HOUR, 1.0),
        (NOW, NOW + HOUR, 1.0),
        (NOW + HOUR / 2, NOW + 2 * HOUR, 3.0),
        (NOW, NOW + HOUR, 2.0),
    ]
    found = feed.forecast(told, source(feed, Kind.FORECAST))
    assert found is not None
    assert [(p.start - NOW, p.end - NOW, p.g_per_kwh) for p in found.points] == [
        (0 * HOUR, HOUR / 2, 2.0),
        (HOUR / 2, 2 * HOUR, 3.0),
    ]


def test_an_answer_about_times_to_come_alone_is_none(tmp_path: Path) -> None:
    feed = SunSettings().build(site(tmp_path))
    later = [(NOW + HOUR, NOW + 2 * HOUR, 10.0)]
    with pytest.raises(FeedError, match="no value for now"):
        feed.answer((), later, source(feed, Kind.FORECAST))


@pytest.mark.parametrize(("status", "asked"), [(500, 2), (None, 2), (403, 1)])
def test_what_fails_is_asked_for_again_soon_and_what_is_refused_is_not(
    tmp_path: Path, status: int | None, asked: int
) -> None:
    feed, tries = SunSettings().build(site(tmp_path)), []

    def fail() -> None:
        tries.append(1)
        raise FeedError("down") if status is None else AnswerError("no", status)

    for _ in range(2):
        feed.once_in(3600.0, "past", fail)
    assert len(tries) == asked


def test_a_refusal_says_what_to_do(tmp_path: Path) -> None:
    class Hinting(SunFeed):
        HINTS = {404: "set zone"}

    with serve(lambda path: Reply(b"{}", 404)) as server:
        feed = Hinting(SunSettings(url=server.url), site(tmp_path), "XX", Basis.AVERAGE_DIRECT)
        with pytest.raises(AnswerError, match=r"HTTP 404, \{\}; set zone"):
            feed.poll()


def test_a_place_is_the_keys_or_the_zones(tmp_path: Path) -> None:
    here = site(tmp_path)
    assert (place("YY", here, "zone"), place(None, here, "zone")) == ("YY", "XX")
    with pytest.raises(InputError, match="zone: is missing"):
        place(None, replace(here, zone=Zone()), "zone")


def test_a_basis_is_chosen_of_those_that_the_provider_has(tmp_path: Path) -> None:
    choices = {Basis.AVERAGE_DIRECT: "direct", Basis.AVERAGE_LIFECYCLE: "life-cycle"}
    assert offered(SunSettings(), site(tmp_path), choices) == (Basis.AVERAGE_LIFECYCLE, "life-cycle")
    direct = SunSettings(basis=Basis.AVERAGE_DIRECT)
    assert offered(direct, site(tmp_path), choices) == (Basis.AVERAGE_DIRECT, "direct")
    with pytest.raises(InputError, match="basis: sun has no marginal-direct; it has average-direct and"):
        offered(SunSettings(basis=Basis.MARGINAL_DIRECT), site(tmp_path), choices)
