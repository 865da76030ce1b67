"""Queues what the ledger refuses to take, mostly because of a full disk, so that metering and control go on meanwhile.

The queue is in memory: a daemon that is killed loses it, and then reads the energy from the counter as one stretch.
"""

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from carbonsched.clock import Clock
from carbonsched.errors import LedgerBusyError, LedgerError
from carbonsched.ledger.ledger import Ledger
from carbonsched.ledger.rows import flatten
from carbonsched.model.energy import EnergyMethod, Interval
from carbonsched.supervisor.jobs.actors import DAEMON
from carbonsched.supervisor.metering import join
from carbonsched.supervisor.metric_counters import Histogram
from carbonsched.text import several

log = logging.getLogger(__name__)

MOST_ROWS = 20_000
"""Rows kept at most, about 40 MB. Neighbours that agree are joined first, so it takes weeks to get there."""
MOST_NOTES = 1000
SAID_AGAIN_S = 60.0


@dataclass(slots=True)
class PendingRows:
    """Rows and journal entries on their way to the ledger.

    Example::

        pending.save(rows)
        assert not pending.rows  # else the ledger refused them, and they are tried again with the next
    """

    ledger: Ledger
    clock: Clock
    rows: list[Interval] = field(default_factory=list)
    notes: list[Callable[[], None]] = field(default_factory=list)
    """Each writes one entry, or a budget."""
    writes: Histogram = field(default_factory=Histogram)
    """Durations of writes, without the wait for the disk."""
    syncs: Histogram = field(default_factory=Histogram)
    """Durations of disk syncs."""
    lost: int = 0
    """Rows and entries dropped because the queue was full."""
    answers: int = 0
    """How often the ledger took what there was, or refused it at once: this grows as long as no other process locks the ledger."""
    _since: str = ""
    """Since when the ledger refuses writes; empty: it does not."""
    _said_s: float = -SAID_AGAIN_S
    _room_s: float = -SAID_AGAIN_S

    def save(self, rows: Sequence[Interval]) -> None:
        """Write these rows and the queue. Never raises for a ledger that cannot be written."""
        self.rows += [_possible(row) for row in rows]
        try:
            with self.writes.timed() if self.rows else nullcontext():
                self.ledger.append(self.rows)
            self.rows.clear()
            while self.notes:
                self._take(self.notes[0])
                del self.notes[0]
        except (LedgerError, OSError) as e:
            self._keep(e)
            self.answers += not isinstance(e, LedgerBusyError)
        else:
            self.answers += 1
            if self._since:
                log.info("the ledger takes rows again")
            now_s = self.clock.monotonic()
            if self._since or now_s - self._room_s >= SAID_AGAIN_S:
                self._room_s = now_s
                self.ledger.keep_room()
            self._since = ""

    def _take(self, note: Callable[[], None]) -> None:
        """Raises LedgerError or OSError, to be retried. A row that the ledger will never take is dropped, since it would block all after it."""
        try:
            note()
        except (LedgerError, OSError):
            raise
        except Exception:
            log.exception("a note is lost, the ledger will never take it")
            self.lost += 1

    def note(self, job_id: str | None, kind: str, detail: Mapping[str, Any], actor: str = DAEMON) -> None:
        """Journal something that was already done; it is not undone if the entry is lost."""
        self._write(partial(self.ledger.note, job_id, kind, detail, actor, self.clock.now()))

    def note_all(self, job_id: str | None, kind: str, details: Sequence[Mapping[str, Any]]) -> None:
        """Journal several entries, all or none."""
        self._note_each([(job_id, detail) for detail in details], kind)

    def note_of_each(self, job_ids: Sequence[str], kind: str, detail: Mapping[str, Any]) -> None:
        """Journal the same entry for several jobs, for all or none."""
        self._note_each([(job_id, detail) for job_id in job_ids], kind)

    def _note_each(self, entries: Sequence[tuple[str | None, Mapping[str, Any]]], kind: str) -> None:
        at = self.clock.now()

        def write() -> None:
            with self.ledger.transaction():
                for job_id, detail in entries:
                    self.ledger.note(job_id, kind, detail, DAEMON, at)

        self._write(write)

    def budget(self, job_id: str, grams: float, reason: str) -> None:
        """Journal a job's new budget."""
        self._write(partial(self.ledger.set_budget, job_id, grams, reason, DAEMON, self.clock.now()))

    def _write(self, note: Callable[[], None]) -> None:
        if self.notes:  # keep their order
            self.notes.append(note)
            return
        try:
            note()
        except (LedgerError, OSError) as e:
            self.notes.append(note)
            self._keep(e)

    def sync(self) -> None:
        """Wait until what this thread has written survives a power cut. Never raises; what fails is synced with the next."""
        began = time.monotonic()
        try:
            if self.ledger.sync():
                self.syncs.observe(time.monotonic() - began)
        except LedgerError as e:
            now_s = self.clock.monotonic()
            if now_s - self._said_s >= SAID_AGAIN_S:
                self._said_s = now_s
                log.warning("%s", e)

    def close(self) -> None:
        """The daemon is ending: what the ledger has not taken is lost."""
        if self.rows or self.notes:
            lost = f"{several(len(self.rows), 'row')} and {several(len(self.notes), 'note')}"
            log.error("the ledger did not take its last lines: lost are %s", lost)

    def _keep(self, error: Exception) -> None:
        self._join()
        over = max(len(self.rows) - MOST_ROWS, 0), max(len(self.notes) - MOST_NOTES, 0)
        del self.rows[: over[0]], self.notes[: over[1]]
        self.lost += sum(over)
        now, now_s = self.clock.now(), self.clock.monotonic()
        self._since = self._since or f"{now:%Y-%m-%d %H:%M:%S} UTC"
        if now_s - self._said_s >= SAID_AGAIN_S:
            self._said_s = now_s
            kept = f"{several(len(self.rows), 'row')} and {several(len(self.notes), 'note')} since {self._since} are kept in memory"
            lost = f", {self.lost} are lost" if self.lost else ""
            log.warning("%s; %s%s", error, kept, lost)

    def _join(self) -> None:
        """Join consecutive rows that agree."""
        found: list[Interval] = []
        last: dict[tuple[str, str | None], int] = {}
        for row in self.rows:
            key = row.delta.device, row.job_id
            before = last.get(key)
            joined = None if before is None else join(found[before], row, row.pue)
            if joined is not None and before is not None:
                found[before] = joined
            else:
                last[key] = len(found)
                found.append(row)
        self.rows = found


def _possible(row: Interval) -> Interval:
    """The row, or one of unknown energy if it contradicts itself: the ledger would refuse it, and all after it, for ever."""
    try:
        flatten(row)
    except LedgerError as e:
        log.warning("%s: it counts as unknown", e)
        update = {"method": EnergyMethod.UNAVAILABLE, "reason": str(e), "coverage": 0.0}
        unknown = dict.fromkeys(("energy_mj", "power_w", "counter_start_mj", "counter_end_mj"))
        delta = row.delta.model_copy(update=update | unknown)
        return row.model_copy(update={"delta": delta, "grams": None})
    return row
