"""The HTTP providers as the fault matrix sees them: each answers of the same grid in its own shape. One file a provider."""

from support.providers.case import ProviderCase
from support.providers.eia import EIA
from support.providers.electricity_maps import ELECTRICITY_MAPS
from support.providers.energy_charts import ENERGY_CHARTS
from support.providers.neso import NESO

CASES: tuple[ProviderCase, ...] = (
    EIA,
    ELECTRICITY_MAPS,
    ENERGY_CHARTS,
    NESO,
)
