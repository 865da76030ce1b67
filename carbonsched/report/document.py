"""Builds a report from the ledger alone, as one JSON document; every format is rendered from it.

A job's report covers the energy charged to the job; a period's report, all energy of the box. The `notes` of each state in plain
words what a reader must not miss: estimates, unknown intervals, time-compressed replays, constants in place of feeds.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any

from carbonsched import __version__
from carbonsched.errors import InputError
from carbonsched.ledger.ledger import Ledger
from carbonsched.ledger.records import JobRecord, SegmentRecord
from carbonsched.ledger.totals import Group, Totals, total, total_by
from carbonsched.model.accounting import Stated
from carbonsched.model.base import Doc, UtcTime
from carbonsched.model.clock_changes import ClockChange, changes_of
from carbonsched.model.energy import BudgetAccount
from carbonsched.report.bands import Bands
from carbonsched.report.boundary import Boundary, boundary
from carbonsched.report.clocks import clock_of
from carbonsched.report.compute import Compute, Embodied, Sci
from carbonsched.report.coverage import Completeness
from carbonsched.report.disclosed import Asked, disclosed
from carbonsched.report.effects import Savings
from carbonsched.report.job_savings import (
    MOST_LISTED,
    curves_of,
    draw,
    effects_of,
    gathered,
    job_savings,
    validation_of,
)
from carbonsched.report.losses import ForetoldLoss, ForetoldLosses, Validation
from carbonsched.report.market import MarketAccount
from carbonsched.report.notes import imported_of, notes
from carbonsched.report.parts import (
    BudgetChange,
    FeedUse,
    Gap,
    JobPart,
    KindSums,
    Lost,
    Money,
    NamedSums,
    PlugEnergy,
    Point,
    PueUse,
    SegmentLine,
    Selection,
    Sums,
)
from carbonsched.report.period_effects import PeriodEffects, period_effects
from carbonsched.report.provenance import kind_sums
from carbonsched.report.settled import Differences, SettledAccount
from carbonsched.report.statement import Restatement, Statement
from carbonsched.report.timeline import Timeline
from carbonsched.report.timing import Curves
from carbonsched.units import J_PER_KWH, MJ_PER_J

SavingsOf = Callable[[Ledger, JobRecord], Savings | str | None]
"""The savings of a job, or why they are unknown; None: it was not scheduled."""


class Report(Doc):
    """Version 1. Energy of the metered parts (`boundary`), grams with PUE; operational emissions only.

    Example::

        report = build(ledger, "scitldr-7f3a1c", now=datetime.now(UTC))
        print(report.totals.spent_g, *report.notes)
    """

    schema_version: str = "1"
    carbonsched_version: str = __version__
    created_at: UtcTime
    job_id: str | None
    """None: a period's report, over all jobs and idle time."""
    start: UtcTime | None
    """As requested; None: from the first row on."""
    end: UtcTime | None
    first: UtcTime | None
    """Start of the first row."""
    last: UtcTime | None
    selection: Selection | None = None
    """None: one job, or everything."""
    job: JobPart | None
    jobs: tuple[NamedSums, ...] = ()
    """In a period's report: by job id."""
    users: tuple[NamedSums, ...] = ()
    """In a period's report: by submitter."""
    labels: tuple[NamedSums, ...] = ()
    """In a period's report: by `key=value` of the jobs' labels; a job counts under each of its labels, so they do not add up."""
    totals: Sums
    settled: SettledAccount
    """The effect of later information about the intensities."""
    budget_accounts: tuple[BudgetAccount, ...] = ()
    """The accounts by which the rows were charged to budgets, in order of time."""
    boundary: Boundary = Boundary(inside=(), outside=())
    """The parts of the box that the energy includes, and those that it does not."""
    facility_kwh: float
    """Energy × PUE."""
    accounts: tuple[NamedSums, ...] = ()
    """In a period's report: job, idle, unknown."""
    boards: tuple[NamedSums, ...]
    methods: tuple[NamedSums, ...]
    pues: tuple[PueUse, ...]
    savings: Savings | None
    effects: PeriodEffects | None = None
    """In a period's report: the savings of the jobs that ended in it; None: no job has rows in it, or they were not requested."""
    segments: tuple[SegmentLine, ...] = ()
    lost: Lost | None
    validation: tuple[Validation, ...] = ()
    foretold: ForetoldLosses | None = None
    """The predicted final loss against the actual one; None: none was predicted."""
    gaps: tuple[Gap, ...] = ()
    more_gaps: int = 0
    """Gaps beyond the longest list a report holds; every row is in the csv."""
    feeds: tuple[FeedUse, ...] = ()
    kinds: tuple[KindSums, ...] = ()
    """Charges by actual, estimated, forecast, held, fallback and static intensities."""
    money: Money | None = None
    """None: no price of any of the energy was known."""
    time_compression: float = 1.0
    """Above 1: grid hours were replayed this much faster than real time."""
    completeness: Completeness | None = None
    bands: Bands | None = None
    plug: PlugEnergy | None = None
    """None: no plug factor is stated."""
    market: MarketAccount | None = None
    compute: Compute | None = None
    """Of a job with a finished segment."""
    embodied: Embodied | None = None
    """None: the emissions of making a board are not stated."""
    sci: Sci | None = None
    restatements: tuple[Restatement, ...] = ()
    statement: Statement | None = None
    notes: tuple[str, ...] = ()
    timeline: tuple[Point, ...] = ()


