"""Computes the uncertainty bands of energy and grams from the errors of sensor, sampling and model, each an assumption with its source.

Errors of one sensor do not cancel over time (a board that reads 3% too high always does), so a band is the plain sum of
the errors of its parts, not a root of squares.
"""

from collections.abc import Sequence
from typing import Final

from carbonsched.ledger.totals import Group, Totals
from carbonsched.model.accounting import Accounting
from carbonsched.model.base import Doc
from carbonsched.model.energy import EnergyMethod
from carbonsched.units import MJ_PER_J

_OUTSIDE: Final = "not in the bands: an intensity's own error, which no provider states, and what is unknown; what was settled since widens that of the grams"


class BandPart(Doc):
    """The errors of the energy of one method.

    Example:
        >>> BandPart(method="counter", energy_j=1000, spent_g=0.1, sensor=0.05, sampling=0, model=0).relative
        0.05
    """

    method: EnergyMethod
    energy_j: float
    spent_g: float
    sensor: float
    """Share of the reading, in both directions, like the other two."""
    sampling: float
    model: float

    @property
    def relative(self) -> float:
        return self.sensor + self.sampling + self.model


class Bands(Doc):
    """The uncertainty of energy and grams.

    Example:
        >>> Bands(energy_low_j=95, energy_high_j=105, spent_low_g=1, spent_high_g=2, parts=(), source="assumed", outside="x").energy_high_j
        105.0
    """

    energy_low_j: float
    energy_high_j: float
    spent_low_g: float
    """Of `spent_g`, extended by the settled value."""
    spent_high_g: float
    parts: tuple[BandPart, ...]
    source: str
    """Source of the error shares."""
    outside: str = _OUTSIDE


def bands(groups: Sequence[Group], totals: Totals, moved_g: float, stated: Accounting) -> Bands:
    """moved_g: settled minus decided grams."""
    shares = {
        EnergyMethod.COUNTER: (stated.counter_error, 0.0, 0.0),
        EnergyMethod.INTEGRATED: (stated.counter_error, stated.sampling_error, 0.0),
        EnergyMethod.ESTIMATED: (0.0, 0.0, stated.model_error),
    }
    parts = []
    for method, (sensor, sampling, model) in shares.items():
        mine = [group for group in groups if group.method is method]
        if mine:
            parts.append(
                BandPart(
                    method=method,
                    energy_j=sum(group.energy_mj for group in mine) / MJ_PER_J,
                    spent_g=sum(group.grams for group in mine),
                    sensor=sensor,
                    sampling=sampling,
                    model=model,
                )
            )
    joules = sum(part.energy_j * part.relative for part in parts)
    grams = sum(part.spent_g * part.relative for part in parts)
    return Bands(
        energy_low_j=totals.energy_j - joules,
        energy_high_j=totals.energy_j + joules,
        spent_low_g=totals.grams + min(moved_g, 0.0) - grams,
        spent_high_g=totals.grams + max(moved_g, 0.0) + grams,
        parts=tuple(parts),
        source=stated.error_source,
    )
