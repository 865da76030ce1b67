"""Against a real HTTP server on loopback with bodies of the shapes that WattTime documents."""

import json
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
from carbonsched.feeds.providers.watttime import WattTimeFeed, WattTimeSettings
from carbonsched.feeds.zone import Zone
from carbonsched.model.grid import Basis, Kind

NOW = datetime(2022, 7, 15, 0, 2, tzinfo=UTC)
SLOT = datetime(2022, 7, 15, tzinfo=UTC)
STEP = timedelta(minutes=5)
PASSWORD, TOKEN = "wt-password-of-a-test", "wt-token-of-a-test"


def points(count: int, first: int = 0, step: timedelta = STEP, **keys: Any) -> list[dict[str, Any]]:
    return [
        {"point_time": (SLOT + i * step).isoformat(), "value": 870 + i, **keys}
        for i in range(first, first + count)
    ]


def series(rows: list[dict[str, Any]], **about: Any) -> dict[str, Any]:
    meta = {
        "data_point_period_seconds": 300,
        "region": "CAISO_NORTH",
        "warnings": [{"type": "EXAMPLE_WARNING", "message": "This is just an example"}],
        "signal_type": "co2_moer",
        "model": {"date": "2023-03-01"},
        "units": "lbs_co2_per_mwh",
    }
    return {"data": rows, "meta": meta | about}


FORECAST = series(points(864), generated_at="2022-07-15T00:00:00+00:00", generated_at_period_seconds=300)
MARKED = {"last_updated": "2022-07-14T23:00:00+00:00", "imputed_data_used": False}
PAST = series([*points(575, -576, **MARKED), *points(1, -1, **MARKED | {"imputed_data_used": True})])
ANSWERS: dict[str, Any] = {"/login": {"token": TOKEN}, "/v3/forecast": FORECAST, "/v3/historical": PAST}


def subscriber(path: str) -> Reply:
    return Reply(json.dumps(ANSWERS[path.split("?")[0]]).encode())


@pytest.fixture
def server() -> Iterator[Server]:
    with serve(subscriber) as running:
        yield running


