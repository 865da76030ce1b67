"""Asks a Prometheus for what the site's own supply gives: any query of one series, in kW or as a share of the box's energy."""

from typing import Literal

from carbonsched.feeds.base import Site
from carbonsched.feeds.providers.prometheus import PrometheusKeys, PrometheusSource
from carbonsched.feeds.supply.base import SupplySettings
from carbonsched.model.grid import SupplyReading


class PrometheusSupplySettings(PrometheusKeys, SupplySettings):
    """Keys of `[[supply]]` with provider = "prometheus".

    Example:
        >>> PrometheusSupplySettings(provider="prometheus", url="http://10.0.0.2:9090", query="solar_kw", unit="kw",
        ...     kind="solar").step
        300.0
    """

    provider: Literal["prometheus"]

    def build(self, site: Site) -> PrometheusSource[SupplyReading]:
        return PrometheusSource(self, site, self.reader(site))
