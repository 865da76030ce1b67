"""Enforces the request limits that a provider states, over all its feeds: at the limit they wait.

Requests are counted on the monotonic clock, so that setting the wall clock frees none.
"""

import threading
from collections.abc import Sequence
from typing import Final

from pyrate_limiter import InMemoryBucket, Rate, RateItem

from carbonsched.clock import Clock
from carbonsched.feeds.transport import Limit, RetryLaterError

_MS: Final = 1000


class RequestCount:
    """The requests of one provider's account. Thread-safe.

    Example:
        >>> from carbonsched.clock import SystemClock
        >>> count = RequestCount([Limit(2, per_s=60.0)], SystemClock())
        >>> count.take(2)
        >>> count.take(1)
        Traceback (most recent call last):
        carbonsched.feeds.transport.RetryLaterError: the provider's limit of 2 requests in 60 s is used up
    """

    def __init__(self, limits: Sequence[Limit], clock: Clock) -> None:
        self._limits, self._clock = list(limits), clock
        self._lock = threading.Lock()
        rates = [Rate(limit.requests, round(limit.per_s * _MS)) for limit in limits]
        self._bucket = InMemoryBucket(rates) if rates else None

    def take(self, requests: int) -> None:
        """Count `requests` that are about to be made. Raises RetryLaterError if they exceed the limit; then none is counted."""
        if self._bucket is None:
            return
        now_ms = round(self._clock.monotonic() * _MS)
        with self._lock:
            self._bucket.leak(now_ms)
            if self._bucket.put(RateItem("", now_ms, requests)):
                return
            failing = self._bucket.failing_rate
        limit = next(
            (one for one in self._limits if failing is None or one.requests == failing.limit),
            self._limits[0],
        )
        said = f"the provider's limit of {limit.requests} requests in {limit.per_s:g} s is used up"
        raise RetryLaterError(said, after_s=limit.per_s)
