"""Watches what a kWh costs: the price now and ahead, and sources of prices that fail and come back."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

from carbonsched.clock import Clock
from carbonsched.feeds.value_chain import ValueChain
from carbonsched.model.grid import Price, PricePoint, PriceView
from carbonsched.supervisor.grid_watch import changes


@dataclass(frozen=True, slots=True)
class PriceWatch:
    """The chain of prices, where the config has one.

    Example::

        watch = PriceWatch(build_prices(config.prices, site), clock)
        watch.view(24.0)
    """

    chain: ValueChain[Price] | None
    clock: Clock
    told: dict[str, tuple[str, float]] = field(default_factory=dict)
    """Source → the state that `changes` told last, and when (monotonic)."""

    def poll(self) -> None:
        """Ask the sources whose turn it is. Never raises."""
        if self.chain is not None:
            self.chain.poll_due()

    def changes(self) -> Iterator[dict[str, Any]]:
        """Sources whose state is another than was told last, each told once, as the journal has it beside those of feeds."""
        if self.chain is not None:
            for status in changes(self.chain.status(), self.told, self.clock.monotonic()):
                yield status.dump() | {"of": "prices"}

    def view(self, hours: float) -> PriceView | None:
        """What `carbonsched grid` shows; None without `[[prices]]`."""
        if self.chain is None:
            return None
        now = self.clock.now()
        price, sources = self.chain.reading_at(now), self.chain.status()
        reason = None
        if price is None:
            told = "; ".join(f"{one.name}: {one.error or one.state}" for one in sources)
            reason = f"no source knows the price now ({told})"
        ahead = tuple(
            PricePoint(start=one.start, end=one.end, eur_per_kwh=one.eur_per_kwh)
            for one in self.chain.ahead(now + timedelta(hours=hours))
        )
        return PriceView(now=price, reason=reason, ahead=ahead, feeds=sources)
