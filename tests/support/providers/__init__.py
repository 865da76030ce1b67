"""The HTTP providers as the fault matrix sees them: each answers of the same grid in its own shape. One file a provider."""

from support.providers.carbon_aware_sdk import CARBON_AWARE_SDK
from support.providers.case import ProviderCase
from support.providers.eia import EIA
from support.providers.electricity_maps import ELECTRICITY_MAPS
from support.providers.energi_data_service import ENERGI_DATA_SERVICE
from support.providers.energy_charts import ENERGY_CHARTS
from support.providers.entso_e import ENTSO_E
from support.providers.neso import NESO
from support.providers.open_electricity import OPEN_ELECTRICITY
from support.providers.prometheus import PROMETHEUS
from support.providers.rte import RTE
from support.providers.wattnet import WATTNET
from support.providers.watttime import WATTTIME

CASES: tuple[ProviderCase, ...] = (
    CARBON_AWARE_SDK,
    EIA,
    ELECTRICITY_MAPS,
    ENERGI_DATA_SERVICE,
    ENERGY_CHARTS,
    ENTSO_E,
    NESO,
    OPEN_ELECTRICITY,
    RTE,
    WATTNET,
    WATTTIME,
    PROMETHEUS,
)
