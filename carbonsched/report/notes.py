"""Writes the notes of a report: what a reader must not miss, one sentence each."""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final

from carbonsched import text
from carbonsched.ledger.records import JobRecord, SegmentRecord
from carbonsched.ledger.totals import Group, Totals, total
from carbonsched.model.energy import Account, BudgetAccount
from carbonsched.model.grid import Kind
from carbonsched.report.boundary import boundary
from carbonsched.report.provenance import intensity_estimated, intensity_words, kind_sums
from carbonsched.report.timeline import Timeline
from carbonsched.units import J_PER_KWH, MJ_PER_J

_CONSTANTS: Final = {
    Kind.FALLBACK: "Estimated: a constant stood in for the grid's intensity over {kwh} kWh: no feed answered.",
    Kind.STATIC: "Estimated: over {kwh} kWh the intensity is a constant that the configuration states; it follows no hour.",
}
_ACCOUNTS: Final = {
    BudgetAccount.LOCATION: "by the first (location)",
    BudgetAccount.ON_SITE: "by the second (on-site)",
}


TRAINER: Final = "trainer"
"""Actor of the trainer's notes in the journal."""
MOST_WARNINGS: Final = 20
"""Most warnings of the trainer, the first ones; `show` has more of them."""


def notes(
    totals: Totals,
    timeline: Timeline,
    record: JobRecord | None,
    counted: Mapping[int, SegmentRecord],
    said: Iterable[Mapping[str, Any]] = (),
    imported: Totals | None = None,
) -> tuple[str, ...]:
    """All notes of a report. counted: the segments that count, by number; said: the `note` and `restated` entries of the job's history."""
    return (
        *_standing(totals, timeline, record),
        *_feeds(timeline),
        *_money(timeline),
        *_accounts(totals, timeline),
        *_imported(totals, imported),
        *_energy(totals),
        *_restated(said),
        *_foreign(timeline),
        *([boundary(timeline.meters).sentence] if totals.rows else []),
        *_afterwards(totals, timeline),
        *_departures(counted),
        *_warnings(said),
    )


def _standing(totals: Totals, timeline: Timeline, record: JobRecord | None) -> Iterator[str]:
    if totals.rows == 0:
        yield "Nothing was charged: there is no row for this report."
    if record is not None and not record.state.ended:
        yield f"The job is {record.state}: these figures are not final."
    if timeline.time_compression > 1:
        yield (
            f"Time-compressed replay: the grid's hours were replayed up to {timeline.time_compression:g} times faster than "
            "they passed. The energy is real, the intensities belong to other hours."
        )


def _feeds(timeline: Timeline) -> Iterator[str]:
    for label in sorted({feed.note for feed in timeline.feeds if feed.note}):
        yield f"A feed is labelled: {label}."
    for kind, sentence in _CONSTANTS.items():
        constant = sum(feed.energy_j for feed in timeline.feeds if feed.kind is kind)
        if constant > 0:
            yield sentence.format(kwh=f"{constant / J_PER_KWH:.4g}")
    kinds = kind_sums(timeline.feeds)
    if intensity_estimated(kinds):
        yield f"Estimated: not all intensities are actual values; {intensity_words(kinds)}."
    bases = sorted({feed.basis for feed in timeline.feeds})
    if len(bases) > 1:
        yield f"Intensities of several bases meet here ({', '.join(bases)}); their grams do not add up."


def _money(timeline: Timeline) -> Iterator[str]:
    money = timeline.energy_cost.money(None)
    if money is not None and money.unknown_kwh > 0:
        yield f"The price of {money.unknown_share:.1%} of the energy is not known; its cost stands in no sum of EUR."
    if money is not None and money.estimated:
        yield "The cost is estimated: so is some of the energy, or a price was held or stood in for."


