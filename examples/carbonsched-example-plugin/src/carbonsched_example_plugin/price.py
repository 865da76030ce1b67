"""A source of prices that reads one from a JSON file, such as a supplier's meter may write.

[[prices]]
provider = "example-tariff"
file = "/run/building/price.json"     # {"eur_per_kwh": 0.31}
"""

from typing import Literal

from carbonsched.feeds.base import Site, Values
from carbonsched.feeds.prices.base import PriceSettings
from carbonsched.model.base import LocalPath
from carbonsched.model.grid import Price
from carbonsched_example_plugin.number_file import NumberFile


class FilePriceSettings(PriceSettings):
    """Keys of `[[prices]]` with provider = "example-tariff"."""

    provider: Literal["example-tariff"]
    file: LocalPath
    """JSON: {"eur_per_kwh": NUMBER}."""

    def build(self, site: Site) -> "FilePrice":
        return FilePrice(self, self.file, "eur_per_kwh", site)


class FilePrice(NumberFile):
    """Answers one price."""

    def poll(self) -> Values[Price]:
        return Values((Price.of(*self.read()),))
