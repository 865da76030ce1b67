"""The Carbon Aware SDK's Web API: what was, newest first and named by the source's region, and a forecast."""

from datetime import datetime, timedelta
from urllib.parse import parse_qs, urlsplit

from support.http_server import Reply
from support.providers.case import ProviderCase, World, as_json


def _answer(world: World, path: str) -> Reply:
    parts = urlsplit(path)
    asked = {key: values[0] for key, values in parse_qs(parts.query).items()}
    offset = "" if world.naive else "+00:00"
    region = "SOMEWHERE" if world.wrong_zone else asked["location"]
    # the SDK's numbers are never null: what is not known is left out
    slots = [slot for slot in world.slots if slot.g_per_kwh is not None]
    if parts.path == "/emissions/bylocation":
        start, end = (datetime.fromisoformat(asked[key]) for key in ("time", "toTime"))
        told = world.cut([slot for slot in slots if start <= slot.start and slot.end <= end])
        if not told:
            return Reply(b"", 204)
        rows = [
            {
                "location": region,
                "time": f"{slot.start:%Y-%m-%dT%H:%M:%S}{offset}",
                "rating": slot.g_per_kwh,
                "duration": "00:05:00",
            }
            for slot in reversed(told)
        ]
        return as_json(rows)
    ahead = world.cut([slot for slot in slots if slot.end > world.now])
    return as_json(
        [
            {
                "generatedAt": f"{world.now:%Y-%m-%dT%H:%M:%S}{offset}",
                "location": region,
                "windowSize": 5,
                "optimalDataPoints": [],
                "forecastData": [
                    {
                        "location": "CAISO_NORTH",
                        "timestamp": f"{slot.start:%Y-%m-%dT%H:%M:%S}{offset}",
                        "duration": 5,
                        "value": slot.g_per_kwh,
                    }
                    for slot in ahead
                ],
            }
        ]
    )


CARBON_AWARE_SDK = ProviderCase(
    "carbon-aware-sdk",
    {"location": "westus", "basis": "marginal-direct"},
    _answer,
    timedelta(minutes=5),
    basis="marginal-direct",
    cannot={"wrong zone": "a reading names the region of the source behind it, whatever was asked for"},
)
