"""The ODRÉ portal's server: pages of at most 100 quarter hours, the newest first."""

from datetime import timedelta
from typing import Any
from urllib.parse import parse_qs, urlsplit

from support.http_server import Reply
from support.providers.case import ProviderCase, Slot, World, as_json


def _record(slot: Slot, world: World) -> dict[str, Any]:
    return {
        "perimetre": "Espagne" if world.wrong_zone else "France",
        "nature": "Données temps réel",
        "date_heure": f"{slot.start:%Y-%m-%dT%H:%M:%S}" + ("" if world.naive else "+00:00"),
        "taux_co2": slot.g_per_kwh,
    }


def _answer(world: World, path: str) -> Reply:
    asked = {key: values[0] for key, values in parse_qs(urlsplit(path).query).items()}
    limit, offset = int(asked["limit"]), int(asked.get("offset", 0))
    if limit > 100:
        return as_json({"error_code": "InvalidRESTParameterError"}, 400)
    slots = world.cut([s for s in world.slots if s.g_per_kwh is not None and s.start <= world.now])
    rows = [_record(slot, world) for slot in reversed(slots)]
    return as_json({"total_count": len(rows), "results": rows[offset : offset + limit]})


RTE = ProviderCase("rte", {}, _answer, timedelta(minutes=15), basis="average-direct", zone="FR")
