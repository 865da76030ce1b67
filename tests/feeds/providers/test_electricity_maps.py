"""Against a real HTTP server on loopback with bodies of the shapes that Electricity Maps sends (live answers of 2026-08-22)."""

import json
import re
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from support.canned import CannedByPath, answers_or_fails
from support.fuzz import CHANGES, FUZZ, changed
from support.http_server import Reply, Server, serve
from support.manual_clock import ManualClock

from carbonsched.config import Config
from carbonsched.errors import FeedError, InputError
from carbonsched.feeds.base import Site
from carbonsched.feeds.http import HttpTransport
from carbonsched.feeds.providers.electricity_maps import ElectricityMapsFeed, ElectricityMapsSettings
from carbonsched.feeds.zone import Zone
from carbonsched.model.grid import Basis, Kind

NOW = datetime(2026, 8, 22, 17, 34, tzinfo=UTC)
HOUR = timedelta(hours=1)
SLOT = NOW.replace(minute=0)
TOKEN = "em-token-of-a-test"  # noqa: S105
ABOUT = {"emissionFactorType": "lifecycle", "flowTraced": True, "createdAt": "2026-08-20T22:34:38.311Z"}


def row(start: datetime, value: float | None, *, estimated: bool = False, **keys: Any) -> dict[str, Any]:
    return {
        "zone": "DK-DK2",
        "carbonIntensity": value,
        "datetime": f"{start:%Y-%m-%dT%H:%M:%S.000Z}",
        "updatedAt": "2026-08-22T17:24:08.708Z",
        "isEstimated": estimated,
        "estimationMethod": "FORECASTS_HIERARCHY" if estimated else None,
        **ABOUT,
        **keys,
    }


def rows(count: int) -> list[dict[str, Any]]:
    return [row(SLOT - i * HOUR, 200 + i, estimated=i < 2) for i in range(count, -1, -1)]


LATEST = row(SLOT, 75, estimated=True, temporalGranularity="hourly")
RANGE = {"zone": "DK-DK2", "data": rows(48), "temporalGranularity": "hourly"}
HISTORY = {"zone": "DK-DK2", "history": rows(23), "temporalGranularity": "hourly"}
FORECAST: dict[str, Any] = {
    "zone": "DK-DK2",
    "forecast": [
        {"carbonIntensity": 77 + i, "datetime": f"{SLOT + i * HOUR:%Y-%m-%dT%H:%M:%S.000Z}"}
        for i in range(73)
    ],
    "updatedAt": "2026-08-22T17:34:24.392Z",
    "temporalGranularity": "hourly",
}
REFUSED = {
    "error": "Request unauthorized for zoneKey=DK-DK2,requestType=past,dataType=carbon-intensity.",
    "message": "You do not have access to this specific endpoint for this specific zone.",
}


def paid(path: str) -> Any:
    what = path.split("?")[0].rsplit("/", 1)[1]
    return {"latest": LATEST, "past-range": RANGE, "history": HISTORY, "forecast": FORECAST}[what]


def free(path: str) -> Any:
    return REFUSED if "past-range" in path or "forecast" in path else paid(path)


def reply(document: Any) -> Reply:
    return Reply(json.dumps(document).encode(), 401 if document is REFUSED else 200)


@pytest.fixture
def server() -> Iterator[Server]:
    with serve(lambda path: reply(paid(path))) as running:
        yield running


