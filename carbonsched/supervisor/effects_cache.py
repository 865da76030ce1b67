"""Caches what each job saved once its report can no longer change, so that a period's report need not compute it again.

The file holds one line per job, and the ledger alone determines it. A job is computed again if the file is missing, was written by another
version of carbonsched, or if the job was resumed or restated since. `effects.py` of an export recomputes the same from the rows.
"""

import json
import logging
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Final

from carbonsched import __version__
from carbonsched.clock import Clock
from carbonsched.errors import CarbonschedError
from carbonsched.ledger.ledger import Ledger
from carbonsched.ledger.records import JobRecord
from carbonsched.ledger.rows import micros
from carbonsched.model.files import replace

if TYPE_CHECKING:  # a daemon that was never asked for a report does not load templates and plots
    from carbonsched.report.effects import Savings

NAME: Final = "effects.jsonl"
SURE: Final = timedelta(days=1)
"""Delay after a job's end: by then all late energy has been booked."""
AT_ONCE: Final = 20
"""Jobs that a report computes itself, about two seconds; the background fills in the rest."""
LATER: Final = (
    "is not computed yet: the daemon begins with such jobs within the hour, 20 a minute; ask again then"
)
YOUNG: Final = (
    f"ended less than a day ago, and a period's report computes {AT_ONCE} of such jobs at most: it is in one that is asked for when "
    "a day and an hour have passed since its end; its own report (report --job ID) has it now"
)
"""Until then late energy may still be booked, so nothing is kept of it."""
_A_TIME: Final = 20
"""Jobs that the background computes per minute; once all are cached it pauses for an hour."""
_AGAIN_S, _REST_S = 60.0, 3600.0

log = logging.getLogger(__name__)


@dataclass(slots=True)
class EffectsCache:
    """The cached effects of jobs that are over.

    Example::

        kept = EffectsCache(config.state / NAME)
        kept.poll(ledger, clock)  # every second or so
        report = build(ledger, now=now, savings_of=kept.reading(now))
    """

    file: Path
    _lines: dict[str, tuple[str, str]] | None = None
    """Job → (key of what they were computed from, the effects as JSON)."""
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _due_s: float = 0.0
    _closed: bool = False

    def poll(self, ledger: Ledger, clock: Clock) -> None:
        """Compute what is due. Never raises; failures are retried."""
        now_s = clock.monotonic()
        if now_s >= self._due_s and not self._closed:
            done = self._work(ledger, clock.now())
            self._due_s = now_s + (_AGAIN_S if done else _REST_S)

    def close(self) -> None:
        """Start no further job: the daemon is ending."""
        self._closed = True

    def reading(self, now: datetime) -> "Callable[[Ledger, JobRecord], Savings | str | None]":
        """Return a reader for one report: cached effects, and a few missing ones computed at once."""
        left = AT_ONCE

        def savings(ledger: Ledger, job: JobRecord) -> "Savings | str | None":
            nonlocal left
            of, kept = _of(ledger, job), self._kept(job)
            if kept is not None and kept[0] == of:
                return _read(kept[1])
            if left <= 0:
                return LATER if _is_sure(job, now) else YOUNG
            left -= 1
            return self._compute(ledger, job, of, now)

        return savings

    def _work(self, ledger: Ledger, now: datetime) -> int:
        """Compute some jobs that are not cached; returns how many."""
        done = 0
        try:
            for job_id in ledger.over_before(now - SURE):
                if done >= _A_TIME or self._closed:
                    break
                # one job at a time: all jobs of a big ledger would fill this process's memory
                job = ledger.job(job_id)
                kept, of = self._kept(job), _of(ledger, job)
                if kept is None or kept[0] != of:
                    self._compute(ledger, job, of, now)
                    done += 1
        except CarbonschedError as e:
            log.warning("effects of jobs are not kept now: %s", e)
        return done

    def _compute(self, ledger: Ledger, job: JobRecord, of: str, now: datetime) -> "Savings | None":
        from carbonsched.report.job_savings import job_savings

        found = job_savings(ledger, job)
        if _is_sure(job, now):
            self._keep(job.id, of, "null" if found is None else found.model_dump_json())
        return found

    def _kept(self, job: JobRecord) -> tuple[str, str] | None:
        with self._lock:
            return self._loaded().get(job.id)

    def _keep(self, job_id: str, of: str, savings: str) -> None:
        with self._lock:
            lines = self._loaded()
            began = bool(lines)
            lines[job_id] = of, savings
            try:
                if began:
                    with self.file.open("a", encoding="utf-8") as file:
                        file.write(_line(job_id, of, savings))
                else:
                    head = json.dumps({"carbonsched": __version__}) + "\n"
                    replace(self.file, head + _line(job_id, of, savings))
            except OSError as e:
                log.warning("%s cannot be written: %s", self.file, e.strerror)

    def _loaded(self) -> dict[str, tuple[str, str]]:
        """Load the file. Unreadable lines are dropped, and computed again."""
        if self._lines is None:
            self._lines = {}
            try:
                head, *lines = self.file.read_text(encoding="utf-8").splitlines()
                if json.loads(head) == {"carbonsched": __version__}:
                    self._lines = dict(found for line in lines if (found := _parsed(line)) is not None)
            except (OSError, ValueError, RecursionError):
                pass
        return self._lines


def _line(job_id: str, of: str, savings: str) -> str:
    return json.dumps([job_id, of, savings]) + "\n"


def _parsed(line: str) -> tuple[str, tuple[str, str]] | None:
    try:
        job_id, of, savings = json.loads(line)
        _read(savings)
    except (ValueError, TypeError, RecursionError):
        return None
    return str(job_id), (str(of), str(savings))


def _read(savings: str) -> "Savings | None":
    from carbonsched.report.effects import Savings

    return None if savings == "null" else Savings.model_validate_json(savings)


def _of(ledger: Ledger, job: JobRecord) -> str:
    """The key of a job's cached effects: its end, and how often it was restated."""
    end = 0 if job.ended_at is None else micros(job.ended_at)
    return f"{end} {ledger.count(job.id, 'restated')}"


def _is_sure(job: JobRecord, now: datetime) -> bool:
    return job.state.ended and job.ended_at is not None and now - job.ended_at >= SURE
