"""One connection to the API: its caller, and how long it may keep the daemon waiting.

Over the Unix socket the kernel identifies the caller; over TCP a request is anonymous until `carbonsched.api.tcp` has checked its token.
"""

import asyncio
import pwd
import socket
import struct
from email.utils import formatdate
from typing import Final

from uvicorn.protocols.http.h11_impl import H11Protocol

from carbonsched.supervisor.access import ANONYMOUS, Caller

REQUEST_S: Final = 30.0
"""Time for a whole request after the connection was made, or after the last response."""
UNREAD_S: Final = 60.0
"""A response that the client does not read is given up after this time."""
MOST: Final = 200
"""Connections that one user may have open, so that file handles remain for jobs and for others."""
_SO_PEERGROUPS: Final = 59
_MOST_GROUPS_BYTES: Final = 1024
_UCRED = struct.Struct("iII")


class Connection(H11Protocol):
    """HTTP/1.1 that gives the application the caller, `request.state.caller`, and closes idle and half-open connections.

    Example::

        user = request.state.caller.user
    """

    request_s = REQUEST_S
    unread_s = UNREAD_S
    most = MOST
    caller: Caller = ANONYMOUS
    _request_timer: asyncio.TimerHandle | None = None
    _unread_timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        sock = transport.get_extra_info("socket")
        over_tcp = sock.family != socket.AF_UNIX
        self.caller = ANONYMOUS if over_tcp else _peer(sock)
        self.app_state = {**self.app_state, "caller": self.caller, "tcp": over_tcp}
        same = (
            isinstance(each, Connection) and each.caller.uid == self.caller.uid for each in self.connections
        )
        if sum(same) > self.most:
            transport.abort()
        self._wait()

    def data_received(self, data: bytes) -> None:
        dated = [(b"date", formatdate(usegmt=True).encode("ascii"))]
        self.server_state.default_headers = dated + self.config.encoded_headers
        super().data_received(data)
        self._wait()

    def on_response_complete(self) -> None:
        super().on_response_complete()
        self._wait()

    def connection_lost(self, exc: Exception | None) -> None:
        for timer in (self._request_timer, self._unread_timer):
            if timer is not None:
                timer.cancel()
        super().connection_lost(exc)

    def pause_writing(self) -> None:
        super().pause_writing()
        if self._unread_timer is None:
            self._unread_timer = self.loop.call_later(self.unread_s, self.transport.abort)

    def resume_writing(self) -> None:
        super().resume_writing()
        if self._unread_timer is not None:
            self._unread_timer.cancel()
            self._unread_timer = None

    def _wait(self) -> None:
        """Wait for the rest of a request, with one timer and not per byte; the time of the response is not counted."""
        waits = self.cycle is None or self.cycle.response_complete or self.cycle.more_body
        if waits and self._request_timer is None:
            self._request_timer = self.loop.call_later(self.request_s, self.transport.abort)
        elif not waits and self._request_timer is not None:
            self._request_timer.cancel()
            self._request_timer = None


def _peer(sock: socket.socket) -> Caller:
    pid, uid, gid = _UCRED.unpack(sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _UCRED.size))
    try:
        user = pwd.getpwuid(uid).pw_name
    except KeyError:
        user = str(uid)
    return Caller(uid=uid, gid=gid, pid=pid, user=user, groups=_groups(sock))


def _groups(sock: socket.socket) -> tuple[int, ...] | None:
    """The supplementary groups of the peer; None before Linux 4.13, and if they are more than Python can hold."""
    try:
        packed = sock.getsockopt(socket.SOL_SOCKET, _SO_PEERGROUPS, _MOST_GROUPS_BYTES)
    except OSError:
        return None
    return struct.unpack(f"{len(packed) // 4}I", packed)
