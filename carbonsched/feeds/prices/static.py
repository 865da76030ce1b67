"""Answers a tariff: one price for all hours, as the user's contract says; labelled `static`, or `fallback` behind other sources."""

from typing import Annotated, Literal

from pydantic import Field

from carbonsched.clock import Clock
from carbonsched.feeds.base import Site
from carbonsched.feeds.constant import Constant
from carbonsched.feeds.plausibility import LEAST_EUR_PER_KWH, MOST_EUR_PER_KWH
from carbonsched.feeds.prices.base import PriceSettings
from carbonsched.model.grid import Kind, Price, Source


class StaticPriceSettings(PriceSettings):
    """Keys of `[[prices]]` with provider = "static".

    Example:
        >>> StaticPriceSettings(provider="static", eur_per_kwh=0.31, source="contract of 2026, taxes included").eur_per_kwh
        0.31
    """

    provider: Literal["static"]
    eur_per_kwh: Annotated[float, Field(ge=LEAST_EUR_PER_KWH, le=MOST_EUR_PER_KWH)]
    """What a kWh costs, whatever the hour."""
    source: Annotated[str, Field(min_length=1)]
    """Where that comes from, e.g. the contract, and what is in it."""

    def build(self, site: Site) -> "StaticPrice":
        return StaticPrice(self, site.zone.name, site.clock)


class StaticPrice(Constant[Price]):
    """Answers one price.

    Example::

        settings = StaticPriceSettings(provider="static", eur_per_kwh=0.31, source="contract")
        StaticPrice(settings, "DE", SystemClock()).poll().readings[-1].eur_per_kwh
    """

    def __init__(self, settings: StaticPriceSettings, zone: str, clock: Clock) -> None:
        source = Source(
            provider=settings.shown_name,
            zone=zone,
            kind=Kind.FALLBACK,
            fetched_at=clock.now(),
            note=settings.source,
        )
        super().__init__(clock, Price.of, settings.eur_per_kwh, source, settings.max_age)

    def as_source(self) -> None:
        """From now on it is what the config states as the source, and stands in for nobody."""
        self._source = self._source.model_copy(update={"kind": Kind.STATIC})

    def years(self) -> tuple[Price, ...]:
        """The next one, too: in December it is ahead."""
        return (*super().years(), self._reading(self._clock.now().year + 1))
