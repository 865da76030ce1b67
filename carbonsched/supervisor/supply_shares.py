"""Computes the part of each metered piece that the site's own supply gave, so that never more is given out than it gave.

A supply stated as a share gives that share of everything. A supply in kW gives all devices one share, of at most its power at each moment;
what was given out is remembered, since devices are read one after the other, and some late. Energy from before that memory (the daemon was
away, say) counts as the grid's.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from itertools import pairwise
from typing import Final

from carbonsched.feeds.supply.chain import SupplyChain
from carbonsched.model.energy import EnergyDelta
from carbonsched.model.grid import Supply, SupplyReading, SupplyUnit
from carbonsched.supervisor.value_window import changes

_MEMORY: Final = timedelta(seconds=120)
"""A device that reports its energy later than this gets none of a supply in kW."""
_MJ_PER_KWS: Final = 1e6


@dataclass(slots=True)
class SupplyShares:
    """Shares the site's own supply out to pieces of energy.

    Example::

        supply_shares.begin(deltas)
        supplies = supply_shares.given(deltas, pue=1.2)
    """

    chain: SupplyChain | None = None
    """None: the box has no supply of its own."""
    granted: list[tuple[datetime, datetime, float]] = field(default_factory=list)
    """Stretches, and the kW given out during them; they may overlap."""
    since: datetime | None = None
    """From when on `granted` is complete."""
    newest: datetime | None = None

    def begin(self, deltas: Sequence[EnergyDelta]) -> None:
        """Begin with the deltas of all devices that are metered next; forgets what is too old."""
        if self.chain is None or not deltas:
            return
        newest = max(delta.end for delta in deltas)
        if self.newest is None or newest < self.newest - _MEMORY:  # or the wall clock was set back
            away = [delta.end for delta in deltas if delta.bridged]
            self.since, self.granted = max(away, default=min(delta.start for delta in deltas)), []
        self.newest = newest
        since = self.since = max(self.since or newest, newest - _MEMORY)
        self.granted = [each for each in self.granted if each[1] > since]

    def edges(self, start: datetime, end: datetime) -> set[datetime]:
        """Times in between at which the known supply changes."""
        if self.chain is None:
            return set()
        found = changes(self.chain, start, end)
        return found | {self.since} if self.since is not None and start < self.since < end else found

    def given(self, pieces: Sequence[EnergyDelta], pue: float) -> list[Supply | None]:
        """The supply's part of each piece, none of which crosses an edge; None if unknown."""
        if self.chain is None:
            return [None] * len(pieces)
        readings = [self.chain.reading_at(piece.start) for piece in pieces]
        shares = self._of_power(pieces, readings, pue)
        found: list[Supply | None] = []
        for i, (piece, reading) in enumerate(zip(pieces, readings, strict=True)):
            share: float | None = None
            if reading is not None and reading.unit is SupplyUnit.SHARE:
                share = reading.amount
            elif reading is not None and self.since is not None and piece.start >= self.since:
                share = shares.get(i, 0.0)
            known = reading is not None and share is not None
            found.append(_supply(reading, share) if known else None)  # type: ignore[arg-type]
        return found

    def _of_power(
        self, pieces: Sequence[EnergyDelta], readings: Sequence[SupplyReading | None], pue: float
    ) -> dict[int, float]:
        """Piece → the share of it that a supply in kW gave."""
        claims = {
            i: (piece, reading.amount)
            for i, (piece, reading) in enumerate(zip(pieces, readings, strict=True))
            if reading is not None
            and reading.unit is SupplyUnit.KW
            and piece.energy_mj
            and piece.start < piece.end
            and piece.start >= (self.since or piece.end)
        }
        if not claims:
            return {}
        first = min(piece.start for piece, _ in claims.values())
        before = [each for each in self.granted if each[1] > first]
        edges = {t for piece, _ in claims.values() for t in (piece.start, piece.end)}
        edges |= {t for start, end, _ in before for t in (start, end)}
        shares = dict.fromkeys(claims, 0.0)
        for start, end in pairwise(sorted(edges)):
            here = [
                (i, piece, kw)
                for i, (piece, kw) in claims.items()
                if piece.start <= start and end <= piece.end
            ]
            if not here:
                continue
            drawn = sum(_kw(piece) for _, piece, _ in here) * pue
            used = sum(kw for a, b, kw in before if a <= start and end <= b)
            given = min(max(min(kw for _, _, kw in here) - used, 0.0), drawn)
            if given <= 0:
                continue
            self.granted.append((start, end, given))
            for i, piece, _ in here:
                shares[i] += given / drawn * ((end - start) / (piece.end - piece.start))
        return {i: min(share, 1.0) for i, share in shares.items()}


def _kw(piece: EnergyDelta) -> float:
    return (piece.energy_mj or 0) / _MJ_PER_KWS / (piece.end - piece.start).total_seconds()


def _supply(reading: SupplyReading, share: float) -> Supply:
    return Supply(share=share, g_per_kwh=reading.g_per_kwh, source=reading.source)
