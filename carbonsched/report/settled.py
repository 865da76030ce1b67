"""Adds up the difference between the settled and the decided account: by owner of the energy, and by charged feed.

Rows without a settlement keep their decided value, bit for bit. Each row is settled by the account that budgets
were charged by at its time; a feed's rows are at the grid's intensity, like the feed's other figures.
"""

from collections.abc import Hashable, Iterable
from dataclasses import dataclass, field

from carbonsched.ledger.hours import Cell
from carbonsched.ledger.rows import moment
from carbonsched.ledger.settlements import Settled
from carbonsched.ledger.totals import Group
from carbonsched.model.base import Doc
from carbonsched.model.grid import Kind
from carbonsched.units import MJ_PER_J


class SettledUse(Doc):
    """The charges by one feed's intensities in a month, and their settled values.

    Example:
        >>> SettledUse(provider="neso", kind="forecast", month="2026-11", energy_j=3.6e6, spent_g=200, settled_g=240,
        ...     difference_g=40).difference_g
        40.0
    """

    provider: str | None
    """None: no intensity was known."""
    kind: Kind | None
    month: str
    """In UTC."""
    energy_j: float
    """Of the rows that an entry covers, or a part of them."""
    spent_g: float
    """As decided."""
    settled_g: float
    difference_g: float


class SettledAccount(Doc):
    """The settled account beside the decided one, which budgets are charged by.

    Example:
        >>> SettledAccount(spent_g=240, difference_g=40, entries=1, uses=[]).spent_g
        240.0
    """

    spent_g: float
    """With later information in place of that of the time of use."""
    difference_g: float
    """Above 0: more than as decided."""
    entries: int
    """Number of journal entries that apply to rows of this report."""
    uses: tuple[SettledUse, ...]
    """Where the difference comes from."""


@dataclass(slots=True)
class _Moved:
    energy_mj: int = 0
    decided: float = 0.0
    settled: float = 0.0


@dataclass(slots=True)
class Differences:
    """Grams by which settled rows differ from their charges.

    Example::

        differences = Differences(Settled.of(ledger.settlements()))
        for cell in sums.cells:
            differences.add(cell, None, None)
        print(differences.total_g)
    """

    settled: Settled
    _groups: dict[Hashable, float] = field(default_factory=dict)
    _uses: dict[tuple[str, str, str], _Moved] = field(default_factory=dict)
    _feeds: dict[Hashable, float] = field(default_factory=dict)
    _entries: set[Hashable] = field(default_factory=set)

    def add(self, cell: Cell, feed: Hashable, segment: int | None) -> None:
        """Add the rows of an hour, some of which a settlement covers; `feed`, `segment`: the report's keys for these."""
        key = _key(cell.account, cell.job_id, segment, cell.board, cell.method, cell.bridged)
        moved = cell.settled_g - cell.decided_g
        self._groups[key] = self._groups.get(key, 0.0) + moved
        self._feeds[feed] = self._feeds.get(feed, 0.0) + cell.settled_grid_g
        alike, month = cell.alike, f"{moment(cell.first_us):%Y-%m}"
        use = self._uses.setdefault((alike.provider or "", alike.kind or "", month), _Moved())
        use.energy_mj += cell.settled_mj
        use.decided += cell.decided_g
        use.settled += cell.settled_g
        asked = {"g_per_kwh": 0.0 if alike.known else None, "zone": alike.zone, "basis": alike.basis}
        span = cell.settled_first_us, max(cell.settled_last_us, cell.settled_first_us + 1)
        self._entries.update(one for _, _, one in self.settled.between(*span) if one.holds_for(asked))

    def of(self, groups: Iterable[Group]) -> float:
        """The difference of these sums."""
        return sum(
            self._groups.get(_key(g.account, g.job_id, g.segment, g.board, g.method, g.bridged), 0.0)
            for g in groups
        )

    def of_feed(self, feed: Hashable) -> float:
        return self._feeds.get(feed, 0.0)

    @property
    def total_g(self) -> float:
        return sum(self._groups.values())

    def account(self, decided_g: float) -> SettledAccount:
        """The whole account, beside the decided one that budgets were charged by."""
        uses = tuple(
            SettledUse(
                provider=provider or None,
                kind=Kind(kind) if kind else None,
                month=month,
                energy_j=use.energy_mj / MJ_PER_J,
                spent_g=use.decided,
                settled_g=use.settled,
                difference_g=use.settled - use.decided,
            )
            for (provider, kind, month), use in sorted(self._uses.items())
        )
        total_g = self.total_g
        return SettledAccount(
            spent_g=decided_g + total_g, difference_g=total_g, entries=len(self._entries), uses=uses
        )


def _key(
    account: str, job_id: str | None, segment: int | None, board: str, method: str, bridged: bool
) -> Hashable:
    return str(account), job_id, segment, board, str(method), bool(bridged)
