"""Reads settlements: intensities that became known after rows had been charged with other ones.

Rows never change. A settlement is a journal entry `settled`. It holds for every row in its time that has the same basis and a zone that the
feeds use for this place, and for rows without a known intensity. If two cover a time, the newer one holds.
"""

import json
from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final, Self

from sqlalchemy import Connection, and_, func, select

from carbonsched.errors import LedgerError
from carbonsched.ledger.rows import micros, stamp
from carbonsched.ledger.tables import INTERVALS, JOURNAL
from carbonsched.model.energy import Account, BudgetAccount
from carbonsched.model.grid import Basis, Kind
from carbonsched.units import MJ_PER_J, grams

SETTLED: Final = "settled"
"""Kind of the journal's entry."""
_BUCKET_US: Final = 60_000_000
"""Rows of one minute that were charged alike are one stretch."""


@dataclass(frozen=True, slots=True)
class Charged:
    """The intensity that rows of some time count with, or that none is known.

    Example:
        >>> Charged().g_per_kwh is None
        True
    """

    g_per_kwh: float | None = None
    provider: str | None = None
    zone: str | None = None
    basis: Basis | None = None
    kind: Kind | None = None
    note: str = ""
    replayed: tuple[int, int] | None = None
    """For a replay: when the value began to hold, and in the trace's own time; both in microseconds."""


@dataclass(frozen=True, slots=True)
class Stretch:
    """Rows of one time that were charged alike, whoever owns them.

    Example:
        >>> Stretch(0, 60_000_000, Charged()).end_us
        60000000
    """

    start_us: int
    end_us: int
    charged: Charged


@dataclass(frozen=True, slots=True)
class Settlement:
    """One entry: what is known now of [start, end), and what its rows counted with before.

    Example:
        >>> entry = {"start": "2026-11-22T10:00:00.000000Z", "end": "2026-11-22T10:30:00.000000Z", "g_per_kwh": 240.0,
        ...     "provider": "neso", "zone": "GB", "zones": ["GB"], "basis": "average-direct", "kind": "actual", "note": "", "issued_at": None,
        ...     "fetched_at": "2026-11-22T11:00:00.000000Z", "body_sha256": None,
        ...     "was": {"g_per_kwh": 200.0, "provider": "neso", "kind": "forecast"}}
        >>> Settlement.of(entry).detail() == entry
        True
    """

    start_us: int
    end_us: int
    g_per_kwh: float
    provider: str
    zone: str
    zones: tuple[str, ...]
    """The feeds' names for the place, including this one, ascending."""
    basis: Basis
    kind: Kind
    note: str
    issued_at: str | None
    fetched_at: str
    body_sha256: str | None
    was: tuple[float | None, str | None, Kind | None]
    """(g/kWh, provider, kind)."""
    replayed: tuple[int, int] | None = None

    @property
    def charged(self) -> Charged:
        """What rows of its time count with from now on."""
        return Charged(
            self.g_per_kwh, self.provider, self.zone, self.basis, self.kind, self.note, self.replayed
        )

    def holds_for(self, row: Mapping[Any, Any]) -> bool:
        """Whether it holds for a row in its time: never one of another place or basis."""
        return row["g_per_kwh"] is None or (row["zone"] in self.zones and row["basis"] == self.basis)

    def detail(self) -> dict[str, Any]:
        """The detail of its journal entry."""
        g_per_kwh, provider, kind = self.was
        replayed = {} if self.replayed is None else {"replayed": [stamp(us) for us in self.replayed]}
        return {
            "start": stamp(self.start_us),
            "end": stamp(self.end_us),
            "g_per_kwh": self.g_per_kwh,
            "provider": self.provider,
            "zone": self.zone,
            "zones": list(self.zones),
            "basis": str(self.basis),
            "kind": str(self.kind),
            "note": self.note,
            "issued_at": self.issued_at,
            "fetched_at": self.fetched_at,
            "body_sha256": self.body_sha256,
            "was": {
                "g_per_kwh": g_per_kwh,
                "provider": provider,
                "kind": None if kind is None else str(kind),
            },
        } | replayed

    @classmethod
    def of(cls, entry: Mapping[str, Any]) -> Self:
        """From its journal entry. Raises LedgerError if that is invalid."""
        try:
            return cls._of(entry)
        except (AttributeError, KeyError, TypeError, ValueError) as e:
            raise LedgerError(
                f"an entry {SETTLED!r} of the journal cannot be read: {type(e).__name__} {e}"
            ) from e

    @classmethod
    def _of(cls, entry: Mapping[str, Any]) -> Self:
        was, replayed = entry["was"], entry.get("replayed")
        return cls(
            start_us=_us(entry["start"]),
            end_us=_us(entry["end"]),
            g_per_kwh=float(entry["g_per_kwh"]),
            provider=entry["provider"],
            zone=entry["zone"],
            zones=tuple(entry["zones"]),
            basis=Basis(entry["basis"]),
            kind=Kind(entry["kind"]),
            note=entry["note"],
            issued_at=entry["issued_at"],
            fetched_at=entry["fetched_at"],
            body_sha256=entry["body_sha256"],
            was=(was["g_per_kwh"], was["provider"], None if was["kind"] is None else Kind(was["kind"])),
            replayed=None if replayed is None else (_us(replayed[0]), _us(replayed[1])),
        )


