"""Against a real HTTP server on loopback with bodies of the shapes that wattnet documents and sends."""

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

from carbonsched.errors import FeedError, InputError
from carbonsched.feeds.base import Site
from carbonsched.feeds.http import HttpTransport
from carbonsched.feeds.providers.wattnet import WattnetFeed, WattnetSettings
from carbonsched.feeds.zone import Zone
from carbonsched.model.grid import Basis, Kind

NOW = datetime(2026, 7, 13, 9, 7, tzinfo=UTC)
SLOT = NOW.replace(minute=0)
STEP = timedelta(minutes=15)
PASSWORD, TOKEN = "wn-password-of-a-test", "wn-token-of-a-test"
LOGIN, FOOTPRINTS = "/token-request/get_token", "/v1/footprints"


def series(first: int, count: int, *, valid: bool, status: str) -> dict[str, Any]:
    values = [[f"{SLOT + i * STEP:%Y-%m-%dT%H:%M:%SZ}", 300.0 + i] for i in range(first, first + count)]
    return {"valid": valid, "zone_status": status, "values": values}


def footprint(*found: dict[str, Any], **about: Any) -> list[dict[str, Any]]:
    said = {
        "footprint_type": "carbon",
        "scope": "life-cycle",
        "zone": "ES",
        "unit": "gCO2/kWh",
        "coverage": "global",
    }
    return [said | about | {"series": list(found)}]


TWO_DAYS = footprint(
    series(-192, 160, valid=True, status="complete"),
    series(-32, 8, valid=True, status="preview"),
    series(-24, 20, valid=False, status="complete"),
    series(-4, 4 + 384, valid=False, status="missing"),
)
LENT = {"access_token": TOKEN, "expires_at": "2026-07-14T09:07:00"}


def reply(document: Any, status: int = 200) -> Reply:
    return Reply(json.dumps(document).encode(), status)


def granted(document: Any) -> Any:
    return lambda path: reply(LENT if path == LOGIN else document)


@pytest.fixture
def server() -> Iterator[Server]:
    with serve(granted(TWO_DAYS)) as running:
        yield running


