"""The ledger: it records what was spent, what was decided, and how far each job's events were read.

Writes made inside one `transaction()` are kept together or not at all: the offset up to which a job's events were
consumed moves with the rows that came from them, so a daemon killed at any instant neither loses nor repeats one.
"""

import json
import time
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any, Final

from sqlalchemy import Connection, and_, func, insert, select, update
from sqlalchemy.exc import IntegrityError

from carbonsched.errors import LedgerError, StateError
from carbonsched.ledger import audit, hour_totals, late_energy, rollup, totals
from carbonsched.ledger.archives import Archive
from carbonsched.ledger.chains import HEARTBEAT
from carbonsched.ledger.checkpoint import Checkpoint
from carbonsched.ledger.export import export
from carbonsched.ledger.heads import Head, head_of
from carbonsched.ledger.hours import HOUR_US
from carbonsched.ledger.journal_agreement import sha256
from carbonsched.ledger.reader import LedgerReader
from carbonsched.ledger.records import state_of
from carbonsched.ledger.rows import (
    GENESIS,
    ROW_SCHEMA,
    canonical,
    chained,
    flatten,
    insert_rows,
    micros,
    moment,
)
from carbonsched.ledger.settlements import SETTLED
from carbonsched.ledger.sums_reader import chain_end, eras_of
from carbonsched.ledger.tables import JOBS, JOURNAL, OFFSETS, SEGMENTS
from carbonsched.model.audit import AuditResult, Exported
from carbonsched.model.energy import EnergyDelta, Interval
from carbonsched.model.job import JobSpec, SubmittedJob
from carbonsched.model.job_state import JobState, move
from carbonsched.model.protocol import Directive, SegmentDone

_LAST_ENTRY: Final = select(JOURNAL.c.id, JOURNAL.c.hash).order_by(JOURNAL.c.id.desc()).limit(1)
"""Asked at every write, so the statement is built once."""


