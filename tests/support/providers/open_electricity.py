"""Open Electricity's server, as its source has it: energy and emissions of a region in five minutes, two intervals late."""

from datetime import datetime, timedelta, timezone
from typing import Any
from urllib.parse import parse_qs, urlsplit

from support.http_server import Reply
from support.providers.case import SECRET, ProviderCase, World, as_json

_MARKET = timezone(timedelta(hours=10))
_MWH = 640.0


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

    def series(metric: str, unit: str, factor: float) -> dict[str, Any]:
        name = "VIC1" if world.wrong_zone else region
        return {
            "network_code": parts.path.rpartition("/")[2],
            "metric": metric,
            "unit": unit,
            "interval": "5m",
            "groupings": [],
            "network_timezone_offset": "+10:00",
            "results": [
                {
                    "name": f"{metric}_{name}",
                    "columns": {"region": name},
                    "data": [
                        [
                            slot.start.astimezone(_MARKET).isoformat()[: 19 if world.naive else None],
                            None if slot.g_per_kwh is None else slot.g_per_kwh**factor * _MWH / 1000**factor,
                        ]
                        for slot in slots
                    ],
                }
            ],
        }

    data = [
        series(metric, *{"energy": ("MWh", 0.0), "emissions": ("t", 1.0)}[metric])
        for metric in asked["metrics"]
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
