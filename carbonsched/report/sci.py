"""SCI (ISO/IEC 21031:2024) of a job or a period: grams per job, step and FLOP, with the inputs."""

from typing import Final

from carbonsched.ledger.ledger import Ledger
from carbonsched.report.datapoints import (
    COUNTED,
    ESTIMATED,
    STATED,
    Line,
    energy_quality,
    grams_quality,
    head,
    intensity_source,
    known_grams,
    lines_csv,
    notes_of,
    unknown_note,
)
from carbonsched.report.document import Report
from carbonsched.report.format import ReportFormat

_STANDARD: Final = "ISO/IEC 21031:2024, SCI = (E·I + M) ÷ R; units after SCI for AI"
_OF_JOBS: Final = "of a job alone"


def sci_lines(report: Report) -> tuple[Line, ...]:
    """E with PUE, I of the location, M if it is stated, SCI for each known R."""
    grams = grams_quality(report)
    found, done, made = report.sci, report.compute, report.embodied
    known = known_grams(report) is not None
    lines = [
        *head(report),
        Line("standard", _STANDARD, "", STATED, "carbonsched", "gross: no market instruments; lost work is counted"),
        Line("E, energy with PUE", report.facility_kwh if report.totals.seconds > 0 else None, "kWh", energy_quality(report), "ledger", unknown_note(report)),
        Line("E·I, operational", found.operational_g if found and known else None, "gCO2e", grams, intensity_source(report), unknown_note(report)),
        Line(
            "M, embodied",
            made.spent_g if made else None,
            "gCO2e",
            ESTIMATED,
            made.source if made else "accounting.embodied_kg",
            f"{made.low_g:.4g} to {made.high_g:.4g} g; {made.board_h:.4g} board hours of {made.life_h:g}" if made else "not stated, and not in the SCI below",
        ),
    ]  # fmt: skip
    without = "" if made else "without M, which is not stated"
    note = notes_of((without, unknown_note(report)))
    of_job = "" if report.job else _OF_JOBS
    flop = "the trainer's count" if done else ""
    if found is not None:
        rows = (
            ("SCI per job", found.per_job, "gCO2e/job", "ledger", "no job was charged"),
            ("SCI per step", found.per_step, "gCO2e/step", "trainer", of_job or "no segment was finished"),
            ("SCI per executed FLOP", found.per_flop, "gCO2e/FLOP", flop, of_job or "no segment was finished"),
            ("SCI per full-fine-tuning FLOP", found.per_full_flop, "gCO2e/FLOP", flop, of_job or "no segment was finished"),
            ("SCI per token", found.per_token, "gCO2e/token", "", found.no_tokens),
        )  # fmt: skip
        for name, value, unit, source, why in rows:
            told = value if known else None
            why = why if known else "no grams are known"
            lines.append(Line(name, told, unit, grams, source, note if told is not None else why))
    if done is not None:
        lines += [
            Line("R, steps", float(done.steps), "steps", COUNTED, "trainer"),
            Line("R, executed FLOP", done.flop, "FLOP", COUNTED, "trainer's count", "all finished attempts; evaluation is not in it"),
            Line("R, full-fine-tuning FLOP", done.flop_full, "FLOP", COUNTED, "trainer's count"),
        ]  # fmt: skip
    return tuple(lines)


def sci_csv(report: Report, _ledger: Ledger) -> str:
    """The table as CSV."""
    return lines_csv(sci_lines(report))


SCI: Final = ReportFormat("text/csv; charset=utf-8", sci_csv)
