"""Sends requests to providers over HTTP: timeouts, a size limit, polite retries, and no secret in any message.

A body that the provider reports as unchanged (ETag, Last-Modified) is not sent again.
"""

import base64
import hashlib
import html
import json
import logging
import re
import socket
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from http.client import HTTPException
from types import TracebackType
from typing import Any, Final, Self
from urllib.parse import quote as percent_encoded
from urllib.parse import quote_plus

import requests
from requests.adapters import HTTPAdapter
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.connectionpool import ConnectionPool, HTTPConnectionPool, HTTPSConnectionPool
from urllib3.exceptions import (
    HTTPError,
    InvalidHeader,
    MaxRetryError,
    ReadTimeoutError,
    ResponseError,
)
from urllib3.response import BaseHTTPResponse, HTTPResponse
from urllib3.util.retry import Retry

from carbonsched import __version__
from carbonsched.errors import FeedError
from carbonsched.feeds.transport import TRIES, AnswerError, Body, RetryLaterError

MAX_BYTES: Final = 8_000_000
_RETRY_AFTER_S: Final = 5.0
"""A server that asks for a longer pause is left to the chain, which polls it again later."""
_TOTAL: Final = 3.0
"""A body may take this many timeouts: a server that drips bytes never hits the read timeout."""
_CHUNK: Final = 65_536
_REMEMBERED: Final = 32
"""Answers whose validators are kept."""
_SECRET_PARAMS: Final = frozenset({"api_key", "securityToken", "token", "key"})
_LEAST_IN_BODY: Final = 7
_SECRET_HEADERS: Final = frozenset({"authorization", "auth-token", "x-api-key"})
_ADDRESS: Final = re.compile(r"([a-z][a-z0-9+.-]*://)([^\s'\")>]*)", re.IGNORECASE)
_LEAST_SECRET: Final = 4
"""Shorter texts are not treated as secrets: they would be redacted everywhere."""


def _without_queries(record: logging.LogRecord) -> bool:
    # urllib3 logs each retry with the whole target, including keys in its query
    record.msg, record.args = redact(record.getMessage()), None
    return True


logging.getLogger("urllib3.connectionpool").addFilter(_without_queries)


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
        if isinstance(error, ReadTimeoutError):
            raise error  # a server that hung once hangs again, and the other feeds would wait meanwhile
        after = self.get_retry_after(response) if response is not None else None
        if after is not None and after > _RETRY_AFTER_S:
            # urlopen takes this for "out of tries" and returns the answer with its Retry-After
            raise MaxRetryError(_pool, url, ResponseError("asked to come back later"))  # type: ignore[arg-type]
        return super().increment(method, url, response, error, _pool, _stacktrace)


class _HeaderDeadline:
    """Closes a connection whose headers are incomplete after the read timeout, which by itself applies to each byte."""

    def getresponse(self) -> HTTPResponse:
        late = threading.Event()
        sock, limit_s = self.sock, self.timeout  # type: ignore[attr-defined]

        def cut() -> None:
            late.set()
            with suppress(OSError):
                socket.socket.shutdown(sock, socket.SHUT_RDWR)

        timer = threading.Timer(limit_s, cut)
        timer.daemon = True
        timer.start()
        try:
            response: HTTPResponse = super().getresponse()  # type: ignore[misc]
        except (OSError, HTTPException) as e:
            if late.is_set():
                raise TimeoutError("the headers were not whole in time") from e
            raise
        finally:
            timer.cancel()
        if late.is_set():  # a closed connection is taken for the end of its headers
            response.close()
            raise TimeoutError("the headers were not whole in time")
        return response


class _HttpConnection(_HeaderDeadline, HTTPConnection):  # type: ignore[misc]
    pass


class _HttpsConnection(_HeaderDeadline, HTTPSConnection):  # type: ignore[misc]
    pass


class _HttpPool(HTTPConnectionPool):
    ConnectionCls = _HttpConnection


class _HttpsPool(HTTPSConnectionPool):
    ConnectionCls = _HttpsConnection


class _Adapter(HTTPAdapter):
    def init_poolmanager(self, *args: Any, **kwargs: Any) -> None:
        super().init_poolmanager(*args, **kwargs)
        self.poolmanager.pool_classes_by_scheme = {"http": _HttpPool, "https": _HttpsPool}


class _Session(requests.Session):
    def get_redirect_target(self, resp: requests.Response) -> None:
        """Redirects are refused like any other answer; requests would read their whole body first."""