def build(
    ledger: Ledger,
    job_id: str | None = None,
    start: datetime | None = None,
    end: datetime | None = None,
    *,
    now: datetime,
    stated: Stated | None = None,
    selection: Selection | None = None,
    labels_of: Callable[[JobRecord], bool] = lambda _: True,
    savings_of: SavingsOf | None = job_savings,
) -> Report:
    """The report of one job, or of everything in [start, end), up to `now` if there is no end; rows count by their start.

    stated: what the config states for reports; selection: jobs to which a period's report is limited; labels_of: whether a job's labels
    may be shown; savings_of: a job's effects, or why they are unknown; None: leave them out of a period's report. Raises NotFoundError
    for an unknown job, InputError if `end` is not after `start`."""
    start, end = _span(start, end, now)
    record = None if job_id is None else ledger.job(job_id)
    counted = {segment.k: segment for segment in (ledger.segments(record.id) if record else ())}
    only = None if selection is None else frozenset(selection.jobs)
    timeline = gathered(ledger, record, counted, (start, end), only)
    groups, moved = timeline.groups, timeline.differences
    totals = total(groups)
    curves = curves_of(ledger, record, totals, start) if record else None
    draw(timeline, ledger, record, totals, (start, end), curves)
    history = ledger.history(record.id, kinds=("note", "restated"), newest=MOST_LISTED) if record else ()
    methods = _named(((str(g.method), g) for g in groups), moved)
    if record is None or curves is None:
        effects = _effects(ledger, groups, (start, end), savings_of)
        own = _of_box(ledger, groups, moved, labels_of) | {"effects": effects}
    else:
        own = _of_job(ledger, record, counted, timeline, start, curves)
    report = Report(
        created_at=now,
        job_id=job_id,
        start=start,
        end=end,
        selection=selection,
        first=totals.start,
        last=totals.end,
        totals=Sums.of(totals, moved.total_g),
        settled=moved.account(totals.grams),
        budget_accounts=tuple(timeline.accounts),
        boundary=boundary(timeline.meters),
        facility_kwh=timeline.facility_mj / MJ_PER_J / J_PER_KWH,
        boards=_named(((g.board, g) for g in groups), moved),
        methods=methods,
        pues=timeline.pues,
        feeds=timeline.feeds,
        kinds=kind_sums(timeline.feeds),
        money=timeline.energy_cost.money(job_id),
        time_compression=timeline.time_compression,
        notes=notes(totals, timeline, record, counted, history, imported_of(groups)),
        timeline=timeline.points if totals.rows else (),
        **own,
    )
    asked = Asked(record, _jobs_of(record, groups), start, end, now)
    more = disclosed(ledger, asked, groups, totals, timeline, methods, stated or Stated())
    return report.model_copy(update=more)


def _jobs_of(record: JobRecord | None, groups: Sequence[Group]) -> tuple[str, ...]:
    return (record.id,) if record else tuple(dict.fromkeys(g.job_id for g in groups if g.job_id is not None))


def _span(
    start: datetime | None, end: datetime | None, now: datetime
) -> tuple[datetime | None, datetime | None]:
    if start is not None and end is None:
        end = now
    if start is not None and end is not None and end <= start:
        raise InputError("--to", f"{end.isoformat()} is not after --from", "give a later time")
    return start, end


def _of_box(
    ledger: Ledger,
    groups: Sequence[Group],
    moved: Differences,
    labels_of: Callable[[JobRecord], bool],
) -> dict[str, Any]:
    """The fields of a period's report that a job's report lacks."""
    mine = [(group.job_id, group) for group in groups if group.job_id is not None]
    owners = {name: ledger.job(name) for name in dict.fromkeys(name for name, _ in mine)}
    told = {name: job for name, job in owners.items() if labels_of(job)}
    return {
        "job": None,
        "jobs": _named(mine, moved),
        "users": _named(((owners[name].owner.user, group) for name, group in mine), moved),
        "labels": _named(_labelled(groups, told), moved),
        "accounts": _named(((str(group.account), group) for group in groups), moved),
        "savings": None,
        "lost": None,
    }


