"""Energi Data Service's server: 5-minute records of one price area, times in UTC and in Danish time, both without an offset."""

import json
from datetime import datetime, timedelta
from typing import Any
from urllib.parse import parse_qs, urlsplit
from zoneinfo import ZoneInfo

from support.http_server import Reply
from support.providers.case import ProviderCase, Slot, World, as_json

DENMARK = ZoneInfo("Europe/Copenhagen")
_LATE = timedelta(minutes=15)


def _record(slot: Slot, area: str) -> dict[str, Any]:
    return {
        "Minutes5UTC": f"{slot.start:%Y-%m-%dT%H:%M:%S}",
        "Minutes5DK": f"{slot.start.astimezone(DENMARK):%Y-%m-%dT%H:%M:%S}",
        "PriceArea": area,
        "CO2Emission": slot.g_per_kwh,
    }


def _answer(world: World, path: str) -> Reply:
    parts = urlsplit(path)
    asked = {key: values[0] for key, values in parse_qs(parts.query).items()}
    start, end = (datetime.fromisoformat(asked[key]) for key in ("start", "end"))
    assert asked["limit"] == "0"
    [area] = json.loads(asked["filter"])["PriceArea"]
    dataset = parts.path.removeprefix("/dataset/")
    slots = [s for s in world.slots if start <= s.start.astimezone(DENMARK).replace(tzinfo=None) < end]
    if dataset == "CO2Emis":
        slots = [slot for slot in slots if slot.end <= world.now - _LATE]
    records = world.cut([_record(slot, "SE4" if world.wrong_zone else area) for slot in slots])
    return as_json({"total": len(records), "limit": 0, "dataset": dataset, "records": records})


ENERGI_DATA_SERVICE = ProviderCase(
    "energi-data-service",
    {"price_area": "DK1"},
    _answer,
    timedelta(minutes=5),
    basis="average-direct",
    zone="DK1",
    local=DENMARK,
)
