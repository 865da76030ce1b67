"""A day of a box whose providers fail at random: at every minute a value that holds or a stated reason, within every limit.

`CARBONSCHED_FUZZ=N` makes it N / 10 days; the suite tries a few.
"""

import hashlib
import json
import random
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal

import pytest
from support.fuzz import INPUTS
from support.manual_clock import ManualClock

from carbonsched.errors import FeedError
from carbonsched.feeds.base import Answer, Site
from carbonsched.feeds.chain import Chain
from carbonsched.feeds.http_settings import HttpSettings
from carbonsched.feeds.provider import Answered, HttpFeed, Time, Value
from carbonsched.feeds.providers.neso import NesoSettings
from carbonsched.feeds.transport import AnswerError, Body, Limit, RetryLaterError
from carbonsched.feeds.zone import Zone
from carbonsched.model.grid import Basis, Kind

START = datetime(2026, 3, 28, 12, tzinfo=UTC)
MINUTES = 24 * 60
HALF_HOUR = timedelta(minutes=30)


class _Row(Answered):
    start: Time
    end: Time
    value: Value


class OtherSettings(HttpSettings):
    provider: Literal["other"] = "other"

    def build(self, site: Site) -> "OtherFeed":
        return OtherFeed(self, site, "GB", Basis.AVERAGE_DIRECT)


class OtherFeed(HttpFeed):
    """A provider with a tight limit."""

    URL, SHOWN, LIMITS = "https://other.invalid", "the other", (Limit(30, per_s=3600.0),)

    def poll(self) -> Answer:
        body = self.ask("/now")
        row = self.parse(_Row, body.json)
        return Answer(self.readings([(row.start, row.end, row.value)], self.source(Kind.ACTUAL, body)))


