"""Computes the intensity of consumption: a zone's generation and its imports, each weighted by power.

Imports are traced one hop: they count at the neighbour's generation mix, not at what the neighbour in turn imports, which would need the
mix of a whole continent at once. Exports leave at the zone's mean, so they change nothing. An import whose mix is unknown is left out of
the mean; beyond a quarter of the consumption the interval is unknown.
"""

import math
from bisect import bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final, Protocol, TypeVar

from carbonsched.feeds.generation_mix import Mix

_SMALL: Final = 0.01
"""Share of the zone's generation: a border whose imports never exceed it may be missing from an interval."""
_MOST_UNKNOWN: Final = 0.25


class _Timed(Protocol):
    @property
    def start(self) -> datetime: ...
    @property
    def end(self) -> datetime: ...


_S = TypeVar("_S", bound=_Timed)


@dataclass(frozen=True, slots=True)
class Inflow:
    """Net import over one border in [start, end); negative if more flowed out.

    Example:
        >>> from datetime import UTC, timedelta
        >>> at = datetime(2026, 1, 1, tzinfo=UTC)
        >>> Inflow(at, at + timedelta(hours=1), -300.0).power
        -300.0
    """

    start: datetime
    end: datetime
    power: float
    """In the unit of the mixes."""


@dataclass(frozen=True, slots=True)
class Consumed:
    """Emissions per kWh consumed in the zone over [start, end).

    Example:
        >>> from datetime import UTC, timedelta
        >>> at = datetime(2026, 1, 1, tzinfo=UTC)
        >>> Consumed(at, at + timedelta(hours=1), 210.0, ("AZPS",), ("CFE",)).without
        ('CFE',)
    """

    start: datetime
    end: datetime
    g_per_kwh: float
    counted: tuple[str, ...]
    """Neighbours that the zone imported from."""
    without: tuple[str, ...]
    """Those whose mix is unknown."""
    untold: tuple[str, ...] = ()
    """Those whose flow is unknown now, and never mattered at other times."""

    def note(self, factors: str) -> str:
        """The note of its readings; `factors`: the note of the factor set used for the mixes."""
        note = factors.replace("production mix", "consumption mix, one hop,")
        counted = f"; imports of {', '.join(self.counted)}" if self.counted else "; no imports"
        without = f"; without a value: {', '.join(self.without)}" if self.without else ""
        return (
            note + counted + without + (f"; flow not told: {', '.join(self.untold)}" if self.untold else "")
        )


def consumption(
    own: Sequence[Mix], inflows: Mapping[str, Sequence[Inflow]], neighbours: Mapping[str, Sequence[Mix]]
) -> list[Consumed]:
    """For every interval of `own` whose imports are known, ascending. inflows, neighbours: by the neighbour's name, each ascending; their
    intervals may be longer than those of `own`.

    Example:
        >>> from datetime import UTC, timedelta
        >>> at = datetime(2026, 1, 1, tzinfo=UTC)
        >>> hour = at + timedelta(hours=1)
        >>> found = consumption([Mix(at, hour, 100.0, 3.0)], {"PJM": [Inflow(at, hour, 1.0)]}, {"PJM": [Mix(at, hour, 500.0, 9.0)]})
        >>> found[0].g_per_kwh, found[0].counted
        (200.0, ('PJM',))
    """
    least = _SMALL * max((mix.power for mix in own), default=0.0)
    needed = {name for name, flows in inflows.items() if any(flow.power > least for flow in flows)}
    found = []
    for mix in own:
        flows = {name: _during(mix, each) for name, each in inflows.items()}
        if any(flows[name] is None for name in needed):
            continue
        power = {name: flow.power for name, flow in flows.items() if flow is not None and flow.power > 0}
        theirs = {name: _during(mix, neighbours.get(name, ())) for name in power}
        known = [(mix.power, mix.g_per_kwh)]
        known += [(power[name], each.g_per_kwh) for name, each in theirs.items() if each is not None]
        without = tuple(sorted(name for name, each in theirs.items() if each is None))
        total = sum(weight for weight, _ in known)
        unknown = sum(power[name] for name in without)
        if unknown > _MOST_UNKNOWN * (total + unknown) or total + unknown == math.inf:
            continue
        counted = tuple(sorted(power.keys() - set(without)))
        untold = tuple(sorted(name for name, flow in flows.items() if flow is None))
        # as shares, so that no product of two large numbers overflows
        mean = sum(weight / total * g_per_kwh for weight, g_per_kwh in known)
        found.append(Consumed(mix.start, mix.end, mean, counted, without, untold))
    return found


def _during(wanted: Mix, ascending: Sequence[_S]) -> _S | None:
    """The one that covers all of `wanted`."""
    at = bisect_right(ascending, wanted.start, key=lambda one: one.start) - 1
    return ascending[at] if at >= 0 and ascending[at].end >= wanted.end else None
