"""Against a real HTTP server on loopback with answers of the shape that Prometheus documents."""

from base64 import b64encode
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Literal
from urllib.parse import parse_qs, urlsplit

import pytest
from support.canned import Canned
from support.http_server import Server, serve
from support.manual_clock import ManualClock
from support.providers.case import as_json
from support.providers.prometheus import document

from carbonsched.config import Config
from carbonsched.errors import FeedError, InputError
from carbonsched.feeds.base import Site
from carbonsched.feeds.http import HttpTransport
from carbonsched.feeds.providers.prometheus import (
    PrometheusFeed,
    PrometheusKeys,
    PrometheusSettings,
    PrometheusSource,
)
from carbonsched.feeds.zone import Zone
from carbonsched.model.grid import Basis, Kind, Price

NOW = datetime(2026, 3, 12, 10, 22, tzinfo=UTC)
AT = datetime(2026, 3, 12, 10, 20, tzinfo=UTC)
STEP = timedelta(minutes=5)


class PriceKeys(PrometheusKeys):
    provider: Literal["prometheus"]


def one(*value: Any) -> dict[str, Any]:
    return {"metric": {"site": "a"}, "value": list(value)}


def answer(path: str) -> Any:
    if "query_range" in path:
        values = [[(AT - i * STEP).timestamp(), str(100 + i)] for i in range(2, 0, -1)]
        return as_json(document("matrix", {"metric": {}, "values": values}))
    return as_json(document("vector", one(AT.timestamp(), "99.5")))


@pytest.fixture
def server() -> Iterator[Server]:
    with serve(answer) as running:
        yield running


def feed(server: Server, clock: ManualClock | None = None, **options: Any) -> PrometheusFeed:
    keys = {"provider": "prometheus", "url": server.url, "query": "avg(g)", "timeout": 2} | options
    site = Site(Zone(name="XX"), clock or ManualClock(NOW), Path("/nowhere"), HttpTransport(backoff_s=0.01))
    return PrometheusSettings.model_validate(keys).build(site)


def test_now_at_a_whole_step_and_the_past_once_an_hour(server: Server) -> None:
    clock = ManualClock(NOW)
    prometheus = feed(server, clock)
    readings = prometheus.poll().readings
    asked = [{n: v[0] for n, v in parse_qs(urlsplit(path).query).items()} for path in server.paths]
    assert asked == [
        {"query": "avg(g)", "time": f"{AT.timestamp():.3f}"},
        {
            "query": "avg(g)",
            "start": f"{(AT - timedelta(hours=48)).timestamp():.3f}",
            "end": f"{(AT - STEP).timestamp():.3f}",
            "step": "300.000",
        },
    ]
    assert [(r.start, r.end, r.g_per_kwh) for r in readings] == [
        (AT - 2 * STEP, AT - STEP, 102.0),
        (AT - STEP, AT, 101.0),
        (AT, AT + STEP, 99.5),
    ]
    assert {(r.source.kind, r.source.basis) for r in readings} == {(Kind.ACTUAL, Basis.AVERAGE_UNSTATED)}
    clock.advance(60)
    assert [r.start for r in prometheus.poll().readings] == [AT]
    assert len(server.paths) == 3


def test_the_operator_says_what_it_means(server: Server) -> None:
    assert feed(server, basis="marginal-direct").poll().readings[-1].source.basis is Basis.MARGINAL_DIRECT


def test_it_is_asked_for_any_kind_of_value_as_for_intensities(server: Server) -> None:
    settings = PriceKeys.model_validate(
        {"provider": "prometheus", "url": server.url, "query": "eur", "timeout": 2}
    )
    site = Site(Zone(name="XX"), ManualClock(NOW), Path("/nowhere"), HttpTransport(backoff_s=0.01))
    prices = PrometheusSource(settings, site, Price.of).poll().readings
    assert [(price.start, price.eur_per_kwh) for price in prices[-2:]] == [(AT - STEP, 101.0), (AT, 99.5)]
    assert prices[-1].source.basis is None
    assert prices[-1].source.body_sha256


