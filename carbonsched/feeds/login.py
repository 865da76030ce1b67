"""Shared by the feeds of providers that issue a token for a password: one login while the token lasts, another when it is refused."""

from abc import abstractmethod
from base64 import b64encode
from collections.abc import Mapping
from typing import ClassVar, Final

from carbonsched.errors import FeedError
from carbonsched.feeds.base import Site
from carbonsched.feeds.http_settings import LoginSettings
from carbonsched.feeds.provider import HttpFeed
from carbonsched.feeds.transport import TRIES, AnswerError, Body, Limit
from carbonsched.model.grid import Basis

_LEAST_S: Final = 60.0
"""A token that has expired on arrival is used for this long: the box's clock may be wrong."""


class LoginFeed(HttpFeed):
    """A provider that is polled with a token from its login.

    Example::

        class SunFeed(LoginFeed):
            def log_in(self, password: str) -> tuple[str, float]:
                body = self.ask_login("/login", "sunny", password)
                return body.json["token"], 1800.0
    """

    LOGIN_LIMITS: ClassVar[tuple[Limit, ...]] = ()
    """The provider's limits for logins alone; logins count among the other requests too."""
    LOGIN_HINT: ClassVar[str] = "check the name and the password"

    def __init__(self, settings: LoginSettings, site: Site, zone: str, basis: Basis) -> None:
        super().__init__(settings, site, zone, basis)
        self._password = settings.password()
        self._logins = site.count(f"{settings.provider} login", self.LOGIN_LIMITS)
        self._token: str | None = None
        self._until_s = 0.0

    @abstractmethod
    def log_in(self, password: str) -> tuple[str, float]:
        """A new token, and for how many seconds it may be used. Raises FeedError."""

    def expired(self, error: AnswerError) -> bool:
        """Whether this refusal may mean that the token has expired."""
        return error.status in (401, 403)

    def ask_logged_in(self, path: str, params: Mapping[str, str] | None = None) -> Body:
        """GET `path` with the token; if the token is refused as expired, once more with a new one. Raises FeedError."""
        if self._token is not None and self._clock.monotonic() < self._until_s:
            try:
                return self._ask_with(self._token, path, params)
            except AnswerError as e:
                if not self.expired(e):
                    raise
        return self._ask_with(self._new_token(), path, params)

    def ask_login(self, path: str, name: str, password: str) -> Body:
        """GET `path` with HTTP's own login. The answer, which holds a token, is not kept. Raises FeedError."""
        pair = b64encode(f"{name}:{password}".encode()).decode()
        self._take(TRIES)
        return self._transport.get(
            self._url + path,
            timeout_s=self._timeout_s,
            headers={"Authorization": f"Basic {pair}"},
            keep=False,
        )

    def post_login(self, path: str, send: Mapping[str, str]) -> Body:
        """POST `send`, as JSON, to `path`. The answer, which holds a token, is not kept. Raises FeedError."""
        self._take(1)
        return self._transport.post(self._url + path, timeout_s=self._timeout_s, send=send)

    def _take(self, tries: int) -> None:
        self._count.take(tries)
        self._logins.take(tries)

    def _ask_with(self, token: str, path: str, params: Mapping[str, str] | None) -> Body:
        try:
            return self.ask(path, params, {"Authorization": f"Bearer {token}"})
        except AnswerError as e:
            if self.expired(e):
                self._token = None  # the next poll begins with a login, and asks no more than twice
            raise

    def _new_token(self) -> str:
        self._token = None
        try:
            token, lasts_s = self.log_in(self._password.read())
        except AnswerError as e:
            hint = f"; {self.LOGIN_HINT}" if e.status in (400, 401, 403) else ""
            raise FeedError(f"no login: {e}{hint}") from e
        if not token.isascii() or not token.isprintable() or not token.strip():
            raise FeedError(f"{self._url}: the login answers a token that fits no header")
        self._token = token
        self._until_s = self._clock.monotonic() + max(lasts_s, _LEAST_S)
        return token
