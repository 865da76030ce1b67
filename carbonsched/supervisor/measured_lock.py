"""The supervisor's one lock, with how long it was held each time: what others waited for is nowhere else to be seen.

What must wait for a disk waits behind it: who lets go of it syncs what was committed under it, and nobody else has to wait for that.
"""

import threading
import time
from collections.abc import Callable
from types import TracebackType

from carbonsched.supervisor.metric_counters import Histogram


class MeasuredLock:
    """A reentrant lock; held from the first `with` of a thread to the end of that.

    Example:
        >>> lock = MeasuredLock()
        >>> with lock, lock:
        ...     pass
        >>> lock.held.count
        1
    """

    def __init__(self, after: Callable[[], None] = lambda: None) -> None:
        """after: called by each thread that has let go of it; must not raise."""
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
