"""EIA's server: a row for every hour and energy source, the hour named by its end; it repeats the request, key and all."""

from dataclasses import replace
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


def flow(end: datetime, to: str, value: float | None, of: str = "CISO") -> dict[str, Any]:
    """value: what flows to `to`; below 0 where it comes from there."""
    said = {"fromba": of, "fromba-name": "a balancing authority", "toba": to, "toba-name": "another"}
    return {
        "period": f"{end:%Y-%m-%dT%H}",
        **said,
        "value": None if value is None else str(value),
        "value-units": "megawatthours",
    }


def _answer(world: World, path: str) -> Reply:
    query = parse_qs(urlsplit(path).query)
    asked = {name: found[0] for name, found in query.items()}
    if asked.get("api_key") != SECRET:
        said = {"code": "API_KEY_MISSING", "message": "No api_key was supplied."}
        return as_json({"error": said}, 403)
    since, until = (
        datetime.strptime(asked[name], "%Y-%m-%dT%H").replace(tzinfo=UTC) for name in ("start", "end")
    )
    slots = [s for s in world.past if since <= s.end <= until and s.start <= world.now - EIA.late]
    if "interchange" in path:
        rows = [
            flow(slot.end, to, mw, of)
            for slot in reversed(slots)
            for of in query["facets[fromba][]"]
            for to, mw in (("AZPS", -1500.0), ("BPAT", 900.0), ("CFE", -40.0))
        ]
    else:
        names = ["PJM"] if world.wrong_zone else query["facets[respondent][]"]
        rows = [
            found
            for slot in reversed(slots)
            for name in names
            if name != "CFE"  # none of Mexico is told
            for found in _rows(slot, name)
        ]
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
EIA_OF_CONSUMPTION = replace(EIA, keys=EIA.keys | {"mix": "consumption"})
"""Its neighbours generate as it does, so that what flows in changes no value."""
