"""Describes how the figures of a report were determined: the counted share of the energy, and the kinds of the intensities."""

from collections.abc import Sequence
from typing import Final

from carbonsched.model.energy import EnergyMethod
from carbonsched.model.grid import HELD, Kind
from carbonsched.report.parts import FeedUse, KindSums, NamedSums

_ORDER: Final = ("actual", "estimated", "forecast", "held", "fallback", "static")
_ENERGY: Final = {
    EnergyMethod.COUNTER: "by hardware counters",
    EnergyMethod.INTEGRATED: "from power readings over time (estimated)",
    EnergyMethod.ESTIMATED: "modelled, or split by time (estimated)",
    EnergyMethod.IMPORTED: "imported from other tools' logs, not metered here",
}


def kind_sums(feeds: Sequence[FeedUse]) -> tuple[KindSums, ...]:
    """The charges by intensities of each kind; one that was used after its end is `held`, whatever its kind was before."""
    found: dict[str, list[FeedUse]] = {}
    for feed in feeds:
        found.setdefault("held" if feed.note.endswith(HELD) else str(feed.kind), []).append(feed)
    grams = sum(feed.spent_g for feed in feeds)
    sums = []
    for name in sorted(found, key=_ORDER.index):
        spent = sum(feed.spent_g for feed in found[name])
        sums.append(
            KindSums(
                kind=name,
                energy_j=sum(feed.energy_j for feed in found[name]),
                spent_g=spent,
                share=spent / grams if grams else None,
                estimated=name != Kind.ACTUAL,
            )
        )
    return tuple(sums)


def intensity_words(kinds: Sequence[KindSums]) -> str:
    """For people: the share of the grams by each kind of intensity."""
    shares = ", ".join(f"{one.share:.1%} {one.kind}" for one in kinds if one.share is not None)
    return f"grams by kind of intensity: {shares}" if shares else "no grams are known"


def intensity_estimated(kinds: Sequence[KindSums]) -> bool:
    """Whether any charged intensity is not an actual one."""
    return any(one.estimated and one.energy_j > 0 for one in kinds)


def energy_words(methods: Sequence[NamedSums]) -> str:
    """For people: the share of the energy by method. Modelled energy is never called metered."""
    joules = {EnergyMethod(part.name): part.sums.energy_j for part in methods}
    whole = sum(joules.values())
    if not whole:
        return "energy not known"
    return "energy " + ", ".join(
        f"{joules[method] / whole:.1%} {words}" for method, words in _ENERGY.items() if joules.get(method)
    )
