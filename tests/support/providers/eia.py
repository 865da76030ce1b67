"""EIA's server: a row for every hour and energy source, the hour named by its end; it repeats the request, key and all."""

from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import parse_qs, urlsplit

from support.http_server import Reply
from support.providers.case import SECRET, ProviderCase, Slot, World, as_json
from support.providers.mix import outputs

_HOUR = timedelta(hours=1)
_CODES = {"gas": "NG", "wind onshore": "WND"}


def row(end: datetime, code: str, value: float | None, respondent: str = "CISO") -> dict[str, Any]:
    return {
        "period": f"{end:%Y-%m-%dT%H}",
        "respondent": respondent,
        "respondent-name": "a balancing authority",
        "fueltype": code,
        "type-name": "an energy source",
        "value": None if value is None else str(round(value, 3)),
        "value-units": "megawatthours",
    }


def document(rows: list[dict[str, Any]], **request: Any) -> dict[str, Any]:
    said = {"total": str(len(rows)), "dateFormat": 'YYYY-MM-DD"T"HH24', "frequency": "hourly", "data": rows}
    return {"response": said, "request": request, "apiVersion": "2.1.8"}


def _rows(slot: Slot, respondent: str) -> list[dict[str, Any]]:
    return [row(slot.end, _CODES[plant], mw, respondent) for plant, mw in outputs(slot.g_per_kwh).items()]


def _answer(world: World, path: str) -> Reply:
    asked = {name: found[0] for name, found in parse_qs(urlsplit(path).query).items()}
    if asked.get("api_key") != SECRET:
        said = {"code": "API_KEY_MISSING", "message": "No api_key was supplied."}
        return as_json({"error": said}, 403)
    since, until = (
        datetime.strptime(asked[name], "%Y-%m-%dT%H").replace(tzinfo=UTC) for name in ("start", "end")
    )
    respondent = "PJM" if world.wrong_zone else asked["facets[respondent][]"]
    slots = [s for s in world.past if since <= s.end <= until and s.start <= world.now - EIA.late]
    rows = [found for slot in reversed(slots) for found in _rows(slot, respondent)]
    return as_json(document(world.cut(rows), params=asked))


EIA = ProviderCase(
    "eia",
    {"respondent": "CISO", "token_env": "EIA_KEY"},
    _answer,
    _HOUR,
    zone="US-CAL-CISO",
    env={"EIA_KEY": SECRET},
    late=_HOUR,
    cannot={
        "naive times": "its hours never carry an offset: they are UTC",
        "60 to 15 minutes": "its periods name hours, and nothing finer",
    },
)
