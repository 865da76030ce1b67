"""Writes a job's events into the ledger, in one transaction with the offset up to which they were read."""

import logging
from collections.abc import Mapping
from datetime import datetime

from carbonsched.ledger.ledger import Ledger
from carbonsched.model.protocol import Evaluated, SegmentDone, Warned
from carbonsched.supervisor.jobs.actors import TRAINER
from carbonsched.supervisor.jobs.event_limit import KINDS
from carbonsched.supervisor.jobs.job_run import JobRun

log = logging.getLogger(__name__)


def record(run: JobRun, ledger: Ledger, now: datetime) -> None:
    """Record the events. Raises LedgerError; they are then recorded with the next ones."""
    more = run.limit.due(now)
    if run.follower.offset == run.recorded and not more:
        return
    with ledger.transaction():
        for event in run.unsaved:
            match event:
                case SegmentDone():
                    start = run.process.segment_start(event.k, event.at)
                    ledger.save_segment(run.id, event, start, event.at, run.directive)
                case Evaluated():
                    ledger.note(run.id, "evaluated", event.dump(), TRAINER, event.at)
                case Warned():
                    log.warning("job %s: %s", run.id, event.message)
                    ledger.note(run.id, "note", {"text": event.message}, TRAINER, event.at)
        record_more(run, ledger, now, more)
        ledger.set_offset(run.id, run.follower.offset)
    run.mark_recorded()
    if more:
        run.limit.note_said(more, now)


def record_more(run: JobRun, ledger: Ledger, now: datetime, more: Mapping[str, int]) -> None:
    """Record how many `more` events of each kind there were that are not recorded one by one."""
    for kind, number in more.items():
        text = f"{number} more {KINDS[kind]}; events.jsonl in the job directory has them all"
        log.warning("job %s: %s", run.id, text)
        ledger.note(run.id, "note", {"text": text, "more": number, "of": kind}, TRAINER, now)
