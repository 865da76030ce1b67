"""Finds the PUE that holds: by its feed; if that is silent, by the hour; if no hourly value is configured, the year's."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from carbonsched.clock import Clock
from carbonsched.config import Config
from carbonsched.feeds.value_chain import ValueChain
from carbonsched.model.grid import PueReading
from carbonsched.pue import Stated, pue_at, pue_changes
from carbonsched.supervisor.feed_states import changes
from carbonsched.supervisor.value_window import changes as changes_of


@dataclass(frozen=True, slots=True)
class PueWatch:
    """The current PUE, and its source.

    Example::

        pue, source = PueWatch(build_pue_feed(config.pue_feed, site), lambda: config, clock).at(clock.now())
    """

    chain: ValueChain[PueReading] | None
    config: Callable[[], Config]
    """The config as last reloaded by SIGHUP."""
    clock: Clock
    told: dict[str, tuple[str, float]] = field(default_factory=dict)
    """Feed → the state that `changes` last reported, and when (monotonic)."""

    def poll(self) -> None:
        """Poll the feed if it is due. Never raises."""
        if self.chain is not None:
            self.chain.poll_due()

    def at(self, moment: datetime) -> Stated:
        reading = None if self.chain is None else self.chain.reading_at(moment)
        if reading is not None:
            said = "; ".join(part for part in (reading.source.provider, reading.source.note) if part)
            return reading.pue, said
        config = self.config()
        return pue_at(config.pue_hours, (config.pue, config.pue_source), moment)

    def edges(self, start: datetime, end: datetime) -> set[datetime]:
        """Times inside (start, end) at which the PUE may change."""
        found = set() if self.chain is None else changes_of(self.chain, start, end)
        hours = self.config().pue_hours
        return found | pue_changes(hours, start, end) if hours else found

    def applied(self) -> Config:
        """The config with the current PUE, for everything that computes with one."""
        config = self.config()
        if self.chain is None and not config.pue_hours:
            return config
        pue, source = self.at(self.clock.now())
        return config.model_copy(update={"pue": pue, "pue_source": source})

    def changes(self) -> Iterator[dict[str, Any]]:
        """The feed if its state changed, as the journal records it for the grid's feeds."""
        if self.chain is not None:
            for status in changes(self.chain.status(), self.told, self.clock.monotonic()):
                yield status.dump() | {"of": "pue"}
