"""Against a real HTTP server on loopback with XML of the shape that ENTSO-E sends (real answers were seen, of 2023 to 2025-10)."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from support.canned import Canned
from support.http_server import Reply, Server, serve
from support.manual_clock import ManualClock
from support.providers.entso_e import QUARTER, Grid, acknowledgement, document, flows, period, series

from carbonsched.errors import FeedError, InputError
from carbonsched.feeds.base import Site
from carbonsched.feeds.entso_e_borders import BORDERS, CODES
from carbonsched.feeds.entso_e_documents import ZONES, eic
from carbonsched.feeds.http import HttpTransport
from carbonsched.feeds.providers.entso_e import EntsoeFeed, EntsoeSettings
from carbonsched.feeds.transport import Transport
from carbonsched.feeds.zone import Zone
from carbonsched.model.grid import Basis, Kind

NOW = datetime(2026, 3, 12, 10, 20, tzinfo=UTC)
NINE = datetime(2026, 3, 12, 9, tzinfo=UTC)
HOUR = timedelta(hours=1)
FRANCE = "10YFR-RTE------C"


def of(code: str, *mw: float, start: datetime = NINE, step: timedelta = QUARTER, **kind: str) -> str:
    """A series with one period of these values."""
    points = [(start + i * step, step, one) for i, one in enumerate(mw)]
    return series(code, FRANCE, period(points, curve=kind.get("curve", "A03")), **kind)


WHOLE = document(of("B04", 100, 100, 300, 300), of("B14", 900, 900, 700, 700), of("B10", 50, 50, 50, 50))


@pytest.fixture(autouse=True)
def _token(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ENTSOE_TOKEN", "s3cr3t-token")


@pytest.fixture
def server() -> Iterator[Server]:
    with serve(lambda path: Reply(WHOLE, type="text/xml")) as running:
        yield running


def built(network: Transport, clock: ManualClock | None = None, **options: Any) -> EntsoeFeed:
    keys = {"provider": "entso-e", "token_env": "ENTSOE_TOKEN", "zone": "FR"} | options
    site = Site(Zone(name="FR"), clock or ManualClock(NOW), Path("/nowhere"), network)
    return EntsoeSettings.model_validate(keys).build(site)


def feed(server: Server, clock: ManualClock | None = None, **options: Any) -> EntsoeFeed:
    return built(HttpTransport(backoff_s=0.01), clock, url=server.url, timeout=2, **options)


def told(server: Server, *found: str, **options: Any) -> list[tuple[datetime, timedelta, float]]:
    server.answer = lambda path: Reply(document(*found), type="text/xml")
    readings = feed(server, **options).poll().readings
    return [(r.start, r.end - r.start, round(r.g_per_kwh, 1)) for r in readings]


def test_the_mix_of_each_quarter_with_points_that_are_left_out(server: Server) -> None:
    answer = feed(server).poll()
    low, high = 100 * 0.49 + 900 * 0.012, 300 * 0.49 + 700 * 0.012
    assert [r.g_per_kwh for r in answer.readings] == pytest.approx([low, low, high, high])
    assert (answer.readings[0].start, answer.readings[-1].end) == (NINE, NINE + HOUR)
    source = answer.readings[-1].source
    assert (source.kind, source.basis, source.zone) == (Kind.ESTIMATED, Basis.AVERAGE_LIFECYCLE, "FR")
    assert source.note == "production mix × lifecycle factors, IPCC AR5 A.III.2"
    assert server.headers[0]["Accept"] == "application/xml"


def test_eight_hours_at_a_time_and_two_days_once_an_hour(server: Server) -> None:
    clock = ManualClock(NOW)
    entsoe = feed(server, clock)
    entsoe.poll()
    asked = [parse_qs(urlsplit(path).query) for path in server.paths]
    assert {name: found[0] for name, found in asked[0].items()} == {
        "securityToken": "s3cr3t-token",
        "documentType": "A75",
        "processType": "A16",
        "in_Domain": FRANCE,
        "periodStart": "202603120300",
        "periodEnd": "202603121100",
    }
    starts = [found["periodStart"][0] for found in asked[1:]]
    assert starts == ["202603101100", "202603101900", "202603110300", "202603111100", "202603111900"]
    server.paths.clear()
    clock.advance(900)
    entsoe.poll()
    assert len(server.paths) == 1


def test_a_missing_past_costs_no_present(server: Server, caplog: pytest.LogCaptureFixture) -> None:
    server.answer = lambda path: Reply(
        WHOLE if "periodEnd=202603121100" in path else acknowledgement("No matching data found")
    )
    assert len(feed(server).poll().readings) == 4
    assert "no past two days: " in caplog.text


def test_without_a_code_for_points_left_out_they_are_not_known(server: Server) -> None:
    gap = of("B04", 100, 100, 300, 300, curve="A01").replace(
        "<Point><position>2</position><quantity>100</quantity></Point>", ""
    )
    found = told(server, gap, of("B14", 900, 900, 700, 700, curve="A01"))
    assert [at for at, _, _ in found] == [NINE, NINE + 2 * QUARTER, NINE + 3 * QUARTER]


def test_hours_beside_quarters_are_cut_into_quarters(server: Server) -> None:
    found = told(server, of("B04", 100, 100, 300, 300), of("B14", 800, step=HOUR))
    assert [step for _, step, _ in found] == [QUARTER] * 4
    assert [g for *_, g in found] == [
        round((mw * 490 + 800 * 12) / (mw + 800), 1) for mw in (100, 100, 300, 300)
    ]


def test_what_is_taken_out_of_the_zone_and_storage_are_left_out(server: Server) -> None:
    storage = of("B10", 500, 500, 500, 500)
    pumping = of("B10", 900, 900, 900, 900, domain="out")
    own = of("B14", 40, 40, 40, 40, domain="out")
    assert [g for *_, g in told(server, of("B14", 1, 1, 1, 1), storage, pumping, own)] == [12.0] * 4


def test_quarters_of_which_a_type_has_not_come_yet_are_left_out(server: Server) -> None:
    found = told(server, of("B04", 100, 100), of("B14", 900, 900, 900, 900))
    assert [at for at, _, _ in found] == [NINE, NINE + QUARTER]


@pytest.mark.parametrize(
    ("code", "lifecycle", "direct"),
    [("B02", 875.5, 811.4), ("B03", 820, 760), ("B06", 670.9, 621.8), ("B17", 700, 575), ("B99", 700, 575)],
)
def test_factors_that_are_scaled_or_taken_over(
    server: Server, code: str, lifecycle: float, direct: float
) -> None:
    assert told(server, of(code, 5))[0][2] == lifecycle
    assert told(server, of(code, 5), basis="average-direct")[0][2] == direct


BAD = {
    "no data": (
        acknowledgement("No matching data found for AGGREGATED_GENERATION_PER_TYPE_R3"),
        "No matching",
    ),
    "another zone": (
        document(of("B04", 1)).replace(b"10YFR-RTE------C", b"10YNL----------L"),
        "asked was 10YFR",
    ),
    "another document": (
        WHOLE.replace(b"GL_Market", b"Publication_Market"),
        "is a 'Publication_MarketDocument'",
    ),
    "HTML": (b"<html><body>down</body>", "is not XML"),
    "HTML that is XML": (b"<html/>", "is a 'html'"),
    "no text": (b"\xff\xfe<", "is not XML"),
    "entities": (
        b'<!DOCTYPE a [<!ENTITY b "c">]><GL_MarketDocument>&b;</GL_MarketDocument>',
        "a document type",
    ),
    "no series": (document(), "no interval of which every type is known"),
    "months": (WHOLE.replace(b"PT15M", b"P1M"), "resolution 'P1M'"),
    "a period without end": (WHOLE.replace(b"2026-03-12T10:00Z</end>", b"2036-03-12T10:00Z</end>"), "length"),
    "no offset": (WHOLE.replace(b"Z</start>", b"</start>"), "no time zone"),
    "not a number": (WHOLE.replace(b">300<", b">nan<"), "finite number"),
    "a slip in a number": (WHOLE.replace(b">300<", b">3_00<"), "'3_00' is not a number"),
    "position 0": (WHOLE.replace(b"<position>1<", b"<position>0<"), "must be 1 or more"),
    "cut": (
        document(*(of("B04", *(float(i * 7 % 11 + j) for i in range(100))) for j in range(10))),
        "cut off",
    ),
}


@pytest.mark.parametrize("case", BAD)
def test_what_is_not_an_answer_is_one_line_of_error(server: Server, case: str) -> None:
    body, words = BAD[case]
    server.answer = lambda path: Reply(body, type="text/xml")
    with pytest.raises(FeedError) as caught:
        feed(server).poll()
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("written", "name"), [("DK_1", "DK1"), ("DK-DK1", "DK1"), ("se3", "SE3"), ("IE(SEM)", "IE-SEM")]
)
def test_a_zone_is_known_however_it_is_written(written: str, name: str) -> None:
    assert eic(written) == ZONES[name]
    assert eic(ZONES[name]) == ZONES[name]


def test_codes_are_of_the_form_that_they_have() -> None:
    assert all(eic(code) == code for code in ZONES.values())
    assert len(set(ZONES.values())) == len(ZONES)


def test_a_zone_that_is_none_is_refused_with_those_there_are() -> None:
    with pytest.raises(
        InputError, match=r"zone: 'US-CAL-CISO' is no bidding zone that is known here; .*DE-LU"
    ):
        built(Canned(), zone="US-CAL-CISO")


SPAIN, PORTUGAL = ZONES["ES"], ZONES["PT"]
HOURS = [datetime(2026, 3, 10, 11, tzinfo=UTC) + i * HOUR for i in range(48)]
"""The two days that are asked for."""


@pytest.fixture
def grid(server: Server) -> Grid:
    """Spain, of nuclear power; Portugal sends 500 MW of coal and gas, France takes."""
    grid = Grid(NINE + HOUR, "ES", "FR", "PT")
    grid.mixes[PORTUGAL] = {"B05": 300.0, "B04": 100.0}
    grid.flows = {(PORTUGAL, SPAIN): 600.0, (SPAIN, PORTUGAL): 100.0, (SPAIN, FRANCE): 900.0}
    server.answer = grid
    return grid


IBERIA = (1000 * 12 + 500 * (300 * 820 + 100 * 490) / 400) / 1500


def of_spain(server: Server, clock: ManualClock | None = None, **options: Any) -> EntsoeFeed:
    return feed(server, clock, **({"zone": "ES", "mix": "consumption"} | options))


def asked_of(server: Server) -> list[tuple[str, ...]]:
    """(document, domains…, begin) of each request since the last call, which forgets them."""
    queries = [parse_qs(urlsplit(path).query) for path in server.paths]
    server.paths.clear()
    keys = ("documentType", "out_Domain", "in_Domain", "periodStart")
    return [tuple(query[key][0] for key in keys if key in query) for query in queries]


def test_what_neighbours_send_in_counts_at_what_they_generate(server: Server, grid: Grid) -> None:
    readings = of_spain(server).poll().readings
    assert [r.g_per_kwh for r in readings] == [pytest.approx(IBERIA)] * len(readings)
    assert (readings[0].start, readings[-1].end) == (HOURS[0], NINE + HOUR)
    assert len(readings) == 47 * 4, "quarters, though flows are told of hours"
    note = readings[-1].source.note
    assert "consumption mix, one hop, × lifecycle factors" in note
    assert "; imports of PT; also read from " in note
    assert len(note.split("also read from ")[1].split(", ")) == 3, "two directions, and eight hours of a mix"


def test_flows_and_mixes_are_asked_once_an_hour_and_hold_in_between(server: Server, grid: Grid) -> None:
    clock = ManualClock(NOW)
    spain = of_spain(server, clock)
    for _ in range(2):
        spain.poll()
        asked = asked_of(server)
        assert [one[:-1] for one in asked if one[0] == "A11"] == [
            ("A11", FRANCE, SPAIN),
            ("A11", SPAIN, FRANCE),
            ("A11", PORTUGAL, SPAIN),
            ("A11", SPAIN, PORTUGAL),
        ]
        assert sum(one[:2] == ("A75", PORTUGAL) for one in asked) == 6
        assert not any(one[:2] == ("A75", FRANCE) for one in asked), "who takes is not asked"
        assert len(asked) == 4 + 6 + 6
        for _ in range(3):
            clock.advance(900)
            spain.poll()
            assert [one[:2] for one in asked_of(server)] == [("A75", SPAIN)]
        clock.advance(900)


@pytest.mark.parametrize(("zone", "most"), [("DE-LU", 94), ("PT", 14)])
def test_the_most_that_a_poll_asks(server: Server, zone: str, most: int) -> None:
    grid = Grid(NINE + HOUR, zone, *BORDERS[zone])
    grid.flows = {(CODES[name], ZONES[zone]): 1.0 for name in BORDERS[zone]}
    server.answer = grid
    assert feed(server, zone=zone, mix="consumption").poll().readings
    assert len(server.paths) == most
    assert max(map(len, BORDERS.values())) == len(BORDERS["DE-LU"]), "no other zone asks more"


def test_without_it_nothing_else_is_asked(server: Server, grid: Grid) -> None:
    for options in ({}, {"mix": "production"}):
        readings = feed(server, zone="ES", **options).poll().readings
        assert {r.g_per_kwh for r in readings} == {12.0}
        assert [one[:2] for one in asked_of(server)] == [("A75", SPAIN)] * 6
    assert {r.source.note for r in readings} == {"production mix × lifecycle factors, IPCC AR5 A.III.2"}


def test_a_quarter_whose_flows_are_not_told_is_not_known(server: Server, grid: Grid) -> None:
    grid.flows_until = NINE - HOUR
    assert of_spain(server).poll().readings[-1].end == NINE - HOUR
    grid.flows_until = NINE - 9 * HOUR
    with pytest.raises(FeedError, match="what flows into ES is known of no interval of the past eight hours"):
        of_spain(server).poll()


NO_DATA = Reply(acknowledgement("No matching data found for Data item Physical Flows"), type="text/xml")


@pytest.mark.parametrize(
    ("source", "sink"), [(FRANCE, SPAIN), (SPAIN, FRANCE), (PORTUGAL, SPAIN), (SPAIN, PORTUGAL)]
)
@pytest.mark.parametrize(
    "answer",
    [
        NO_DATA,
        Reply(flows(FRANCE, SPAIN), type="text/xml"),
        Reply(acknowledgement("busy"), type="text/xml"),
        Reply(b"{", 500),
        Reply(b"", 400),
        Reply(flows(SPAIN, SPAIN, period([(NINE, HOUR, 1.0)])), type="text/xml"),
        Reply(flows(FRANCE, PORTUGAL, period([(NINE, HOUR, 1.0)], offset="")), type="text/xml"),
    ],
    ids=["no data", "no series", "refused", "500", "400", "another border", "no offset"],
)
def test_a_border_that_is_not_told_is_never_the_production_mix(
    server: Server, grid: Grid, source: str, sink: str, answer: Reply
) -> None:
    grid.instead["A11", source, sink] = answer
    name = "FR" if FRANCE in (source, sink) else "PT"
    with pytest.raises(
        FeedError, match=f"no flow between ES and {name} is told in the past two days"
    ) as caught:
        of_spain(server).poll()
    assert "\n" not in str(caught.value)
    assert [one[:2] for one in asked_of(server) if one[0] == "A75"] == [("A75", SPAIN)]


def test_what_was_told_before_holds_where_a_border_fails(server: Server, grid: Grid) -> None:
    clock = ManualClock(NOW)
    spain = of_spain(server, clock)
    spain.poll()
    asked_of(server)
    grid.instead["A11", FRANCE, SPAIN] = Reply(acknowledgement("busy"), type="text/xml")
    clock.advance(3600)
    assert spain.poll().readings[-1].g_per_kwh == pytest.approx(IBERIA)
    asked_of(server)
    del grid.instead["A11", FRANCE, SPAIN]
    clock.advance(900)
    spain.poll()
    assert [one[1:-1] for one in asked_of(server) if one[0] == "A11"] == [(FRANCE, SPAIN), (SPAIN, FRANCE)]
    grid.flows_until = HOURS[-1] + 60 * HOUR
    grid.instead["A11", FRANCE, SPAIN] = Reply(acknowledgement("busy"), type="text/xml")
    grid.generated_until = NINE + 50 * HOUR
    clock.advance(50 * 3600)
    with pytest.raises(FeedError, match="no flow between ES and FR is told in the past two days"):
        spain.poll()


@pytest.mark.parametrize(
    ("answer", "requests"),
    [
        (Reply(acknowledgement("busy"), type="text/xml"), 3),
        (Reply(b"", 429, {"Retry-After": "600"}), 2),
    ],
)
def test_a_server_that_fails_is_not_asked_at_every_border(
    server: Server, answer: Reply, requests: int
) -> None:
    grid = Grid(NINE + HOUR, "DE-LU")
    server.answer = lambda path: answer if "documentType=A11" in path else grid(path)
    with pytest.raises(FeedError, match="no flow between DE-LU and AT, BE, CH"):
        feed(server, zone="DE-LU", mix="consumption").poll()
    assert len(server.paths) == requests


def test_neighbours_that_fail_keep_no_others_from_their_turn(server: Server) -> None:
    grid, clock = Grid(NINE + HOUR, "FR", *BORDERS["FR"]), ManualClock(NOW)
    grid.flows = {(CODES[name], FRANCE): 1.0 for name in BORDERS["FR"]}
    grid.instead = dict.fromkeys(
        [("A75", CODES["BE"]), ("A75", CODES["CH"])], Reply(acknowledgement("busy"), type="text/xml")
    )
    server.answer = grid
    france = feed(server, clock, mix="consumption")
    notes = []
    for _ in range(2):
        notes.append(france.poll().readings[-1].source.note.partition("; also")[0])
        clock.advance(900)
    assert notes[0].endswith("; no imports; without a value: BE, CH, DE-LU, ES, GB, IT-NORD")
    assert notes[1].endswith("; imports of DE-LU, ES, GB, IT-NORD; without a value: BE, CH")


@pytest.mark.parametrize(("mw", "known"), [(50.0, True), (600.0, False)])
def test_a_neighbour_without_a_mix_has_no_weight_and_is_named(
    server: Server, grid: Grid, mw: float, known: bool
) -> None:
    grid.instead["A75", FRANCE] = NO_DATA
    grid.flows[FRANCE, SPAIN] = 900.0 + mw
    spain = of_spain(server)
    if not known:
        with pytest.raises(FeedError, match="what flows into ES is known of no interval"):
            spain.poll()
        return
    last = spain.poll().readings[-1]
    assert last.g_per_kwh == pytest.approx(IBERIA)
    assert "; imports of PT; without a value: FR; also read from " in last.source.note
    assert sum(one[:2] == ("A75", FRANCE) for one in asked_of(server)) == 1, "it is asked no further"


def test_hours_of_a_zone_are_cut_into_the_quarters_of_its_flows(server: Server, grid: Grid) -> None:
    grid.step, grid.flow_step = HOUR, QUARTER
    readings = of_spain(server, basis="average-direct").poll().readings
    direct = (500 * (300 * 760 + 100 * 370) / 400) / 1500
    assert {r.end - r.start for r in readings} == {QUARTER}
    assert {round(r.g_per_kwh, 6) for r in readings} == {round(direct, 6)}
    assert "direct factors" in readings[-1].source.note


@pytest.mark.parametrize("zone", ["DE", "CY", "10YCY-1001A0003J", "IT"])
def test_a_zone_without_borders_has_production_only(zone: str) -> None:
    assert built(Canned(), zone=zone).zone == zone
    with pytest.raises(
        InputError,
        match=f"mix: is consumption, and no borders of {zone} are listed: it has production only; .*DE-LU",
    ):
        built(Canned(), zone=zone, mix="consumption")
