"""Makes an intensity of a generation mix: what each kind of plant generates, weighted by what it emits per kWh.

It is production-based: the mean of what the zone generates, without what flows in and out (`consumption_mix` adds that). Storage is left out of it: it
moves energy in time, and what filled it is not known. A number so made is an estimate, whatever the mix is. Sources of the
factors, in gCO2e per kWh that leaves the plant:

IPCC (2014), AR5, working group III, annex III, table A.III.2, medians: coal (pulverised), gas (combined cycle), biomass
(dedicated), geothermal, hydropower, nuclear, solar (mean of rooftop and utility PV), wind (onshore, offshore), ocean; lifecycle
and direct. The table has no direct emissions of biomass: what grew counts as 0, as national inventories count it.
https://www.ipcc.ch/site/assets/uploads/2018/02/ipcc_wg3_ar5_annex-iii.pdf
IPCC (2006), Guidelines for National Greenhouse Gas Inventories, volume 2, table 2.2 (the same figures are table 1.4), t CO2 per TJ of
fuel: other bituminous coal 94.6, lignite 101, peat 106, oil shale 107, residual fuel oil 77.4. What table A.III.2 leaves out is its
coal times the ratio of these: as if burnt at the same efficiency. Old lignite plants are worse.
https://www.ipcc-nggip.iges.or.jp/public/2006gl/vol2.html
Electricity Maps, electricitymaps-contrib, config/defaults.yaml (commit 41204e2): what a provider calls "other" or "unknown", and
waste, is taken for a mean of thermal plants, 700 lifecycle and 575 direct.
All were compared on 2026-11-28: the IPCC's with transcriptions of its tables (Electricity Maps' file again, wikicarbon.org, "Index:
Energy Sources"; ocean's 17 with three others'), since the tables themselves could not be had.
"""

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from types import MappingProxyType
from typing import Final

from carbonsched.model.grid import Basis

_COAL_KG_PER_GJ: Final = 94.6
_SMALL: Final = 0.01
"""What never gives more than this share may be missing from an interval."""
_MOST_PARTS: Final = 200_000


class Plant(StrEnum):
    """A kind of plant that factors are known for.

    Example:
        >>> Plant("gas") is Plant.GAS
        True
    """

    BIOMASS = "biomass"
    COAL = "coal"
    GAS = "gas"
    GEOTHERMAL = "geothermal"
    HYDRO = "hydro"
    LIGNITE = "lignite"
    MARINE = "marine"
    NUCLEAR = "nuclear"
    OIL = "oil"
    OIL_SHALE = "oil shale"
    PEAT = "peat"
    SOLAR = "solar"
    WIND_OFFSHORE = "wind offshore"
    WIND_ONSHORE = "wind onshore"
    OTHER = "other"
    STORAGE = "storage"
    """Left out of the mix, charging and discharging."""


def _like_coal(coal: float, kg_per_gj: float) -> float:
    return round(coal * kg_per_gj / _COAL_KG_PER_GJ, 1)


def _factors(coal: float, other: float, rest: Mapping[Plant, float]) -> Mapping[Plant, float]:
    return MappingProxyType(
        {
            Plant.COAL: coal,
            Plant.LIGNITE: _like_coal(coal, 101.0),
            Plant.PEAT: _like_coal(coal, 106.0),
            Plant.OIL_SHALE: _like_coal(coal, 107.0),
            Plant.OIL: _like_coal(coal, 77.4),
            Plant.OTHER: other,
            **rest,
        }
    )


LIFECYCLE: Final = _factors(
    820.0,
    700.0,
    {
        Plant.GAS: 490.0,
        Plant.BIOMASS: 230.0,
        Plant.GEOTHERMAL: 38.0,
        Plant.HYDRO: 24.0,
        Plant.MARINE: 17.0,
        Plant.NUCLEAR: 12.0,
        Plant.SOLAR: 44.5,
        Plant.WIND_OFFSHORE: 12.0,
        Plant.WIND_ONSHORE: 11.0,
    },
)
DIRECT: Final = _factors(
    760.0,
    575.0,
    {
        Plant.GAS: 370.0,
        **dict.fromkeys(
            (
                Plant.BIOMASS,
                Plant.GEOTHERMAL,
                Plant.HYDRO,
                Plant.MARINE,
                Plant.NUCLEAR,
                Plant.SOLAR,
                Plant.WIND_OFFSHORE,
                Plant.WIND_ONSHORE,
            ),
            0.0,
        ),
    },
)


