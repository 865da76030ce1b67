"""Open Electricity's server, as its source has it: energy and emissions of a region in five minutes, by fuel technology."""

from collections.abc import Callable
from datetime import datetime, timedelta, timezone
from typing import Any
from urllib.parse import parse_qs, urlsplit

from support.http_server import Reply
from support.providers.case import SECRET, ProviderCase, Slot, World, as_json

_MARKET = timezone(timedelta(hours=10))
_MWH = 320.0


def _answer(world: World, path: str) -> Reply:
    parts = urlsplit(path)
    asked = parse_qs(parts.query)
    start = datetime.fromisoformat(asked["date_start"][0])
    if start.tzinfo is not None:
        return as_json({"detail": "Date start must be timezone naive and in network time"}, 400)
    [region] = asked["network_region"]
    slots = world.cut(
        [s for s in world.slots if s.start >= start.replace(tzinfo=_MARKET) and s.start <= world.now]
    )

    name = "VIC1" if world.wrong_zone else region

    def result(metric: str, fuel: str, value: Callable[[Slot], float | None]) -> dict[str, Any]:
        times = [slot.start.astimezone(_MARKET).isoformat()[: 19 if world.naive else None] for slot in slots]
        return {
            "name": f"{metric}_{name}|{fuel}",
            "columns": {"region": name, "fueltech": fuel},
            "data": [[at, value(slot)] for at, slot in zip(times, slots, strict=True)],
        }

    def tonnes(slot: Slot) -> float | None:
        return None if slot.g_per_kwh is None else slot.g_per_kwh * 2 * _MWH / 1000

    fuels = {
        "coal_black": (lambda slot: _MWH, tonnes),
        "wind": (lambda slot: _MWH, lambda slot: 0.0),
        "battery_charging": (lambda slot: -_MWH, lambda slot: 0.0),
        "distillate": (lambda slot: None, lambda slot: None),
    }
    data = [
        {
            "network_code": parts.path.rpartition("/")[2],
            "metric": metric,
            "unit": unit,
            "interval": "5m",
            "groupings": ["network_region", "fueltech"],
            "network_timezone_offset": "+10:00",
            "results": [result(metric, fuel, values[i]) for fuel, values in fuels.items()],
        }
        for i, (metric, unit) in enumerate((("energy", "MWh"), ("emissions", "t")))
    ]
    return as_json({"version": "4.5.0", "success": True, "data": data})


OPEN_ELECTRICITY = ProviderCase(
    "open-electricity",
    {"region": "NSW1", "token_env": "CASE_OE_KEY"},
    _answer,
    timedelta(minutes=5),
    basis="average-direct",
    zone="AU-NSW",
    env={"CASE_OE_KEY": SECRET},
)
