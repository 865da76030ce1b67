"""Settles past rows once an hour as providers revise their values, beside the tick and without delaying it.

Rows and budgets keep the values known when they were written; a settlement is a journal entry (`carbonsched.ledger.settlements`).
`revisions` finds which ones to write.
"""

import logging
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Final

from carbonsched.clock import Clock
from carbonsched.errors import CarbonschedError
from carbonsched.feeds.chain import Chain
from carbonsched.ledger.ledger import Ledger
from carbonsched.ledger.rows import micros, moment
from carbonsched.ledger.settlements import Settled
from carbonsched.supervisor.grid_watch import GridWatch
from carbonsched.supervisor.pending_rows import PendingRows
from carbonsched.supervisor.revisions import Known, revised

EVERY_DAY: Final = 24
"""Passes per grid day, which is shorter in a time-compressed replay."""
LEAST_PAUSE_S: Final = 5.0
MOST: Final = 500
"""Entries per pass; the next pass finds the rest."""
_AGAIN_S: Final = 60.0
_DAY_S: Final = 86_400.0

log = logging.getLogger(__name__)


@dataclass(slots=True)
class Settling:
    """Compares the values that past rows count with to what the feeds answer for their time now.

    Example::

        settling = Settling(ledger, watch, pending, lock, clock)
        settling.poll()  # after every look at which feeds are due
    """

    ledger: Ledger
    watch: GridWatch
    pending: PendingRows
    lock: AbstractContextManager[object]
    """The supervisor's lock; held only to write."""
    clock: Clock
    _due_s: float = 0.0
    _answered: int = 0
    """Feeds that had answered by the last pass: a feed that answers for the first time may know past values."""
    _settled: Settled | None = None
    """None: not read from the journal yet."""
    _closed: bool = field(default=False)

    def poll(self) -> None:
        """Settle what is due. Never raises; failures are retried."""
        answered = sum(status.last_success is not None for status in self.watch.chain.status())
        now_s = self.clock.monotonic()
        if not answered or (now_s < self._due_s and answered <= self._answered):
            return
        day_s = self.watch.day_s()
        self._answered, self._due_s = answered, now_s + max(day_s / EVERY_DAY, LEAST_PAUSE_S)
        try:
            more = self._settle(self.clock.now(), day_s / _DAY_S)
        except CarbonschedError as e:
            log.warning("the account is not settled now: %s", e)
            more = True
        except Exception:  # an error here must not stop the polls that come after it
            log.exception("the account is not settled now")
            more = False
        if more:
            self._due_s = min(self._due_s, now_s + _AGAIN_S)

    def close(self) -> None:
        """The daemon is ending: write nothing more. Hold the lock."""
        self._closed = True

    def _settle(self, now: datetime, scale: float) -> bool:
        """Write the settlements; returns whether more are left than one pass takes. scale: wall seconds per grid second."""
        chain = self.watch.chain
        lasts = {name: settles * scale for name, settles in chain.settles.items()}
        since = now - max(lasts.values())
        settled = self._settled
        if settled is None:
            settled = self._settled = Settled.of(self.ledger.settlements(since))
        settled.forget(micros(since))
        rows = self.ledger.stretches(since, now)
        if not rows:
            return False
        since = max(since, moment(min(row.start_us for row in rows)))
        ranks = {name: i for i, name in enumerate(lasts)}
        found = revised(rows, known(chain, since, now, lasts), settled, ranks, chain.place)
        if not found:
            return False
        new = found[:MOST]
        with self.lock:
            if self._closed:
                return False
            self.pending.note_all(None, "settled", [one.detail() for one in new])
            for one in new:
                settled.add(one)
        first, last = moment(new[0].start_us), moment(new[-1].end_us)
        log.info(
            "settled %d stretches of %s to %s UTC", len(new), f"{first:%m-%d %H:%M}", f"{last:%m-%d %H:%M}"
        )
        return len(found) > MOST


def known(chain: Chain, since: datetime, now: datetime, lasts: dict[str, timedelta]) -> list[Known]:
    """What the feeds answer now for [since, now), each no further back than it still revises."""
    found: list[Known] = []
    longest = max(lasts.values(), default=timedelta(0))
    at: datetime | None = since
    while at is not None and at < now:
        reading, following = chain.reading_at(at), chain.next_change(at)
        if reading is not None:
            start = max(at, now - lasts.get(reading.source.provider, longest))
            end = now if following is None else min(following, now)
            if start < end:
                found.append(Known(micros(start), micros(end), reading))
        at = following
    return found
