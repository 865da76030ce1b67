"""GHG Protocol Scope 2: location- and market-based emissions side by side, each instrument with its period, and the hourly matched part."""

from typing import Final

from carbonsched.ledger.ledger import Ledger
from carbonsched.report.datapoints import (
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

_KG: Final = 1e-3
_GUIDANCE: Final = "GHG Protocol Scope 2 Guidance (2015)"


def scope2_lines(report: Report) -> tuple[Line, ...]:
    """Electricity and emissions of the report, PUE included."""
    energy, grams = energy_quality(report), grams_quality(report)
    location = known_grams(report)
    lines = [
        *head(report),
        Line("standard", _GUIDANCE, "", STATED, "carbonsched", "where the box is rented these are the tenant's Scope 3"),
        Line("electricity, PUE included", report.facility_kwh if report.totals.seconds > 0 else None, "kWh", energy, "ledger", unknown_note(report)),
        Line(
            "Scope 2, location-based",
            None if location is None else location * _KG,
            "kgCO2e",
            grams,
            intensity_source(report),
            notes_of((band_note(report, _KG, ".4g", "kgCO2e"), unknown_note(report))),
        ),
    ]  # fmt: skip
    market = report.market
    if market is None:
        return tuple(lines)
    lines.append(
        Line(
            "Scope 2, market-based",
            None if market.spent_g is None else market.spent_g * _KG,
            "kgCO2e",
            grams,
            "contracts below, then what nothing covers",
            market.reason or "",
        )
    )
    for use in market.contracts:
        period = f"{use.start:%Y-%m-%dT%H:%M}Z to {use.end:%Y-%m-%dT%H:%M}Z"
        how = "hour by hour" if use.hourly else "over its period"
        kind = "renewable" if use.renewable else "not stated to be renewable"
        about = f"{use.kwh:.6g} kWh at {use.g_per_kwh:g} g/kWh, {period}, matched {how}, {kind}"
        lines.append(Line(f"covered by {use.name}", use.spent_g * _KG, "kgCO2e", STATED, use.source, about))
    rest_g = None if market.rest_g is None else market.rest_g * _KG
    kwh = market.kwh
    lines += [
        Line("covered by nothing", rest_g, "kgCO2e", grams, market.rest_source, market.reason or f"{market.rest_kwh:.6g} kWh"),
        Line("matched hour by hour", market.hourly_kwh / kwh if kwh else None, "share of kWh", STATED, "contracts of an hour at most", ""),
        Line("by renewable instruments", market.renewable_kwh / kwh if kwh else None, "share of kWh", STATED, "contracts that are stated to be renewable", ""),
    ]  # fmt: skip
    return tuple(lines)


def scope2(report: Report, _ledger: Ledger) -> str:
    """The table as CSV."""
    return lines_csv(scope2_lines(report))


SCOPE2: Final = ReportFormat("text/csv; charset=utf-8", scope2)
