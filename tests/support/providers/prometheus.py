"""A Prometheus: values are text, times Unix seconds; what is not known is not there."""

from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import parse_qs, urlsplit

from support.http_server import Reply
from support.providers.case import SECRET, ProviderCase, Slot, World, as_json

_STEP = timedelta(minutes=5)


def document(kind: str, *series: dict[str, Any]) -> dict[str, Any]:
    return {"status": "success", "data": {"resultType": kind, "result": list(series)}}


def _sample(at: datetime, slots: tuple[Slot, ...]) -> list[list[Any]]:
    return [
        [at.timestamp(), str(s.g_per_kwh)] for s in slots if s.start <= at < s.end and s.g_per_kwh is not None
    ]


def _answer(world: World, path: str) -> Reply:
    asked = {name: found[0] for name, found in parse_qs(urlsplit(path).query).items()}
    metric = {"__name__": asked["query"]}
    if urlsplit(path).path == "/api/v1/query":
        at = datetime.fromtimestamp(float(asked["time"]), UTC)
        return as_json(
            document("vector", *({"metric": metric, "value": s} for s in _sample(at, world.slots)[-1:]))
        )
    start, end = (datetime.fromtimestamp(float(asked[name]), UTC) for name in ("start", "end"))
    step = timedelta(seconds=float(asked["step"]))
    times = [start + i * step for i in range((end - start) // step + 1)]
    values = [sample for at in times for sample in _sample(at, world.between(at, at + step))]
    return as_json(document("matrix", {"metric": metric, "values": world.cut(values)}))


PROMETHEUS = ProviderCase(
    "prometheus",
    {"query": "site_g_per_kwh", "basis": "average-direct", "token_env": "PROMETHEUS_TOKEN"},
    _answer,
    _STEP,
    basis="average-direct",
    env={"PROMETHEUS_TOKEN": SECRET},
    cannot={
        "wrong zone": "an answer names no zone: the query does",
        "naive times": "times are Unix seconds",
    },
)
