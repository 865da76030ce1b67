"""The providers of prices as the fault matrix sees them: each tells of the same world, a price being its intensity less 200, in EUR/MWh."""

import json
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from itertools import groupby
from typing import Any
from urllib.parse import parse_qs, urlsplit

from support.http_server import Reply
from support.providers.case import SECRET, ProviderCase, Slot, World, as_json
from support.providers.energi_data_service import DENMARK
from support.providers.entso_e import acknowledgement

QUARTER = timedelta(minutes=15)
LESS = 200.0
LICENCE = "CC BY 4.0 (creativecommons.org/licenses/by/4.0) from Bundesnetzagentur | SMARD.de"
_NAMES = {QUARTER: "PT15M", timedelta(minutes=30): "PT30M", timedelta(hours=1): "PT60M"}


def eur_per_mwh(slot: Slot) -> float | None:
    return None if slot.g_per_kwh is None else round(slot.g_per_kwh - LESS, 2)


def _asked(path: str) -> dict[str, str]:
    return {key: values[0] for key, values in parse_qs(urlsplit(path).query).items()}


def _energy_charts(world: World, path: str) -> Reply:
    asked = _asked(path)
    start, end = (
        datetime.strptime(asked[key], "%Y-%m-%dT%H:%MZ").replace(tzinfo=UTC) for key in ("start", "end")
    )
    slots = world.cut([slot for slot in world.slots if start <= slot.start <= end])
    return as_json(
        {
            "license_info": LICENCE,
            "unix_seconds": [round(slot.start.timestamp()) for slot in slots],
            "price": [eur_per_mwh(slot) for slot in slots],
            "unit": "EUR / MWh",
            "deprecated": False,
        }
    )


def _energi_data_service(world: World, path: str) -> Reply:
    asked = _asked(path)
    assert urlsplit(path).path == "/dataset/DayAheadPrices"
    start, end = (datetime.fromisoformat(asked[key]) for key in ("start", "end"))
    [area] = json.loads(asked["filter"])["PriceArea"]
    slots = [s for s in world.slots if start <= s.start.astimezone(DENMARK).replace(tzinfo=None) < end]
    records: list[dict[str, Any]] = [
        {
            "TimeUTC": f"{slot.start:%Y-%m-%dT%H:%M:%S}",
            "TimeDK": f"{slot.start.astimezone(DENMARK):%Y-%m-%dT%H:%M:%S}",
            "PriceArea": "SE4" if world.wrong_zone else area,
            "DayAheadPriceEUR": eur_per_mwh(slot),
            "DayAheadPriceDKK": 7.46 * (eur_per_mwh(slot) or 0.0),
        }
        for slot in slots
    ]
    return as_json(
        {"total": len(records), "limit": 0, "dataset": "DayAheadPrices", "records": world.cut(records)}
    )


def a44(*series: str) -> bytes:
    namespace = "urn:iec62325.351:tc57wg16:451-3:publicationdocument:7:3"
    return (
        f'<?xml version="1.0" encoding="utf-8"?>\n<Publication_MarketDocument xmlns="{namespace}"><mRID>f86583</mRID>'
        f"<type>A44</type>{''.join(series)}</Publication_MarketDocument>"
    ).encode()


def a44_series(
    slots: Sequence[Slot], zone: str, offset: str = "Z", sequence: str = "1", currency: str = "EUR"
) -> str:
    """Curve type A03: no point where the price stays what it was."""
    periods = ""
    known = [slot for slot in slots if slot.g_per_kwh is not None]
    for step, run in groupby(known, key=lambda slot: slot.end - slot.start):
        found = list(dict.fromkeys(run))
        points, before = "", None
        for slot in found:
            if (price := eur_per_mwh(slot)) != before:
                position = (slot.start - found[0].start) // step + 1
                points += (
                    f"<Point><position>{position}</position><price.amount>{price}</price.amount></Point>"
                )
            before = price
        span = f"<start>{found[0].start:%Y-%m-%dT%H:%M}{offset}</start><end>{found[-1].end:%Y-%m-%dT%H:%M}{offset}</end>"
        periods += f"<Period><timeInterval>{span}</timeInterval><resolution>{_NAMES[step]}</resolution>{points}</Period>"
    name = "classificationSequence_AttributeInstanceComponent.position"
    return (
        "<TimeSeries><mRID>1</mRID><auction.type>A01</auction.type><businessType>A62</businessType>"
        f'<in_Domain.mRID codingScheme="A01">{zone}</in_Domain.mRID><out_Domain.mRID codingScheme="A01">{zone}</out_Domain.mRID>'
        f"<contract_MarketAgreement.type>A01</contract_MarketAgreement.type><currency_Unit.name>{currency}</currency_Unit.name>"
        f"<price_Measure_Unit.name>MWH</price_Measure_Unit.name><{name}>{sequence}</{name}><curveType>A03</curveType>"
        f"{periods}</TimeSeries>"
    )


def _entso_e(world: World, path: str) -> Reply:
    asked = _asked(path)
    if asked.get("securityToken") != SECRET:
        return Reply(acknowledgement("Unauthorized. Missing or invalid security token"), 401, type="text/xml")
    since, until = (
        datetime.strptime(asked[name], "%Y%m%d%H%M").replace(tzinfo=UTC)
        for name in ("periodStart", "periodEnd")
    )
    zone = "10YNL----------L" if world.wrong_zone else asked["in_Domain"]
    slots = world.cut([slot for slot in world.slots if since <= slot.start < until])
    other = [Slot(s.start, s.end, (s.g_per_kwh or 0.0) - 17.0) for s in slots]
    offset = "" if world.naive else "Z"
    found = (a44_series(other, zone, offset, sequence="2"), a44_series(slots, zone, offset))
    return Reply(a44(*found), type="text/xml")


PRICE_CASES: tuple[ProviderCase, ...] = (
    ProviderCase(
        "energy-charts",
        {"zone": "DE-LU"},
        _energy_charts,
        QUARTER,
        zone="DE",
        cannot={"wrong zone": "an answer names no zone", "naive times": "its times are Unix seconds"},
    ),
    ProviderCase("energi-data-service", {"price_area": "DK1"}, _energi_data_service, QUARTER, zone="DK1"),
    ProviderCase(
        "entso-e",
        {"token_env": "ENTSOE_TOKEN", "zone": "DE-LU"},
        _entso_e,
        QUARTER,
        zone="DE",
        env={"ENTSOE_TOKEN": SECRET},
    ),
)
