"""Against a real HTTP server on loopback with bodies of the shapes that NESO documents and sends."""

import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from support.http_server import Reply, Server, serve
from support.manual_clock import ManualClock

from carbonsched.errors import FeedError
from carbonsched.feeds.base import Site
from carbonsched.feeds.http import HttpTransport
from carbonsched.feeds.providers.neso import NesoFeed, NesoSettings
from carbonsched.feeds.transport import RetryLaterError
from carbonsched.feeds.zone import Zone
from carbonsched.model.grid import Basis, Kind

NOW = datetime(2018, 1, 20, 12, 10, tzinfo=UTC)
SLOT = datetime(2018, 1, 20, 12, tzinfo=UTC)
HALF_HOUR = timedelta(minutes=30)


def row(start: datetime, **intensity: Any) -> dict[str, Any]:
    return {
        "from": f"{start:%Y-%m-%dT%H:%MZ}",
        "to": f"{start + HALF_HOUR:%Y-%m-%dT%H:%MZ}",
        "intensity": {**intensity, "index": "moderate"},
    }


def region(rows: list[dict[str, Any]]) -> dict[str, Any]:
    mixed = [{**r, "generationmix": [{"fuel": "gas", "perc": 43.6}]} for r in rows]
    return {
        "regionid": 3,
        "dnoregion": "Electricity North West",
        "shortname": "North West England",
        "data": mixed,
    }


def national(path: str) -> Reply:
    if path == "/intensity":
        data = [row(SLOT, forecast=266, actual=None)]
    elif path.endswith("/fw48h"):
        data = [row(SLOT + i * HALF_HOUR, forecast=200 + i, actual=None) for i in range(97)]
    else:
        data = [row(SLOT - i * HALF_HOUR, forecast=300, actual=250 + i) for i in range(48, 0, -1)]
    return Reply(json.dumps({"data": data}).encode())


def regional(path: str) -> Reply:
    if path == "/regional/regionid/3":
        return Reply(json.dumps({"data": [region([row(SLOT, forecast=120)])]}).encode())
    rows = [
        row(SLOT + i * HALF_HOUR, forecast=100 + i) for i in (range(97) if "fw48h" in path else range(-48, 0))
    ]
    return Reply(json.dumps({"data": region(rows)}).encode())


@pytest.fixture
def server() -> Iterator[Server]:
    with serve(national) as running:
        yield running


def feed(server: Server, clock: ManualClock | None = None, **options: Any) -> NesoFeed:
    settings = NesoSettings(provider="neso", url=server.url, timeout=2, **options)
    site = Site(Zone(name="GB"), clock or ManualClock(NOW), Path("/nowhere"), HttpTransport(backoff_s=0.01))
    return settings.build(site)


def test_now_the_past_day_and_the_forecast(server: Server) -> None:
    answer = feed(server).poll()
    assert server.paths == [
        "/intensity",
        "/intensity/2018-01-20T12:10Z/fw48h",
        "/intensity/2018-01-18T12:10Z/2018-01-20T12:10Z",
    ]
    current = next(r for r in answer.readings if r.start == SLOT)
    assert (current.g_per_kwh, current.end) == (266.0, SLOT + HALF_HOUR)
    assert (current.source.kind, current.source.basis, current.source.zone) == (
        Kind.FORECAST,
        Basis.AVERAGE_DIRECT,
        "GB",
    )
    assert len(current.source.body_sha256 or "") == 64
    past = [r for r in answer.readings if r.end <= SLOT]
    assert len(past) == 48
    assert {r.source.kind for r in past} == {Kind.ACTUAL}
    assert past[-1].g_per_kwh == 251.0
    ahead = [r for r in answer.readings if r.start > SLOT]
    assert [(r.g_per_kwh, r.source.kind) for r in ahead] == [(201.0, Kind.FORECAST), (202.0, Kind.FORECAST)]
    assert all(a.end == b.start for a, b in zip(answer.readings, answer.readings[1:], strict=False))
    assert answer.forecast is not None
    assert len(answer.forecast.points) == 97
    assert answer.forecast.points[-1].end == SLOT + 97 * HALF_HOUR
    assert answer.forecast.source.kind is Kind.FORECAST


def test_a_settled_value_is_actual(server: Server) -> None:
    server.answer = lambda path: (
        Reply(json.dumps({"data": [row(SLOT, forecast=266, actual=263)]}).encode())
        if path == "/intensity"
        else national(path)
    )
    current = next(r for r in feed(server).poll().readings if r.start == SLOT)
    assert (current.g_per_kwh, current.source.kind) == (263.0, Kind.ACTUAL)


def test_the_past_is_asked_once_an_hour(server: Server) -> None:
    clock = ManualClock(NOW)
    neso = feed(server, clock)
    neso.poll()
    server.paths.clear()
    clock.advance(300)
    neso.poll()
    assert len(server.paths) == 2
    clock.advance(3300)
    neso.poll()
    assert len(server.paths) == 5


