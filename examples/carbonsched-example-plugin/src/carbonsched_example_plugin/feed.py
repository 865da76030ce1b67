"""A grid feed that reads one intensity from a JSON file, such as a building's own energy manager may write.

[[feeds]]
provider = "example-file"
file = "/run/building/intensity.json"     # {"g_per_kwh": 212.0}
basis = "average-lifecycle"
"""

from typing import Literal

from carbonsched.feeds.base import Answer, Feed, FeedSettings, Site
from carbonsched.model.base import LocalPath
from carbonsched.model.grid import Basis, Reading
from carbonsched_example_plugin.number_file import NumberFile


class FileFeedSettings(FeedSettings):
    """Keys of `[[feeds]]` with provider = "example-file"."""

    provider: Literal["example-file"]
    file: LocalPath
    """JSON: {"g_per_kwh": NUMBER}. When it was written is when the value was valid from."""
    basis: Basis
    """What the number means. Required: a file cannot say it, and a budget never mixes two."""

    def build(self, site: Site) -> Feed:
        return FileFeed(self, site)


class FileFeed(NumberFile):
    """Answers one reading: from when the file was written until the poll after next."""

    def __init__(self, settings: FileFeedSettings, site: Site) -> None:
        super().__init__(settings, settings.file, "g_per_kwh", site, settings.basis)
        self.basis = settings.basis

    def poll(self) -> Answer:
        return Answer((Reading.of(*self.read()),))
