"""The supervisor's one lock, which measures how long it is held each time: no other figure shows what others waited for.

Disk syncs happen after the release: the thread that releases the lock syncs what it committed, and nobody else waits for that.
"""

import threading
import time
from collections.abc import Callable
from types import TracebackType

from carbonsched.supervisor.metric_counters import Histogram


class MeasuredLock:
    """A reentrant lock; it counts as held from a thread's first acquire to its last release.

    Example:
        >>> lock = MeasuredLock()
        >>> with lock, lock:
        ...     pass
        >>> lock.held.count
        1
    """

    def __init__(self, after: Callable[[], None] = lambda: None) -> None:
        """after: called by each thread after its last release; must not raise."""
        self._after = after
        self.held = Histogram()
        self.longest_s = 0.0
        self._lock = threading.RLock()
        self._depth = 0
        self._since_s = 0.0

    def acquire(self, blocking: bool = True, timeout: float = -1) -> bool:
        """As of `threading.RLock`."""
        if not self._lock.acquire(blocking, timeout):
            return False
        self._depth += 1
        if self._depth == 1:
            self._since_s = time.monotonic()
        return True

    def release(self) -> None:
        """As of `threading.RLock`."""
        if outermost := self._depth == 1:
            lasted_s = time.monotonic() - self._since_s
            self.held.observe(lasted_s)
            self.longest_s = max(self.longest_s, lasted_s)
        self._depth -= 1
        self._lock.release()
        if outermost:
            self._after()

    def __enter__(self) -> None:
        self.acquire()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.release()
