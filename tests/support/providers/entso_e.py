"""ENTSO-E's server: XML, a series for every type with a period for every stretch of one resolution, A03: no point where nothing changes."""

from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from itertools import groupby
from urllib.parse import parse_qs, urlsplit

from support.http_server import Reply
from support.providers.case import SECRET, ProviderCase, Slot, World
from support.providers.mix import outputs

from carbonsched.feeds.entso_e_borders import CODES

QUARTER, _HOUR = timedelta(minutes=15), timedelta(hours=1)
_CODES = {"gas": "B04", "wind onshore": "B19"}
_SENDER = "10YPT-REN------W"
_NAMES = {QUARTER: "PT15M", timedelta(minutes=30): "PT30M", timedelta(hours=1): "PT60M"}
Point = tuple[datetime, timedelta, float | None]
"""(begin, how long, MW or unknown)."""


def period(points: Sequence[Point], offset: str = "Z", curve: str = "A03") -> str:
    """Points that follow each other, of one resolution, known all of them; doubled ones are said twice."""
    begin, step, _ = points[0]
    found, before, said = [], None, None
    for at, _, mw in points:
        if curve == "A01" or mw != before or at == said:
            said = at
            position = (at - begin) // step + 1
            found.append(f"<Point><position>{position}</position><quantity>{mw}</quantity></Point>")
        before = mw
    end = points[-1][0] + step
    span = f"<start>{begin:%Y-%m-%dT%H:%M}{offset}</start><end>{end:%Y-%m-%dT%H:%M}{offset}</end>"
    return f"<Period><timeInterval>{span}</timeInterval><resolution>{_NAMES[step]}</resolution>{''.join(found)}</Period>"


def series(code: str, zone: str, periods: str, curve: str = "A03", domain: str = "in") -> str:
    return (
        "<TimeSeries><mRID>1</mRID><businessType>A01</businessType><objectAggregation>A08</objectAggregation>"
        f'<{domain}BiddingZone_Domain.mRID codingScheme="A01">{zone}</{domain}BiddingZone_Domain.mRID>'
        f"<quantity_Measure_Unit.name>MAW</quantity_Measure_Unit.name><curveType>{curve}</curveType>"
        f"<MktPSRType><psrType>{code}</psrType></MktPSRType>{periods}</TimeSeries>"
    )


def document(*found: str) -> bytes:
    namespace = "urn:iec62325.351:tc57wg16:451-6:generationloaddocument:3:0"
    return (
        f'<?xml version="1.0" encoding="utf-8"?>\n<GL_MarketDocument xmlns="{namespace}"><mRID>60112bd6</mRID>'
        f"<type>A75</type><process.processType>A16</process.processType>{''.join(found)}</GL_MarketDocument>"
    ).encode()


def acknowledgement(text: str) -> bytes:
    namespace = "urn:iec62325.351:tc57wg16:451-1:acknowledgementdocument:7:0"
    return (
        f'<?xml version="1.0" encoding="UTF-8"?><Acknowledgement_MarketDocument xmlns="{namespace}">'
        f"<Reason><code>999</code><text>{text}</text></Reason></Acknowledgement_MarketDocument>"
    ).encode()


def flows(source: str, sink: str, *periods: str, curve: str = "A03") -> bytes:
    """Physical flows of one direction; a real one (DK1 to GB, 2023) has this shape."""
    namespace = "urn:iec62325.351:tc57wg16:451-3:publicationdocument:7:0"
    series = (
        "<TimeSeries><mRID>1</mRID><businessType>A66</businessType>"
        f'<in_Domain.mRID codingScheme="A01">{sink}</in_Domain.mRID><out_Domain.mRID codingScheme="A01">{source}</out_Domain.mRID>'
        f"<quantity_Measure_Unit.name>MAW</quantity_Measure_Unit.name><curveType>{curve}</curveType>{''.join(periods)}</TimeSeries>"
    )
    return (
        f'<?xml version="1.0" encoding="UTF-8"?>\n<Publication_MarketDocument xmlns="{namespace}"><mRID>155f9f14</mRID>'
        f"<revisionNumber>1</revisionNumber><type>A11</type>{series if periods else ''}</Publication_MarketDocument>"
    ).encode()