@dataclass(slots=True)
class Settled:
    """The settlements in force, by time.

    Example:
        >>> Settled.of(()).at(0) is None
        True
    """

    _held: list[Settlement] = field(default_factory=list)
    """Ascending and disjoint: each is cut to the time that no newer one covers."""
    _spans: list[tuple[int, int]] = field(default_factory=list)
    """When each of them holds."""

    @classmethod
    def of(cls, settlements: Iterable[Settlement]) -> Self:
        """Add the entries from the oldest to the newest."""
        made = cls()
        for one in settlements:
            made.add(one)
        return made

    def __bool__(self) -> bool:
        return bool(self._spans)

    def add(self, new: Settlement) -> None:
        """Add a newer one: it holds for all of its time."""
        if new.end_us <= new.start_us:
            return
        first = bisect_right(self._spans, new.start_us, key=lambda span: span[1])
        last = bisect_left(self._spans, new.end_us, key=lambda span: span[0])
        kept: list[tuple[tuple[int, int], Settlement]] = []
        for (start, end), one in zip(self._spans[first:last], self._held[first:last], strict=True):
            kept += [
                (span, one)
                for span in ((start, min(end, new.start_us)), (max(start, new.end_us), end))
                if span[0] < span[1]
            ]
        kept.append(((new.start_us, new.end_us), new))
        kept.sort(key=lambda pair: pair[0])
        self._spans[first:last] = [span for span, _ in kept]
        self._held[first:last] = [one for _, one in kept]

    def forget(self, before_us: int) -> None:
        """Drop those that ended by then."""
        first = bisect_right(self._spans, before_us, key=lambda span: span[1])
        del self._spans[:first], self._held[:first]

    def at(self, us: int) -> Settlement | None:
        """The one in force at a time."""
        i = bisect_right(self._spans, us, key=lambda span: span[0]) - 1
        return self._held[i] if i >= 0 and us < self._spans[i][1] else None

    def edges(self) -> list[int]:
        """Times at which a settlement begins or ends."""
        return [us for span in self._spans for us in span]

    def between(self, start_us: int, end_us: int) -> list[tuple[int, int, Settlement]]:
        """(start, end, settlement) of each one in force inside a stretch, cut to it."""
        first = bisect_right(self._spans, start_us, key=lambda span: span[1])
        last = bisect_left(self._spans, end_us, key=lambda span: span[0])
        return [
            (max(start, start_us), min(end, end_us), one)
            for (start, end), one in zip(self._spans[first:last], self._held[first:last], strict=True)
        ]

    def charge(self, row: Mapping[Any, Any], account: BudgetAccount = BudgetAccount.LOCATION) -> "AsSettled":
        """What a row counts as. If an entry covers part of its time, its energy is spread evenly over that time. account: "on-site" charges
        the supply's part, where known, at the supply's own intensity; only the rest is the grid's, to which settlements apply."""
        energy, own = row["energy_mj"], row["g_per_kwh"]
        share = row.get("supply_share") if account is BudgetAccount.ON_SITE else None
        supply = 0.0 if share is None else share * row["supply_g_per_kwh"]
        grid = 1.0 if share is None else 1.0 - share
        start, end = row["start_us"], row["end_us"]
        if end > start:
            parts = [(b - a, one) for a, b, one in self.between(start, end) if one.holds_for(row)]
        else:
            here = self.at(start)
            parts = [(1, here)] if here is not None and here.holds_for(row) else []
        if energy is None or not parts:
            decided = row["grams"] if share is None else row["on_site_grams"]
            return AsSettled(decided, own if own is None or share is None else grid * own + supply)
        span, known = max(end - start, 1), sum(us for us, _ in parts)
        weighted = sum(us * one.g_per_kwh for us, one in parts)
        if own is not None:
            known, weighted = span, weighted + (span - known) * own
        mean = weighted / known if share is None else grid * (weighted / known) + supply
        spent = grams(energy / MJ_PER_J * known / span, mean, row["pue"])
        return AsSettled(spent, mean, tuple(one for _, one in parts))


