"""Against a real HTTP server on loopback with bodies of the shape that Open Electricity's source makes."""

import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from support.http_server import Reply, Server, serve
from support.manual_clock import ManualClock

from carbonsched.errors import FeedError, InputError
from carbonsched.feeds.base import Site
from carbonsched.feeds.http import HttpTransport
from carbonsched.feeds.providers.open_electricity import OpenElectricityFeed, OpenElectricitySettings
from carbonsched.feeds.zone import Zone
from carbonsched.model.grid import Basis, Kind

NOW = datetime(2026, 8, 14, 3, 12, tzinfo=UTC)
MARKET = timezone(timedelta(hours=10))
LAST = datetime(2026, 8, 14, 13, tzinfo=MARKET)
FIVE = timedelta(minutes=5)
KEY = "oe_k3y-of-a-test"

Points = list[float | None]


def series(metric: str, unit: str, fuels: dict[str, Points], region: str, network: str) -> dict[str, Any]:
    results = []
    for fuel, values in fuels.items():
        start = LAST - (len(values) - 1) * FIVE
        data = [[(start + i * FIVE).isoformat(), value] for i, value in enumerate(values)]
        columns = {"region": region, "fueltech": fuel}
        results.append({"name": f"{metric}_{region}|{fuel}", "columns": columns, "data": data})
    return {"network_code": network, "metric": metric, "unit": unit, "interval": "5m", "results": results}


def told(
    energy: Points | dict[str, Points],
    emissions: Points | dict[str, Points],
    region: str = "NSW1",
    network: str = "NEM",
    unit: str = "MWh",
) -> Reply:
    """Of coal, where nothing else is said."""
    data = [
        series(metric, its, values if isinstance(values, dict) else {"coal_black": values}, region, network)
        for metric, its, values in (("energy", unit, energy), ("emissions", "t", emissions))
    ]
    return Reply(json.dumps({"version": "4.5.0", "success": True, "data": data}).encode())


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    monkeypatch.setenv("OE_KEY", KEY)
    with serve(lambda path: told([600.0, 640.0, 0.0], [360.0, 400.0, 0.0])) as running:
        yield running


def feed(
    server: Server, zone: str = "AU-NSW", clock: ManualClock | None = None, **keys: Any
) -> OpenElectricityFeed:
    settings = OpenElectricitySettings.model_validate(
        {"provider": "open-electricity", "url": server.url, "timeout": 2, "token_env": "OE_KEY"} | keys
    )
    return settings.build(
        Site(Zone(name=zone), clock or ManualClock(NOW), Path("/nowhere"), HttpTransport(backoff_s=0.01))
    )


def test_emissions_over_energy_are_grams_a_kilowatt_hour(server: Server) -> None:
    answer = feed(server).poll()
    [path] = server.paths
    assert urlsplit(path).path == "/data/network/NEM"
    assert parse_qs(urlsplit(path).query) == {
        "metrics": ["energy", "emissions"],
        "interval": ["5m"],
        "date_start": ["2026-08-12T13:12:00"],
        "network_region": ["NSW1"],
        "primary_grouping": ["network_region"],
        "secondary_grouping": ["fueltech"],
    }
    assert server.headers[0]["Authorization"] == f"Bearer {KEY}"
    assert [(r.start, r.g_per_kwh) for r in answer.readings] == [
        (LAST - 2 * FIVE, 600.0),
        (LAST - FIVE, 625.0),
    ]
    assert {(r.source.kind, r.source.basis, r.source.zone) for r in answer.readings} == {
        (Kind.ACTUAL, Basis.AVERAGE_DIRECT, "NSW1")
    }
    assert answer.forecast is None


def test_what_is_stored_is_not_generated_and_what_is_not_told_is_not_nothing(server: Server) -> None:
    energy: dict[str, Points] = {
        "coal_black": [300.0, 300.0, 0.0],
        "wind": [300.0, 300.0, 300.0],
        "distillate": [None, None, None],
        "battery_charging": [-150.0, -150.0, -150.0],
        "pumps": [50.0, 50.0, 50.0],
    }
    emissions: dict[str, Points] = {"coal_black": [270.0, None, 0.0], "wind": [0.0, 0.0, 0.0]}
    server.answer = lambda path: told(energy, emissions)
    readings = feed(server).poll().readings
    assert [(r.start, r.g_per_kwh) for r in readings] == [(LAST - 2 * FIVE, 450.0), (LAST, 0.0)]


def test_two_days_are_asked_for_once_an_hour(server: Server) -> None:
    clock = ManualClock(NOW)
    australian = feed(server, clock=clock)
    for _ in range(7):
        australian.poll()
        clock.advance(600)
    starts = [parse_qs(urlsplit(path).query)["date_start"][0] for path in server.paths]
    assert [start[:10] for start in starts] == ["2026-08-12", *["2026-08-14"] * 5, "2026-08-12"]


def test_western_australia_is_a_market_of_its_own(server: Server) -> None:
    server.answer = lambda path: told([600.0], [300.0], region="WEM", network="WEM")
    assert feed(server, "AU-WA").poll().readings[0].g_per_kwh == 500.0
    assert urlsplit(server.paths[0]).path == "/data/network/WEM"
    assert parse_qs(urlsplit(server.paths[0]).query)["date_start"] == ["2026-08-12T11:12:00"]


def test_the_day_has_500_requests(server: Server) -> None:
    clock = ManualClock(NOW)
    australian = feed(server, clock=clock)
    for _ in range(500):
        australian._count.take(1)
        clock.advance(1)
    with pytest.raises(FeedError, match="limit of 500 requests in 86400 s is used up"):
        australian.poll()
    assert not server.paths


def test_a_place_and_a_token_are_asked_for(server: Server) -> None:
    with pytest.raises(
        InputError, match=r"region: is missing, and the zone 'AU' is none; give one of NSW1, "
    ):
        feed(server, "AU")
    with pytest.raises(InputError, match="token_file: is missing"):
        feed(server, token_env=None)
    assert feed(server, "AU", region="TAS1").zone == "TAS1"


def test_a_refused_key_is_told_with_what_to_do_and_without_the_key(server: Server) -> None:
    server.answer = lambda path: Reply(f'{{"error": "Invalid API key {KEY}"}}'.encode(), 401)
    with pytest.raises(FeedError, match=r"HTTP 401, .*; get a free key at https://") as caught:
        feed(server).poll()
    assert KEY not in str(caught.value)


@pytest.mark.parametrize(
    "reply",
    [
        told([600.0], [300.0], region="VIC1"),
        told([600.0], [300.0], network="WEM"),
        told([0.0], [0.0]),
        told([600.0], [None]),
        told([600.0], [300.0], unit="GWh"),
        told([600.0], {}),
        Reply(b'{"data": []}'),
        Reply(b"[]"),
    ],
)
def test_what_is_not_an_answer_is_one_line_of_error(server: Server, reply: Reply) -> None:
    server.answer = lambda path: reply
    with pytest.raises(FeedError) as caught:
        feed(server).poll()
    assert str(caught.value).isprintable()
    assert server.url in str(caught.value)
