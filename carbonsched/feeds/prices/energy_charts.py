"""Polls Energy-Charts of Fraunhofer ISE for the day-ahead price of a European bidding zone: no key.

`/price?bzn=…` answers EUR/MWh at 15 or 60 minutes by the zone, in columns on one axis of Unix times; from about 13:00 in
Berlin on with those of tomorrow. `license_info` says whose figures they are and on which terms (CC BY 4.0 of the
Bundesnetzagentur's SMARD.de for Germany and its neighbours); it is kept with every price. Specification:
https://api.energy-charts.info/openapi.json; answers of 2025-12 and 2026-09 are in public repositories. It speaks of rate
limits "for the public API" and gives no number: one request an hour is made.
"""

from datetime import datetime
from typing import Annotated, Final, Literal, Self

from pydantic import Field, model_validator

from carbonsched.errors import FeedError
from carbonsched.feeds.base import Site, Values
from carbonsched.feeds.prices.base import AHEAD, LONGEST, STEP, HttpPriceSettings, MarketPrices
from carbonsched.feeds.provider import Answered, Time, Value, intervals, place
from carbonsched.model.grid import Price

_UNIT: Final = "EUR / MWh"
_ZONES: Final = {"DE": "DE-LU", "LU": "DE-LU", "DK-DK1": "DK1", "DK-DK2": "DK2"}
"""What the config's zone may be called → the bidding zone, where that is another name."""


class EnergyChartsPriceSettings(HttpPriceSettings):
    """Keys of `[[prices]]` with provider = "energy-charts".

    Example:
        >>> EnergyChartsPriceSettings(provider="energy-charts", zone="DE-LU").every
        3600.0
    """

    provider: Literal["energy-charts"]
    zone: Annotated[str, Field(pattern=r"^[A-Za-z0-9-]{2,20}$")] | None = None
    """Bidding zone as Energy-Charts names it; None: the config's."""

    def build(self, site: Site) -> "EnergyChartsPrices":
        """Raises InputError where neither a zone is given nor the config has one."""
        zone = place(self.zone, site, "zone")
        return EnergyChartsPrices(self, site, _ZONES.get(zone, zone))


class _Series(Answered):
    unix_seconds: list[Time]
    price: list[Value | None]
    unit: str
    license_info: str = ""

    @model_validator(mode="after")
    def _as_long(self) -> Self:
        if len(self.price) != len(self.unix_seconds):
            raise ValueError("price is not as long as unix_seconds")
        return self


class EnergyChartsPrices(MarketPrices):
    """Polls Energy-Charts.

    Example::

        prices = EnergyChartsPrices(EnergyChartsPriceSettings(provider="energy-charts"), site, "DE-LU").poll()
    """

    URL, SHOWN = "https://api.energy-charts.info", "Energy-Charts"

    def __init__(self, settings: EnergyChartsPriceSettings, site: Site, zone: str) -> None:
        super().__init__(settings, site, zone)

    def poll(self) -> Values[Price]:
        """One request, from yesterday, or from a week ago, to tomorrow's end."""
        now = self._clock.now()
        span = {"start": _time_text(now - self.since()), "end": _time_text(now + AHEAD)}
        body = self.ask("/price", {"bzn": self.zone, **span})
        series = self.parse(_Series, body.json)
        if series.unit.replace(" ", "") != _UNIT.replace(" ", ""):
            raise FeedError(f"{self._url}: the answer is in {series.unit[:20]!r}, not in {_UNIT}")
        told = zip(series.unix_seconds, series.price, strict=True)
        known = [(at, value) for at, value in told if value is not None]
        return self.answer(intervals(known, STEP, LONGEST), body, " ".join(series.license_info.split())[:160])


def _time_text(at: datetime) -> str:
    return f"{at:%Y-%m-%dT%H:%MZ}"