def _of_job(
    ledger: Ledger,
    record: JobRecord,
    counted: dict[int, SegmentRecord],
    timeline: Timeline,
    start: datetime | None,
    curves: Curves,
) -> dict[str, Any]:
    """The fields of a job's report that a period's report lacks."""
    groups, moved = timeline.groups, timeline.differences
    totals, by_segment = total(groups), total_by(groups, lambda group: group.segment)
    validation = validation_of(ledger, record)
    changes = changes_of(ledger.history(record.id, kinds=("clocks",)))
    saved = None
    if record.spec.command is None or counted:
        saved = effects_of(ledger, record, counted, timeline, start, curves, validation)
    return {
        "job": _job(record, totals, ledger),
        "savings": saved,
        "segments": tuple(
            _line(segment, by_segment.get(k), moved.of(g for g in groups if g.segment == k), changes)
            for k, segment in sorted(counted.items())
        ),
        "lost": _lost(timeline),
        "validation": validation,
        "foretold": _foretold(ledger, record),
    }


def _effects(
    ledger: Ledger,
    groups: Sequence[Group],
    span: tuple[datetime | None, datetime | None],
    savings_of: SavingsOf | None,
) -> PeriodEffects | None:
    """Effects of the jobs that have rows in the period and ended in it."""
    if savings_of is None:
        return None
    jobs = [ledger.job(job_id) for job_id in dict.fromkeys(g.job_id for g in groups if g.job_id is not None)]
    return period_effects(jobs, span, lambda job: savings_of(ledger, job))


def _labelled(groups: Iterable[Group], owners: Mapping[str, JobRecord]) -> Iterator[tuple[str, Group]]:
    """Each group under every label of its job."""
    for group in groups:
        if group.job_id is not None and group.job_id in owners:
            for key, value in owners[group.job_id].spec.labels.items():
                yield f"{key}={value}", group


def _lost(timeline: Timeline) -> Lost:
    return Lost(
        energy_j=sum(spent.energy_j for spent in timeline.lost.values()),
        spent_g=sum(spent.grams for spent in timeline.lost.values()),
        segments=tuple(sorted(timeline.lost)),
    )


def _named(pairs: Iterable[tuple[str, Group]], moved: Differences) -> tuple[NamedSums, ...]:
    bins: dict[str, list[Group]] = {}
    for name, group in pairs:
        bins.setdefault(name, []).append(group)
    return tuple(
        NamedSums(name=name, sums=Sums.of(total(found), moved.of(found)))
        for name, found in sorted(bins.items())
    )


def _line(
    segment: SegmentRecord, sums: Totals | None, moved_g: float, changes: list[ClockChange]
) -> SegmentLine:
    return SegmentLine.of(
        segment,
        sums or total(()),
        attempts=segment.attempt + 1,
        first_step=segment.done.first_step,
        seconds=segment.done.seconds,
        estimated=sums.estimated if sums else False,
        unknown_s=sums.unknown_s if sums else (segment.end - segment.start).total_seconds(),
        location_g=sums.location_g if sums else 0.0,
        settled_g=(sums.grams if sums else 0.0) + moved_g,
        clock_mhz=clock_of(segment, changes)[0],
    )


def _foretold(ledger: Ledger, record: JobRecord) -> ForetoldLosses | None:
    """Predictions in the journal's directives, against the final loss."""
    told = ledger.history(
        record.id, kinds=("directive",), newest=MOST_LISTED, having={"directive": "expected_loss"}
    )
    if not told:
        return None
    after = [
        e for e in ledger.history(record.id, kinds=("evaluated",), newest=MOST_LISTED) if e["when"] == "after"
    ]
    seen = after[-1]["loss"] if after else None

    def foretold(entry: dict[str, Any]) -> ForetoldLoss:
        return ForetoldLoss.model_validate(
            {**entry["expected_loss"], "at": entry["at"], "k": entry["k"], "seen": seen}
        )

    return ForetoldLosses(first=foretold(told[0]), last=foretold(told[-1]))


def _job(record: JobRecord, totals: Totals, ledger: Ledger) -> JobPart:
    grown = record.spec.carbon.budget_rate_g_per_h is not None
    changes = ledger.history(record.id, kinds=("budget",), newest=1 if grown else MOST_LISTED)
    return JobPart(
        id=record.id,
        name=record.spec.name,
        owner=record.owner.user,
        state=record.state,
        reason=record.reason,
        submitted_at=record.submitted_at,
        started_at=record.started_at,
        ended_at=record.ended_at,
        budget_g=record.budget_g,
        left_g=None if record.budget_g is None else record.budget_g - totals.grams,
        budget_changes=tuple(
            BudgetChange(
                at=datetime.fromisoformat(entry["at"]),
                actor=entry["actor"],
                from_g=entry["from_g"],
                budget_g=entry["budget_g"],
                reason=entry["reason"],
            )
            for entry in changes
        ),
        spec_sha256=record.sha256,
        spec=record.spec,
    )
