"""The model card of one job, with the grams from the ledger."""

from typing import Final

from carbonsched.errors import InputError
from carbonsched.ledger.ledger import Ledger
from carbonsched.model.model_card import Card, Known
from carbonsched.report.document import Report
from carbonsched.report.effects import Effect
from carbonsched.report.format import ReportFormat
from carbonsched.report.parts import FeedUse
from carbonsched.report.provenance import energy_words, intensity_estimated, intensity_words


def model_card(report: Report, _ledger: Ledger) -> str:
    """The card's text. Raises InputError for the report of a period: a card covers one model."""
    job = report.job
    if job is None:
        raise InputError("--format", "a model card is of one job", "give --job ID")
    return Card(
        spec=job.spec,
        emissions_g=_emissions(report),
        estimated=report.totals.estimated or intensity_estimated(report.kinds),
        location=Known(
            ", ".join(sorted({feed.zone for feed in report.feeds})) or None, "no intensity was known"
        ),
        hardware=Known(", ".join(board.name for board in report.boards) or None, "no device was metered"),
        source=_source(report),
        segments=report.segments,
        evaluations=report.validation,
        grams={s.k: s.location_g for s in report.segments if s.unknown_s == 0},
        facts=_facts(report),
        versions={"carbonsched": report.carbonsched_version},
        notes=report.notes,
    ).text()


def _emissions(report: Report) -> Known:
    sums = report.totals
    if sums.unknown:
        return Known(
            None,
            "nothing was charged to the job"
            if sums.seconds == 0
            else "never both energy and intensity known",
        )
    if sums.unknown_s > 0:
        return Known(
            None,
            f"at least {sums.location_g:.4g}, but for {sums.unknown_s:.0f} of {sums.seconds:.0f} s energy or intensity "
            "is not known",
        )
    return Known(sums.location_g)


def _source(report: Report) -> str:
    feeds = ", ".join(sorted({_feed(feed) for feed in report.feeds})) or "none"
    how, kinds = energy_words(report.methods), intensity_words(report.kinds)
    return f"carbonsched {report.carbonsched_version}: {how}, times PUE and intensity by {feeds}; {kinds}"


def _feed(feed: FeedUse) -> str:
    constant = f"; {feed.kind.shown}" if feed.kind.constant else ""
    return f"{feed.provider} ({feed.basis}{constant})"


def _facts(report: Report) -> list[tuple[str, str]]:
    sums = report.totals
    facts = [
        ("Energy", f"{sums.energy_kwh:.4g} kWh: {energy_words(report.methods)}"),
        ("Intensity", intensity_words(report.kinds)),
        ("PUE", ", ".join(f"{use.pue:g} ({use.source})" for use in report.pues) or "not known"),
        ("Mean intensity", "not known" if sums.g_per_kwh is None else f"{sums.g_per_kwh:.4g} gCO2e/kWh"),
    ]
    if (saved := report.savings) is not None:
        facts += [
            ("Saved by leaving out waste", _effect(saved.waste)),
            (
                "Saved by fewer FLOPs",
                f"{_effect(saved.flops)}; {saved.quality.held_out}; {saved.quality.alternative}",
            ),
            *([("Saved by lower clocks", _effect(saved.clocks))] if saved.clocks is not None else []),
            ("Saved by its hours", _effect(saved.timing)),
            ("The savings", "answer different questions and are not added up"),
        ]
    if report.foretold is not None:
        facts.append(("Loss foretold", report.foretold.words))
    return facts


def _effect(effect: Effect) -> str:
    if effect.saved_g is None:
        return f"not known: {effect.reason}"
    band = (
        ""
        if effect.low_g is None or effect.low_g == effect.high_g
        else f" ({effect.low_g:.4g} to {effect.high_g:.4g})"
    )
    how = " (estimated)" if effect.estimated else ""
    return f"{effect.saved_g:.4g} gCO2e{how}{band}, against {effect.against}"


MODEL_CARD: Final = ReportFormat("text/markdown; charset=utf-8", model_card)
