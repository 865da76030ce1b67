"""Electricity Maps' server, version 4: rows that begin at `datetime`, estimated until they are settled."""

from datetime import datetime, timedelta
from typing import Any
from urllib.parse import parse_qs, urlsplit

from support.http_server import Reply
from support.providers.case import SECRET, ProviderCase, Slot, World, as_json

_ISO = "%Y-%m-%dT%H:%M:%S.000"
_WORDS = {5: "5_minutes", 15: "15_minutes", 60: "hourly"}


def _row(slot: Slot, world: World, zone: str) -> dict[str, Any]:
    offset = "" if world.naive else "Z"
    return {
        "zone": zone,
        "carbonIntensity": slot.g_per_kwh,
        "datetime": f"{slot.start:{_ISO}}{offset}",
        "updatedAt": f"{world.now:{_ISO}}Z",
        "createdAt": f"{slot.start - timedelta(days=1):{_ISO}}Z",
        "emissionFactorType": "lifecycle",
        "flowTraced": True,
        "isEstimated": slot.end > world.now,
        "estimationMethod": "FORECASTS_HIERARCHY" if slot.end > world.now else None,
    }


def _answer(world: World, path: str) -> Reply:
    asked = urlsplit(path)
    params = {name: values[0] for name, values in parse_qs(asked.query).items()}
    zone = "YY" if world.wrong_zone else params["zone"]
    last = world.past[-1]
    granularity = {"temporalGranularity": _WORDS[round((last.end - last.start).total_seconds() / 60)]}
    what = asked.path.rsplit("/", 1)[1]
    if what == "latest":
        return as_json(_row(last, world, zone) | granularity)
    if what == "forecast":
        rows = [_row(slot, world, zone) for slot in world.ahead]
        ahead = [{key: row[key] for key in ("carbonIntensity", "datetime")} for row in rows]
        about = {"zone": zone, "updatedAt": f"{world.now:{_ISO}}Z"} | granularity
        return as_json(about | {"forecast": world.cut(ahead)})
    since, until = (datetime.fromisoformat(params[name]) for name in ("start", "end"))
    rows = [_row(slot, world, zone) for slot in world.between(since, until)]
    return as_json({"zone": zone, "data": world.cut(rows)} | granularity)


ELECTRICITY_MAPS = ProviderCase(
    "electricity-maps",
    {"token_env": "CASE_EM_TOKEN"},
    _answer,
    timedelta(hours=1),
    env={"CASE_EM_TOKEN": SECRET},
)
