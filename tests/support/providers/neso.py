"""NESO's server: half hours, `actual` null until settled, times without seconds."""

from datetime import datetime, timedelta
from typing import Any

from support.http_server import Reply
from support.providers.case import ProviderCase, Slot, World, as_json


def _row(slot: Slot, world: World) -> dict[str, Any]:
    past = slot.end <= world.now
    offset = "" if world.naive else "Z"
    return {
        "from": f"{slot.start:%Y-%m-%dT%H:%M}{offset}",
        "to": f"{slot.end:%Y-%m-%dT%H:%M}{offset}",
        "intensity": {
            "forecast": slot.g_per_kwh,
            "actual": slot.g_per_kwh if past else None,
            "index": "moderate",
        },
    }


def _answer(world: World, path: str) -> Reply:
    parts = path.removeprefix("/intensity").strip("/").split("/")
    if parts == [""]:
        slots = world.past[-1:]
    elif parts[-1] == "fw48h":
        slots = world.ahead
    else:
        since, until = (datetime.fromisoformat(part) for part in parts)
        slots = world.between(since, until)
    return as_json({"data": world.cut([_row(slot, world) for slot in slots])})


NESO = ProviderCase(
    "neso",
    {},
    _answer,
    timedelta(minutes=30),
    basis="average-direct",
    zone="GB",
    cannot={
        "wrong zone": "an answer names no zone",
        "60 to 15 minutes": "its half hours carry their ends",
    },
)
