"""Against a real HTTP server on loopback with rows of the shape that EIA's API sends (real ones were seen, of 2022 to 2026)."""

import json
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from support.http_server import Server, serve
from support.manual_clock import ManualClock
from support.providers.case import as_json
from support.providers.eia import document, flow, row

from carbonsched.errors import FeedError, InputError
from carbonsched.feeds.base import Site
from carbonsched.feeds.http import HttpTransport
from carbonsched.feeds.providers.eia import EiaFeed, EiaSettings
from carbonsched.feeds.transport import RetryLaterError, Transport
from carbonsched.feeds.zone import Zone
from carbonsched.model.grid import Basis, Kind

NOW = datetime(2026, 3, 12, 10, 20, tzinfo=UTC)
END = datetime(2026, 3, 12, 9, tzinfo=UTC)
"""The newest hour is known an hour and more after it ended."""
HOUR = timedelta(hours=1)
MIX = {"NG": 5000.0, "WND": 3000.0, "SUN": 2000.0, "BAT": -800.0}
LIFECYCLE = (5000 * 490 + 3000 * 11 + 2000 * 44.5) / 10_000


def hours(*mixes: dict[str, float | None], end: datetime = END) -> list[dict[str, Any]]:
    """Rows of the mixes, the newest hour first."""
    return [row(end - i * HOUR, code, mw) for i, mix in enumerate(mixes) for code, mw in mix.items()]


def answering(*mixes: dict[str, float | None]) -> Callable[[str], Any]:
    return lambda path: as_json(document(hours(*mixes)))


@pytest.fixture(autouse=True)
def _key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EIA_KEY", "s3cr3t-key")


@pytest.fixture
def server() -> Iterator[Server]:
    with serve(answering(MIX, MIX)) as running:
        yield running


def feed(url: str, clock: ManualClock | None = None, zone: str = "US-CAL-CISO", **options: Any) -> EiaFeed:
    return built(HttpTransport(backoff_s=0.01), zone, clock, url=url, timeout=2, **options)


def built(network: Transport, zone: str, clock: ManualClock | None = None, **options: Any) -> EiaFeed:
    settings = EiaSettings.model_validate({"provider": "eia", "token_env": "EIA_KEY"} | options)
    return settings.build(Site(Zone(name=zone), clock or ManualClock(NOW), Path("/nowhere"), network))


def test_the_mix_of_the_newest_hours_in_one_request(server: Server) -> None:
    answer = feed(server.url).poll()
    [path] = server.paths
    asked = parse_qs(urlsplit(path).query)
    assert urlsplit(path).path == "/v2/electricity/rto/fuel-type-data/data/"
    assert asked["facets[respondent][]"] == ["CISO"]
    assert (asked["frequency"], asked["data[0]"], asked["length"]) == (["hourly"], ["value"], ["5000"])
    assert (asked["start"], asked["end"]) == (["2026-03-10T10"], ["2026-03-12T11"])
    first, last = answer.readings
    assert (last.start, last.end) == (END - HOUR, END)
    assert last.g_per_kwh == pytest.approx(LIFECYCLE)
    source = last.source
    assert (source.kind, source.basis, source.zone) == (Kind.ESTIMATED, Basis.AVERAGE_LIFECYCLE, "CISO")
    assert source.note == "production mix × lifecycle factors, IPCC AR5 A.III.2"
    assert first.end == last.start
    assert answer.forecast is None


def test_direct_factors_by_basis(server: Server) -> None:
    eia = feed(server.url, basis="average-direct")
    last = eia.poll().readings[-1]
    assert last.g_per_kwh == pytest.approx(5000 * 370 / 10_000)
    assert (last.source.basis, eia.basis) == (Basis.AVERAGE_DIRECT, Basis.AVERAGE_DIRECT)
    assert "direct factors" in last.source.note


@pytest.mark.parametrize("basis", ["marginal-direct", "marginal-lifecycle", "average-unstated"])
def test_a_mix_has_no_other_basis(basis: str) -> None:
    with pytest.raises(
        InputError, match=f"basis: eia has no {basis}; it has average-lifecycle and average-direct"
    ):
        feed("http://127.0.0.1:9", basis=basis)


def test_the_two_days_that_have_passed_are_asked_once_an_hour(server: Server) -> None:
    clock = ManualClock(NOW)
    eia = feed(server.url, clock)
    starts = []
    for _ in range(3):
        eia.poll()
        starts += parse_qs(urlsplit(server.paths[-1]).query)["start"]
        clock.advance(1800)
    assert starts == ["2026-03-10T10", "2026-03-11T22", "2026-03-10T11"]


@pytest.mark.parametrize("said", ["NaN", "nan", "inf", "", " ", "NA", "n/a", "null", None])
def test_a_text_that_is_no_number_is_a_value_left_out(server: Server, said: str | None) -> None:
    broken = flow(END, "PJM", 1.0) | {"value": said}

    def answer(path: str) -> Any:
        found = json.loads(neighbours(path).body)
        rows = found["response"]["data"]
        if "interchange" in path:
            rows.append(broken)
        else:
            rows += [row(END, "OTH", 1.0, one) | {"value": said} for one in {r["respondent"] for r in rows}]
        return as_json(found)

    server.answer = neighbours
    whole = [one.g_per_kwh for one in feed(server.url, mix="consumption").poll().readings]
    server.answer = answer
    assert [one.g_per_kwh for one in feed(server.url, mix="consumption").poll().readings] == whole


LATE = {
    "a source that gives much is not there yet": ({"WND": 3000.0, "SUN": 2000.0}, 1),
    "a source that gives much is null": (MIX | {"NG": None}, 1),
    "one that never gives much is not there": (MIX | {"OIL": 9.0}, 2),
    "all null": (dict.fromkeys(MIX, None), 1),
    "nothing is generated": (dict.fromkeys(MIX, 0.0), 1),
    "a plant that stands still": (MIX | {"COL": -12.0}, 2),
}