class HttpTransport:
    """A requests session: two retries with jitter on connection failures, 429 and 5xx; redirects are not followed.

    Example::

        body = HttpTransport().get("https://api.carbonintensity.org.uk/intensity", timeout_s=10.0)
    """

    def __init__(
        self,
        max_bytes: int = MAX_BYTES,
        backoff_s: float = 0.5,
        keep: Callable[[Body], None] = lambda body: None,
    ) -> None:
        """keep: gets every answer, so that its hash can be checked later."""
        self._max_bytes, self._keep = max_bytes, keep
        self._backoff_s = backoff_s
        self._sessions: dict[int, _Session] = {}
        """Number of tries → the session that makes them."""
        self._unchanged: OrderedDict[str, tuple[dict[str, str], Body]] = OrderedDict()
        """URL → the headers that ask whether this answer has changed, and the answer; newest last."""

    def get(
        self,
        url: str,
        *,
        timeout_s: float,
        headers: Mapping[str, str] | None = None,
        params: Mapping[str, str] | None = None,
        json: bool = True,
        keep: bool = True,
        tries: int = TRIES,
    ) -> Body:
        asked = requests.Request("GET", url, dict(headers or {}), params=dict(params or {}), auth=_no_netrc)
        key = str(requests.Request("GET", url, params=asked.params).prepare().url)
        before = self._unchanged.get(key)
        if before is not None:
            asked.headers.update(before[0])
        with self._answer(asked, timeout_s, tries=tries) as response:
            if response.status_code == 304 and before is not None:
                self._unchanged.move_to_end(key)
                return before[1]
            body = self._body(
                response, redact(url), timeout_s, parse=json, quote=keep, secrets=_secrets(asked)
            )
            if keep:
                self._remember(key, response, body)
        if keep:
            self._keep(body)
        return body

    def post(
        self, url: str, *, timeout_s: float, send: Mapping[str, str], headers: Mapping[str, str] | None = None
    ) -> Body:
        asked = requests.Request("POST", url, dict(headers or {}), json=dict(send), auth=_no_netrc)
        with self._answer(asked, timeout_s, tuple(send.values())) as response:
            return self._body(response, redact(url), timeout_s, parse=True, quote=False)

    def close(self) -> None:
        for session in self._sessions.values():
            session.close()

    def _session(self, tries: int) -> _Session:
        if (known := self._sessions.get(tries)) is not None:
            return known
        retry = _Retry(
            total=tries - 1,
            connect=min(tries - 1, 1),
            backoff_factor=self._backoff_s,
            backoff_jitter=self._backoff_s,
            status_forcelist=(429, 500, 502, 503, 504),
            allowed_methods=("GET",),
            raise_on_status=False,
        )
        session = _Session()
        session.headers["User-Agent"] = f"carbonsched/{__version__}"
        session.headers["Accept"] = "application/json"
        for scheme in ("https://", "http://"):
            session.mount(scheme, _Adapter(max_retries=retry, pool_maxsize=2))
        return self._sessions.setdefault(tries, session)

    @contextmanager
    def _answer(
        self,
        asked: requests.Request,
        timeout_s: float,
        secrets: tuple[str, ...] = (),
        tries: int = TRIES,
    ) -> Iterator[requests.Response]:
        """A 200 or 304 answer with its body still unread. Raises FeedError for anything else."""
        shown = redact(asked.url)
        hidden = (*secrets, *_words(asked.headers), *_secrets(asked))
        try:
            session = self._session(tries)
            prepared = session.prepare_request(asked)
            site = session.merge_environment_settings(prepared.url or "", {}, True, None, None)
            with session.send(
                prepared, timeout=(timeout_s, timeout_s), allow_redirects=False, **site
            ) as response:
                if response.status_code not in (200, 304):
                    raise _refusal(response, shown, hidden)
                yield response
        except (requests.RequestException, HTTPError) as e:
            raise FeedError(f"{shown}: {_hide(_plain(e, timeout_s), hidden)}") from e

    def _body(
        self,
        response: requests.Response,
        shown: str,
        timeout_s: float,
        *,
        parse: bool,
        quote: bool,
        secrets: tuple[str, ...] = (),
    ) -> Body:
        raw = self._read(response, shown, timeout_s)
        for secret in secrets:
            # EIA repeats the request with its key in the answer, and answers are kept; short words such as `Bearer` are no secrets
            if len(secret) > _LEAST_IN_BODY:
                raw = _without(raw, secret)
        document = None
        if parse:
            try:
                document = parsed(raw)
            except (ValueError, RecursionError) as e:
                begins = f", it begins with {raw[:40].decode('utf-8', 'replace')!r}" if quote else ""
                raise FeedError(f"{shown}: the answer is not JSON{begins}") from e
        return Body(document, hashlib.sha256(raw).hexdigest(), raw)

    def _remember(self, key: str, response: requests.Response, body: Body) -> None:
        names = {"ETag": "If-None-Match", "Last-Modified": "If-Modified-Since"}
        asks = {ask: response.headers[name] for name, ask in names.items() if name in response.headers}
        self._unchanged.pop(key, None)
        if asks:
            self._unchanged[key] = asks, body
            while len(self._unchanged) > _REMEMBERED:
                self._unchanged.popitem(last=False)

    def _read(self, response: requests.Response, shown: str, timeout_s: float) -> bytes:
        raw = bytearray()
        deadline = time.monotonic() + _TOTAL * timeout_s
        # read1 returns what has arrived; iter_content would wait for a whole chunk, however slowly it drips
        while chunk := response.raw.read1(_CHUNK, decode_content=True):
            raw += chunk
            if len(raw) > self._max_bytes:
                raise FeedError(f"{shown}: the answer is larger than {self._max_bytes} bytes")
            if time.monotonic() > deadline:
                raise FeedError(f"{shown}: the answer was not complete after {_TOTAL * timeout_s:g} s")
        return bytes(raw)


