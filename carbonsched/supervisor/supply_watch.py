"""Watches the site's own supply: its current value and how long that may be relied on; notices feeds that fail and recover."""

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from carbonsched.clock import Clock
from carbonsched.feeds.supply.chain import SupplyChain, share_of
from carbonsched.model.grid import SupplyReading, SupplyUnit, SupplyView
from carbonsched.power.base import Device
from carbonsched.supervisor.feed_states import changes
from carbonsched.supervisor.metering import Metering
from carbonsched.text import figure

_DOUBTFUL = 20.0
"""A power above this many times what the box can draw is probably not in kW."""

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Expected:
    """What the supply is expected to give, and for how long.

    Example:
        >>> Expected(0.5, 40.0, datetime(2026, 3, 1)).mixed(400.0)
        220.0
    """

    share: float
    g_per_kwh: float
    until: datetime

    def mixed(self, grid_g_per_kwh: float) -> float:
        """The grid's intensity with the supply counted."""
        return (1 - self.share) * grid_g_per_kwh + self.share * self.g_per_kwh


@dataclass(frozen=True, slots=True)
class SupplyWatch:
    """The chain of the supply, where the config has one.

    Example::

        watch = SupplyWatch(build_supply(config.supply, site), metering, clock)
        watch.view()
    """

    chain: SupplyChain | None
    metering: Metering
    """A supply in kW is compared with the box's power."""
    clock: Clock
    devices: Sequence[Device] = ()
    """The box's devices; their rating is what it can draw before it has been measured."""
    told: dict[str, tuple[str, float]] = field(default_factory=dict)
    """Feed → the state that `changes` last reported, and when (monotonic)."""
    doubted: set[str] = field(default_factory=set)
    """Feeds whose power the log has questioned."""

    def poll(self) -> None:
        """Poll the feeds that are due. Never raises."""
        if self.chain is not None:
            self.chain.poll_due()

    def changes(self) -> Iterator[dict[str, Any]]:
        """Feeds whose state changed, each reported once, as the journal records it for the grid's feeds."""
        if self.chain is not None:
            for status in changes(self.chain.status(), self.told, self.clock.monotonic()):
                yield status.dump() | {"of": "supply"}

    def expected(self) -> "Expected | None":
        """What it is expected to give from now on; None if unknown. Of a supply in kW the box's highest power so far counts, because a job
        that is about to start will draw it too."""
        if self.chain is None or (reading := self.chain.reading_at(self.clock.now())) is None:
            return None
        share = share_of(reading, self.metering.box_kw(most=True))
        if share is None:
            return None
        return Expected(share, reading.g_per_kwh, self.chain.holds_until(reading))

    def view(self) -> SupplyView | None:
        """What `carbonsched grid` shows; None without `[[supply]]`."""
        if self.chain is None:
            return None
        view = self.chain.view(self.metering.box_kw())
        return view.model_copy(update={"doubt": self._doubt(self.chain.reading_at(self.clock.now()))})

    def log_doubt(self) -> None:
        """Warn once per feed that its power is probably not in kW."""
        reading = None if self.chain is None else self.chain.reading_at(self.clock.now())
        doubt = self._doubt(reading)
        if reading is not None and doubt is not None and reading.source.provider not in self.doubted:
            self.doubted.add(reading.source.provider)
            log.warning("the supply of %s: %s", reading.source.provider, doubt)

    def _doubt(self, reading: SupplyReading | None) -> str | None:
        if reading is None or reading.unit is not SupplyUnit.KW:
            return None
        rated = {device.id: device.watts_limit or 0.0 for device in self.devices}
        most_kw = self.metering.box_kw(most=True, rated_w=rated)
        if not most_kw or reading.amount <= _DOUBTFUL * most_kw:
            return None
        times, most = figure(reading.amount / most_kw), figure(most_kw, "kW")
        return f"{figure(reading.amount, 'kW')} is {times} times the {most} that the box draws at most: is it in W?"
