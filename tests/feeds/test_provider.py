"""What the feeds over HTTP share."""

from datetime import UTC, datetime, timedelta
from itertools import pairwise
from pathlib import Path
from typing import Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.http_server import Reply, serve
from support.manual_clock import ManualClock

from carbonsched.errors import FeedError
from carbonsched.feeds.base import Answer, Site
from carbonsched.feeds.http import HttpTransport
from carbonsched.feeds.provider import Answered, HttpFeed, HttpSettings, Value, intervals
from carbonsched.feeds.transport import Limit, RetryLaterError
from carbonsched.feeds.zone import Zone
from carbonsched.model.grid import Basis, Kind

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