@pytest.fixture(autouse=True)
def _password(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WN_PASSWORD", PASSWORD)


def feed(
    server: Server, clock: ManualClock | None = None, basis: Basis = Basis.AVERAGE_LIFECYCLE, **options: Any
) -> WattnetFeed:
    settings = WattnetSettings(
        provider="wattnet",
        url=server.url,
        timeout=2,
        email="box@example.org",
        password_env="WN_PASSWORD",
        **options,
    )
    zone = Zone(name="es", basis=basis)
    return settings.build(
        Site(zone, clock or ManualClock(NOW), Path("/nowhere"), HttpTransport(backoff_s=0.01))
    )


def test_one_request_tells_two_days_now_and_four_days_ahead(server: Server) -> None:
    answer = feed(server).poll()
    assert server.paths == [
        LOGIN,
        f"{FOOTPRINTS}?zone=ES&footprint_type=carbon&scope=life-cycle"
        "&start=2026-07-11T09%3A00%3A00&end=2026-07-17T09%3A00%3A00",
    ]
    assert json.loads(server.sent[0]) == {"email": "box@example.org", "password": PASSWORD}
    assert server.headers[1]["Authorization"] == f"Bearer {TOKEN}"
    kinds = [r.source.kind for r in answer.readings]
    assert kinds[:192] == [Kind.ACTUAL] * 160 + [Kind.ESTIMATED] * 28 + [Kind.FORECAST] * 4
    current = next(r for r in answer.readings if r.start == SLOT)
    assert (current.g_per_kwh, current.end, current.source.kind) == (300.0, SLOT + STEP, Kind.FORECAST)
    assert (current.source.basis, current.source.zone) == (Basis.AVERAGE_LIFECYCLE, "ES")
    assert all(a.end == b.start for a, b in zip(answer.readings, answer.readings[1:], strict=False))
    assert answer.readings[-1].start == SLOT + timedelta(hours=1)
    assert answer.forecast is not None
    assert len(answer.forecast.points) == 384


def test_later_polls_begin_now_and_need_no_login_for_a_day(server: Server) -> None:
    clock = ManualClock(NOW)
    polled = feed(server, clock)
    polled.poll()
    server.paths.clear()
    clock.advance(60)
    polled.poll()
    assert [path.split("&start=")[1][:10] for path in server.paths] == ["2026-07-13"]
    server.paths.clear()
    clock.advance(86_400 - 300)
    polled.poll()
    assert server.paths[0] == LOGIN


def test_a_failure_leaves_the_two_days_due(server: Server) -> None:
    server.answer = lambda path: reply(LENT) if path == LOGIN else reply({}, 500)
    polled = feed(server)
    with pytest.raises(FeedError, match="HTTP 500"):
        polled.poll()
    server.answer = granted(TWO_DAYS)
    server.paths.clear()
    polled.poll()
    assert "start=2026-07-11" in server.paths[0]


def test_the_basis_chooses_the_scope(server: Server) -> None:
    server.answer = granted(footprint(series(0, 4, valid=False, status="complete"), scope="operational"))
    direct = feed(server, basis=Basis.AVERAGE_DIRECT)
    reading = direct.poll().readings[0]
    assert (reading.source.basis, reading.source.kind) == (Basis.AVERAGE_DIRECT, Kind.ESTIMATED)
    assert "scope=operational" in server.paths[1]
    with pytest.raises(InputError, match="basis: wattnet has no marginal-direct"):
        feed(server, basis=Basis.MARGINAL_DIRECT)


@pytest.mark.parametrize("turned", [False, True])
def test_of_two_that_tell_the_same_time_the_final_one_is_taken(server: Server, turned: bool) -> None:
    final, pending = (
        series(-4, 4, valid=True, status="complete"),
        series(-4, 8, valid=False, status="preview"),
    )
    pending["values"] = [[at, value + 50] for at, value in pending["values"]]
    server.answer = granted(footprint(*([pending, final] if turned else [final, pending])))
    readings = feed(server).poll().readings
    assert [r.g_per_kwh for r in readings[:5]] == [296.0, 297.0, 298.0, 299.0, 350.0]
    assert [r.source.kind for r in readings[:5]] == [Kind.ACTUAL] * 4 + [Kind.ESTIMATED]


def test_a_bare_series_is_enough_and_estimated(server: Server) -> None:
    values = series(-1, 3, valid=True, status="complete")["values"]
    server.answer = granted([{"series": [{"values": values}]}])
    assert feed(server).poll().readings[1].source.kind is Kind.ESTIMATED


BAD = {
    "an unknown zone": ([], "no values for zone 'ES'"),
    "another zone": (
        footprint(series(0, 4, valid=True, status="complete"), zone="PT"),
        "for zone 'PT', not 'ES'",
    ),
    "another scope": (footprint(series(0, 4, valid=True, status="x"), scope="operational"), "for scope"),
    "water": (footprint(series(0, 4, valid=True, status="x"), unit="l/kWh"), "for unit 'l/kWh'"),
    "times to come alone": (footprint(series(4, 4, valid=False, status="missing")), "no value for now"),
    "a word": ([{"series": [{"values": [["2026-07-13T09:00:00Z", "300"]]}]}], "not what wattnet documents"),
    "a lone time": ([{"series": [{"values": [["2026-07-13T09:00:00Z"]]}]}], "not what wattnet documents"),
    "an object": ({"detail": "x"}, "not what wattnet documents"),
}


@pytest.mark.parametrize("case", BAD)
def test_what_is_not_an_answer_is_one_line_of_error(server: Server, case: str) -> None:
    document, said = BAD[case]
    server.answer = granted(document)
    with pytest.raises(FeedError, match=said) as caught:
        feed(server).poll()
    assert "\n" not in str(caught.value)
    assert server.url in str(caught.value)


def test_an_account_that_is_not_granted_is_told_what_to_do(server: Server) -> None:
    server.answer = lambda path: reply({"detail": f"no {PASSWORD}"}, 401)
    with pytest.raises(FeedError, match=r"no login: .*HTTP 401.*https://wattnet.eu/contact") as caught:
        feed(server).poll()
    assert PASSWORD not in str(caught.value)
    assert server.paths == [LOGIN]


@pytest.mark.fuzz
@FUZZ
@given(CHANGES)
def test_any_other_json_is_readings_or_a_feed_error(changes: list[Any]) -> None:
    few = footprint(series(-3, 3, valid=True, status="complete"), series(0, 3, valid=False, status="preview"))
    canned = CannedByPath()
    settings = WattnetSettings(provider="wattnet", email="box@example.org", password_env="WN_PASSWORD")
    for canned.documents in changed({"get_token": LENT, "footprints": few}, changes):
        site = Site(Zone(name="ES"), ManualClock(NOW), Path("/nowhere"), canned)
        answers_or_fails(settings.build(site))