class Ledger(LedgerReader):
    """Reads and writes the ledger; any thread may call any method. `Store.open`, `Store.transaction` and `Store.close` manage its life.

    Example:
        >>> with Ledger.open("sqlite://") as ledger:
        ...     (ledger.totals().rows, ledger.verify().ok)
        (0, True)
    """

    _touched_us: int | None = None
    """The first hour whose sums were taken away since that was set to None."""
    _hour_us: int = 0
    """Hours before it have their sums, as far as they have rows."""

    # intervals

    def append(self, intervals: Sequence[Interval]) -> None:
        """Append rows to the chain. Raises LedgerError, and writes none, if a row contradicts itself."""
        if flat := [flatten(interval) for interval in intervals]:
            with self.transaction() as connection:
                self._append(connection, flat)

    def recover(self, delta: EnergyDelta) -> tuple[dict[str, Any], ...]:
        """Spread energy reported late over the unknown rows of its time (`carbonsched.ledger.late_energy`). Returns the new rows; empty,
        with nothing written, if no row of that time is unknown."""
        with self.transaction() as connection:
            unknown = late_energy.unknown_rows(connection, delta)
            rows = late_energy.spread(delta, unknown) if unknown else []
            if rows:
                self._append(connection, rows)
        return tuple(rows)

    def _append(self, connection: Connection, rows: Sequence[dict[str, Any]]) -> None:
        last_id, last_hash = chain_end(connection)
        for n, row in enumerate(rows, start=last_id + 1):
            row["id"], row["prev_hash"], row["schema"] = n, last_hash, ROW_SCHEMA
            row["hash"] = last_hash = chained(last_hash, canonical(row))
        insert_rows(connection, rows)
        self._forgotten(hour_totals.forget_rows(connection, rows))

    # sums of hours

    def total_hours(
        self, now: datetime, most: int | None = None, stop: Callable[[], bool] = lambda: False
    ) -> int:
        """Sum up to `most` past hours that have no cached sums, each in a short transaction; returns how many. Raises LedgerError."""
        done = 0
        while not stop() and (most is None or done < most):
            settled, self._touched_us = self.settled(), None
            with self._reading() as connection:
                hour_us = hour_totals.next_hour(connection, self._hour_us, micros(now))
                if hour_us is None:
                    break
                books = hour_totals.Books.of(connection, eras_of(connection), settled)
                try:
                    sums = hour_totals.sums_of(connection, books, hour_us)
                    text = sums.text()
                except (ArithmeticError, TypeError, ValueError) as e:
                    raise LedgerError(f"the rows of {moment(hour_us)} cannot be added up: {e}") from e
            with self.transaction() as connection:
                if not self._is_touched(hour_us):  # the rows changed meanwhile
                    hour_totals.keep(connection, sums, text)
                    self._hour_us = hour_us + HOUR_US
                    done += 1
        return done

    def _is_touched(self, hour_us: int) -> bool:
        return self._touched_us is not None and self._touched_us <= hour_us

    def drop_hours(self) -> None:
        """Drop all cached hour sums; `total_hours` computes them again from the rows."""
        with self.transaction() as connection:
            hour_totals.forget_all(connection)
            self._forgotten(0)

    def _forgotten(self, hour_us: int) -> None:
        """What begins in that hour is another now, and maybe what begins later."""
        self._hour_us = min(self._hour_us, hour_us)
        self._touched_us = hour_us if self._touched_us is None else min(self._touched_us, hour_us)

    # roll-up

    def next_slice(self, tier: int, until: datetime, most: int) -> rollup.Slice | None:
        """The oldest rows of a tier that can be merged (`carbonsched.ledger.rollup`); None if none is due."""
        eras, settled = self.eras(), self.settled()
        with self._reading() as connection:
            return rollup.next_slice(connection, tier, until, most, eras, settled)

    def replace(self, slice_: rollup.Slice, archive: Archive | None, at: datetime) -> float:
        """Archive a slice's rows and replace them by the merged ones, in one transaction; returns its seconds."""
        name, size = None, None
        if archive is not None:
            name = archive.name(slice_.rows[0]["start_us"])
            with self._reading() as connection:
                behind = rollup.archived(connection, name)
            size = archive.append(name, slice_.rows, behind)
        began = time.monotonic()
        with self.transaction() as connection:
            said = rollup.record(connection, slice_, name, size)
            self._write(connection, None, "rolled", said, "daemon", at)
        return time.monotonic() - began

    # jobs

    def add_job(self, job: SubmittedJob) -> None:
        """Raises StateError if the id exists."""
        with self.transaction() as connection:
            submitted = _text(job.dump())
            row = {
                "id": job.id,
                "submitted": submitted,
                "submitted_us": micros(job.submitted_at),
                "state": str(JobState.QUEUED),
                "reason": "submitted",
                "budget_g": job.spec.carbon.budget_g,
            }
            try:
                connection.execute(insert(JOBS), row)
            except IntegrityError as e:
                raise StateError(f"job {job.id} is already in the ledger; submit it under a new id") from e
            detail = {
                "name": job.spec.name,
                "sha256": sha256({"submitted": submitted}),
                "uid": job.owner.uid,
                "budget_g": job.spec.carbon.budget_g,
            }
            self._write(connection, job.id, "submitted", detail, job.owner.user, job.submitted_at)

    def set_state(self, job_id: str, state: JobState, reason: str, actor: str, at: datetime) -> None:
        """Move a job along the table of transitions; the same state again records a new reason. Raises StateError."""
        with self.transaction() as connection:
            row = self._job_row(connection, job_id)
            old = state_of(row["state"])
            if state is not old:
                move(job_id, old, state)
            values: dict[str, Any] = {"state": str(state), "reason": reason}
            if state is JobState.RUNNING and row["started_us"] is None:
                values["started_us"] = micros(at)
            if state.ended != old.ended:
                values["ended_us"] = micros(at) if state.ended else None
            connection.execute(update(JOBS).where(JOBS.c.id == job_id).values(**values))
            detail = {"from": row["state"], "state": str(state), "reason": reason}
            self._write(connection, job_id, "state", detail, actor, at)

    def set_budget(
        self, job_id: str, grams: float, reason: str, actor: str, at: datetime, uid: int | None = None
    ) -> None:
        """Record a new budget with who set it (uid: a person's, as the kernel reports it), when, and the old and new grams."""
        with self.transaction() as connection:
            row = self._job_row(connection, job_id)
            connection.execute(update(JOBS).where(JOBS.c.id == job_id).values(budget_g=grams))
            detail: dict[str, Any] = {"from_g": row["budget_g"], "budget_g": grams, "reason": reason}
            if uid is not None:
                detail["uid"] = uid
            self._write(connection, job_id, "budget", detail, actor, at)

    # journal

    def note(
        self, job_id: str | None, kind: str, detail: Mapping[str, Any], actor: str, at: datetime
    ) -> None:
        """Journal what happened: `directive`, `evaluated` (the event's dump), `note`, …; docs/ledger.md lists all kinds."""
        with self.transaction() as connection:
            self._write(connection, job_id, kind, detail, actor, at)

    # segments

    def save_segment(
        self, job_id: str, done: SegmentDone, start: datetime, end: datetime, directive: Directive | None
    ) -> None:
        """Record a finished segment. A second record is a new attempt, and the first then counts as lost work."""
        with self.transaction() as connection:
            self._job_row(connection, job_id)
            t = SEGMENTS.c
            here = and_(t.job_id == job_id, t.k == done.k)
            last = connection.execute(select(func.max(t.attempt)).where(here)).scalar()
            row = {
                "job_id": job_id,
                "k": done.k,
                "attempt": 0 if last is None else last + 1,
                "start_us": micros(start),
                "end_us": micros(end),
                "done": _text(done.dump()),
                "directive": None if directive is None else _text(directive.dump()),
            }
            connection.execute(insert(SEGMENTS), row)
            detail = {"k": done.k, "attempt": row["attempt"], "sha256": sha256(row)}
            self._write(connection, job_id, "segment", detail, "trainer", end)

    # events

    def set_offset(self, job_id: str, offset: int) -> None:
        """Call inside the transaction that writes what the events reported."""
        with self.transaction() as connection:
            self._job_row(connection, job_id)
            mine = OFFSETS.c.job_id == job_id
            changed = connection.execute(update(OFFSETS).where(mine).values(bytes=offset))
            if changed.rowcount == 0:
                connection.execute(insert(OFFSETS).values(job_id=job_id, bytes=offset))

    # audit

    def verify(
        self,
        earlier: Sequence[Head] = (),
        since: Head | None = None,
        archive: Archive | None = None,
        steps: Checkpoint | None = None,
    ) -> AuditResult:
        """Verify every hash and every gram from the rows alone; the result names the first fault.

        earlier: heads recorded before, which must still be in the chains; since: a head whose rows were verified then and are skipped.
        archive: of merged rows, which are recomputed from it. steps: receives the progress, and says where to resume.
        """
        with self._reading() as connection:
            return audit.verify(connection, earlier, since, archive, steps)

    def heartbeat(self, actor: str, at: datetime, *, counted: bool = True) -> Head | None:
        """Journal what the rows sum to, and return the heads including that entry, to be recorded elsewhere. None: nothing new. counted:
        False leaves out the sums, for which the first call reads all rows."""
        detail: dict[str, Any] = {}
        if counted:  # outside of the transaction, which others wait for
            rows, groups = self._groups_so_far(None)
            sums = totals.total(groups)
            detail = {"rows": rows, "energy_mj": sums.energy_mj, "grams": sums.location_g}
        with self.transaction() as connection:
            last = (
                connection.execute(select(JOURNAL).order_by(JOURNAL.c.id.desc()).limit(1)).mappings().first()
            )
            if chain_end(connection)[0] == 0 or (
                last and last["kind"] == HEARTBEAT and last["interval_id"] == chain_end(connection)[0]
            ):
                return None
            self._write(connection, None, "heartbeat", detail, actor, at)
            return head_of(connection)

    def export(self, folder: Path, at: datetime) -> Exported:
        """Write all that an outsider needs to verify and recompute it without carbonsched (docs/ledger.md)."""
        with self._reading() as connection:
            return export(connection, folder, at, self.schema_version)

    def _write(
        self,
        connection: Connection,
        job_id: str | None,
        kind: str,
        detail: Mapping[str, Any],
        actor: str,
        at: datetime,
    ) -> None:
        try:
            text = _text(detail)
        except (TypeError, ValueError) as e:
            raise LedgerError(f"a journal entry must be plain JSON: {e}") from e
        last_id, last_hash = connection.execute(_LAST_ENTRY).first() or (0, GENESIS)
        interval_id, interval_hash = chain_end(connection)
        entry: dict[str, Any] = {
            "id": last_id + 1,
            "at_us": micros(at),
            "job_id": job_id,
            "kind": kind,
            "actor": actor,
            "detail": text,
            "interval_id": interval_id,
            "interval_hash": interval_hash,
            "prev_hash": last_hash,
        }
        entry["hash"] = chained(last_hash, canonical(entry))
        connection.execute(insert(JOURNAL), entry)
        if kind == SETTLED:
            self._settled_again(connection, detail)

    def _settled_again(self, connection: Connection, detail: Mapping[str, Any]) -> None:
        try:
            start, end = (micros(datetime.fromisoformat(detail[name])) for name in ("start", "end"))
        except (KeyError, TypeError, ValueError):
            self.drop_hours()  # its time is unknown
            return
        self._forgotten(hour_totals.forget_settled(connection, start, end))


def spec_sha256(spec: JobSpec) -> str:
    """Of the spec's canonical JSON, in hex."""
    return spec.sha256


def _text(data: Mapping[str, Any]) -> str:
    return json.dumps(data, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