@pytest.fixture(autouse=True)
def _token(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EM_TOKEN", TOKEN)


def feed(server: Server, clock: ManualClock | None = None, **options: Any) -> ElectricityMapsFeed:
    zone = Zone(name="DK-DK2", basis=options.pop("zone_basis", Basis.AVERAGE_LIFECYCLE))
    settings = ElectricityMapsSettings(
        provider="electricity-maps", url=server.url, timeout=2, token_env="EM_TOKEN", **options
    )
    return settings.build(
        Site(zone, clock or ManualClock(NOW), Path("/nowhere"), HttpTransport(backoff_s=0.01))
    )


def asked(server: Server) -> list[str]:
    return [path.split("?")[0].removeprefix("/v4/carbon-intensity/") for path in server.paths]


def test_now_the_past_two_days_and_the_forecast(server: Server) -> None:
    answer = feed(server).poll()
    stay = "zone=DK-DK2&emissionFactorType=lifecycle&disableCallerLookup=true"
    assert server.paths == [
        f"/v4/carbon-intensity/latest?{stay}",
        f"/v4/carbon-intensity/past-range?{stay}&start=2026-08-20T17%3A00%3A00Z&end=2026-08-22T17%3A00%3A00Z",
        f"/v4/carbon-intensity/forecast?{stay}&horizonHours=72",
    ]
    assert {headers["auth-token"] for headers in server.headers} == {TOKEN}
    current = next(r for r in answer.readings if r.start == SLOT)
    assert (current.g_per_kwh, current.end) == (75.0, SLOT + HOUR)
    source = current.source
    assert (source.kind, source.basis, source.zone) == (Kind.ESTIMATED, Basis.AVERAGE_LIFECYCLE, "DK-DK2")
    assert source.issued_at == datetime(2026, 8, 22, 17, 24, 8, 708000, tzinfo=UTC)
    past = [r for r in answer.readings if r.end <= SLOT]
    assert len(past) == 48
    assert [r.source.kind for r in past] == [Kind.ACTUAL] * 47 + [Kind.ESTIMATED]
    [ahead] = [r for r in answer.readings if r.start > SLOT]
    assert (ahead.g_per_kwh, ahead.source.kind) == (78.0, Kind.FORECAST)
    assert answer.forecast is not None
    assert len(answer.forecast.points) == 73
    assert answer.forecast.issued_at == NOW


def test_later_polls_ask_for_now_alone(server: Server) -> None:
    clock = ManualClock(NOW)
    polled = feed(server, clock)
    polled.poll()
    server.paths.clear()
    clock.advance(300)
    polled.poll()
    assert asked(server) == ["latest"]
    clock.advance(3300)
    polled.poll()
    assert asked(server) == ["latest", "latest", "past-range", "forecast"]


def test_a_free_plan_has_a_day_and_no_forecast(server: Server, caplog: pytest.LogCaptureFixture) -> None:
    server.answer = lambda path: reply(free(path))
    clock = ManualClock(NOW)
    polled = feed(server, clock)
    answer = polled.poll()
    assert asked(server) == ["latest", "past-range", "history", "forecast", "forecast"]
    assert len(answer.readings) == 24
    assert answer.forecast is None
    assert caplog.text.count("no forecast: ") == 1
    assert "https://api.electricitymaps.com/v4/zones" in caplog.text
    server.paths.clear()
    clock.advance(3600)
    polled.poll()
    assert asked(server) == ["latest", "history", "forecast"], "what the plan refused is asked again"


def test_a_zone_outside_the_plan_is_told_with_what_to_do(server: Server) -> None:
    server.answer = lambda path: reply(REFUSED)
    with pytest.raises(FeedError, match=r"HTTP 401, .*zoneKey=DK-DK2.*; check the token; https") as caught:
        feed(server).poll()
    assert len(server.paths) == 1
    assert TOKEN not in str(caught.value)


def test_the_basis_chooses_the_factors(server: Server) -> None:
    direct = row(SLOT, 20, emissionFactorType="direct")
    server.answer = lambda path: reply(direct if "latest" in path else REFUSED)
    reading = feed(server, zone_basis=Basis.AVERAGE_DIRECT).poll().readings[-1]
    assert (reading.g_per_kwh, reading.source.basis) == (20.0, Basis.AVERAGE_DIRECT)
    assert "emissionFactorType=direct" in server.paths[0]
    with pytest.raises(FeedError, match="the answer has direct factors, not lifecycle"):
        feed(server).poll()
    with pytest.raises(InputError, match="basis: electricity-maps has no marginal-direct"):
        feed(server, zone_basis=Basis.MARGINAL_DIRECT)


def test_version_three_is_asked_in_its_own_words(server: Server) -> None:
    old = feed(server, version=3, zone="DK-DK2")
    answer = old.poll()
    assert server.paths[0] == (
        "/v3/carbon-intensity/latest?zone=DK-DK2&emissionFactorType=lifecycle&shouldUseFallbackCallerLookup=false"
    )
    assert answer.readings[-2].g_per_kwh == 75.0
    assert old.UNVERIFIED
    assert not feed(server).UNVERIFIED


def test_quarters_of_an_hour(server: Server) -> None:
    quarter = row(SLOT + HOUR / 2, 75, temporalGranularity="15_minutes")
    server.answer = lambda path: reply(quarter if "latest" in path else REFUSED)
    reading = feed(server, granularity="15_minutes").poll().readings[-1]
    assert (reading.start, reading.end) == (SLOT + HOUR / 2, SLOT + 3 * HOUR / 4)
    assert "temporalGranularity=15_minutes" in server.paths[0]


BAD = {
    "another zone": LATEST | {"zone": "DE"},
    "another day's length": LATEST | {"temporalGranularity": "daily"},
    "no time": {"zone": "DK-DK2", "carbonIntensity": 5},
    "a word": LATEST | {"carbonIntensity": "75"},
    "an error as 200": {"status": "error", "message": "Zone 'ZZ' does not exist."},
    "a list": [],
    "the end of time": LATEST | {"datetime": "2999-12-31T23:59:00Z"},
}


@pytest.mark.parametrize("case", BAD)
def test_what_is_not_an_answer_is_one_line_of_error(server: Server, case: str) -> None:
    server.answer = lambda path: reply(BAD[case])
    with pytest.raises(FeedError) as caught:
        feed(server).poll()
    assert "\n" not in str(caught.value)
    assert server.url in str(caught.value)


def test_a_null_now_leaves_what_is_known(server: Server) -> None:
    server.answer = lambda path: reply(LATEST | {"carbonIntensity": None} if "latest" in path else free(path))
    assert [r.start for r in feed(server).poll().readings][-1] == SLOT - HOUR


@pytest.mark.fuzz
@FUZZ
@given(CHANGES)
def test_any_other_json_is_readings_or_a_feed_error(changes: list[Any]) -> None:
    few = {"latest": LATEST, "past-range": RANGE | {"data": rows(2)}}
    few["forecast"] = FORECAST | {"forecast": FORECAST["forecast"][:3]}
    canned = CannedByPath()
    settings = ElectricityMapsSettings(provider="electricity-maps", token_env="EM_TOKEN")
    for canned.documents in changed(few, changes):
        site = Site(Zone(name="DK-DK2"), ManualClock(NOW), Path("/nowhere"), canned)
        answers_or_fails(settings.build(site))


@pytest.mark.parametrize(
    ("keys", "query"),
    [
        ({"latitude": 55.68, "longitude": 12.57}, "lat=55.68000&lon=12.57000"),
        (
            {"data_center_provider": "gcp", "data_center_region": "europe-west1"},
            "dataCenterProvider=gcp&dataCenterRegion=europe-west1",
        ),
    ],
)
def test_a_place_finds_the_zone_which_then_stays(server: Server, keys: dict[str, Any], query: str) -> None:
    clock = ManualClock(NOW)
    polled = feed(server, clock, **keys)
    answer = polled.poll()
    assert all(
        f"?{query}&emissionFactorType=lifecycle&disableCallerLookup=true" in path for path in server.paths
    )
    assert "zone=" not in "".join(server.paths)
    assert {r.source.zone for r in answer.readings} == {polled.zone} == {"DK-DK2"}
    server.answer = lambda path: Reply(json.dumps(LATEST | {"zone": "DE"}).encode())
    with pytest.raises(FeedError, match="the answer is for zone 'DE', not 'DK-DK2'"):
        polled.poll()


def test_a_place_that_finds_no_name_of_a_zone_is_refused(server: Server) -> None:
    server.answer = lambda path: Reply(json.dumps(LATEST | {"zone": "\x1b[2J"}).encode())
    with pytest.raises(FeedError, match=r"not '55\.68000/12\.57000'") as caught:
        feed(server, latitude=55.68, longitude=12.57).poll()
    assert str(caught.value).isprintable()


@pytest.mark.parametrize(
    ("keys", "says"),
    [
        ({"latitude": 55.0}, "longitude: is missing beside latitude"),
        ({"data_center_region": "eastus"}, "data_center_provider: is missing beside data_center_region"),
        ({"zone": "DE", "latitude": 55.0, "longitude": 12.0}, "zone: is said twice"),
        ({"latitude": 91.0, "longitude": 12.0}, "latitude: "),
        ({"data_center_provider": "gcp", "data_center_region": "a&zone=DE"}, "data_center_region: "),
    ],
)
def test_a_place_is_said_once_and_whole(keys: dict[str, Any], says: str) -> None:
    table = {"provider": "electricity-maps", "token_env": "EM_TOKEN"} | keys
    with pytest.raises(InputError) as caught:
        Config.parse({"feeds": [table]}, "box.toml")
    assert re.search(rf"box.toml: feeds\[0\].+{says}", str(caught.value))
