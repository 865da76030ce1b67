"""Gathers the inputs of a job's effects from the ledger, and computes the effects: for the job's report or a period's.

Both reports call the same functions, so a period's sums agree with the reports of its jobs.
"""

from datetime import datetime, timedelta
from typing import Any, Final

from carbonsched.ledger.ledger import Ledger
from carbonsched.ledger.records import JobRecord, SegmentRecord
from carbonsched.ledger.rows import micros
from carbonsched.ledger.totals import Totals, total, total_by
from carbonsched.model.clock_changes import ClockChange, changes_of
from carbonsched.report.clocks import clocks_effect
from carbonsched.report.effects import Savings
from carbonsched.report.losses import Validation
from carbonsched.report.savings import Spent, savings, training
from carbonsched.report.settled import Differences
from carbonsched.report.timeline import BINS, Timeline
from carbonsched.report.timing import PIECE_US, Curves, TimingEffects, timing_effects, waits_of

MOST_ROWS = 20_000
"""If a job has more rows, those that differ only in time are summed."""
MOST_LISTED: Final = 10_000
"""Most evaluations and budget changes in a report: the last ones."""


def job_savings(ledger: Ledger, record: JobRecord) -> Savings | None:
    """The savings of the whole job, as in its own report; None: it is a command without directives, and nothing of it was scheduled."""
    counted = {segment.k: segment for segment in ledger.segments(record.id)}
    if record.spec.command is not None and not counted:
        return None
    timeline = gathered(ledger, record, counted, (None, None), None)
    totals = total(timeline.groups)
    curves = curves_of(ledger, record, totals, None)
    draw(timeline, ledger, record, totals, (None, None), curves)
    return effects_of(ledger, record, counted, timeline, None, curves, validation_of(ledger, record))


def effects_of(
    ledger: Ledger,
    record: JobRecord,
    counted: dict[int, SegmentRecord],
    timeline: Timeline,
    start: datetime | None,
    curves: Curves,
    validation: tuple[Validation, ...],
) -> Savings:
    """From a drawn timeline. start: of the requested part of the job's time; None: all of it."""
    totals, by_segment = total(timeline.groups), total_by(timeline.groups, lambda group: group.segment)
    timing = timing_of(ledger, record, timeline, totals, start, curves)
    changes = changes_of(ledger.history(record.id, kinds=("clocks",)))
    return saved_by(record, counted, by_segment, timeline, timing, validation, changes)


def _piece_us(span: timedelta) -> int:
    """Finer than a point of the timeline, and a divisor of `PIECE_US`, so that the savings are the same as from single rows."""
    points_s, most_s = span.total_seconds() / BINS / 2, PIECE_US // 1_000_000
    return (
        max(each for each in range(1, most_s + 1) if most_s % each == 0 and each <= max(points_s, 1))
        * 1_000_000
    )


def gathered(
    ledger: Ledger,
    record: JobRecord | None,
    counted: dict[int, SegmentRecord],
    span: tuple[datetime | None, datetime | None],
    only: frozenset[str] | None,
) -> Timeline:
    """From the sums of hours."""
    starts = {k: segment.start for k, segment in counted.items()}
    job_id = record.id if record else None
    timeline = Timeline(job_id, starts, Differences(ledger.settled()), ledger.eras(), only)
    ledger.each_hour(timeline.take, job_id, *span)
    timeline.finish()
    return timeline


def draw(
    timeline: Timeline,
    ledger: Ledger,
    record: JobRecord | None,
    totals: Totals,
    span: tuple[datetime | None, datetime | None],
    curves: Curves | None,
) -> None:
    """From the rows, if hours are too coarse."""
    first, last = totals.start, totals.end
    if first is None or last is None:
        return
    start, end = span
    if record is not None and record.started_at is not None and start is None:
        first = min(first, record.started_at)
    timeline.start, timeline.end = first, last
    rows: list[dict[str, Any]] = []
    if record is not None and totals.rows > MOST_ROWS:
        ledger.each_piece(rows.append, record.id, first, end or last, piece_us=_piece_us(last - first))
    elif record is not None or not timeline.long:
        # only the job's own rows: the intensity while it waited, from other boards' rows, is already summed
        ledger.each_row(rows.append, record.id if record else None, first, end or last)
    timeline.draw(first, last, rows, None if curves is None else curves.decided)


def curves_of(ledger: Ledger, record: JobRecord, totals: Totals, start: datetime | None) -> Curves:
    """From the job's submission to its last row."""
    since = _since(record, start)
    if totals.start is not None:
        since = min(since, totals.start)
    return Curves.of(ledger.steps(since, totals.end or since), ledger.settled())


def _since(record: JobRecord, start: datetime | None) -> datetime:
    """For a part of a job's time: as if the job had been submitted at its beginning."""
    return max(record.submitted_at, start or record.submitted_at)


def saved_by(
    record: JobRecord,
    counted: dict[int, SegmentRecord],
    by_segment: dict[int | None, Totals],
    timeline: Timeline,
    timing: TimingEffects,
    validation: tuple[Validation, ...],
    changes: list[ClockChange],
) -> Savings:
    nothing = Spent(0.0, 0.0)
    spent: dict[int, Spent] = {}
    for k, segment in counted.items():
        if k in by_segment:
            lost = timeline.lost.get(k, nothing)
            here = Spent(by_segment[k].energy_j - lost.energy_j, by_segment[k].location_g - lost.grams)
            spent[k] = training(segment, here, timeline.trained.get(k))
    method, segments = record.spec.train.method, [counted[k] for k in sorted(counted)]
    found = savings(segments, spent, timeline.known_grams, timing, method, validation)
    return found.model_copy(update={"clocks": clocks_effect(segments, spent, changes)})


def timing_of(
    ledger: Ledger,
    record: JobRecord,
    timeline: Timeline,
    totals: Totals,
    start: datetime | None,
    curves: Curves,
) -> TimingEffects:
    states = [
        (micros(datetime.fromisoformat(entry["at"])), str(entry["state"]))
        for entry in ledger.history(record.id, kinds=("state",))
    ]
    waits = waits_of(micros(_since(record, start)), timeline.work, states)
    return timing_effects(timeline.work, waits, curves, timeline.mean_g_per_kwh, estimated=totals.estimated)


def validation_of(ledger: Ledger, record: JobRecord) -> tuple[Validation, ...]:
    """The trainer's `evaluated` events, from the journal."""
    fields = Validation.model_fields
    return tuple(
        Validation.model_validate({name: entry[name] for name in fields if name in entry})
        for entry in ledger.history(record.id, kinds=("evaluated",), newest=MOST_LISTED)
    )
