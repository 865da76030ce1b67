"""Charges energy that a meter reports late to the jobs of that time, once every row of that time is in the ledger."""

import logging
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from carbonsched.errors import LedgerError
from carbonsched.ledger.ledger import Ledger
from carbonsched.model.energy import EnergyDelta
from carbonsched.supervisor.jobs.job_run import JobRun
from carbonsched.supervisor.pending_rows import PendingRows
from carbonsched.supervisor.recovery import ProcessJournal

log = logging.getLogger(__name__)

MOST = 1000
"""Deltas kept while the ledger refuses writes."""


@dataclass(slots=True)
class LateEnergy:
    """Late energy that is not charged yet.

    Example::

        late.add(delta for delta in meter.read() if delta.recovered)
        late.charge(runs)  # after the open rows were written
    """

    ledger: Ledger
    pending: PendingRows
    journal: ProcessJournal
    waiting: list[EnergyDelta] = field(default_factory=list)

    def add(self, deltas: Iterable[EnergyDelta]) -> None:
        self.waiting += deltas
        if over := len(self.waiting) - MOST:
            del self.waiting[: max(over, 0)]

    def charge(self, runs: Mapping[str, JobRun]) -> None:
        """Charge it. runs: the jobs that are not over; their accounts are restated. Jobs that are over are restated in the ledger alone."""
        while self.waiting and not self.pending.rows:
            try:
                rows = self.ledger.recover(self.waiting[0])
            except LedgerError as e:
                log.warning("energy that was told late is not charged yet: %s", e)
                return
            delta = self.waiting.pop(0)
            if not rows:
                log.warning(
                    "%s: no row of %s to %s is unknown: what was told late of it is charged to nobody",
                    delta.device,
                    delta.start,
                    delta.end,
                )
            for job_id in sorted({row["job_id"] for row in rows if row["job_id"] is not None}):
                self._restate(
                    delta, job_id, [row for row in rows if row["job_id"] == job_id], runs.get(job_id)
                )

    def _restate(
        self, delta: EnergyDelta, job_id: str, rows: list[dict[str, Any]], run: JobRun | None
    ) -> None:
        energy_mj, grams = sum(row["energy_mj"] for row in rows), sum(row["grams"] or 0.0 for row in rows)
        detail = {"board": delta.device, "rows": len(rows), "energy_mj": energy_mj, "grams": grams}
        self.pending.note(job_id, "restated", detail)
        log.info("job %s: %.0f J of %s, told late, are charged to it", job_id, energy_mj / 1000, delta.device)
        if run is not None:
            run.restate(self.journal.account(job_id), [(row["segment"], row["energy_mj"]) for row in rows])
