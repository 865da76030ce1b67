"""The factors are those of their sources, and a mix is a mean of what is known of it, whatever is told."""

import math
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from carbonsched.feeds.generation_mix import DIRECT, LIFECYCLE, Output, Plant, mixes

T0 = datetime(2026, 1, 1, tzinfo=UTC)
HOUR = timedelta(hours=1)
AR5 = {
    Plant.COAL: (820, 760),
    Plant.GAS: (490, 370),
    Plant.BIOMASS: (230, 0),
    Plant.GEOTHERMAL: (38, 0),
    Plant.HYDRO: (24, 0),
    Plant.NUCLEAR: (12, 0),
    Plant.SOLAR: ((41 + 48) / 2, 0),
    Plant.WIND_ONSHORE: (11, 0),
    Plant.WIND_OFFSHORE: (12, 0),
    Plant.MARINE: (17, 0),
}
"""IPCC AR5, working group III, annex III, table A.III.2: medians, lifecycle and direct; solar on roofs 41, in fields 48."""
FUELS = {Plant.LIGNITE: 101_000, Plant.PEAT: 106_000, Plant.OIL_SHALE: 107_000, Plant.OIL: 77_400}
"""IPCC 2006 Guidelines, volume 2, table 2.2, kg CO2 per TJ; other bituminous coal 94,600."""


def test_every_factor_is_that_of_its_source() -> None:
    for plant, (lifecycle, direct) in AR5.items():
        assert (LIFECYCLE[plant], DIRECT[plant]) == (lifecycle, direct)
    for plant, kg_per_tj in FUELS.items():
        assert LIFECYCLE[plant] == pytest.approx(820 * kg_per_tj / 94_600, abs=0.06)
        assert DIRECT[plant] == pytest.approx(760 * kg_per_tj / 94_600, abs=0.06)
    assert (LIFECYCLE[Plant.OTHER], DIRECT[Plant.OTHER]) == (700, 575), "Electricity Maps, defaults.yaml"
    assert {*AR5, *FUELS, Plant.OTHER, Plant.STORAGE} == set(Plant)


@given(st.dictionaries(st.sampled_from(list(Plant)), st.floats(-1e308, 1.7e308), min_size=1))
def test_a_mix_lies_between_what_is_mixed_or_is_none(powers: dict[Plant, float]) -> None:
    found = mixes([Output(T0, T0 + HOUR, p.value, p, power) for p, power in powers.items()], LIFECYCLE)
    running = [LIFECYCLE[p] for p, power in powers.items() if power > 0 and p is not Plant.STORAGE]
    for mix in found:
        assert math.isfinite(mix.power)
        assert min(running) * (1 - 1e-9) <= mix.g_per_kwh <= max(running) * (1 + 1e-9)
    if not running:
        assert found == []