def _accounts(totals: Totals, timeline: Timeline) -> Iterator[str]:
    if totals.on_site_g is not None:
        by = " and, after a change, ".join(_ACCOUNTS[account] for account in timeline.accounts)
        yield (
            f"Two accounts: {text.figure(totals.location_g, 'g', 6)} with all energy at the grid's intensity, {text.figure(totals.on_site_g, 'g', 6)} with the "
            f"site's own supply counted. Budgets were charged {by or 'nothing'}, and what was settled is told by the "
            "same; effects, lost work, feeds and gaps are told at the grid's intensity."
        )
    if totals.supply_unknown_s > 0:
        yield f"For {totals.supply_unknown_s:.0f} s it was not known what the site's own supply gave: the grid's intensity counts."


def imported_of(groups: Iterable[Group]) -> Totals | None:
    """Totals from other tools' logs; None if there are none."""
    found = [group for group in groups if group.account is Account.IMPORTED]
    return total(found) if found else None


def _imported(totals: Totals, imported: Totals | None) -> Iterator[str]:
    if imported is not None:
        rest_j, rest_g = totals.energy_j - imported.energy_j, totals.location_g - imported.location_g
        yield (
            f"Imported, not metered here: {text.figure(imported.energy_j, 'J', 6)} and {text.figure(imported.location_g, 'g', 6)} are what other tools' logs say; metered "
            f"here were {text.figure(rest_j, 'J', 6)} and {text.figure(rest_g, 'g', 6)}. Where a log is of this box and of hours that were metered, too, the energy stands in both."
        )


def _energy(totals: Totals) -> Iterator[str]:
    if totals.estimated_mj:
        share = totals.estimated_mj / totals.energy_mj
        yield f"Estimated: {share:.1%} of the energy is not a hardware counter's own difference."
    if totals.bridged_s > 0:
        yield f"The daemon was away for {totals.bridged_s:.0f} s; that energy was bridged as listed."
    if totals.unknown_s > 0:
        yield f"For {totals.unknown_s:.0f} s energy or intensity is not known; what is not known stands in no sum."


def _afterwards(totals: Totals, timeline: Timeline) -> Iterator[str]:
    settled = timeline.differences.account(totals.grams)
    if settled.entries:
        yield (
            f"Intensities were told or revised since: as settled {text.figure(settled.spent_g, 'g', 6)}, {settled.difference_g:+.4g} g "
            "against what was decided, which budgets, savings and charts go by."
        )
    if timeline.lost:
        numbers = ", ".join(str(k + 1) for k in sorted(timeline.lost))
        yield f"Work of segment {numbers} was interrupted and done again; its energy stays on the account."


def _departures(counted: Mapping[int, SegmentRecord]) -> Iterator[str]:
    done = (counted[k].done for k in sorted(counted))
    yield from (f"Segment {d.k + 1} did not go as planned: {d.departure}." for d in done if d.departure)


def _foreign(timeline: Timeline) -> Iterator[str]:
    for board, energy_mj in sorted(timeline.foreign_mj.items()):
        yield (
            f"{energy_mj / MJ_PER_J:.6g} J of {board} were charged to our jobs while a process that is none of theirs computed on it, too: "
            "estimated, and at most."
        )


def _restated(said: Iterable[Mapping[str, Any]]) -> Iterator[str]:
    """Energy that was unknown when it was used, and became known later."""
    for entry in said:
        if entry.get("kind") == "restated":
            yield (
                f"Restated at {entry['at']}: {entry['energy_mj'] / MJ_PER_J:.6g} J, {entry['grams']:.6g} g of {entry['board']} became known "
                f"when its meter could be read again, and stand for {entry['rows']} rows that were unknown."
            )


def _warnings(said: Iterable[Mapping[str, Any]]) -> Iterator[str]:
    """The trainer's warnings, each once, e.g. a removal of waste that was not possible. Departures are listed elsewhere."""
    texts = dict.fromkeys(
        str(entry["text"]) for entry in said if entry.get("actor") == TRAINER and "more" not in entry
    )
    told = [text for text in texts if not text.startswith("segment ")]
    yield from (f"The trainer warned: {text.rstrip('.')}." for text in told[:MOST_WARNINGS])
    if len(told) > MOST_WARNINGS:
        yield f"The trainer warned of {len(told) - MOST_WARNINGS} more things: carbonsched show has them."
