"""Who may ask over TCP: by the names of the request alone, whatever stands in them."""

import asyncio
from typing import Any

import pytest
from starlette.responses import PlainTextResponse

from carbonsched.api.tcp import TcpGate


def asked(**headers: str) -> int:
    """Status of a request with these headers."""
    said: list[dict[str, Any]] = []

    async def send(message: Any) -> None:
        said.append(message)

    async def receive() -> Any:
        return {"type": "http.request", "body": b"", "more_body": False}

    scope = {
        "type": "http",
        "method": "GET",
        "path": "/",
        "state": {"tcp": True},
        "headers": [(name.encode(), value.encode("latin-1")) for name, value in headers.items()],
    }
    asyncio.run(TcpGate(PlainTextResponse("passed"), None)(scope, receive, send))
    return int(said[0]["status"])


@pytest.mark.parametrize("host", ["localhost", "localhost:8080", "127.0.0.1:8080", "[::1]:8080"])
def test_this_host_by_its_names_and_a_page_of_its_own(host: str) -> None:
    assert asked(host=host) == 200
    assert asked(host=host, origin=f"http://{host}") == 200


@pytest.mark.parametrize(
    "host",
    ["", "evil.test", "localhost.evil.test", "127.0.0.1.evil.test:80", "[", "[::1", "@localhost@evil.test"],
)
def test_another_host_is_none(host: str) -> None:
    assert asked(host=host) == 421


@pytest.mark.parametrize(
    "origin",
    [
        "",
        "null",
        "http://evil.test",
        "http://[",
        "http://localhost:1",
        "http://localhost:8080.evil.test",
        "localhost:8080",
        "\xff",
    ],
)
def test_a_page_of_another_origin_may_not_ask(origin: str) -> None:
    assert asked(host="localhost:8080", origin=origin) == 403


def test_a_token_where_none_is_configured_is_refused() -> None:
    assert asked(host="localhost", authorization="Bearer x") == 401
