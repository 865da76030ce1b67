"""Watches the price of a kWh, now and ahead, and notices price sources that fail and recover."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

from carbonsched.clock import Clock
from carbonsched.errors import InputError
from carbonsched.feeds.value_chain import ValueChain
from carbonsched.model.grid import Price, PricePoint, PriceView
from carbonsched.model.job import JobSpec
from carbonsched.supervisor.feed_states import changes

Stretch = tuple[float, float, float]
"""(start_s, end_s, EUR/kWh), seconds from now."""


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
    """Source → the state that `changes` last reported, and when (monotonic)."""

    def poll(self) -> None:
        """Poll the sources that are due. Never raises."""
        if self.chain is not None:
            self.chain.poll_due()

    def now(self) -> float | None:
        """The current price in EUR/kWh; None if unknown."""
        price = self.chain.reading_at(self.clock.now()) if self.chain is not None else None
        return None if price is None else price.eur_per_kwh

    def stretches(self, until_s: float, since_s: float) -> tuple[tuple[Stretch, ...], tuple[Stretch, ...]]:
        """(published prices from now on, past prices), in seconds from now."""
        if self.chain is None:
            return (), ()
        now = self.clock.now()
        published = self.chain.ahead(now + timedelta(seconds=until_s))
        past = self.chain.history(now - timedelta(seconds=since_s))

        def stretches(prices: Iterable[Price]) -> tuple[Stretch, ...]:
            return tuple(
                ((p.start - now).total_seconds(), (p.end - now).total_seconds(), p.eur_per_kwh)
                for p in prices
            )

        return stretches(published), stretches(past)

    def check(self, spec: JobSpec) -> None:
        """Raise InputError for a job that weighs money if no price is known."""
        if spec.carbon.eur_per_kg is not None and self.chain is None:
            hint = "add [[prices]] to it and start the daemon anew, or drop the key"
            raise InputError("carbon.eur_per_kg", "weighs prices, and the daemon's config has none", hint)

    def changes(self) -> Iterator[dict[str, Any]]:
        """Sources whose state changed, each reported once, as the journal records it for feeds."""
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
