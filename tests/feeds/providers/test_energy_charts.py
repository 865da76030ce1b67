"""Against a real HTTP server on loopback with bodies of the shape that Energy-Charts sends."""

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
from carbonsched.feeds.providers.energy_charts import EnergyChartsFeed, EnergyChartsSettings
from carbonsched.feeds.zone import Zone
from carbonsched.model.grid import Basis, Kind

NOW = datetime(2026, 7, 13, 0, 50, tzinfo=UTC)
FIRST = datetime(2026, 7, 12, 22, tzinfo=UTC)
QUARTER = timedelta(minutes=15)


def columns(measured: list[float | None], expected: list[float | None], **more: Any) -> bytes:
    axis = [round((FIRST + i * QUARTER).timestamp()) for i in range(len(measured))]
    return json.dumps(
        {"unix_seconds": axis, "co2eq": measured, "co2eq_forecast": expected, "deprecated": False} | more
    ).encode()


TODAY = columns(
    [491.5, 497.4, 502.6, None, *[None] * 16],
    [None, None, None, *[505.0 + i for i in range(14)], None, None, None],
)
PAST = columns([480.0 + i for i in range(3)], [None] * 3)


def answered(path: str) -> Reply:
    return Reply(PAST if "start=" in path else TODAY)


@pytest.fixture
def server() -> Iterator[Server]:
    with serve(answered) as running:
        yield running


def feed(server: Server, zone: str = "DE", clock: ManualClock | None = None, **keys: Any) -> EnergyChartsFeed:
    settings = EnergyChartsSettings(provider="energy-charts", url=server.url, timeout=2, **keys)
    return settings.build(
        Site(Zone(name=zone), clock or ManualClock(NOW), Path("/nowhere"), HttpTransport(backoff_s=0.01))
    )


def test_measured_wins_the_forecast_stands_in_and_trailing_nulls_are_nothing(server: Server) -> None:
    answer = feed(server).poll()
    assert server.paths == [
        "/co2eq?country=de",
        "/co2eq?country=de&start=2026-07-11T00%3A50Z&end=2026-07-13T00%3A50Z",
    ]
    told = {r.start: (r.g_per_kwh, r.source.kind) for r in answer.readings}
    assert told[FIRST + 2 * QUARTER] == (502.6, Kind.ACTUAL)
    assert told[FIRST + 3 * QUARTER] == (505.0, Kind.FORECAST)
    current = next(r for r in answer.readings if r.start <= NOW < r.end)
    assert (current.g_per_kwh, current.end - current.start) == (505.0 + 8, QUARTER)
    assert (current.source.basis, current.source.zone) == (Basis.AVERAGE_UNSTATED, "DE")
    assert max(told) == datetime(2026, 7, 13, 1, 45, tzinfo=UTC)
    assert answer.forecast is not None
    assert answer.forecast.points[0].g_per_kwh == 505.0 + 8
    assert answer.forecast.points[-1].end == FIRST + 17 * QUARTER


def test_the_past_two_days_are_asked_once_an_hour(server: Server) -> None:
    clock = ManualClock(NOW)
    charts = feed(server, clock=clock)
    for _ in range(5):
        charts.poll()
        clock.advance(900)
    assert [("start=" in path) for path in server.paths].count(True) == 2
    assert len(server.paths) == 7


def test_hours_are_read_as_hours(server: Server) -> None:
    axis = [round((FIRST + timedelta(hours=i)).timestamp()) for i in range(6)]
    body = {"unix_seconds": axis, "co2eq": [16.5, 10.5, None, None, None, None], "co2eq_forecast": [37.7] * 6}
    server.answer = lambda path: Reply(json.dumps(body).encode())
    current = next(r for r in feed(server, zone="CH").poll().readings if r.start <= NOW < r.end)
    assert (current.g_per_kwh, current.end - current.start) == (37.7, timedelta(hours=1))


@pytest.mark.parametrize(
    ("zone", "keys", "asked"),
    [
        ("DE", {}, "de"),
        ("GB", {}, "uk"),
        ("here", {"country": "FR"}, "fr"),
        ("DE", {"country": " at "}, "at"),
        ("XX", {"country": "xx"}, "xx"),
    ],
)
def test_the_country_is_the_zones_unless_it_is_given(
    server: Server, zone: str, keys: dict[str, Any], asked: str
) -> None:
    feed(server, zone, **keys).poll()
    assert server.paths[0] == f"/co2eq?country={asked}"


def test_a_zone_that_is_no_country_is_refused_before_anything_is_asked(server: Server) -> None:
    with pytest.raises(InputError, match=r"country: is missing, and the zone 'CAISO' is no country"):
        feed(server, "CAISO")


def test_a_basis_that_is_given_is_taken(server: Server) -> None:
    charts = feed(server, basis="average-lifecycle")
    assert charts.basis is Basis.AVERAGE_LIFECYCLE
    assert charts.poll().readings[0].source.basis is Basis.AVERAGE_LIFECYCLE


def test_an_unknown_country_is_told_in_the_providers_words(server: Server) -> None:
    said = b"'xx' is not the code for an available country. Please refer to the API doc"
    server.answer = lambda path: Reply(said, 400, type="text/plain")
    with pytest.raises(FeedError, match="HTTP 400, 'xx' is not the code for an available country"):
        feed(server, country="xx").poll()


def test_the_coming_end_of_the_service_is_said_once(server: Server, caplog: pytest.LogCaptureFixture) -> None:
    server.answer = lambda path: Reply(columns([491.5] * 12, [None] * 12, deprecated=True))
    charts = feed(server)
    charts.poll()
    charts.poll()
    assert caplog.text.count("deprecated") == 1


@pytest.mark.parametrize(
    "body",
    [
        b"[]",
        b"{}",
        columns([None] * 12, [None] * 12),
        columns([None] * 12, [None] * 8),
        columns(["491.5"] * 12, [None] * 12),  # type: ignore[list-item]
        b'{"unix_seconds": [0, -1e300], "co2eq": [1, 2]}',
    ],
)
def test_what_is_not_an_answer_is_one_line_of_error(server: Server, body: bytes) -> None:
    server.answer = lambda path: Reply(body)
    with pytest.raises(FeedError) as caught:
        feed(server).poll()
    assert str(caught.value).isprintable()
    assert server.url in str(caught.value)
