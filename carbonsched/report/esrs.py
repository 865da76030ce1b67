"""ESRS E1-5 (energy consumption and mix) and E1-6 (gross Scope 2 emissions) of a report."""

from typing import Final

from carbonsched.ledger.ledger import Ledger
from carbonsched.report.datapoints import (
    ESTIMATED,
    STATED,
    Line,
    band_note,
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

_T: Final = 1e-6
_STANDARD: Final = "ESRS E1 (Delegated Regulation (EU) 2023/2772), paragraphs 37 and 49"
_MIX: Final = "of energy that no contract covers the sources are not known here"


def esrs_lines(report: Report) -> tuple[Line, ...]:
    """MWh and tCO2e, PUE included."""
    energy, grams = energy_quality(report), grams_quality(report)
    location, market = known_grams(report), report.market
    known = report.totals.seconds > 0
    lines = [
        *head(report),
        Line("standard", _STANDARD, "", STATED, "carbonsched", "this box's part; an undertaking adds up its own"),
        Line("E1-5 total energy consumption", report.facility_kwh / 1000 if known else None, "MWh", energy, "ledger", unknown_note(report)),
    ]  # fmt: skip
    if market is not None:
        covered = bool(market.contracts)
        renewable = market.renewable_kwh / 1000 if covered else None
        other = (market.covered_kwh - market.renewable_kwh) / 1000 if covered else None
        lines += [
            Line("E1-5 from renewable sources (purchased)", renewable, "MWh", STATED, "contracts stated to be renewable", "" if covered else "no contract is stated"),
            Line("E1-5 from other contracts", other, "MWh", STATED, "contracts", "" if covered else "no contract is stated"),
            Line("E1-5 source not known", market.rest_kwh / 1000 if known else None, "MWh", energy, "ledger", _MIX),
        ]  # fmt: skip
    lines += [
        Line(
            "E1-6 gross location-based Scope 2",
            None if location is None else location * _T,
            "tCO2e",
            grams,
            intensity_source(report),
            notes_of((band_note(report, _T, ".4g", "tCO2e"), unknown_note(report))),
        ),
        Line(
            "E1-6 gross market-based Scope 2",
            None if market is None or market.spent_g is None else market.spent_g * _T,
            "tCO2e",
            grams,
            "" if market is None else "contracts, then: " + market.rest_source,
            (market.reason or "") if market else "",
        ),
        Line(
            "E1-6 Scope 3, making of the boards",
            report.embodied.spent_g * _T if report.embodied else None,
            "tCO2e",
            ESTIMATED,
            report.embodied.source if report.embodied else "accounting.embodied_kg",
            "" if report.embodied else "what making a board emits is not stated",
        ),
    ]
    return tuple(lines)


def esrs(report: Report, _ledger: Ledger) -> str:
    """The table as CSV."""
    return lines_csv(esrs_lines(report))


ESRS: Final = ReportFormat("text/csv; charset=utf-8", esrs)
