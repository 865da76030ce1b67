"""Runs a piece of work again and again in a thread of its own, by the monotonic clock.

Whoever sets the wall clock, or suspends the box, changes nothing here: what was missed is neither counted nor made up for.
Nothing waits for such a thread that does not ask to: work that hangs keeps neither the other threads nor the end of the daemon.
"""

import logging
import math
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field

log = logging.getLogger(__name__)

SAID_AGAIN_S = 60.0
"""Work that fails again and again is logged no more often."""


@dataclass(slots=True)
class Periodic:
    """Work and how often it is done; what it raises is logged, and it is done again.

    Example:
        >>> done = threading.Event()
        >>> ticking = Periodic("tick", done.set, every_s=1.0)
        >>> ticking.start()
        >>> done.wait(5.0), ticking.stop(wait_s=5.0)
        (True, True)
    """

    name: str
    work: Callable[[], object]
    every_s: float
    first: threading.Event = field(default_factory=threading.Event)
    """Set once the work was done for the first time, or has failed."""
    _stop: threading.Event = field(default_factory=threading.Event)
    _thread: threading.Thread | None = None
    _failures: int = 0
    """Since the last line in the log."""
    _said_s: float = -math.inf

    def start(self) -> None:
        """Do the work now, and then every `every_s`."""
        self._thread = threading.Thread(target=self._run, name=self.name, daemon=True)
        self._thread.start()

    def stop(self, wait_s: float) -> bool:
        """Do it no more; wait so long for work that is being done. Returns whether it has ended."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join(wait_s)
        return self._thread is None or not self._thread.is_alive()

    def _run(self) -> None:
        due = time.monotonic()
        while not self._stop.wait(max(due - time.monotonic(), 0.0)):
            try:
                self.work()
            except Exception as e:
                self._complain(e)
            self.first.set()
            late_s = max(time.monotonic() - due, 0.0)
            due += self.every_s * (math.floor(late_s / self.every_s) + 1)

    def _complain(self, error: Exception) -> None:
        """With where it arose, but once a minute: a fault that stays would fill the disk."""
        self._failures += 1
        if time.monotonic() - self._said_s >= SAID_AGAIN_S:
            log.error("%s failed %d times since it was last said", self.name, self._failures, exc_info=error)
            self._said_s, self._failures = time.monotonic(), 0
