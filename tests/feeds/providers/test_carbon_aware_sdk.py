"""Against a real HTTP server on loopback with bodies of the shapes that the Carbon Aware SDK documents and sends."""

import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from support.http_server import Reply, Server, serve
from support.manual_clock import ManualClock

from carbonsched.errors import FeedError, InputError
from carbonsched.feeds.base import Site
from carbonsched.feeds.http import HttpTransport
from carbonsched.feeds.providers.carbon_aware_sdk import CarbonAwareFeed, CarbonAwareSettings
from carbonsched.feeds.transport import RetryLaterError
from carbonsched.feeds.zone import Zone
from carbonsched.model.grid import Basis, Kind

NOW = datetime(2022, 8, 23, 14, 32, tzinfo=UTC)
FIVE = timedelta(minutes=5)
AT = datetime(2022, 8, 23, 14, 30, tzinfo=UTC)


def observed(*minutes_ago: int) -> Reply:
    rows = [
        {
            "location": "CAISO_NORTH",
            "time": (AT - timedelta(minutes=minutes)).isoformat(),
            "rating": 439.0 + minutes,
            "duration": "00:05:00",
        }
        for minutes in minutes_ago
    ]
    return Reply(json.dumps(rows).encode())


def expected(count: int = 24, location: str = "westus", **more: Any) -> Reply:
    points = [
        {"location": "IE", "timestamp": (AT + i * FIVE).isoformat(), "duration": 5, "value": 500.5 + i}
        for i in range(count)
    ]
    forecast = {
        "requestedAt": "2022-08-23T14:32:00+00:00",
        "generatedAt": "2022-08-23T14:25:00+00:00",
        "location": location,
        "optimalDataPoints": points[:1],
        "forecastData": points,
    }
    return Reply(json.dumps([forecast | more]).encode())


def answered(path: str) -> Reply:
    if path.startswith("/emissions/forecasts/current?"):
        return expected()
    return observed(*(range(5, 300, 5) if "2022-08-21" in path else (5, 10, 15)))


@pytest.fixture
def server() -> Iterator[Server]:
    with serve(answered) as running:
        yield running


def feed(server: Server, zone: str = "westus", **keys: Any) -> CarbonAwareFeed:
    settings = CarbonAwareSettings(provider="carbon-aware-sdk", url=server.url, timeout=2, **keys)
    return settings.build(
        Site(Zone(name=zone), ManualClock(NOW), Path("/nowhere"), HttpTransport(backoff_s=0.01))
    )


def test_what_was_lately_the_two_days_before_and_what_is_expected(server: Server) -> None:
    answer = feed(server).poll()
    assert server.paths == [
        "/emissions/bylocation?location=westus&time=2022-08-23T11%3A32%3A00Z&toTime=2022-08-23T14%3A32%3A00Z",
        "/emissions/forecasts/current?location=westus",
        "/emissions/bylocation?location=westus&time=2022-08-21T14%3A32%3A00Z&toTime=2022-08-23T14%3A32%3A00Z",
    ]
    last = next(r for r in answer.readings if r.start == AT - FIVE)
    assert (last.g_per_kwh, last.end, last.source.kind) == (444.0, AT, Kind.ACTUAL)
    current = next(r for r in answer.readings if r.start <= NOW < r.end)
    assert (current.g_per_kwh, current.source.kind) == (500.5, Kind.FORECAST)
    assert (current.source.basis, current.source.zone) == (Basis.AVERAGE_UNSTATED, "westus")
    assert answer.forecast is not None
    assert answer.forecast.issued_at == datetime(2022, 8, 23, 14, 25, tzinfo=UTC)
    assert len(answer.forecast.points) == 24


def test_the_basis_is_what_the_config_says_of_the_source_behind_it(server: Server) -> None:
    assert feed(server, basis="marginal-direct").poll().readings[0].source.basis is Basis.MARGINAL_DIRECT


def test_hours_are_read_as_hours(server: Server) -> None:
    server.answer = lambda path: observed(60, 120) if "bylocation" in path else Reply(b"{}", 501)
    told = feed(server).poll().readings
    assert [r.end - r.start for r in told] == [timedelta(hours=1)] * 2


def test_a_source_without_a_forecast_or_without_news_still_tells_what_it_has(server: Server) -> None:
    server.answer = lambda path: observed(5) if "bylocation" in path else Reply(b"{}", 501)
    answer = feed(server).poll()
    assert (answer.readings[-1].g_per_kwh, answer.forecast) == (444.0, None)
    server.answer = lambda path: Reply(b"", 204) if "bylocation" in path else expected()
    assert feed(server).poll().readings[0].source.kind is Kind.FORECAST


def test_nothing_at_all_is_told_with_its_reason(server: Server) -> None:
    server.answer = lambda path: Reply(b"", 204) if "bylocation" in path else expected(0)
    with pytest.raises(FeedError, match="HTTP 204; it knows nothing of that location in that time"):
        feed(server).poll()
    server.answer = lambda path: Reply(b"{}", 429, {"Retry-After": "90"})
    with pytest.raises(RetryLaterError):
        feed(server).poll()


def test_a_forecast_for_another_location_is_refused(server: Server, caplog: pytest.LogCaptureFixture) -> None:
    server.answer = lambda path: observed(5) if "bylocation" in path else expected(location="eastus")
    assert feed(server).poll().forecast is None
    assert "the forecast is of 'eastus', not of westus" in caplog.text


def test_the_address_and_the_location_are_asked_for(server: Server) -> None:
    with pytest.raises(ValueError, match="url: is missing; give your Web API's address"):
        CarbonAwareSettings(provider="carbon-aware-sdk", location="westus")
    with pytest.raises(InputError, match="location: is missing"):
        feed(server, "unknown")
    assert feed(server, "unknown", location="eastus").zone == "eastus"


@pytest.mark.parametrize(
    "body",
    [
        b"[]",
        b"{}",
        b"null",
        b'[{"time": "2022-08-23T14:30:00", "rating": 1}]',
        b'[{"time": "2022-08-23T14:30:00Z", "rating": "1"}]',
        b'[{"location": "westus", "generatedAt": "2022-08-23T14:30:00Z", "forecastData": null}]',
    ],
)
def test_what_is_not_an_answer_is_one_line_of_error(server: Server, body: bytes) -> None:
    server.answer = lambda path: Reply(body)
    with pytest.raises(FeedError) as caught:
        feed(server).poll()
    assert str(caught.value).isprintable()
    assert server.url in str(caught.value)
