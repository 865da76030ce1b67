"""Settles the ledger's account as what providers revise becomes known, once an hour, beside the tick and never in its way.

Rows keep what was known when they were written, and so does the budget: a settlement is an entry in the journal
(`carbonsched.ledger.settlements`). Which there are to write, `revisions` finds.
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
"""Passes in a day of the grid, which is shorter in a time-compressed replay."""
LEAST_PAUSE_S: Final = 5.0
MOST: Final = 500
"""Entries of one pass; what is left is found again by the next."""
_AGAIN_S: Final = 60.0
_DAY_S: Final = 86_400.0

log = logging.getLogger(__name__)


@dataclass(slots=True)
class Settling:
    """Compares what rows of the past count with to what the chain answers for their time now.

    Example::

        settling = Settling(ledger, watch, pending, lock, clock)
        settling.poll()  # after every look at which feeds are due
    """

    ledger: Ledger
    watch: GridWatch
    pending: PendingRows
    lock: AbstractContextManager[object]
    """The tick's: held to write alone."""
    clock: Clock
    _due_s: float = 0.0
    _answered: int = 0
    """Feeds that had answered by the last pass: one that answers for the first time may know of the past."""
    _settled: Settled | None = None
    """None: not read from the journal yet."""
    _closed: bool = field(default=False)

    def poll(self) -> None:
        """Settle what can be, where it is due. Never raises: what cannot be done now is tried again."""
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
        except Exception:  # a mistake in here must not hold up the polls that come after it
            log.exception("the account is not settled now")
            more = False
        if more:
            self._due_s = min(self._due_s, now_s + _AGAIN_S)

    def close(self) -> None:
        """The daemon ends: nothing is written any more. Hold the lock."""
        self._closed = True

    def _settle(self, now: datetime, scale: float) -> bool:
        """Write what is to be settled; whether there was more than one pass takes. scale: wall seconds of a grid second."""
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
    """What the chain answers now for [since, now), each value no further back than its feed still revises."""
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
