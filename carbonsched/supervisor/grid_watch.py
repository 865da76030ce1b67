"""Remembers what the grid's provider forecast, hour by hour, also while no job runs, and sees feeds fail and come back.

How right a provider was tells how far it may be trusted, which takes four weeks to learn. A daemon at rest keeps this without
NumPy; `carbonsched.supervisor.estimates.grid_outlook` plans with it.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field

from carbonsched.clock import Clock
from carbonsched.feeds.chain import Chain
from carbonsched.model.grid import FeedStatus
from carbonsched.plan.forecasting.archive import ForecastArchive

_DAY_S = 86_400.0
_TOLD_AGAIN_S = 60.0
"""A feed that fails and comes back all the time is told of so often at most."""


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
    told: dict[str, tuple[str, float]] = field(default_factory=dict)
    """Feed → the state that `changes` told last, and when (monotonic)."""

    def day_s(self) -> float:
        """Wall seconds of a grid day: fewer in a time-compressed replay."""
        reading = self.chain.reading_at(self.clock.now())
        return _DAY_S / (reading.source.time_compression if reading else 1.0)

    def poll_archive(self) -> None:
        """Add the forecast that holds now, where it is a new one."""
        self.archive.day_s = self.day_s()
        self.archive.add(self.clock.now(), self.chain.forecast())

    def changes(self) -> Iterator[FeedStatus]:
        """Feeds whose state is another than was told last, each told once."""
        now_s = self.clock.monotonic()
        for status in self.chain.status():
            state, at_s = self.told.get(status.name, ("untried", now_s - _TOLD_AGAIN_S))
            if status.state != state and now_s - at_s >= _TOLD_AGAIN_S:
                self.told[status.name] = status.state, now_s
                yield status