@dataclass
class Network:
    """Answers as the providers do of a grid that swings, but for faults that come and go."""

    clock: ManualClock
    rng: random.Random
    fault: dict[str, str] = field(default_factory=dict)
    """Host → what is wrong with it now."""
    asked: dict[str, list[float]] = field(default_factory=dict)
    """Host → when."""

    def get(self, url: str, **_: Any) -> Body:
        host = url.split("/")[2]
        self.asked.setdefault(host, []).append(self.clock.monotonic())
        match self.fault.get(host):
            case "down":
                raise FeedError(f"{host}: no connection")
            case "500":
                raise AnswerError(f"{host}: HTTP 500", 500)
            case "429":
                raise RetryLaterError(f"{host}: HTTP 429", self.rng.choice([1.0, 60.0, 3600.0]))
            case "junk":
                return body(self.rng.choice([None, [], {}, {"data": [{}]}, {"data": "x"}, 7]))
            case "absurd":
                return self._told(url, self.rng.choice([-1.0, 5000.0, 1700.0]))
            case "stuck":
                return self._told(url, None, behind=timedelta(hours=5))
        return self._told(url, None)

    def post(self, url: str, **_: Any) -> Body:
        raise AssertionError(url)

    def _told(self, url: str, value: float | None, behind: timedelta = timedelta()) -> Body:
        now = self.clock.now() - behind
        start = now.replace(minute=now.minute // 30 * 30, second=0, microsecond=0)

        def row(at: datetime) -> dict[str, Any]:
            said = truth(at) if value is None else value
            numbers = {"forecast": said, "actual": said if at < start else None}
            return {"from": at.isoformat(), "to": (at + HALF_HOUR).isoformat(), "intensity": numbers}

        if "other" in url:
            told = row(start)
            said = told["intensity"]["forecast"]
            return body({"start": told["from"], "end": told["to"], "value": said})
        if url.endswith("/intensity"):
            return body({"data": [row(start)]})
        ahead = url.endswith("fw48h")
        return body({"data": [row(start + i * HALF_HOUR) for i in (range(8) if ahead else range(-8, 0))]})


def body(document: Any) -> Body:
    raw = json.dumps(document).encode()
    return Body(document, hashlib.sha256(raw).hexdigest(), raw)


def truth(at: datetime) -> float:
    return 200.0 + (at.hour * 60 + at.minute) % 240


@pytest.mark.parametrize("seed", range(max(INPUTS // 10, 4)) if INPUTS > 200 else range(4))
def test_a_day_of_random_faults(seed: int) -> None:
    rng = random.Random(seed)
    clock = ManualClock(START)
    network = Network(clock, rng)
    site = Site(Zone(name="GB", basis=Basis.AVERAGE_DIRECT), clock, Path("/nowhere"), network)
    feeds = [NesoSettings(provider="neso").build(site), OtherSettings().build(site)]
    chain = Chain(feeds, site.zone, clock)
    hosts = ["api.carbonintensity.org.uk", "other.invalid"]
    for _ in range(MINUTES):
        if rng.random() < 0.02:
            host = rng.choice(hosts)
            network.fault[host] = rng.choice(["", "down", "500", "429", "junk", "absurd", "stuck"])
        chain.poll_due()
        look(chain, clock, feeds)
        clock.advance(60)
    for (limit,), host in ((OtherFeed.LIMITS, "other.invalid"),):
        times = network.asked.get(host, [])
        for at in times:
            assert 3 * sum(at - limit.per_s < t <= at for t in times) <= limit.requests


def look(chain: Chain, clock: ManualClock, feeds: list[Any]) -> None:
    """A value that holds now, of a time within its feed's gate, and right; else why there is none."""
    now = clock.now()
    reading, shown = chain.reading_at(now), chain.view(2.0).now
    if reading is None:
        assert shown.g_per_kwh is None
        assert "no feed knows the intensity now" in (shown.reason or "")
        assert "in the feed's program" not in (shown.reason or "")
        return
    assert shown.g_per_kwh == reading.g_per_kwh
    assert reading.start <= now < reading.end
    assert 0 <= reading.g_per_kwh <= 2000
    gate = timedelta(seconds=next(f.max_age_s for f in feeds if f.name == reading.source.provider))
    if "held" in reading.source.note:
        assert reading.source.kind is Kind.ESTIMATED
        assert now < reading.start + gate
    else:
        assert reading.g_per_kwh in (truth(reading.start), 1700.0)


@pytest.mark.parametrize(
    ("wall", "boot_s"),
    [
        (timedelta(hours=2), 0.0),
        (timedelta(hours=-2), 0.0),
        (timedelta(days=365), 0.0),
        (timedelta(days=-365), 0.0),
        (timedelta(hours=8), 8 * 3600.0),
    ],
    ids=["2 h ahead", "2 h back", "a year ahead", "a year back", "8 h of suspend"],
)
def test_polls_go_on_within_one_interval_of_a_clock_that_was_set(wall: timedelta, boot_s: float) -> None:
    clock = ManualClock(START)
    network = Network(clock, random.Random(0))
    site = Site(Zone(name="GB", basis=Basis.AVERAGE_DIRECT), clock, Path("/nowhere"), network)
    feed = NesoSettings(provider="neso").build(site)
    chain = Chain([feed], site.zone, clock)
    for _ in range(60):
        chain.poll_due()
        clock.advance(60)
    clock.at, clock.boot_s = clock.at + wall, clock.boot_s + boot_s
    jumped_s = clock.monotonic()
    for _ in range(6):
        chain.poll_due()
        look(chain, clock, [feed])
        assert chain.reading_at(clock.now()) is not None
        clock.advance(60)
    later = [at for at in network.asked["api.carbonintensity.org.uk"] if at >= jumped_s]
    assert later[0] - jumped_s <= feed.every_s


def test_polls_go_on_through_the_days_on_which_local_clocks_change() -> None:
    for day in (datetime(2026, 3, 29, tzinfo=UTC), datetime(2026, 10, 25, tzinfo=UTC)):
        clock = ManualClock(day)
        network = Network(clock, random.Random(0))
        site = Site(Zone(name="GB", basis=Basis.AVERAGE_DIRECT), clock, Path("/nowhere"), network)
        feed = NesoSettings(provider="neso").build(site)
        chain = Chain([feed], site.zone, clock)
        for _ in range(4 * 60):
            chain.poll_due()
            look(chain, clock, [feed])
            assert chain.reading_at(clock.now()) is not None
            clock.advance(60)
        times = network.asked["api.carbonintensity.org.uk"]
        assert max(b - a for a, b in pairwise(times)) <= feed.every_s
