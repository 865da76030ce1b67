"""Watches the PUE: by its feed, where that is silent by the hour's, and where none is stated for the hour by the year's."""

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
    """Which PUE holds, and on whose word.

    Example::

        pue, source = PueWatch(build_pue_feed(config.pue_feed, site), lambda: config, clock).at(clock.now())
    """

    chain: ValueChain[PueReading] | None
    config: Callable[[], Config]
    """As SIGHUP left it."""
    clock: Clock
    told: dict[str, tuple[str, float]] = field(default_factory=dict)
    """Feed → the state that `changes` told last, and when (monotonic)."""

    def poll(self) -> None:
        """Ask the feed if it is its turn. Never raises."""
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
        """Moments inside (start, end) at which another one may hold."""
        found = set() if self.chain is None else changes_of(self.chain, start, end)
        hours = self.config().pue_hours
        return found | pue_changes(hours, start, end) if hours else found

    def applied(self) -> Config:
        """The config with the PUE that holds now, for all that reckons with one."""
        config = self.config()
        if self.chain is None and not config.pue_hours:
            return config
        pue, source = self.at(self.clock.now())
        return config.model_copy(update={"pue": pue, "pue_source": source})

    def changes(self) -> Iterator[dict[str, Any]]:
        """The feed where its state is another than was told last, as the journal has it beside those of the grid."""
        if self.chain is not None:
            for status in changes(self.chain.status(), self.told, self.clock.monotonic()):
                yield status.dump() | {"of": "pue"}