def parsed(raw: bytes) -> Any:
    """Parse `raw` as JSON. Raises ValueError, RecursionError if it is invalid or repeats a key."""
    return json.loads(raw, parse_constant=_not_json, object_pairs_hook=_once)


def _no_netrc(request: requests.PreparedRequest) -> requests.PreparedRequest:
    # ~/.netrc is not used for feeds; proxies and certificates of the environment are
    return request


def redact(text: str) -> str:
    """`text` without the queries, fragments and user names of addresses, which may contain keys and passwords."""
    text = _ADDRESS.sub(_bare, text)
    return re.sub(r"\?[^\s'\")]*", "", text)


def _bare(found: re.Match[str]) -> str:
    scheme, rest = found.groups()
    # a password may contain a slash, a question mark or another @: everything before the last @ is removed
    rest = rest.rpartition("@")[2]
    return str(scheme) + re.split(r"[?#]", rest, maxsplit=1)[0]


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("a field stands twice, of which one would be lost")
    return found


def _not_json(name: str) -> float:
    raise ValueError(f"{name} is not JSON")


def _secrets(asked: requests.Request) -> tuple[str, ...]:
    """The secrets in a request."""
    params = asked.params if isinstance(asked.params, dict) else {}
    headers = {name: asked.headers[name] for name in asked.headers if name.lower() in _SECRET_HEADERS}
    return (*(params[name] for name in params if name in _SECRET_PARAMS), *_words(headers))


def _words(headers: Mapping[str, str | bytes]) -> tuple[str, ...]:
    """The words of the headers: in `Bearer abc` the second is a token, in `Basic abc` a name and a password."""
    found: list[str] = []
    for value in headers.values():
        first, *others = str(value).split() or [""]
        found += [first, *others]
        if first == "Basic":
            found += base64.b64decode(" ".join(others)).decode("utf-8", "replace").split(":", 1)
    return tuple(found)


def _hide(text: str, secrets: tuple[str, ...]) -> str:
    forms = {form for secret in secrets if len(secret) >= _LEAST_SECRET for form in _forms(secret)}
    for form in sorted(forms, key=len, reverse=True):
        text = text.replace(form, "…")
    return text


def _forms(secret: str) -> frozenset[str]:
    """The forms in which a server may repeat it: unchanged, or escaped for JSON, a URL or HTML."""
    in_json = json.dumps(secret)[1:-1]
    urls = {percent_encoded(secret), percent_encoded(secret, safe=""), quote_plus(secret)}
    # the hexadecimal digits of an escape may be small, and PHP escapes the slash
    small = {re.sub(r"%[0-9A-F]{2}", lambda m: m[0].lower(), url) for url in urls}
    return frozenset({secret, in_json, in_json.replace("/", "\\/"), html.escape(secret), *urls, *small})


def _without(raw: bytes, secret: str) -> bytes:
    for form in sorted(_forms(secret), key=len, reverse=True):
        raw = raw.replace(form.encode(), "…".encode())
    return raw


def _refusal(response: requests.Response, shown: str, secrets: tuple[str, ...]) -> FeedError:
    start = response.raw.read1(400, decode_content=True).decode("utf-8", "replace")
    said = _hide(redact(" ".join(start.split())), secrets)[:160]
    page = "html" in response.headers.get("Content-Type", "") or said.startswith("<")
    if page:
        said = "a page of HTML"
    message = f"{shown}: HTTP {response.status_code}" + (f", {said}" if said else "")
    after = response.headers.get("Retry-After")
    if after is None:
        return AnswerError(message, response.status_code, page=page)
    return RetryLaterError(message, _Retry().parse_retry_after(after))


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
    if isinstance(error, requests.ConnectionError) and _no_http(error):
        return "what answers there speaks no HTTP, or more of it than is read"
    if isinstance(error, requests.ConnectionError):
        return "no connection" + ("" if (why := _cause(error)) is None else f": {why}")
    return redact(f"{type(error).__name__}: {error}")[:200]


def _cause(error: BaseException) -> str | None:
    """The operating system's error message."""
    return next((e.strerror for e in _inside(error) if isinstance(e, OSError) and e.strerror), None)


def _no_http(error: BaseException) -> bool:
    """Whether the other end answered in something other than HTTP."""
    return any(isinstance(e, HTTPException) and not isinstance(e, OSError) for e in _inside(error))


def _inside(error: BaseException) -> Iterator[BaseException]:
    """The error, and those wrapped in it."""
    seen: BaseException | None = error
    for _ in range(8):
        if seen is None:
            return
        yield seen
        inner = [arg for arg in (getattr(seen, "reason", None), *seen.args) if isinstance(arg, BaseException)]
        seen = inner[0] if inner else (seen.__cause__ or seen.__context__)
