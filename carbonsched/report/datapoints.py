"""Tables for disclosures: data points with value, unit, quality, source and a note, as CSV and for the page.

An unknown value is empty, and its note says why; an estimated one is marked. Text that a spreadsheet would read as a formula is escaped.
"""

import csv
import io
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from carbonsched.csv_text import neutral
from carbonsched.report.document import Report
from carbonsched.report.provenance import intensity_estimated, intensity_words

COLUMNS: Final = ("datapoint", "value", "unit", "quality", "source", "note")
METERED: Final = "metered"
COUNTED: Final = "counted"
ESTIMATED: Final = "estimated"
STATED: Final = "stated"
UNKNOWN: Final = "unknown"


@dataclass(frozen=True, slots=True)
class Line:
    """One data point.

    Example:
        >>> Line("energy", 1.5, "MWh", "metered", "ledger").cells
        ('energy', '1.5', 'MWh', 'metered', 'ledger', '')
    """

    datapoint: str
    value: float | str | None
    """None: unknown."""
    unit: str
    quality: str
    """`metered`, `estimated`, `counted` (steps, FLOPs, time), `stated` (by the owner's config) or `unknown`."""
    source: str
    note: str = ""

    @property
    def cells(self) -> tuple[str, ...]:
        value = "" if self.value is None else self.value if isinstance(self.value, str) else repr(self.value)
        quality = UNKNOWN if self.value is None else self.quality
        return self.datapoint, value, self.unit, quality, self.source, self.note


def lines_csv(lines: Iterable[Line]) -> str:
    """With a head, RFC 4180 except for line ends."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(COLUMNS)
    for line in lines:
        name, value, *rest = line.cells
        number = isinstance(line.value, int | float)
        writer.writerow((neutral(name), value if number else neutral(value), *map(neutral, rest)))
    return out.getvalue()


def head(report: Report) -> tuple[Line, ...]:
    """The subject of the figures: the first lines of each table."""
    made = report.statement
    whole = report.completeness
    return (
        Line("reported for", subject(report), "", STATED, "carbonsched"),
        Line("organisation", made.organisation if made else None, "", STATED, "accounting.organisation"),
        Line("site", made.site if made else None, "", STATED, "accounting.site"),
        Line("box", made.box.words if made else None, "", STATED, "accounting.box, machine id"),
        Line("from", None if report.first is None else f"{report.first:%Y-%m-%dT%H:%M:%SZ}", "UTC", COUNTED, "ledger"),
        Line("to", None if report.last is None else f"{report.last:%Y-%m-%dT%H:%M:%SZ}", "UTC", COUNTED, "ledger"),
        Line("covered share of the time", whole.share if whole else None, "1", COUNTED, "ledger", whole.words if whole else ""),
    )  # fmt: skip


def subject(report: Report) -> str:
    """The subject of the report in a few words."""
    if report.job is not None:
        return f"job {report.job.id} ({report.job.name}) of {report.job.owner}"
    return report.selection.words if report.selection is not None else "all of the box, idle time included"


def energy_quality(report: Report) -> str:
    return ESTIMATED if report.totals.estimated else METERED


def grams_quality(report: Report) -> str:
    return ESTIMATED if report.totals.estimated or intensity_estimated(report.kinds) else METERED


def band_note(report: Report, scale: float, digits: str, unit: str) -> str:
    """The grams' band in a sentence; scale: from grams to `unit`."""
    found = report.bands
    if found is None:
        return ""
    low, high = found.spent_low_g * scale, found.spent_high_g * scale
    return f"between {low:{digits}} and {high:{digits}} {unit} (as charged to budgets; {found.source})"


def unknown_note(report: Report) -> str:
    """Names what is in no sum; empty: everything is."""
    sums = report.totals
    return (
        "" if not sums.unknown_s else f"at least: for {sums.unknown_s:.0f} s energy or intensity is not known"
    )


def known_grams(report: Report) -> float | None:
    """At the grid's intensity; None if no row has any."""
    sums = report.totals
    return None if sums.unknown else sums.location_g


def intensity_source(report: Report) -> str:
    """The sources of the intensities."""
    feeds = sorted({f"{feed.provider} {feed.zone} ({feed.basis})" for feed in report.feeds})
    return f"ledger; {', '.join(feeds) or 'no intensity known'}; {intensity_words(report.kinds)}"


def notes_of(parts: Sequence[str]) -> str:
    return "; ".join(part for part in parts if part)
