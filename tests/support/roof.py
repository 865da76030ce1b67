"""A supply on the box that says what it is told to say."""

from dataclasses import dataclass, field

from carbonsched.feeds.base import Values
from carbonsched.model.grid import SupplyReading


@dataclass
class Roof:
    """A local feed of the site's own supply."""

    readings: list[SupplyReading] = field(default_factory=list)
    name: str = "roof"
    zone: str = "XX"
    every_s: float = 1.0
    max_age_s: float = 20.0
    local: bool = True

    def poll(self) -> Values[SupplyReading]:
        return Values(tuple(self.readings))
