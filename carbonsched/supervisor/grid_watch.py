"""Remembers what the grid's provider forecast, hour by hour, also while no job runs.

How right a provider was tells how far it may be trusted, which takes four weeks to learn. A daemon at rest keeps this without
NumPy; `carbonsched.supervisor.estimates.grid_outlook` plans with it.
"""

from dataclasses import dataclass, field

from carbonsched.clock import Clock
from carbonsched.feeds.chain import Chain
from carbonsched.plan.forecasting.archive import ForecastArchive

_DAY_S = 86_400.0


@dataclass(frozen=True, slots=True)
class GridWatch:
    """The feeds and what they forecast before.

    Example::

        watch = GridWatch(chain, clock)
        watch.poll_archive()  # at every tick
    """

    chain: Chain
    clock: Clock
    archive: ForecastArchive = field(default_factory=ForecastArchive)

    def day_s(self) -> float:
        """Wall seconds of a grid day: fewer in a time-compressed replay."""
        reading = self.chain.reading_at(self.clock.now())
        return _DAY_S / (reading.source.time_compression if reading else 1.0)

    def poll_archive(self) -> None:
        """Add the forecast that holds now, where it is a new one."""
        self.archive.day_s = self.day_s()
        self.archive.add(self.clock.now(), self.chain.forecast())