@pytest.mark.parametrize("case", LATE)
def test_an_hour_counts_where_all_that_generates_is_known(server: Server, case: str) -> None:
    newest, count = LATE[case]
    server.answer = answering(newest, MIX)
    readings = feed(server.url).poll().readings
    assert len(readings) == count
    assert all(r.g_per_kwh == pytest.approx(LIFECYCLE, rel=5e-3) for r in readings)


def test_an_unknown_source_counts_as_thermal(server: Server) -> None:
    server.answer = answering({"NUC": 500.0, "XYZ": 500.0})
    assert feed(server.url).poll().readings[-1].g_per_kwh == pytest.approx((12 + 700) / 2)


@pytest.mark.parametrize(
    ("zone", "respondent"), [("US-TEX-ERCO", "ERCO"), ("US48", "US48"), ("ciso", "CISO"), ("PJM", "PJM")]
)
def test_the_zone_names_the_respondent(zone: str, respondent: str) -> None:
    assert feed("http://127.0.0.1:9", zone=zone).zone == respondent


@pytest.mark.parametrize("zone", ["Great Britain", "", "unknown"])
def test_a_zone_that_names_none_is_refused(zone: str) -> None:
    with pytest.raises(InputError, match=r"respondent: is missing, and zone\.name is"):
        feed("http://127.0.0.1:9", zone=zone)


def test_a_respondent_that_has_no_rows_is_told(server: Server) -> None:
    server.answer = answering()
    with pytest.raises(FeedError, match="no rows for respondent CISO: is that EIA's code of it"):
        feed(server.url).poll()


def test_another_respondent_is_refused(server: Server) -> None:
    server.answer = lambda path: as_json(document([row(END, "NG", 1.0, "PJM")]))
    with pytest.raises(FeedError, match="the answer is of 'PJM', asked was CISO"):
        feed(server.url).poll()


def test_more_requests_than_eia_allows_wait(server: Server) -> None:
    eia = feed(server.url)
    eia.poll()
    with pytest.raises(RetryLaterError, match="limit of 5 requests in 1 s"):
        eia.poll()
    assert len(server.paths) == 1


AZPS = {"NG": 1000.0, "COL": 3000.0}
FLOWS = {"AZPS": -2500.0, "BPAT": 700.0, "CFE": -50.0}


def neighbours(path: str) -> Any:
    asked = parse_qs(urlsplit(path).query)
    if "interchange" in path:
        assert asked["facets[fromba][]"] == ["CISO"]
        ends = [END - i * HOUR for i in range(2)]
        return as_json(document([flow(end, to, mw) for end in ends for to, mw in FLOWS.items()]))
    mixes = {"CISO": MIX, "AZPS": AZPS, "CFE": {}}
    names = asked["facets[respondent][]"]
    ends = [END, END - HOUR]
    return as_json(
        document(
            [row(end, code, mw, name) for end in ends for name in names for code, mw in mixes[name].items()]
        )
    )


def test_what_neighbours_send_in_is_counted_at_what_they_generate(server: Server) -> None:
    server.answer = neighbours
    readings = feed(server.url, mix="consumption").poll().readings
    azps = (1000 * 490 + 3000 * 820) / 4000
    assert [r.g_per_kwh for r in readings] == [pytest.approx((10_000 * LIFECYCLE + 2500 * azps) / 12_500)] * 2
    note = readings[-1].source.note
    assert "consumption mix, one hop, × lifecycle factors" in note
    assert "imports of AZPS; without a value: CFE; also read from " in note
    own, _, *mixes = [parse_qs(urlsplit(path).query) for path in server.paths]
    assert own["facets[respondent][]"] == ["CISO"]
    assert all(one["facets[respondent][]"] == ["AZPS", "CFE"] for one in mixes), "who takes is not asked"
    assert len(server.paths) <= 5, "that is what EIA allows in a second"
    assert (mixes[0]["start"], mixes[-1]["end"]) == (own["start"], own["end"])


def test_five_requests_are_the_most_however_many_neighbours_send(server: Server) -> None:
    names = [f"N{i:02}" for i in range(40)]
    ends = [END - i * HOUR for i in range(40)]

    def many(path: str) -> Any:
        if "interchange" in path:
            return as_json(document([flow(end, to, -10.0 - i) for end in ends for i, to in enumerate(names)]))
        asked = parse_qs(urlsplit(path).query)["facets[respondent][]"]
        return as_json(document([row(end, "NG", 900.0, name) for end in ends for name in asked]))

    server.answer = many
    readings = feed(server.url, mix="consumption").poll().readings
    assert len(server.paths) == 5
    assert len(parse_qs(urlsplit(server.paths[-1]).query)["facets[respondent][]"]) == 16
    assert "N39, N" not in readings[-1].source.note.split("without a value")[1]


@pytest.mark.parametrize(
    ("flows", "says"),
    [
        ([], "no interchange is told of CISO: leave mix at production"),
        ([flow(END, "AZPS", 1.0, "PJM")], "the answer is of 'PJM', asked was CISO"),
        ([flow(END, "azps", 1.0)], "not what EIA documents"),
        ([flow(END - 20 * HOUR, "AZPS", -900.0)], "no hour of which what flows in is known"),
    ],
)
def test_flows_that_do_not_fit_are_told(server: Server, flows: list[dict[str, Any]], says: str) -> None:
    server.answer = lambda path: as_json(document(flows)) if "interchange" in path else neighbours(path)
    with pytest.raises(FeedError, match=says):
        feed(server.url, mix="consumption").poll()
