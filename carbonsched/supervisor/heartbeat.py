"""Records the heads of the ledger's chains once an hour, in the journal (with the rows' totals) and in the log.

Another user keeps the system journal that the log goes to, so a ledger that is truncated or rewritten later disagrees with it (`audit
verify --against`). The last rows before the daemon ends are recorded too.
"""

import logging
import threading
from dataclasses import dataclass, field
from typing import Final

from carbonsched.clock import Clock
from carbonsched.errors import CarbonschedError
from carbonsched.ledger.ledger import Ledger
from carbonsched.supervisor.jobs.actors import DAEMON

EVERY_S: Final = 3600.0
_AGAIN_S: Final = 60.0

log = logging.getLogger(__name__)


@dataclass(slots=True)
class Heartbeat:
    """When the heads were last recorded, and recording them again.

    Example::

        heartbeat = Heartbeat(ledger, clock)
        heartbeat.poll()  # every second or so
        heartbeat.close()  # before the ledger is
    """

    ledger: Ledger
    clock: Clock
    _due_s: float | None = None
    """None: the ledger has not been asked for the last heartbeat yet."""
    _closed: bool = False
    _counted: bool = False
    """The rows were summed once; from then on only newer rows are added."""
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def poll(self) -> None:
        """Record the heads if an hour has passed. Never raises; failures are retried."""
        with self._lock:
            if self._closed:
                return
            now_s = self.clock.monotonic()
            if self._due_s is None:
                self._due_s = now_s + self._left_s()
            if now_s >= self._due_s:
                self._due_s = now_s + (EVERY_S if self._beat() else _AGAIN_S)

    def close(self) -> None:
        """Record what came since the last heartbeat: the daemon is ending."""
        with self._lock:
            if not self._closed:
                self._closed = True
                self._beat(counted=self._counted)

    def _left_s(self) -> float:
        """Seconds left of the hour that an earlier daemon began."""
        try:
            last = self.ledger.last_heartbeat()
        except CarbonschedError:
            return _AGAIN_S
        if last is None:
            return EVERY_S
        return min(max(EVERY_S - (self.clock.now() - last).total_seconds(), 0.0), EVERY_S)

    def _beat(self, *, counted: bool = True) -> bool:
        try:
            head = self.ledger.heartbeat(DAEMON, self.clock.now(), counted=counted)
        except CarbonschedError as e:
            log.warning("the heads of the ledger are not noted now: %s", e)
            return False
        if head is not None:
            log.info("ledger: %s", head.line())
        self._counted = True
        return True
