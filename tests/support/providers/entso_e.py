"""ENTSO-E's server: XML, a series for every type with a period for every stretch of one resolution, A03: no point where nothing changes."""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from itertools import groupby
from urllib.parse import parse_qs, urlsplit

from support.http_server import Reply
from support.providers.case import SECRET, ProviderCase, Slot, World
from support.providers.mix import outputs

QUARTER = timedelta(minutes=15)
_CODES = {"gas": "B04", "wind onshore": "B19"}
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