@pytest.fixture(autouse=True)
def _password(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WT_PASSWORD", PASSWORD)


def feed(server: Server, clock: ManualClock | None = None, **options: Any) -> WattTimeFeed:
    settings = WattTimeSettings.parse(
        {
            "provider": "watttime",
            "url": server.url,
            "timeout": 2,
            "username": "box",
            "password_env": "WT_PASSWORD",
        }
        | options
    )
    zone = Zone(name="CAISO_NORTH", basis=Basis.MARGINAL_DIRECT)
    return settings.build(
        Site(zone, clock or ManualClock(NOW), Path("/nowhere"), HttpTransport(backoff_s=0.01))
    )


def paths(server: Server) -> list[str]:
    return [path.split("?")[0] for path in server.paths]


def test_what_the_account_may_read_is_told(server: Server) -> None:
    regions = [
        {"region": "CAISO_NORTH", "endpoints": [{"endpoint": "forecast", "models": []}]},
        {"region": "FR"},
    ]
    access = {
        "signal_types": [{"signal_type": "co2_moer", "regions": regions}, {"signal_type": "health_damage"}]
    }
    server.answer = lambda path: (
        Reply(json.dumps(access).encode()) if path == "/v3/my-access" else subscriber(path)
    )
    assert feed(server).may_read() == "co2_moer of CAISO_NORTH: forecast; regions in all: 2"
    assert feed(server, region="PJM_NJ").may_read() == "co2_moer of PJM_NJ: nothing; regions in all: 2"


def test_now_and_the_forecast_are_one_request_and_the_past_two_days_another(server: Server) -> None:
    answer = feed(server).poll()
    assert server.paths == [
        "/login",
        "/v3/forecast?region=CAISO_NORTH&signal_type=co2_moer&horizon_hours=72",
        "/v3/historical?region=CAISO_NORTH&signal_type=co2_moer&start=2022-07-13T00%3A02%3A00Z"
        "&end=2022-07-15T00%3A02%3A00Z&include_imputed_marker=true",
    ]
    assert [headers["Authorization"].split()[0] for headers in server.headers] == [
        "Basic",
        "Bearer",
        "Bearer",
    ]
    current = next(r for r in answer.readings if r.start == SLOT)
    assert current.g_per_kwh == pytest.approx(870 * 0.45359237)
    assert (current.end - current.start, current.source.kind) == (STEP, Kind.ESTIMATED)
    assert (current.source.basis, current.source.zone) == (Basis.MARGINAL_DIRECT, "CAISO_NORTH")
    assert current.source.issued_at == SLOT
    past = [r for r in answer.readings if r.end <= SLOT]
    assert len(past) == 576
    assert [r.source.kind for r in past[-2:]] == [Kind.ACTUAL, Kind.ESTIMATED]
    assert past[0].source.issued_at == datetime(2022, 7, 14, 23, tzinfo=UTC)
    ahead = [r for r in answer.readings if r.start > SLOT]
    assert {r.source.kind for r in ahead} == {Kind.FORECAST}
    assert ahead[-1].start == SLOT + timedelta(hours=1)
    assert answer.forecast is not None
    assert len(answer.forecast.points) == 864
    assert answer.forecast.issued_at == SLOT


def test_later_polls_are_one_request(server: Server) -> None:
    clock = ManualClock(NOW)
    polled = feed(server, clock)
    polled.poll()
    server.paths.clear()
    clock.advance(60)
    polled.poll()
    assert paths(server) == ["/v3/forecast"]


def test_a_plan_that_looks_less_far_is_asked_for_less(server: Server) -> None:
    server.answer = lambda path: Reply(b'{"error":"x"}', 400) if "hours=72" in path else subscriber(path)
    polled = feed(server)
    assert polled.poll().forecast is not None
    server.paths.clear()
    polled.poll()
    assert [path[-16:] for path in server.paths] == ["horizon_hours=24"]


@pytest.mark.parametrize("page", [True, False])
def test_a_403_is_a_token_that_ran_out_or_a_region_outside_the_plan(server: Server, page: bool) -> None:
    refused = {"error": "Invalid query parameters", "message": "Invalid scope."}
    refusal = (
        Reply(b"<html><center>nginx</center></html>", 403, type="text/html")
        if page
        else Reply(json.dumps(refused).encode(), 403)
    )
    server.answer = lambda path: subscriber(path) if path == "/login" else refusal
    polled = feed(server)
    with pytest.raises(
        FeedError, match=r"HTTP 403, .*; the account's plan may not have this region"
    ) as caught:
        polled.poll()
    assert TOKEN not in str(caught.value)
    with pytest.raises(FeedError, match="HTTP 403"):
        polled.poll()
    asked = ["/login", "/v3/forecast", "/login", "/v3/forecast"]
    assert paths(server) == (asked if page else ["/login", *["/v3/forecast"] * 3])


def test_the_average_comes_late_without_a_forecast(server: Server) -> None:
    hours = points(24, -72, timedelta(hours=1), imputed_data_used=False)
    late = series(hours, signal_type="co2_aoer", data_point_period_seconds=3600)
    server.answer = lambda path: subscriber(path) if path == "/login" else Reply(json.dumps(late).encode())
    average = feed(server, signal="co2_aoer", max_age="96h")
    answer = average.poll()
    assert paths(server) == ["/login", "/v3/historical"]
    assert "start=2022-07-11T00%3A02%3A00Z" in server.paths[1]
    assert (average.basis, answer.forecast) == (Basis.AVERAGE_UNSTATED, None)
    last = answer.readings[-1]
    assert (last.end, last.source.kind) == (SLOT - timedelta(hours=48), Kind.ACTUAL)
    assert (
        feed(server, signal="co2_aoer", max_age="96h", basis="average-direct").basis is Basis.AVERAGE_DIRECT
    )


@pytest.mark.parametrize(
    ("keys", "said"),
    [
        ({"signal": "co2_aoer"}, "max_age: is too short for co2_aoer"),
        ({"basis": "average-direct"}, "basis: co2_moer is marginal"),
        ({"signal": "co2_aoer", "max_age": "4d", "basis": "marginal-direct"}, "basis: co2_aoer is average"),
        ({"username": None}, "username"),
    ],
)
def test_keys_that_do_not_fit_are_refused(keys: dict[str, Any], said: str) -> None:
    table = {"provider": "watttime", "username": "box", "password_env": "WT_PASSWORD"} | keys
    with pytest.raises(InputError, match=said):
        Config.parse({"feeds": [table]})


BAD = {
    "another region": series(points(3), region="PJM_NJ"),
    "another signal": series(points(3), signal_type="co2_aoer"),
    "another unit": series(points(3), units="kg_co2_per_mwh"),
    "no period": series(points(3), data_point_period_seconds=0),
    "a word": series(points(3, value="870")),
    "the end of time": series([{"point_time": "2999-12-31T23:59:00Z", "value": 1}]),
    "no points": series([]),
    "no coverage as 200": {"error": "No coverage available for these coordinates and signal_type"},
}


@pytest.mark.parametrize("case", BAD)
def test_what_is_not_an_answer_is_one_line_of_error(server: Server, case: str) -> None:
    server.answer = lambda path: (
        subscriber(path) if path == "/login" else Reply(json.dumps(BAD[case]).encode())
    )
    with pytest.raises(FeedError) as caught:
        feed(server).poll()
    assert "\n" not in str(caught.value)
    assert server.url in str(caught.value)


@pytest.mark.fuzz
@FUZZ
@given(CHANGES)
def test_any_other_json_is_readings_or_a_feed_error(changes: list[Any]) -> None:
    few = {"login": {"token": TOKEN}, "historical": series(points(2, -2, **MARKED))}
    few["forecast"] = series(points(3), generated_at="2022-07-15T00:00:00+00:00")
    canned = CannedByPath()
    settings = WattTimeSettings(provider="watttime", username="box", password_env="WT_PASSWORD")
    for canned.documents in changed(few, changes):
        site = Site(Zone(name="CAISO_NORTH"), ManualClock(NOW), Path("/nowhere"), canned)
        answers_or_fails(settings.build(site))
