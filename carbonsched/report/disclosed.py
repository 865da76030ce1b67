"""Gathers the disclosures of a report beside its sums: coverage, bands, market, compute, embodied emissions, statement."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from carbonsched.ledger.ledger import Ledger
from carbonsched.ledger.records import JobRecord
from carbonsched.ledger.rows import micros
from carbonsched.ledger.totals import Group, Totals
from carbonsched.model.accounting import Stated
from carbonsched.report.bands import bands
from carbonsched.report.boundary import boundary
from carbonsched.report.compute import compute, embodied, sci
from carbonsched.report.coverage import Span, asked_by_job, asked_by_period, completeness
from carbonsched.report.market import market_account
from carbonsched.report.parts import NamedSums, PlugEnergy
from carbonsched.report.provenance import kind_sums
from carbonsched.report.statement import (
    SignOff,
    Statement,
    boxes,
    method,
    restatements,
    versions,
    within,
)
from carbonsched.report.timeline import GAPS, Timeline
from carbonsched.units import J_PER_KWH

_RESTATED: Final = ("restated",)


@dataclass(frozen=True, slots=True)
class Asked:
    """The subject of a report.

    Example::

        asked = Asked(None, ("a-1",), start, None, now)
    """

    record: JobRecord | None
    jobs: Sequence[str]
    """The jobs whose energy it covers."""
    start: datetime | None
    end: datetime | None
    now: datetime


def disclosed(
    ledger: Ledger,
    asked: Asked,
    groups: Sequence[Group],
    totals: Totals,
    timeline: Timeline,
    methods: Sequence[NamedSums],
    stated: Stated,
) -> dict[str, Any]:
    """The disclosures, by name of the report's field."""
    whole, missing = completeness(_asked(ledger, asked, timeline, totals), timeline.watched)
    gaps = sorted((*timeline.gaps, *missing), key=lambda gap: (gap.start, gap.board))
    record = asked.record
    attempts = ledger.segments(record.id, lost=True) if record else ()
    done = compute(attempts, stated.compute.get(record.spec.model.name_or_path)) if record else None
    made = embodied(groups, stated.accounting)
    known = bool(timeline.hours.facility_mj)  # without energy there is neither a band nor an account
    return {
        "completeness": whole,
        "gaps": tuple(gaps[:GAPS]),
        "more_gaps": timeline.more_gaps + max(len(gaps) - GAPS, 0),
        "bands": bands(groups, totals, timeline.differences.total_g, stated.accounting) if known else None,
        "plug": _plug(totals, stated),
        "market": market_account(timeline.hours, stated.contracts, stated.accounting) if known else None,
        "compute": done,
        "embodied": made,
        "sci": sci(totals.location_g, made, done, len(asked.jobs)),
        "statement": _statement(ledger, asked, totals, timeline, methods, stated),
        "restatements": restatements(_restated(ledger, asked)),
    }


def _asked(ledger: Ledger, asked: Asked, timeline: Timeline, totals: Totals) -> Mapping[str, list[Span]]:
    if asked.record is not None:
        return asked_by_job(timeline.watched, _lives(ledger, asked.record, asked.now))
    start, end = asked.start or totals.start, asked.end or totals.end
    if start is None or end is None:
        return {}
    return asked_by_period(timeline.watched, micros(start), max(micros(min(end, asked.now)), micros(start)))


def _lives(ledger: Ledger, record: JobRecord, now: datetime) -> list[Span]:
    """Times when the job had a process, by the journal; in ledgers that record no process, times when it was running."""
    entries = ledger.history(record.id, kinds=("started", "ended"))
    live = [
        (micros(datetime.fromisoformat(e["began"] if "began" in e else e["at"])), e["kind"] == "started")
        for e in entries
    ]
    if not live:
        states = ledger.history(record.id, kinds=("state",))
        live = [(micros(datetime.fromisoformat(e["at"])), e["state"] == "running") for e in states]
    spans: list[Span] = []
    if not live:
        return spans
    for (start, lives), (end, _) in zip(live, [*live[1:], (micros(now), False)], strict=True):
        if lives and end > start:
            if spans and spans[-1][1] == start:
                spans[-1] = (spans[-1][0], end)
            else:
                spans.append((start, end))
    return spans


def _plug(totals: Totals, stated: Stated) -> PlugEnergy | None:
    factor, source = stated.accounting.plug_factor, stated.accounting.plug_source
    if factor is None or source is None:
        return None
    kwh, grams = totals.energy_j / J_PER_KWH * factor, totals.grams * factor
    return PlugEnergy(factor=factor, source=source, energy_kwh=kwh, spent_g=grams)


def _restated(ledger: Ledger, asked: Asked) -> list[dict[str, Any]]:
    """Later information about the requested time."""
    return [
        {**entry, "job_id": job_id}
        for job_id in asked.jobs
        for entry in ledger.history(job_id, kinds=_RESTATED)
    ]


def _statement(
    ledger: Ledger,
    asked: Asked,
    totals: Totals,
    timeline: Timeline,
    methods: Sequence[NamedSums],
    stated: Stated,
) -> Statement:
    head = ledger.head()
    started = ledger.history(asked.record.id, kinds=("trainer",)) if asked.record else ()
    first, last = totals.start or asked.now, totals.end or asked.now
    return Statement(
        organisation=stated.accounting.organisation,
        site=stated.accounting.site,
        box=stated.box,
        boxes=within(boxes(ledger), micros(first), micros(last)),
        method=method(
            boundary(timeline.meters),
            methods,
            timeline.pues,
            timeline.feeds,
            kind_sums(timeline.feeds),
            timeline.accounts,
        ),
        versions=versions(started, ledger.schema_version),
        sign_off=SignOff(
            intervals=head.intervals, journal=head.journal, rows=head.rows or 0, entries=head.entries or 0
        ),
    )
