"""Defines what a feed needs of the network: one GET that answers parsed JSON, or an error that says when to come back.

Apart from `http`, which implements it, so that reading a config does not load requests.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from carbonsched.errors import FeedError


class RetryLaterError(FeedError):
    """The provider said when to come back.

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
    sha256: str
    """Of the raw bytes, decompressed."""


class Transport(Protocol):
    """Asks a provider over the network; `carbonsched.feeds.http.HttpTransport` does it with requests.

    Example::

        body = transport.get("https://api.example.org/now", timeout_s=10.0)
    """

    def get(self, url: str, *, timeout_s: float, headers: Mapping[str, str] | None = None) -> Body:
        """The parsed JSON of a 200 answer. Raises FeedError in one line without the query or other secrets."""
