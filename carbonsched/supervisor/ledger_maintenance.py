"""Maintains old rows in the background: sums up each hour that is over, and rolls up rows that can no longer be settled.

Each hour and each slice is one short transaction, so others can write in between. What fails is retried in the next hour.
"""

import logging
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from typing import Final

from carbonsched.clock import Clock
from carbonsched.config import Config
from carbonsched.errors import CarbonschedError
from carbonsched.ledger.archives import Archive
from carbonsched.ledger.ledger import Ledger
from carbonsched.ledger.rollup import Retention, RollUp

EVERY_S: Final = 3600.0
ADD_UP_EVERY_S: Final = 60.0
_HOURS: Final = 24
"""Hours summed up per pass; an old ledger's backlog takes some minutes."""
BEHIND: Final = timedelta(days=1)
"""Delay after the last time at which a feed may still revise."""
_PAUSE_S: Final = 0.05

log = logging.getLogger(__name__)


@dataclass(slots=True)
class LedgerMaintenance:
    """When the ledger was last summed up and rolled up, and doing it again.

    Example::

        maintenance = LedgerMaintenance(config, ledger, clock, lambda: max(chain.settles.values()))
        maintenance.poll()  # every second or so
        maintenance.close()  # before the ledger is
    """

    config: Config
    ledger: Ledger
    clock: Clock
    settles: Callable[[], timedelta]
    """How long feeds may revise their readings."""
    _due_s: float = 0.0
    _add_up_s: float = 0.0
    _closed: bool = False

    def poll(self) -> None:
        """Sum up and merge what is due. Never raises; failures are retried."""
        now_s = self.clock.monotonic()
        if now_s >= self._add_up_s and not self._closed:
            self._add_up_s = now_s + ADD_UP_EVERY_S
            self._add_up()
        if now_s < self._due_s or self._closed or not self.config.ledger.roll_up:
            return
        self._due_s = now_s + EVERY_S
        settled_s = (self.settles() + BEHIND).total_seconds()
        given = self.config.ledger
        raw_days = max(given.raw_days, settled_s / 86_400)
        keep = Retention(raw_days=raw_days, minute_days=max(given.minute_days, raw_days))
        work = RollUp(self.ledger, keep, Archive(self.config.archive), self._ends, _PAUSE_S)
        try:
            done = work.work(self.clock.now())
        except CarbonschedError as e:
            log.warning("the ledger is not rolled up now: %s", e)
            return
        if done.rows:
            log.info(
                "rolled up %d rows of the ledger into %d, in transactions of %.3f s at most; they are in %s",
                *(done.rows, done.merged, done.longest_s, self.config.archive),
            )

    def _add_up(self) -> None:
        try:
            self.ledger.total_hours(self.clock.now(), _HOURS, self._ends)
        except CarbonschedError as e:
            log.warning("the ledger's hours are not added up now: %s", e)

    def close(self) -> None:
        """Begin no further slice: the daemon is ending."""
        self._closed = True

    def _ends(self) -> bool:
        return self._closed
