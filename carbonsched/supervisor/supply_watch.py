"""Watches the site's own supply: what it gives now, for how long that may be reckoned with, and feeds that fail and come back."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from carbonsched.clock import Clock
from carbonsched.feeds.supply.chain import SupplyChain
from carbonsched.model.grid import SupplyView
from carbonsched.supervisor.grid_watch import changes
from carbonsched.supervisor.metering import Metering


@dataclass(frozen=True, slots=True)
class SupplyWatch:
    """The chain of the supply, where the config has one.

    Example::

        watch = SupplyWatch(build_supply(config.supply, site), metering, clock)
        watch.view()
    """

    chain: SupplyChain | None
    metering: Metering
    """Power is held against what the box draws."""
    clock: Clock
    told: dict[str, tuple[str, float]] = field(default_factory=dict)
    """Feed → the state that `changes` told last, and when (monotonic)."""

    def poll(self) -> None:
        """Ask the feeds whose turn it is. Never raises."""
        if self.chain is not None:
            self.chain.poll_due()

    def changes(self) -> Iterator[dict[str, Any]]:
        """Feeds whose state is another than was told last, each told once, as the journal has it beside those of the grid."""
        if self.chain is not None:
            for status in changes(self.chain.status(), self.told, self.clock.monotonic()):
                yield status.dump() | {"of": "supply"}

    def view(self) -> SupplyView | None:
        """What `carbonsched grid` shows; None without `[[supply]]`."""
        return None if self.chain is None else self.chain.view(self.metering.box_kw())
