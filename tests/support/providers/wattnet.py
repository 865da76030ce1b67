"""wattnet's server: a login, then series of quarter hours, final or not."""

import json
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import parse_qs, urlsplit

from support.http_server import Reply
from support.providers.case import LENT, SECRET, ProviderCase, Slot, World, as_json


def _series(slots: list[Slot], world: World, *, valid: bool, status: str) -> dict[str, Any]:
    offset = "" if world.naive else "Z"
    values = [[f"{slot.start:%Y-%m-%dT%H:%M:%S}{offset}", slot.g_per_kwh] for slot in slots]
    return {"valid": valid, "zone_status": status, "values": world.cut(values)}


def _answer(world: World, path: str) -> Reply:
    asked = urlsplit(path)
    if asked.path == "/token-request/get_token":
        return as_json({"access_token": LENT, "expires_at": (world.now + timedelta(days=1)).isoformat()})
    params = {name: values[0] for name, values in parse_qs(asked.query).items()}
    since, until = (datetime.fromisoformat(params[name]).replace(tzinfo=UTC) for name in ("start", "end"))
    slots = world.between(since, until)
    settled = [slot for slot in slots if slot.end <= world.now - timedelta(hours=4)]
    footprint = {
        "footprint_type": "carbon",
        "scope": params["scope"],
        "zone": "YY" if world.wrong_zone else params["zone"],
        "unit": "gCO2/kWh",
        "coverage": "global",
        "series": [
            _series(settled, world, valid=True, status="complete"),
            _series([s for s in slots if s not in settled], world, valid=False, status="preview"),
        ],
    }
    return Reply(json.dumps([footprint]).encode())


WATTNET = ProviderCase(
    "wattnet",
    {"email": "box@example.org", "password_env": "CASE_WN_PASSWORD"},
    _answer,
    timedelta(minutes=15),
    login="/token-request/get_token",
    env={"CASE_WN_PASSWORD": SECRET},
)
