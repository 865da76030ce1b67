"""Sums the cost of energy, by job, segment and source of the price."""

import json
from dataclasses import dataclass, field
from typing import Final

from carbonsched.ledger.hours import Cell
from carbonsched.model.energy import EnergyMethod
from carbonsched.model.grid import Kind
from carbonsched.report.parts import Money, PriceUse
from carbonsched.units import J_PER_KWH, MJ_PER_J

_GUESSED: Final = (Kind.ESTIMATED, Kind.FALLBACK)
_MJ_PER_KWH: Final = J_PER_KWH * MJ_PER_J


@dataclass(slots=True)
class EnergyCost:
    """Add sums of hours with known energy.

    Example::

        energy_cost = EnergyCost()
        for cell in sums.cells:
            energy_cost.add(cell)
        print(energy_cost.money(None))
    """

    eur: float = 0.0
    energy_mj: int = 0
    priced_mj: int = 0
    facility_mj: float = 0.0
    """Energy with PUE and a known price."""
    estimated: bool = False
    jobs: dict[str, float] = field(default_factory=dict)
    segments: dict[int, float] = field(default_factory=dict)
    sources: dict[tuple[str, str, str, str], tuple[int, float]] = field(default_factory=dict)
    _read: dict[str, tuple[str, str, str, str]] = field(default_factory=dict)
    """Provenance text of a row → (provider, zone, kind, note)."""

    def add(self, cell: Cell) -> None:
        energy = cell.energy_mj
        self.energy_mj += energy
        if cell.alike.price_source is None:
            return
        source = self._source(cell.alike.price_source)
        self.eur += cell.eur
        self.priced_mj += energy
        self.facility_mj += energy * cell.alike.pue
        self.estimated |= source[2] in _GUESSED or cell.method != EnergyMethod.COUNTER
        if cell.job_id is not None:
            self.jobs[cell.job_id] = self.jobs.get(cell.job_id, 0.0) + cell.eur
            if cell.segment is not None:
                self.segments[cell.segment] = self.segments.get(cell.segment, 0.0) + cell.eur
        before = self.sources.get(source, (0, 0.0))
        self.sources[source] = before[0] + energy, before[1] + cell.eur

    def _source(self, text: str) -> tuple[str, str, str, str]:
        found = self._read.get(text)
        if found is None:
            said = json.loads(text)
            found = self._read[text] = (said["provider"], said["zone"], said["kind"], said.get("note", ""))
        return found

    def money(self, job_id: str | None) -> Money | None:
        """None if no price was ever known. job_id: of a job's report, which lists segments."""
        if not self.sources:
            return None
        unknown_mj = self.energy_mj - self.priced_mj
        return Money(
            eur=self.eur,
            eur_per_kwh=self.eur / self.facility_mj * _MJ_PER_KWH if self.facility_mj else None,
            unknown_kwh=unknown_mj / _MJ_PER_KWH,
            unknown_share=unknown_mj / self.energy_mj if self.energy_mj else 0.0,
            estimated=self.estimated,
            jobs=dict(sorted(self.jobs.items())),
            segments=dict(sorted(self.segments.items())) if job_id is not None else {},
            prices=tuple(
                PriceUse(
                    provider=provider, zone=zone, kind=Kind(kind), note=note, energy_j=mj / MJ_PER_J, eur=eur
                )
                for (provider, zone, kind, note), (mj, eur) in sorted(self.sources.items())
            ),
        )
