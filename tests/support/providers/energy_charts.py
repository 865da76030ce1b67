"""Energy-Charts' server: columns on one axis of Unix times, measured values null from three hours ago on, and their forecast."""

from datetime import UTC, datetime, timedelta
from urllib.parse import parse_qs, urlsplit

from support.http_server import Reply
from support.providers.case import ProviderCase, World, as_json

_LATE = timedelta(hours=3)


def _answer(world: World, path: str) -> Reply:
    asked = parse_qs(urlsplit(path).query)
    if asked["country"] != ["de"]:
        return Reply(b"'xx' is not the code for an available country.", 400, type="text/plain")
    start = world.now.replace(hour=0, minute=0)
    end = start + timedelta(days=2)
    if "start" in asked:
        start, end = (
            datetime.strptime(asked[key][0], "%Y-%m-%dT%H:%MZ").replace(tzinfo=UTC)
            for key in ("start", "end")
        )
    slots = world.cut([slot for slot in world.slots if start <= slot.start < end])
    late = world.now - _LATE
    return as_json(
        {
            "unix_seconds": [round(slot.start.timestamp()) for slot in slots],
            "co2eq": [slot.g_per_kwh if slot.end <= late else None for slot in slots],
            "co2eq_forecast": [None if slot.end <= late else slot.g_per_kwh for slot in slots],
            "deprecated": False,
        }
    )


ENERGY_CHARTS = ProviderCase(
    "energy-charts",
    {"country": "de"},
    _answer,
    timedelta(minutes=15),
    basis="average-unstated",
    zone="DE",
    cannot={
        "wrong zone": "an answer names no country",
        "naive times": "its times are Unix seconds",
    },
)