@dataclass(frozen=True, slots=True)
class FactorSet:
    """What each kind of plant emits, in gCO2e per kWh, on one basis.

    Example:
        >>> FactorSet(DIRECT, "direct").g_per_kwh[Plant.GAS]
        370.0
    """

    g_per_kwh: Mapping[Plant, float]
    note: str
    """Names the set, for the readings that are made with it."""


FACTORS: Final[Mapping[Basis, FactorSet]] = MappingProxyType(
    {
        Basis.AVERAGE_LIFECYCLE: FactorSet(LIFECYCLE, "production mix × lifecycle factors, IPCC AR5 A.III.2"),
        Basis.AVERAGE_DIRECT: FactorSet(DIRECT, "production mix × direct factors, IPCC AR5 A.III.2"),
    }
)
"""On which bases a mix can be read."""


@dataclass(frozen=True, slots=True)
class Output:
    """What the plants of one code generated over [start, end), in any unit of power that all share.

    Example:
        >>> from datetime import UTC, timedelta
        >>> at = datetime(2026, 1, 1, tzinfo=UTC)
        >>> Output(at, at + timedelta(hours=1), "NG", Plant.GAS, 4100.0).power
        4100.0
    """

    start: datetime
    end: datetime
    code: str
    """The provider's own: it may have several for one kind of plant."""
    plant: Plant
    power: float


@dataclass(frozen=True, slots=True)
class Mix:
    """What all plants together generated over [start, end), and what a kWh of it emitted.

    Example:
        >>> from datetime import UTC, timedelta
        >>> at = datetime(2026, 1, 1, tzinfo=UTC)
        >>> Mix(at, at + timedelta(hours=1), 154.7, 10.0).power
        10.0
    """

    start: datetime
    end: datetime
    g_per_kwh: float
    power: float
    """In the unit of its outputs."""


def intensities(
    outputs: Iterable[Output], factors: Mapping[Plant, float]
) -> list[tuple[datetime, datetime, float]]:
    """(start, end, g/kWh) of what `mixes` finds.

    Example:
        >>> from datetime import UTC, timedelta
        >>> at = datetime(2026, 1, 1, tzinfo=UTC)
        >>> hour = at + timedelta(hours=1)
        >>> mix = [Output(at, hour, "NG", Plant.GAS, 3.0), Output(at, hour, "WND", Plant.WIND_ONSHORE, 7.0)]
        >>> [round(g, 1) for _, _, g in intensities(mix, LIFECYCLE)]
        [154.7]
    """
    return [(mix.start, mix.end, mix.g_per_kwh) for mix in mixes(outputs, factors)]


def mixes(outputs: Iterable[Output], factors: Mapping[Plant, float]) -> list[Mix]:
    """The mix of every interval for which all that generates is known, ascending.

    outputs: of two of the same code and interval the last holds. Where some are hours and others quarters, all are cut into
    quarters. An interval that lacks a code which ever gives more than a hundredth of the power is left out: its mean would
    be that of the others.
    """
    known = [o for o in outputs if o.plant is not Plant.STORAGE and o.end > o.start]
    if not known:
        return []
    step = min(o.end - o.start for o in known)
    parts = [(o, (o.end - o.start) // step) for o in known]
    if sum(count for _, count in parts) > _MOST_PARTS:
        return []
    by_code: dict[datetime, dict[str, tuple[float, float]]] = defaultdict(dict)
    for output, count in parts:
        # a plant that stands still takes a little from the grid
        power = max(output.power, 0.0)
        for i in range(count):
            by_code[output.start + i * step][output.code] = power, power * factors[output.plant]
    needed = _needed(by_code)
    found = []
    for at in sorted(by_code):
        total = sum(power for power, _ in by_code[at].values())
        grams = sum(grams for _, grams in by_code[at].values())
        if 0 < total < math.inf and grams < math.inf and needed <= by_code[at].keys():
            found.append(Mix(at, at + step, grams / total, total))
    return found


def _needed(mixes: Mapping[datetime, Mapping[str, tuple[float, float]]]) -> set[str]:
    """Codes without which a mix is not whole."""
    least = _SMALL * max(sum(power for power, _ in mix.values()) for mix in mixes.values())
    return {code for mix in mixes.values() for code, (power, _) in mix.items() if power > least}
