"""Adds up how far the account as settled departs from the one as decided: by whose energy it was, and by which feed was charged.

Rows that no settlement covers are left as they were decided, to the last bit. Each row is settled by the account that budgets
were charged by at its time; a feed's rows are told at the grid's intensity, as the feed's other figures are.
"""

from collections.abc import Hashable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from carbonsched.ledger.rows import moment
from carbonsched.ledger.settlements import Settled
from carbonsched.ledger.totals import Era, Group, account_of, charged_g
from carbonsched.model.base import Doc
from carbonsched.model.grid import Kind
from carbonsched.units import MJ_PER_J


class SettledUse(Doc):
    """What one feed's intensities of a month were charged as, and what they came to.

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
    """The account as settled beside the one as decided, which budgets are charged by.

    Example:
        >>> SettledAccount(spent_g=240, difference_g=40, entries=1, uses=[]).spent_g
        240.0
    """

    spent_g: float
    """With what became known later in the place of what was known when a row was charged."""
    difference_g: float
    """Above 0: more than was decided."""
    entries: int
    """Of the journal, that hold for rows of this report."""
    uses: tuple[SettledUse, ...]
    """Where the difference comes from."""


@dataclass(slots=True)
class _Moved:
    energy_mj: int = 0
    decided: float = 0.0
    settled: float = 0.0


@dataclass(slots=True)
class Differences:
    """Grams by which settled rows differ from what they were charged.

    Example::

        differences = Differences(Settled.of(ledger.settlements()))
        for row in ledger.rows():
            differences.add(row)
        print(differences.total_g)
    """

    settled: Settled
    eras: tuple[Era, ...] = ()
    """By which account rows are charged to budgets."""
    _groups: dict[Hashable, float] = field(default_factory=dict)
    _uses: dict[tuple[str, str, str], _Moved] = field(default_factory=dict)
    _feeds: dict[Hashable, float] = field(default_factory=dict)
    _entries: set[Hashable] = field(default_factory=set)

    def add(self, row: Mapping[Any, Any], feed: Hashable = None) -> None:
        """One row that is charged in the report; `feed`: how the report tells feeds apart."""
        if not self.settled:
            return
        found = self.settled.charge(row, account_of(row, self.eras))
        at_grid = self.settled.charge(row)
        if not found.covered or found.grams is None or at_grid.grams is None:
            return
        decided = charged_g(row, self.eras) or 0.0
        key = _key(row["account"], row["job_id"], row["segment"], row["board"], row["method"], row["bridged"])
        self._groups[key] = self._groups.get(key, 0.0) + found.grams - decided
        self._feeds[feed] = self._feeds.get(feed, 0.0) + at_grid.grams - (row["grams"] or 0.0)
        month = f"{moment(row['start_us']):%Y-%m}"
        use = self._uses.setdefault((row["provider"] or "", row["kind"] or "", month), _Moved())
        use.energy_mj += row["energy_mj"]
        use.decided += decided
        use.settled += found.grams
        self._entries.update(found.entries)

    def of(self, groups: Iterable[Group]) -> float:
        """Of these sums."""
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
        """The whole, beside what was decided: what budgets were charged."""
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
