"""A feed of the site's own supply that reads it from a JSON file, such as an inverter's gateway may write.

[[supply]]
provider = "example-inverter"
file = "/run/building/solar.json"     # {"share": 0.4}, or {"kw": 3.2} with unit = "kw"
kind = "solar"
"""

from typing import Literal

from carbonsched.feeds.base import Make, Site, Values
from carbonsched.feeds.supply.base import SupplySettings
from carbonsched.model.base import LocalPath
from carbonsched.model.grid import SupplyReading
from carbonsched_example_plugin.number_file import NumberFile


class FileSupplySettings(SupplySettings):
    """Keys of `[[supply]]` with provider = "example-inverter"; what a kWh of it emits is asked for by the keys inherited."""

    provider: Literal["example-inverter"]
    file: LocalPath
    """JSON: {"share": NUMBER} or {"kw": NUMBER}, by `unit`."""

    def build(self, site: Site) -> "FileSupply":
        return FileSupply(self, site, self.reader(site))


class FileSupply(NumberFile):
    """Answers one reading of what the supply gives."""

    def __init__(self, settings: FileSupplySettings, site: Site, make: Make[SupplyReading]) -> None:
        super().__init__(settings, settings.file, str(settings.unit), site)
        self._make = make

    def poll(self) -> Values[SupplyReading]:
        return Values((self._make(*self.read()),))
