"""Defines what a feed needs of the network: a request that answers a body, or an error that says when to come back.

Apart from `http`, which implements it, so that reading a config does not load requests.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, Protocol
from urllib.parse import urlsplit

from carbonsched.errors import FeedError

TRIES: Final = 3
"""Requests that one `get` may make where nothing else is said."""


def address_problem(url: str) -> str | None:
    """Why `url` is no base address over HTTP, nothing of it repeated; None: it is one.

    Example:
        >>> address_problem("https://host:8080/api") is None, address_problem("file:///etc/passwd")
        (True, 'is no address that begins with http:// or https://')
    """
    if not url.isprintable() or any(c.isspace() or c in "\\<>\"'`" for c in url):
        return "holds a space, a quote, a backslash or a control character"
    if not url.lower().startswith(("http://", "https://")):
        return "is no address that begins with http:// or https://"
    if "@" in url:
        return "holds a user or password, which would stand in logs"
    if "?" in url or "#" in url:
        return "holds a query or fragment, which would stand in logs"
    try:
        parts = urlsplit(url)
        if parts.hostname and parts.port != 0:
            return None
    except ValueError:
        pass
    return "names no host, or no port from 1 to 65535 behind it"


@dataclass(frozen=True, slots=True)
class Limit:
    """What a provider allows: so many requests in any stretch of so many seconds.

    Example:
        >>> Limit(3000, per_s=300.0).requests
        3000
    """

    requests: int
    per_s: float


class AnswerError(FeedError):
    """The provider answered with another status than 200.

    Example:
        >>> AnswerError("HTTP 403, a page of HTML", status=403).status
        403
    """

    def __init__(self, message: str, status: int, *, page: bool = False) -> None:
        """page: whether it was a page of HTML, as a gateway before the provider answers."""
        self.status, self.page = status, page
        super().__init__(message)


class RetryLaterError(FeedError):
    """The provider, or its stated limit, said when to come back.

    Example:
        >>> RetryLaterError("HTTP 429", after_s=60.0).after_s
        60.0
    """

    def __init__(self, message: str, after_s: float) -> None:
        self.after_s = after_s
        super().__init__(message)


@dataclass(frozen=True, slots=True)
class Body:
    """A provider's answer.

    Example:
        >>> Body({"data": []}, sha256="0" * 64).json
        {'data': []}
    """

    json: Any
    """Parsed; None where the request asked for something else."""
    sha256: str
    """Of the raw bytes, decompressed; where they repeat a secret that they were asked with, it is blotted out before."""
    raw: bytes = b""


class Transport(Protocol):
    """Asks a provider over the network; `carbonsched.feeds.http.HttpTransport` does it with requests.

    Example::

        body = transport.get("https://api.example.org/now", timeout_s=10.0, params={"zone": "DE"})
    """

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
        """The body of a 200 answer. Raises FeedError in one line without the query or other secrets.

        json: whether the answer must be JSON, and is parsed. keep: whether it may be kept and quoted; a token may not.
        tries: requests that it may make.
        """

    def post(
        self, url: str, *, timeout_s: float, send: Mapping[str, str], headers: Mapping[str, str] | None = None
    ) -> Body:
        """The JSON that answers `send`, sent as JSON: for logins. It is neither tried again nor kept. Raises FeedError."""
