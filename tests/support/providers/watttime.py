"""WattTime's server: a login, then a forecast that begins now and a past, in pounds a MWh every 5 minutes."""

from datetime import datetime, timedelta
from typing import Any
from urllib.parse import parse_qs, urlsplit

from support.http_server import Reply
from support.providers.case import LENT, SECRET, ProviderCase, Slot, World, as_json

_POUND = 0.45359237


def _point(slot: Slot, world: World) -> dict[str, Any]:
    offset = "" if world.naive else "+00:00"
    value = None if slot.g_per_kwh is None else slot.g_per_kwh / _POUND
    return {"point_time": f"{slot.start:%Y-%m-%dT%H:%M:%S}{offset}", "value": value}


def _answer(world: World, path: str) -> Reply:
    asked = urlsplit(path)
    if asked.path == "/login":
        return as_json({"token": LENT})
    params = {name: values[0] for name, values in parse_qs(asked.query).items()}
    if asked.path == "/v3/forecast":
        slots = world.ahead
    else:
        slots = world.between(datetime.fromisoformat(params["start"]), datetime.fromisoformat(params["end"]))
    about = {
        "region": "YY" if world.wrong_zone else params["region"],
        "signal_type": params["signal_type"],
        "units": "lbs_co2_per_mwh",
        "data_point_period_seconds": (world.slots[-1].end - world.slots[-1].start).total_seconds(),
        "generated_at": f"{world.now:%Y-%m-%dT%H:%M:%S+00:00}",
        "warnings": [],
        "model": {"date": "2023-03-01"},
    }
    return as_json({"data": world.cut([_point(slot, world) for slot in slots]), "meta": about})


WATTTIME = ProviderCase(
    "watttime",
    {"username": "box", "password_env": "CASE_WT_PASSWORD"},
    _answer,
    timedelta(minutes=5),
    basis="marginal-direct",
    login="/login",
    env={"CASE_WT_PASSWORD": SECRET},
)