@dataclass(frozen=True, slots=True)
class AsSettled:
    """A row's grams as settled.

    Example:
        >>> AsSettled(1.5, 300.0).covered
        False
    """

    grams: float | None
    """None: energy or intensity is still unknown. Of a partly known row, the grams of the known part."""
    g_per_kwh: float | None
    """Mean over the part of the row whose intensity is known."""
    entries: tuple[Settlement, ...] = ()
    """The entries in force for part of it; empty: all is as decided."""

    @property
    def covered(self) -> bool:
        return bool(self.entries)


def settlements(connection: Connection, since: datetime | None = None) -> tuple[Settlement, ...]:
    """All settlements, oldest first; since: those written then or later. Raises LedgerError."""
    t = JOURNAL.c
    query = select(t.detail).where(t.job_id.is_(None), t.kind == SETTLED).order_by(t.id)
    if since is not None:
        query = query.where(t.at_us >= micros(since))
    return tuple(Settlement.of(json.loads(row)) for row in connection.execute(query).scalars())


def stretches(connection: Connection, since: datetime, until: datetime) -> tuple[Stretch, ...]:
    """How the rows that begin in [since, until) and have energy were charged; rows of a minute together."""
    t = INTERVALS.c
    keys = (
        t.g_per_kwh,
        t.provider,
        t.zone,
        t.basis,
        t.kind,
        t.note,
        t.intensity_start_us,
        t.grid_start_us,
        t.start_us // _BUCKET_US,
    )
    ours = t.account != str(Account.IMPORTED)  # another tool's intensities say nothing about our hours
    chosen = and_(ours, t.energy_mj.is_not(None), t.start_us >= micros(since), t.start_us < micros(until))
    query = select(func.min(t.start_us), func.max(t.end_us), *keys).where(chosen).group_by(*keys)
    return tuple(_stretch(row) for row in connection.execute(query))


def _stretch(row: Any) -> Stretch:
    start, end, g_per_kwh, provider, zone, basis, kind, note, begun, grid_start, _ = row
    if g_per_kwh is None:
        return Stretch(start, end, Charged())
    replayed = None if grid_start is None else (begun, grid_start)
    charged = Charged(g_per_kwh, provider, zone, Basis(basis), Kind(kind), note or "", replayed)
    return Stretch(start, end, charged)


def _us(text: str) -> int:
    return micros(datetime.fromisoformat(text))