def _periods(slots: Sequence[Slot], plant: str, offset: str) -> str:
    points: list[Point] = [(s.start, s.end - s.start, outputs(s.g_per_kwh)[plant]) for s in slots]
    runs = groupby((p for p in points if p[2] is not None), key=lambda point: point[1])
    return "".join(period(list(run), offset) for _, run in runs)


def _answer(world: World, path: str) -> Reply:
    asked = {name: found[0] for name, found in parse_qs(urlsplit(path).query).items()}
    if asked.get("securityToken") != SECRET:
        return Reply(acknowledgement("Unauthorized. Missing or invalid security token"), 401, type="text/xml")
    since, until = (
        datetime.strptime(asked[name], "%Y%m%d%H%M").replace(tzinfo=UTC)
        for name in ("periodStart", "periodEnd")
    )
    slots = [s for s in world.past if since <= s.start < until]
    if asked["documentType"] == "A11":
        mw = 700.0 if asked["out_Domain"] == _SENDER else 0.0
        points: list[Point] = [(s.start, s.end - s.start, mw) for s in slots]
        runs = groupby(world.cut(points), key=lambda point: point[1])
        told = [period(list(run), "" if world.naive else "Z") for _, run in runs]
        return Reply(flows(asked["out_Domain"], asked["in_Domain"], *told), type="text/xml")
    rows = world.cut([(plant, slot) for plant in _CODES for slot in slots])
    zone = "10YNL----------L" if world.wrong_zone else asked["in_Domain"]
    found = [
        series(code, zone, _periods([s for p, s in rows if p == plant], plant, "" if world.naive else "Z"))
        for plant, code in _CODES.items()
    ]
    return Reply(document(*found), type="text/xml")


ENTSO_E = ProviderCase(
    "entso-e",
    {"token_env": "ENTSOE_TOKEN", "zone": "FR"},
    _answer,
    QUARTER,
    zone="FR",
    env={"ENTSOE_TOKEN": SECRET},
)
ENTSO_E_OF_CONSUMPTION = replace(ENTSO_E, zone="ES", keys=ENTSO_E.keys | {"zone": "ES", "mix": "consumption"})
"""Its neighbours generate as it does, so that what flows in changes no value."""


class Grid:
    """ENTSO-E's server, of some zones of nuclear power alone and the flows between them; a test changes what it tells."""

    def __init__(self, until: datetime, *zones: str) -> None:
        """until: when the newest generation that it tells of ends; flows are told an hour further."""
        self.mixes = {CODES[zone]: {"B14": 1000.0} for zone in zones}
        self.flows: dict[tuple[str, str], float] = {}
        self.flow_step = _HOUR
        self.step = QUARTER
        self.flows_until, self.generated_until = until + _HOUR, until
        self.instead: dict[tuple[str, ...], Reply] = {}
        """(type, out, in) or (type, zone) → another answer."""

    def __call__(self, path: str) -> Reply:
        asked = {name: found[0] for name, found in parse_qs(urlsplit(path).query).items()}
        since, until = (
            datetime.strptime(asked[name], "%Y%m%d%H%M").replace(tzinfo=UTC)
            for name in ("periodStart", "periodEnd")
        )
        key = tuple(asked[k] for k in ("documentType", "out_Domain", "in_Domain") if k in asked)
        if key in self.instead:
            return self.instead[key]
        if key[0] == "A75":
            return Reply(self._mix(key[1], since, until), type="text/xml")
        mw = self.flows.get((key[1], key[2]), 0.0)
        points = self._points(mw, since, min(until, self.flows_until), self.flow_step)
        return Reply(flows(key[1], key[2], period(points)), type="text/xml")

    @staticmethod
    def _points(mw: float, since: datetime, until: datetime, step: timedelta) -> list[Point]:
        return [(since + i * step, step, mw) for i in range((until - since) // step)]

    def _mix(self, zone: str, since: datetime, until: datetime) -> bytes:
        until = min(until, self.generated_until)
        return document(
            *(
                series(code, zone, period(self._points(mw, since, until, self.step)))
                for code, mw in self.mixes[zone].items()
            )
        )
