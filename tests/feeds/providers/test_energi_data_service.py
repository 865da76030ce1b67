"""Against a real HTTP server on loopback with bodies of the shape that Energi Data Service sends."""

import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from support.http_server import Reply, Server, serve
from support.manual_clock import ManualClock

from carbonsched.errors import FeedError, InputError
from carbonsched.feeds.base import Site
from carbonsched.feeds.http import HttpTransport
from carbonsched.feeds.providers.energi_data_service import EnergiDataServiceFeed, EnergiDataServiceSettings
from carbonsched.feeds.transport import RetryLaterError
from carbonsched.feeds.zone import Zone
from carbonsched.model.grid import Basis, Kind

NOW = datetime(2026, 1, 20, 16, 42, tzinfo=UTC)
FIVE = timedelta(minutes=5)


def records(*rows: tuple[int, float | None], area: str = "DK1", **more: Any) -> Reply:
    """rows: (minutes from 16:00 UTC, g/kWh)."""
    told = [
        {
            "Minutes5UTC": f"{datetime(2026, 1, 20, 16, tzinfo=UTC) + timedelta(minutes=minute):%Y-%m-%dT%H:%M:%S}",
            "Minutes5DK": "2026-01-20T17:00:00",
            "PriceArea": area,
            "CO2Emission": value,
        }
        for minute, value in rows
    ]
    return Reply(json.dumps({"total": 1, "limit": 0, "dataset": "CO2Emis", "records": told} | more).encode())


def answered(path: str) -> Reply:
    if path.startswith("/dataset/CO2EmisProg?"):
        return records(*[(minute, 100.0 + minute) for minute in range(0, 600, 5)])
    return records((20, 158), (25, 159.0), (30, 160.0))


@pytest.fixture
def server() -> Iterator[Server]:
    with serve(answered) as running:
        yield running


def feed(
    server: Server, zone: str = "DK1", clock: ManualClock | None = None, **keys: Any
) -> EnergiDataServiceFeed:
    settings = EnergiDataServiceSettings(provider="energi-data-service", url=server.url, timeout=2, **keys)
    return settings.build(
        Site(Zone(name=zone), clock or ManualClock(NOW), Path("/nowhere"), HttpTransport(backoff_s=0.01))
    )


def query(path: str) -> dict[str, str]:
    return {key: values[0] for key, values in parse_qs(urlsplit(path).query).items()}


def test_what_was_and_what_is_expected_in_utc(server: Server) -> None:
    answer = feed(server).poll()
    last = next(r for r in answer.readings if r.start == datetime(2026, 1, 20, 16, 30, tzinfo=UTC))
    assert (last.g_per_kwh, last.end - last.start, last.source.kind) == (160.0, FIVE, Kind.ACTUAL)
    assert (last.source.basis, last.source.zone) == (Basis.AVERAGE_DIRECT, "DK1")
    current = next(r for r in answer.readings if r.start <= NOW < r.end)
    assert (current.g_per_kwh, current.source.kind) == (140.0, Kind.FORECAST)
    assert answer.forecast is not None
    assert answer.forecast.points[-1].end == datetime(2026, 1, 21, 2, tzinfo=UTC)


def test_two_days_are_asked_for_in_danish_time_then_three_hours(server: Server) -> None:
    clock = ManualClock(NOW)
    danish = feed(server, clock=clock)
    for _ in range(2):
        danish.poll()
        clock.advance(300)
    asked = [query(path) for path in server.paths if "/CO2Emis?" in path]
    assert [one["start"] for one in asked] == ["2026-01-18T17:42", "2026-01-20T14:47"]
    assert asked[0] == {
        "start": "2026-01-18T17:42",
        "end": "2026-01-22T17:42",
        "filter": '{"PriceArea":["DK1"]}',
        "sort": "Minutes5UTC ASC",
        "limit": "0",
    }


def test_a_dataset_is_asked_once_a_minute_whatever_comes(server: Server) -> None:
    clock = ManualClock(NOW)
    danish = feed(server, clock=clock)
    first = danish.poll()
    assert danish.poll().readings == first.readings
    assert len(server.paths) == 2
    server.answer = lambda path: Reply(b"{}", 503)
    clock.advance(61)
    for left_s in (None, 46.0):
        with pytest.raises(FeedError, match="HTTP 503") as caught:
            danish.poll()
        if left_s is not None:
            assert isinstance(caught.value, RetryLaterError)
            assert caught.value.after_s == left_s
        clock.advance(15)
    assert len(server.paths) == 3


def test_without_a_forecast_the_past_is_still_told(server: Server, caplog: pytest.LogCaptureFixture) -> None:
    server.answer = lambda path: Reply(b"", 404) if "Prog" in path else answered(path)
    answer = feed(server).poll()
    assert [r.g_per_kwh for r in answer.readings] == [158.0, 159.0, 160.0]
    assert answer.forecast is None
    assert "no forecast: " in caplog.text


@pytest.mark.parametrize(("zone", "area"), [("DK1", "DK1"), ("DK-DK2", "DK2")])
def test_the_zone_may_name_the_area(server: Server, zone: str, area: str) -> None:
    assert feed(server, zone).zone == area


def test_another_zone_needs_the_area(server: Server) -> None:
    with pytest.raises(InputError, match=r"price_area: is missing, and the zone 'DK' is none; give DK1"):
        feed(server, "DK")
    assert feed(server, "DK", price_area="DK2").zone == "DK2"


@pytest.mark.parametrize(
    "reply",
    [
        records((20, 100.0), area="DE"),
        records((20, None)),
        records(),
        records((90, 100.0)),
        Reply(b"[]"),
        Reply(b'{"records": [{"Minutes5UTC": "soon", "PriceArea": "DK1", "CO2Emission": 1}]}'),
        Reply(
            b'{"records": [{"Minutes5UTC": "2026-01-20T16:30:00", "PriceArea": "DK1", "CO2Emission": "1"}]}'
        ),
    ],
)
def test_what_is_not_an_answer_is_one_line_of_error(server: Server, reply: Reply) -> None:
    server.answer = lambda path: reply
    with pytest.raises(FeedError) as caught:
        feed(server).poll()
    assert str(caught.value).isprintable()
    assert server.url in str(caught.value)
