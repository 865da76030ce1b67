"""The report as Markdown tables, for a wiki, a pull request or a paper's appendix. Text of other people is escaped."""

import re
from collections.abc import Iterable, Sequence
from typing import Final

from carbonsched import text
from carbonsched.ledger.ledger import Ledger
from carbonsched.report.datapoints import Line, subject
from carbonsched.report.document import Report
from carbonsched.report.effects import Effect
from carbonsched.report.format import ReportFormat
from carbonsched.report.html import disclosures
from carbonsched.report.parts import NamedSums
from carbonsched.report.period_effects import SUMMED, PeriodEffects
from carbonsched.report.provenance import intensity_estimated

_MARKUP: Final = re.compile(r"([\\`*_{}\[\]<>|#~])")


def markdown(report: Report, _ledger: Ledger) -> str:
    """One page."""
    parts = [
        f"# Carbon report: {_safe(report.job.name if report.job else 'all of this box')}",
        _safe(subject(report))
        + (f", {text.moment(report.first)} to {text.moment(report.last)}." if report.first else "."),
        *(f"> {_safe(note)}" for note in report.notes),
        _figures(report),
        _effects(report),
        *_sums(report),
        _segments(report),
        *(f"## {title}\n\n{_lines(lines)}" for title, lines in disclosures(report)),
        _gaps(report),
        _made(report),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def _figures(report: Report) -> str:
    sums, band = report.totals, report.bands
    mark = "~" if sums.estimated or intensity_estimated(report.kinds) else ""
    rows = [
        ("emissions as decided", "unknown" if sums.unknown else f"{mark}{text.emissions(sums.spent_g)}"),
        ("as settled", "unknown" if sums.unknown else f"{mark}{text.emissions(report.settled.spent_g)}"),
        (
            "energy",
            "unknown"
            if sums.unmetered
            else f"{'~' if sums.estimated else ''}{text.electricity(sums.energy_j)}",
        ),
        (
            "energy with PUE",
            "unknown" if sums.unmetered else text.electricity(report.facility_kwh * 3_600_000),
        ),
        ("mean intensity", f"{text.number(sums.g_per_kwh)} g/kWh"),
        ("unknown for", text.long_duration(sums.unknown_s)),
    ]
    if band is not None:
        low, high = text.emissions(band.spent_low_g), text.emissions(band.spent_high_g)
        rows.append(("band of the emissions", f"{low} to {high}"))
        rows.append(
            (
                "band of the energy",
                f"{text.electricity(band.energy_low_j)} to {text.electricity(band.energy_high_j)}",
            )
        )
        rows.append(("by", f"{band.source}; {band.outside}"))
    if report.completeness is not None:
        rows.append(("completeness", report.completeness.words))
    if report.plug is not None:
        plug = (
            f"~{text.electricity(report.plug.energy_kwh * 3_600_000)}, ~{text.emissions(report.plug.spent_g)}"
        )
        rows.append(("at the plug", f"{plug}: × {report.plug.factor:g} ({report.plug.source})"))
    if report.job is not None and report.job.budget_g is not None:
        rows.append(("budget", text.emissions(report.job.budget_g)))
    return _table(("figure", "value"), rows)


def _period(effects: PeriodEffects) -> str:
    rows = [
        (
            name,
            "unknown" if e.saved_g is None else ("~" if e.estimated else "") + text.emissions(e.saved_g),
            text.percent(e.share),
            "" if e.low_g is None else f"{text.emissions(e.low_g)} to {text.emissions(e.high_g)}",
            str(e.jobs),
        )
        for name, e in effects.sums.items()
    ]
    table = _table(("effect", "saved", "share", "range", "jobs"), rows)
    left = [(effect, why, ", ".join(jobs)) for (effect, why), jobs in effects.reasons.items()]
    if effects.more_left_out:
        left.append(("", "", f"{effects.more_left_out} more"))
    out = f"\n\n{_table(('left out of', 'why', 'jobs'), left)}" if left else ""
    return f"## Effects of the jobs that ended in it\n\n{table}\n\n{_safe(SUMMED)}{out}"


def _effects(report: Report) -> str:
    saved = report.savings
    if report.effects is not None:
        return _period(report.effects)
    if saved is None:
        return ""
    named: list[tuple[str, Effect]] = [("waste", saved.waste), ("FLOPs", saved.flops)]
    named += [("clocks", saved.clocks)] if saved.clocks is not None else []
    named += [("timing", saved.timing)]
    rows = [
        (
            name,
            "unknown" if e.saved_g is None else ("~" if e.estimated else "") + text.emissions(e.saved_g),
            text.percent(e.share),
            "" if e.low_g is None else f"{text.emissions(e.low_g)} to {text.emissions(e.high_g)}",
            e.against if e.saved_g is not None else f"{e.against}; {e.reason}",
        )
        for name, e in named
    ]
    words = f"{saved.quality.held_out}; {saved.quality.alternative}. The effects are not added up."
    return f"## Effects\n\n{_table(('effect', 'saved', 'share', 'range', 'against'), rows)}\n\n{_safe(words)}"


def _sums(report: Report) -> Iterable[str]:
    tables: tuple[tuple[str, Sequence[NamedSums]], ...] = (
        ("board", report.boards),
        ("method", report.methods),
        ("account", report.accounts),
        ("job", report.jobs),
        ("user", report.users),
        ("label", report.labels),
    )
    for what, parts in tables:
        rows = [
            (
                part.name,
                text.electricity(part.sums.energy_j),
                text.emissions(part.sums.spent_g),
                text.electricity(part.sums.estimated_kwh * 3_600_000),
                text.long_duration(part.sums.unknown_s),
            )
            for part in parts
        ]
        if rows:
            yield f"## By {what}\n\n{_table((what, 'energy', 'emissions', 'of it estimated', 'unknown for'), rows)}"


def _segments(report: Report) -> str:
    rows = [
        (
            str(s.k + 1),
            f"{s.rho_realised:.3f}",
            str(s.steps),
            text.electricity(s.energy_j),
            ("~" if s.estimated else "") + text.emissions(s.spent_g),
            text.number(s.g_per_kwh),
            "unknown" if s.loss is None else f"{s.loss:.4f}",
        )
        for s in report.segments
    ]
    head = ("segment", "ρ realised", "steps", "energy", "emissions", "g/kWh", "loss")
    return f"## Segments\n\n{_table(head, rows)}" if rows else ""


def _gaps(report: Report) -> str:
    rows = [
        (
            g.board,
            g.kind,
            text.moment(g.start),
            text.moment(g.end),
            text.electricity(g.energy_j),
            g.reason or "",
        )
        for g in report.gaps
    ]
    more = f"\n\nAnd {report.more_gaps} more; every row is in the csv." if report.more_gaps else ""
    table = _table(("board", "what", "from", "to", "energy", "why"), rows)
    return f"## Bridged, unknown and missing stretches\n\n{table}{more}" if rows else ""


def _made(report: Report) -> str:
    made = report.statement
    if made is None:
        return ""
    sign = made.sign_off
    rows = [
        ("box", made.box.words),
        ("boxes of the rows", "; ".join(use.box.words for use in made.boxes) or "the journal names none"),
        *(("restated", f"{text.figure(r.energy_j, 'J', 6)}, {text.figure(r.spent_g, 'g', 6)} of {r.board} at {text.moment(r.at)}, {r.job_id}") for r in report.restatements),
        ("last row", f"{sign.rows}, {sign.intervals}"),
        ("last journal entry", f"{sign.entries}, {sign.journal}"),
        ("software", ", ".join(f"{name} {value}" for name, value in made.versions.items())),
        ("prepared by", sign.prepared_by),
        ("reviewed by", sign.reviewed_by),
        ("signed on", sign.signed_at),
    ]  # fmt: skip
    how = "\n".join(f"- {_safe(sentence)}" for sentence in made.method)
    return f"## How these figures come about\n\n{how}\n\n{_table(('', ''), rows)}\n\n{_safe(sign.check)}."


def _lines(lines: Iterable[Line]) -> str:
    rows = [
        (
            line.datapoint,
            "unknown"
            if line.value is None
            else line.value
            if isinstance(line.value, str)
            else text.figure(line.value, digits=6),
            line.unit,
            line.cells[3],
            line.source,
            line.note,
        )
        for line in lines
    ]
    return _table(("data point", "value", "unit", "quality", "source", "note"), rows)


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *([_safe(cell) for cell in row] for row in rows)]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def _safe(given: str) -> str:
    return _MARKUP.sub(r"\\\1", text.one_line(given))


MARKDOWN: Final = ReportFormat("text/markdown; charset=utf-8", markdown)
