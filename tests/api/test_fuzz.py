"""Whatever is sent to any operation of the OpenAPI document: an answer in time, never a 5xx, and errors as one ErrorBody.

`benchmarks/api_fuzz.py` asks a real daemon 20,000 times and more by Schemathesis.
"""

import json
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from support.box import serving
from support.rig import Rig, checked, spec

from carbonsched.api.app import create_app
from carbonsched.model.views import ErrorBody

REQUESTS = 150
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=12), inner, max_size=4),
    max_leaves=8,
)
ODD = st.sampled_from(
    [
        "",
        "latest",
        "..",
        "%00",
        "a" * 300,
        "-1",
        "1e999",
        "nan",
        str(10**30),
        "2026-13-40",
        "9999-12-31T23:59:59-12:00",
        "\udc80",
    ]
)
TEXT = (
    ODD
    | st.text(max_size=20)
    | st.integers().map(str)
    | st.floats().map(str)
    | st.datetimes().map(lambda t: f"{t.isoformat()}Z")
)
VALID: dict[str, Any] = {"spec": spec().dump(), "checked": checked().dump(), "grams": 7.0}


@pytest.fixture(scope="module")
def http() -> Iterator[httpx.Client]:
    with tempfile.TemporaryDirectory() as folder:
        rig = Rig(Path(folder))
        rig.submit()
        with (
            serving(rig.service, Path(folder) / "api.sock") as path,
            httpx.Client(
                transport=httpx.HTTPTransport(uds=str(path)), base_url="http://box", timeout=60
            ) as client,
        ):
            yield client


def operations() -> list[tuple[str, str, dict[str, Any]]]:
    with tempfile.TemporaryDirectory() as folder:
        paths = create_app(Rig(Path(folder)).service).openapi()["paths"]
    return [(verb.upper(), path, said) for path, verbs in paths.items() for verb, said in verbs.items()]


OPERATIONS = operations()


@st.composite
def bodies(draw: st.DrawFn) -> bytes:
    """Damaged JSON, other JSON, or what is asked for with one value replaced."""
    kind = draw(st.integers(0, 3))
    if kind == 0:
        return draw(st.binary(max_size=60))
    if kind == 1:
        return json.dumps(draw(JSON)).encode()
    body = json.loads(json.dumps(VALID))
    place: Any = body
    while isinstance(place, dict) and place:
        key = draw(st.sampled_from(sorted(place)))
        if not isinstance(place[key], dict) or draw(st.booleans()):
            place[key] = draw(JSON)
            break
        place = place[key]
    return json.dumps(
        {"grams": body["grams"]} if kind == 2 else {k: body[k] for k in ("spec", "checked")}
    ).encode()


@st.composite
def requests(draw: st.DrawFn) -> tuple[str, str, bytes, str]:
    method, path, said = draw(st.sampled_from(OPERATIONS))
    query = {}
    for parameter in said.get("parameters", ()):
        value = quote(draw(TEXT).encode("utf-8", "surrogatepass"), safe="")
        if parameter["in"] == "path":
            path = path.replace(f"{{{parameter['name']}}}", value)
        elif draw(st.booleans()):
            query[parameter["name"]] = value
    path = path.replace("{job_id}", "tiny")
    url = path + ("?" + "&".join(f"{k}={v}" for k, v in query.items()) if query else "")
    kind = draw(
        st.sampled_from(
            ["application/json", "text/plain", "multipart/form-data", "application/json; charset=utf-16"]
        )
    )
    return method, url, draw(bodies()) if "requestBody" in said else b"", kind


@settings(max_examples=REQUESTS, suppress_health_check=list(HealthCheck))
@given(request=requests())
@example(request=("GET", f"/v1/jobs/tiny/log?offset={10**30}", b"", ""))
@example(request=("GET", f"/v1/jobs/tiny/log?offset=-{10**30}", b"", ""))
@example(request=("GET", "/v1/jobs/%00", b"", ""))
@example(request=("GET", "/v1/report?job=%ED%A0%80", b"", ""))
def test_no_request_is_a_fault_of_ours(http: httpx.Client, request: tuple[str, str, bytes, str]) -> None:
    method, url, body, kind = request
    answer = http.request(method, url, content=body, headers={"Content-Type": kind} if kind else {})
    assert answer.status_code < 500, answer.text
    if answer.status_code >= 400:
        assert ErrorBody.parse(answer.json()).error
