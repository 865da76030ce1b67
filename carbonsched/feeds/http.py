"""Asks a provider over HTTP with requests: timeouts, a size cap, polite retries, and no secret in any message."""

import hashlib
import json
import re
import time
from collections.abc import Mapping
from types import TracebackType
from typing import Final, Self

import requests
from requests.adapters import HTTPAdapter
from urllib3.connectionpool import ConnectionPool
from urllib3.exceptions import (
    HTTPError,
    InvalidHeader,
    MaxRetryError,
    ReadTimeoutError,
    ResponseError,
)
from urllib3.response import BaseHTTPResponse
from urllib3.util.retry import Retry

from carbonsched import __version__
from carbonsched.errors import FeedError
from carbonsched.feeds.transport import Body, RetryLaterError

MAX_BYTES: Final = 8_000_000
_RETRY_AFTER_S: Final = 5.0
"""A server that asks for a longer pause is asked again by the chain, not waited for."""
_TOTAL: Final = 3.0
"""A body may take this many timeouts: a server that drips bytes never meets the read timeout."""
_CHUNK: Final = 65_536


class _Retry(Retry):
    def parse_retry_after(self, retry_after: str) -> float:
        try:
            return super().parse_retry_after(retry_after)
        except InvalidHeader:
            return 0.0

    def increment(
        self,
        method: str | None = None,
        url: str | None = None,
        response: BaseHTTPResponse | None = None,
        error: Exception | None = None,
        _pool: ConnectionPool | None = None,
        _stacktrace: TracebackType | None = None,
    ) -> Self:
        after = self.get_retry_after(response) if response is not None else None
        if after is not None and after > _RETRY_AFTER_S:
            # urlopen takes this for "out of tries" and hands the answer back, with its Retry-After
            raise MaxRetryError(_pool, url, ResponseError("asked to come back later"))  # type: ignore[arg-type]
        return super().increment(method, url, response, error, _pool, _stacktrace)


class _Session(requests.Session):
    def get_redirect_target(self, resp: requests.Response) -> None:
        """Redirects are refused like any other answer; requests would read their whole body first."""


class HttpTransport:
    """A requests session: two retries with jitter on connection failures, 429 and 5xx; redirects are not followed.

    Example::

        body = HttpTransport().get("https://api.carbonintensity.org.uk/intensity", timeout_s=10.0)
    """

    def __init__(self, max_bytes: int = MAX_BYTES, backoff_s: float = 0.5) -> None:
        self._max_bytes = max_bytes
        retry = _Retry(
            total=2,
            connect=1,
            backoff_factor=backoff_s,
            backoff_jitter=backoff_s,
            status_forcelist=(429, 500, 502, 503, 504),
            allowed_methods=("GET",),
            raise_on_status=False,
        )
        self._session = _Session()
        self._session.headers["User-Agent"] = f"carbonsched/{__version__}"
        self._session.headers["Accept"] = "application/json"
        for scheme in ("https://", "http://"):
            self._session.mount(scheme, HTTPAdapter(max_retries=retry, pool_maxsize=2))

    def get(self, url: str, *, timeout_s: float, headers: Mapping[str, str] | None = None) -> Body:
        shown = redact(url)
        try:
            with self._session.get(
                url,
                timeout=(timeout_s, timeout_s),
                headers=dict(headers or {}),
                stream=True,
                allow_redirects=False,
            ) as response:
                if response.status_code != 200:
                    raise _refusal(response, shown)
                raw = self._read(response, shown, timeout_s)
        except (requests.RequestException, HTTPError) as e:
            raise FeedError(f"{shown}: {_plain(e, timeout_s)}") from e
        try:
            return Body(json.loads(raw, parse_constant=_not_json), hashlib.sha256(raw).hexdigest())
        except (ValueError, RecursionError) as e:
            start = raw[:40].decode("utf-8", "replace")
            raise FeedError(f"{shown}: the answer is not JSON, it begins with {start!r}") from e

    def close(self) -> None:
        self._session.close()

    def _read(self, response: requests.Response, shown: str, timeout_s: float) -> bytes:
        raw = bytearray()
        deadline = time.monotonic() + _TOTAL * timeout_s
        # read1 hands on what has come; iter_content would wait for a whole chunk, however slowly it drips
        while chunk := response.raw.read1(_CHUNK, decode_content=True):
            raw += chunk
            if len(raw) > self._max_bytes:
                raise FeedError(f"{shown}: the answer is larger than {self._max_bytes} bytes")
            if time.monotonic() > deadline:
                raise FeedError(f"{shown}: the answer was not complete after {_TOTAL * timeout_s:g} s")
        return bytes(raw)


def redact(text: str) -> str:
    """`text` without URL queries and user names: that is where keys and passwords stand."""
    text = re.sub(r"(https?://)[^/@\s]*@", r"\1", text)
    return re.sub(r"\?[^\s'\")]*", "", text)


def _not_json(name: str) -> float:
    raise ValueError(f"{name} is not JSON")


def _refusal(response: requests.Response, shown: str) -> FeedError:
    said = redact(" ".join(response.raw.read1(400, decode_content=True).decode("utf-8", "replace").split()))[
        :160
    ]
    if "html" in response.headers.get("Content-Type", "") or said.startswith("<"):
        said = "a page of HTML"
    message = f"{shown}: HTTP {response.status_code}" + (f", {said}" if said else "")
    after = response.headers.get("Retry-After")
    return (
        FeedError(message) if after is None else RetryLaterError(message, _Retry().parse_retry_after(after))
    )


def _plain(error: requests.RequestException | HTTPError, timeout_s: float) -> str:
    # the vendors' texts hold addresses, object reprs and, for HTTP errors, the query with its keys
    if isinstance(error, requests.exceptions.SSLError):
        return f"TLS failed: {redact(str(error))[:160]}"
    if isinstance(error, requests.exceptions.ConnectTimeout):
        return f"no connection within {timeout_s:g} s"
    if isinstance(error, requests.Timeout | ReadTimeoutError) or "timed out" in str(error).lower():
        return f"no answer within {timeout_s:g} s"
    if isinstance(error, HTTPError):
        return "the connection broke off in the middle of the answer"
    if isinstance(error, requests.ConnectionError):
        return "no connection" + ("" if (why := _cause(error)) is None else f": {why}")
    return redact(f"{type(error).__name__}: {error}")[:200]


def _cause(error: BaseException) -> str | None:
    """The operating system's word for it, deep inside the vendors' wrappers."""
    seen: BaseException | None = error
    for _ in range(8):
        if seen is None:
            return None
        if isinstance(seen, OSError) and seen.strerror:
            return seen.strerror
        inner = [arg for arg in (getattr(seen, "reason", None), *seen.args) if isinstance(arg, BaseException)]
        seen = inner[0] if inner else (seen.__cause__ or seen.__context__)
    return None