def test_a_region_has_forecasts_only(server: Server) -> None:
    server.answer = regional
    answer = feed(server, region=3).poll()
    assert server.paths == [
        "/regional/regionid/3",
        "/regional/intensity/2018-01-20T12:10Z/fw48h/regionid/3",
        "/regional/intensity/2018-01-18T12:10Z/2018-01-20T12:10Z/regionid/3",
    ]
    assert {r.source.kind for r in answer.readings} == {Kind.FORECAST}
    assert next(r.g_per_kwh for r in answer.readings if r.start == SLOT) == 120.0
    assert answer.forecast is not None
    assert len(answer.forecast.points) == 97


def test_without_a_forecast_or_a_past_the_present_is_still_told(
    server: Server, caplog: pytest.LogCaptureFixture
) -> None:
    server.answer = lambda path: national(path) if path == "/intensity" else Reply(b"", 404)
    answer = feed(server).poll()
    assert [r.start for r in answer.readings] == [SLOT]
    assert answer.forecast is None
    assert "no forecast: " in caplog.text
    assert "no past two days: " in caplog.text


BAD = {
    "an error object": (
        b'{"error":{"code":"400 Bad Request","message":"Please enter a valid region ID i.e. 1-17."}}',
        400,
    ),
    "the same as 200": (b'{"error":{"code":"400 Bad Request","message":"x"}}', 200),
    "a list": (b"[]", 200),
    "no rows": (b'{"data": []}', 200),
    "both null": (json.dumps({"data": [row(SLOT, forecast=None, actual=None)]}).encode(), 200),
    "a word": (
        b'{"data":[{"from":"2018-01-20T12:00Z","to":"2018-01-20T12:30Z","intensity":{"forecast":"high"}}]}',
        200,
    ),
    "no zone": (
        b'{"data":[{"from":"2018-01-20T12:00","to":"2018-01-20T12:30","intensity":{"forecast":1}}]}',
        200,
    ),
    "infinite": (
        b'{"data":[{"from":"2018-01-20T12:00Z","to":"2018-01-20T12:30Z","intensity":{"forecast":1e999}}]}',
        200,
    ),
    "html": (b"<html>", 200),
    "a failing server": (b"", 500),
}


def data(*rows: dict[str, Any]) -> Reply:
    return Reply(json.dumps({"data": list(rows)}).encode())


LAST = row(SLOT - HALF_HOUR, forecast=300, actual=290)
LATE = {
    "the last complete half hour": data(LAST),
    "the last complete one and the running one without a value": data(LAST, row(SLOT, forecast=None)),
    "the half hour to come": data(row(SLOT + HALF_HOUR, forecast=310)),
    "no rows": data(),
    "both null": data(row(SLOT, forecast=None, actual=None)),
    "not what it documents": Reply(*BAD["a word"]),
    "a failing server": Reply(b"", 500),
}


@pytest.mark.parametrize("case", LATE)
@pytest.mark.parametrize("minute", [0, 10, 29])
def test_the_running_half_hour_is_forecast_where_the_present_is_not_told(
    server: Server, case: str, minute: int
) -> None:
    server.answer = lambda path: LATE[case] if path == "/intensity" else national(path)
    answer = feed(server, ManualClock(SLOT + timedelta(minutes=minute))).poll()
    starts = [r.start for r in answer.readings]
    assert starts == sorted(set(starts))
    current = next(r for r in answer.readings if r.start == SLOT)
    assert (current.g_per_kwh, current.end, current.source.kind) == (200.0, SLOT + HALF_HOUR, Kind.FORECAST)
    assert answer.forecast is not None


def test_a_region_that_tells_no_present_has_its_forecast(server: Server) -> None:
    empty = Reply(json.dumps({"data": [region([])]}).encode())
    server.answer = lambda path: empty if path == "/regional/regionid/3" else regional(path)
    current = next(r for r in feed(server, region=3).poll().readings if r.start == SLOT)
    assert (current.g_per_kwh, current.source.kind) == (100.0, Kind.FORECAST)


def test_a_provider_that_asks_to_be_left_alone_is(server: Server) -> None:
    server.answer = lambda path: Reply(b"", 429, {"Retry-After": "60"})
    with pytest.raises(RetryLaterError):
        feed(server).poll()
    assert server.paths == ["/intensity"]


@pytest.mark.parametrize("case", BAD)
def test_what_is_not_an_answer_is_one_line_of_error(server: Server, case: str) -> None:
    body, status = BAD[case]
    server.answer = lambda path: Reply(body, status)
    with pytest.raises(FeedError) as caught:
        feed(server).poll()
    assert "\n" not in str(caught.value)
    assert server.url in str(caught.value)