def test_a_server_that_keeps_no_past_still_tells_now(
    server: Server, caplog: pytest.LogCaptureFixture
) -> None:
    server.answer = lambda path: answer(path) if "query_range" not in path else as_json({}, 404)
    assert [r.start for r in feed(server).poll().readings] == [AT]
    assert "no past two days: " in caplog.text


def test_with_a_token_a_login_or_neither(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SECRET", "s3cr3t")
    for keys, sent in (
        ({"token_env": "SECRET"}, "Bearer s3cr3t"),
        ({"username": "me", "password_env": "SECRET"}, f"Basic {b64encode(b'me:s3cr3t').decode()}"),
        ({}, None),
    ):
        feed(server, **keys).poll()
        assert server.headers[-1].get("Authorization") == sent


BAD = {
    "no series": (document("vector"), "the query gives nothing for the time"),
    "two series": (document("vector", one(AT.timestamp(), "1"), one(AT.timestamp(), "2")), "gives 2 series"),
    "a scalar": (document("scalar", one(AT.timestamp(), "1")), "one of a 'vector' is needed"),
    "NaN": (document("vector", one(AT.timestamp(), "NaN")), "finite number"),
    "Inf": (document("vector", one(AT.timestamp(), "+Inf")), "finite number"),
    "a bare number": (document("vector", one(AT.timestamp(), 5)), "must be a number"),
    "no number": (document("vector", one(AT.timestamp(), "low")), "could not convert"),
    "a slip in a number": (document("vector", one(AT.timestamp(), "0_1.4")), "'0_1.4' is not a number"),
    "digits of another script": (document("vector", one(AT.timestamp(), "١٢")), "is not a number"),
    "another time": (
        document("vector", one(AT.timestamp() - 3600, "5")),
        "not of the time that was asked for",
    ),
    "no time": (document("vector", one(1e300, "5")), "outside the years"),
    "no value": (document("vector", {"metric": {}}), "not of the time that was asked for"),
    "an error as 200": ({"status": "error", "errorType": "bad_data", "error": "x"}, "data: is missing"),
}


@pytest.mark.parametrize("case", BAD)
def test_what_is_not_an_answer_is_one_line_of_error(server: Server, case: str) -> None:
    said, words = BAD[case]
    server.answer = lambda path: as_json(said)
    with pytest.raises(FeedError) as caught:
        feed(server).poll()
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_query_that_is_refused_is_told_with_what_to_do(server: Server) -> None:
    server.answer = lambda path: as_json({"status": "error", "error": "1:5: parse error"}, 400)
    with pytest.raises(FeedError, match=r"parse error.*; try the query on the server's own page"):
        feed(server).poll()


@pytest.mark.parametrize(
    ("keys", "words"),
    [
        ({"url": None}, "feeds[0].url: is missing; give your server's address"),
        ({"query": ""}, "feeds[0].query: "),
        ({"step": "10s"}, "feeds[0].step: "),
        ({"password_env": "X"}, "feeds[0].username: is missing"),
        ({"username": "me", "token_env": "X"}, "feeds[0].username: is set, and so is a token"),
    ],
)
def test_keys_that_do_not_fit_are_refused(keys: dict[str, Any], words: str) -> None:
    table = {"provider": "prometheus", "url": "http://127.0.0.1:9", "query": "g"} | keys
    with pytest.raises(InputError) as caught:
        Config.parse({"feeds": [{k: v for k, v in table.items() if v is not None}]}, "box.toml")
    assert words in str(caught.value)


def test_a_user_without_a_password_is_told_where_to_put_it() -> None:
    settings = PrometheusSettings(provider="prometheus", url="http://127.0.0.1:9", query="g", username="me")
    with pytest.raises(InputError, match="password_file: is missing"):
        settings.build(Site(Zone(), ManualClock(NOW), Path("/nowhere"), Canned()))
