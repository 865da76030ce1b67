"""Limits the requests of a kind that run at a time; the others wait, without using a thread.

The files of a submission may be on a mount that hangs: no program can interrupt that. A request that waits behind such ones is refused
after a while, with the reason, and one user cannot take all of the places.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from carbonsched.errors import StateError

AT_A_TIME = 3
"""Requests of a kind that run at a time."""
OF_ONE = 2
"""Most of them of one user."""
STUCK_S = 20.0
"""A waiting request is refused if no running one has ended for this time. A client waits 30 s."""


class RequestLimit:
    """The places of one kind of request.

    Example::

        async with turns.place(actor.uid):
            ...
    """

    def __init__(self, what: str) -> None:
        """what: name of these requests, for people."""
        self._what = what
        self._places = _Places(what, AT_A_TIME)
        self._own: dict[int, _Places] = {}
        """Uid → the user's places; of users who made a request."""

    @asynccontextmanager
    async def place(self, uid: int) -> AsyncIterator[None]:
        """Raises StateError if the running requests do not end."""
        own = self._own.setdefault(uid, _Places(self._what, OF_ONE))
        async with own.one(), self._places.one():
            yield


class _Places:
    """A limited number of places."""

    def __init__(self, what: str, most: int) -> None:
        self._what = what
        self._free = asyncio.Semaphore(most)
        self._moved_s = 0.0
        """Time of the last taking or releasing of a place, by the loop's clock."""

    @asynccontextmanager
    async def one(self) -> AsyncIterator[None]:
        await self._take()
        try:
            self._moved_s = asyncio.get_running_loop().time()
            yield
        finally:
            self._free.release()
            self._moved_s = asyncio.get_running_loop().time()

    async def _take(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            try:
                async with asyncio.timeout_at(max(self._moved_s + STUCK_S, loop.time() + STUCK_S / 10)):
                    await self._free.acquire()
            except TimeoutError:
                if loop.time() - self._moved_s < STUCK_S:
                    continue
                raise StateError(
                    f"{self._what} before this one have not come to an end for {STUCK_S:g} s: "
                    "their files may lie on a mount that hangs; try again once it answers"
                ) from None
            return
