"""A grid of gas and wind alone, for the servers that tell what was generated."""

from carbonsched.feeds.generation_mix import LIFECYCLE, Plant

_GAS, _WIND = LIFECYCLE[Plant.GAS], LIFECYCLE[Plant.WIND_ONSHORE]


def outputs(g_per_kwh: float | None) -> dict[str, float | None]:
    """What of 10 GW each kind gives where their mean is `g_per_kwh`; unknown where that is."""
    if g_per_kwh is None:
        return {"gas": None, "wind onshore": None}
    gas = 10_000.0 * (g_per_kwh - _WIND) / (_GAS - _WIND)
    return {"gas": gas, "wind onshore": 10_000.0 - gas}
