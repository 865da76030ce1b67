"""Against a real HTTP server on loopback with bodies of the shape that the ODRÉ portal sends."""

import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from support.http_server import Reply, Server, serve
from support.manual_clock import ManualClock

from carbonsched.errors import FeedError
from carbonsched.feeds.base import Site
from carbonsched.feeds.http import HttpTransport
from carbonsched.feeds.providers.rte import RteFeed, RteSettings
from carbonsched.feeds.zone import Zone
from carbonsched.model.grid import Basis, Kind

LAST = datetime(2026, 6, 14, 19, tzinfo=UTC)
NOW = LAST + timedelta(minutes=50)
QUARTER = timedelta(minutes=15)


def record(i: int, **more: Any) -> dict[str, Any]:
    """The i-th before the last one."""
    return {
        "date_heure": (LAST - i * QUARTER).isoformat(),
        "nature": "Données temps réel",
        "perimetre": "France",
        "taux_co2": 15 + i,
    } | more


def page(*rows: dict[str, Any]) -> Reply:
    return Reply(json.dumps({"total_count": len(rows), "results": rows}).encode())


def answered(path: str) -> Reply:
    asked = {
        key: int(values[0])
        for key, values in parse_qs(urlsplit(path).query).items()
        if key in ("limit", "offset")
    }
    start = asked.get("offset", 0)
    return page(*[record(i) for i in range(start, start + asked["limit"])])


@pytest.fixture
def server() -> Iterator[Server]:
    with serve(answered) as running:
        yield running


def feed(server: Server, clock: ManualClock | None = None, **keys: Any) -> RteFeed:
    settings = RteSettings(provider="rte", url=server.url, timeout=2, **keys)
    return settings.build(
        Site(Zone(name="FR"), clock or ManualClock(NOW), Path("/nowhere"), HttpTransport(backoff_s=0.01))
    )


def test_the_newest_and_two_days_before_it(server: Server) -> None:
    answer = feed(server).poll()
    assert [parse_qs(urlsplit(path).query) for path in server.paths] == [
        {"where": ["taux_co2 is not null"], "order_by": ["date_heure desc"]} | extra
        for extra in ({"limit": ["16"]}, {"limit": ["100"], "offset": ["100"]}, {"limit": ["100"]})
    ]
    last = answer.readings[-1]
    assert (last.start, last.end, last.g_per_kwh) == (LAST, LAST + QUARTER, 15.0)
    assert (last.source.kind, last.source.basis, last.source.zone) == (
        Kind.ESTIMATED,
        Basis.AVERAGE_DIRECT,
        "FR",
    )
    assert answer.readings[0].start <= NOW - timedelta(hours=48) < answer.readings[0].end
    assert all(a.end == b.start for a, b in zip(answer.readings, answer.readings[1:], strict=False))
    assert answer.forecast is None


def test_the_past_is_asked_once_an_hour(server: Server) -> None:
    clock = ManualClock(NOW)
    french = feed(server, clock)
    for _ in range(5):
        french.poll()
        clock.advance(900)
    assert len(server.paths) == 5 + 2 * 2


def test_consolidated_values_are_actual(server: Server) -> None:
    server.answer = lambda path: page(record(0), record(1, nature="Données consolidées"))
    kinds = {r.start: r.source.kind for r in feed(server).poll().readings}
    assert kinds == {LAST: Kind.ESTIMATED, LAST - QUARTER: Kind.ACTUAL}


def test_half_hours_and_holes_are_read_as_such(server: Server) -> None:
    server.answer = lambda path: page(record(0), record(2), record(20))
    told = [(r.start, r.end - r.start) for r in feed(server).poll().readings]
    assert told[-1] == (LAST, 2 * QUARTER)
    assert told[-2] == (LAST - 2 * QUARTER, 2 * QUARTER)
    assert told[0] == (LAST - 20 * QUARTER, QUARTER)


@pytest.mark.parametrize(
    "reply",
    [
        page(),
        page(record(0, perimetre="Bretagne")),
        page(record(0, taux_co2="15")),
        page(record(0, taux_co2=None)),
        page(record(0, date_heure="2026-06-14T19:00:00")),
        page(record(-10)),
        Reply(b'{"error_code": "ODSQLError", "message": "no such field"}', 400),
        Reply(b"null"),
    ],
)
def test_what_is_not_an_answer_is_one_line_of_error(server: Server, reply: Reply) -> None:
    server.answer = lambda path: reply
    with pytest.raises(FeedError) as caught:
        feed(server).poll()
    assert str(caught.value).isprintable()
    assert server.url in str(caught.value)
