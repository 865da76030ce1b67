"""Computes market-based emissions beside location-based ones: contracts and certificates first, then the residual mix.

Energy with PUE is known by the hour. Each contract covers energy of the hours in its period, the shortest contracts first, so that a
certificate of an hour matches that hour and one of a year the rest. Energy without a contract has the residual mix; if none is stated,
the grid's intensity is used, and the report says so.
"""

from bisect import bisect_left
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from carbonsched.ledger.hours import Cell
from carbonsched.ledger.rows import micros
from carbonsched.model.accounting import Accounting, Contract
from carbonsched.model.base import Doc, UtcTime
from carbonsched.units import J_PER_KWH, MJ_PER_J

_HOUR_US: Final = 3_600_000_000
_MJ_PER_KWH: Final = J_PER_KWH * MJ_PER_J
_NO_RESIDUAL: Final = (
    "no residual mix is stated: the grid's intensity stands in, as the Scope 2 Guidance allows"
)


class ContractUse(Doc):
    """The part of a report's energy that one contract or certificate covers.

    Example:
        >>> ContractUse(name="wind PPA", start="2026-01-01T00:00:00Z", end="2027-01-01T00:00:00Z", g_per_kwh=0, renewable=True,
        ...     hourly=False, source="contract 4711", kwh=2.5, spent_g=0).kwh
        2.5
    """

    name: str
    start: UtcTime
    end: UtcTime
    g_per_kwh: float
    renewable: bool
    hourly: bool
    source: str
    kwh: float
    spent_g: float


class MarketAccount(Doc):
    """Market-based emissions, PUE included.

    Example::

        market = report.market
        print(market.spent_g, "by contracts,", market.location_g, "by the grid")
    """

    kwh: float
    """Energy × PUE."""
    location_g: float
    spent_g: float | None
    """A lower bound if `reason` states energy without a known factor; None: the factor of all of it is unknown."""
    reason: str | None
    contracts: tuple[ContractUse, ...]
    covered_kwh: float
    renewable_kwh: float
    hourly_kwh: float
    """Covered by instruments of at most an hour: matched hour by hour."""
    rest_kwh: float
    """Not covered."""
    rest_g: float | None
    rest_source: str


@dataclass(slots=True)
class Hours:
    """Energy with PUE and grams by hour.

    Example::

        hours = Hours()
        for cell in sums.cells:
            hours.add(cell, sums.hour_us)
        print(hours.facility_mj)
    """

    facility_mj: dict[int, float] = field(default_factory=dict)
    grams: dict[int, float] = field(default_factory=dict)
    unknown_mj: dict[int, float] = field(default_factory=dict)
    """Part of the energy with unknown intensity."""

    def add(self, cell: Cell, hour_us: int) -> None:
        """Add the rows of an hour; the part that reaches into later hours belongs to those."""
        energy, grams = float(cell.energy_mj), cell.grams
        for later_us, (part_mj, part_g) in cell.later.items():
            self._add(cell, later_us // _HOUR_US, part_mj, part_g)
            energy, grams = energy - part_mj, grams - part_g
        self._add(cell, hour_us // _HOUR_US, energy, grams)

    def _add(self, cell: Cell, hour: int, energy_mj: float, grams: float) -> None:
        energy = energy_mj * cell.alike.pue
        self.facility_mj[hour] = self.facility_mj.get(hour, 0.0) + energy
        if cell.known:
            self.grams[hour] = self.grams.get(hour, 0.0) + grams
        else:
            self.unknown_mj[hour] = self.unknown_mj.get(hour, 0.0) + energy


def market_account(hours: Hours, contracts: Sequence[Contract], stated: Accounting) -> MarketAccount:
    """An hour belongs to a contract if it begins in the contract's period."""
    numbers = sorted(hours.facility_mj)
    left = {hour: hours.facility_mj[hour] for hour in numbers}
    uses = []
    for contract in sorted(contracts, key=lambda c: (c.end - c.start, c.start, c.name)):
        room = float("inf") if contract.kwh is None else contract.kwh * _MJ_PER_KWH
        taken = 0.0
        first, last = -(-micros(contract.start) // _HOUR_US), -(-micros(contract.end) // _HOUR_US)
        for hour in numbers[bisect_left(numbers, first) : bisect_left(numbers, last)]:
            part = min(left[hour], room - taken)
            left[hour] -= part
            taken += part
        if taken:
            uses.append(_use(contract, taken / _MJ_PER_KWH))
    rest = sum(left.values())
    rest_g, reason = _rest(hours, left, stated)
    covered_g = sum(use.spent_g for use in uses)
    return MarketAccount(
        kwh=sum(hours.facility_mj.values()) / _MJ_PER_KWH,
        location_g=sum(hours.grams.values()),
        spent_g=None if rest_g is None else covered_g + rest_g,
        reason=reason,
        contracts=tuple(uses),
        covered_kwh=sum(use.kwh for use in uses),
        renewable_kwh=sum(use.kwh for use in uses if use.renewable),
        hourly_kwh=sum(use.kwh for use in uses if use.hourly),
        rest_kwh=rest / _MJ_PER_KWH,
        rest_g=rest_g,
        rest_source=stated.residual_source or _NO_RESIDUAL,
    )


def _use(contract: Contract, kwh: float) -> ContractUse:
    return ContractUse(
        name=contract.name,
        start=contract.start,
        end=contract.end,
        g_per_kwh=contract.g_per_kwh,
        renewable=contract.renewable,
        hourly=contract.hourly,
        source=contract.source,
        kwh=kwh,
        spent_g=kwh * contract.g_per_kwh,
    )


def _rest(hours: Hours, left: Mapping[int, float], stated: Accounting) -> tuple[float | None, str | None]:
    """(grams of uncovered energy, why they are unknown)."""
    if stated.residual_g_per_kwh is not None:
        return sum(left.values()) / _MJ_PER_KWH * stated.residual_g_per_kwh, None
    grams = unknown = 0.0
    for hour, rest in left.items():
        share = rest / hours.facility_mj[hour] if hours.facility_mj[hour] else 0.0
        grams += hours.grams.get(hour, 0.0) * share
        unknown += hours.unknown_mj.get(hour, 0.0) * share
    if unknown:
        why = "that no contract covers neither a residual mix nor the grid's intensity is known"
        known = any(hours.grams.get(hour) is not None for hour in left)
        return grams if known else None, f"at least: of {unknown / _MJ_PER_KWH:.4g} kWh {why}"
    return grams, None
