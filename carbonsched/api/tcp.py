"""The listener beside the socket, `api.tcp`: only on loopback, and read-only without the token.

Over TCP the caller is unknown: any user of the box may connect, and any web page open in a browser on it. So a request must name this
host as its Host (else a page could point a name of its own here) and must not come from a page of another origin. Without the token it
reads only public data; with the token it has the rights of `api.token_user`.
"""

import hmac
import pwd
import socket
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import anyio.to_thread
from starlette.requests import HTTPConnection
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from carbonsched.config import ApiConfig
from carbonsched.errors import FeedError, InputError
from carbonsched.feeds.secrets import Secret
from carbonsched.model.views import ErrorBody
from carbonsched.supervisor.access import Caller

_NAMES = frozenset({"localhost", "127.0.0.1", "::1"})
_SCHEME = "bearer"


@dataclass(frozen=True, slots=True)
class Token:
    """A request with the contents of the token file is one of this user.

    Example:
        >>> Token.of(ApiConfig()) is None
        True
    """

    secret: Secret
    user: Caller

    @classmethod
    def of(cls, config: ApiConfig) -> "Token | None":
        """None if the config names no token. Raises InputError for a user unknown to this box."""
        if config.token_file is None or config.token_user is None:
            return None
        try:
            found = pwd.getpwnam(config.token_user)
        except KeyError as e:
            raise InputError(
                "api.token_user", f"this box knows no user {config.token_user!r}", "name one, not root"
            ) from e
        if found.pw_uid == 0:
            raise InputError(
                "api.token_user", f"{config.token_user} is root", "name a user whose jobs these are"
            )
        user = Caller(uid=found.pw_uid, gid=found.pw_gid, user=found.pw_name)
        return cls(Secret("api.token_file", path=Path(config.token_file)), user)

    def fits(self, said: str) -> bool:
        """Raises FeedError if the file cannot be read, or is open to others."""
        return hmac.compare_digest(self.secret.read().encode(), said.encode("utf-8", "replace"))


class TcpGate:
    """Passes on requests of the socket, and identifies the caller of those over TCP. Other requests never reach the application.

    Example::

        app.add_middleware(TcpGate, token=Token.of(config.api))
    """

    def __init__(self, app: ASGIApp, token: Token | None) -> None:
        self.app, self.token = app, token

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        app = self.app
        if scope["type"] == "http" and scope.get("state", {}).get("tcp"):
            app = await self._refusal(HTTPConnection(scope)) or self.app
        await app(scope, receive, send)

    async def _refusal(self, asked: HTTPConnection) -> Response | None:
        host, origin = asked.headers.get("host", ""), asked.headers.get("origin")
        if _name(f"http://{host}") not in _NAMES:
            return _problem(421, "this is not the host you asked for; ask for localhost")
        if origin is not None and origin.partition("://")[2] != host:
            return _problem(403, "pages of other sites may not ask")
        said = asked.headers.get("authorization")
        if said is None:
            return None
        scheme, _, token = said.partition(" ")
        try:
            known = self.token is not None and scheme.lower() == _SCHEME
            if known and await anyio.to_thread.run_sync(self.token.fits, token.strip()):  # type: ignore[union-attr]
                asked.scope["state"]["caller"] = self.token.user  # type: ignore[union-attr]
                return None
        except FeedError as e:
            return _problem(503, f"the token cannot be checked: {e}")
        refused = _problem(401, "that is not the token of api.token_file")
        refused.headers["WWW-Authenticate"] = "Bearer"
        return refused


def address(config: ApiConfig) -> tuple[str, int] | None:
    """Address of `api.tcp`; None: no listener."""
    if not config.tcp:
        return None
    parts = urlsplit(f"//{config.tcp}")
    return ("127.0.0.1" if parts.hostname == "localhost" else str(parts.hostname)), int(parts.port or 0)


def bind(where: tuple[str, int]) -> socket.socket:
    """A listening socket. Raises InputError if it cannot be opened."""
    sock = socket.socket(socket.AF_INET6 if ":" in where[0] else socket.AF_INET, socket.SOCK_STREAM)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind(where)
        sock.listen(128)
    except OSError as e:
        sock.close()
        shown = f"{where[0]}:{where[1]}"
        raise InputError("api.tcp", f"{shown} cannot be bound: {e.strerror}", "choose another port") from e
    return sock


def _name(url: str) -> str | None:
    try:
        return urlsplit(url).hostname
    except ValueError:
        return None


def _problem(status: int, error: str) -> Response:
    problem = ErrorBody(error=error, exit_code=1)
    return Response(problem.model_dump_json(), status_code=status, media_type="application/json")
