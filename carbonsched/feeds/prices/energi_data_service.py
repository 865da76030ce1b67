"""Polls Energi Data Service of Energinet for Denmark's day-ahead prices: no key, free of charge.

`DayAheadPrices` has a row a quarter of an hour since 2025-10-01, when it took the place of `Elspotprices`, which ended the day
before (https://www.energidataservice.dk/tso-electricity/DayAheadPrices, https://github.com/evcc-io/evcc/pull/23986); tomorrow's
come about 13:00. `DayAheadPriceEUR` is EUR/MWh; the column of DKK beside it is left alone. Times and limits are those of the feed
of intensities (`feeds/providers/energi_data_service.py`): UTC without an offset, one request a minute for the data set.
"""

from typing import Literal

from pydantic import Field

from carbonsched.errors import FeedError
from carbonsched.feeds.base import Site, Values
from carbonsched.feeds.prices.base import LONGEST, STEP, HttpPriceSettings, MarketPrices
from carbonsched.feeds.provider import Answered, UtcTime, Value, intervals
from carbonsched.feeds.providers.energi_data_service import EnergiDataServiceFeed, price_area, query
from carbonsched.model.grid import Price


class EnergiDataServicePriceSettings(HttpPriceSettings):
    """Keys of `[[prices]]` with provider = "energi-data-service".

    Example:
        >>> EnergiDataServicePriceSettings(provider="energi-data-service", price_area="DK2").price_area
        'DK2'
    """

    provider: Literal["energi-data-service"]
    price_area: Literal["DK1", "DK2"] | None = None
    """West or east of the Great Belt; None: the zone's name says it."""

    def build(self, site: Site) -> "EnergiDataServicePrices":
        """Raises InputError where neither an area is given nor the zone is called like one."""
        return EnergiDataServicePrices(self, site, price_area(self.price_area, site))


class _Record(Answered):
    at: UtcTime = Field(alias="TimeUTC")
    area: str = Field(alias="PriceArea")
    eur_per_mwh: Value | None = Field(alias="DayAheadPriceEUR")


class _Records(Answered):
    records: list[_Record]


class EnergiDataServicePrices(MarketPrices):
    """Polls Energi Data Service.

    Example::

        prices = EnergiDataServicePrices(settings, site, "DK1").poll()
    """

    URL, SHOWN = EnergiDataServiceFeed.URL, EnergiDataServiceFeed.SHOWN
    LIMITS, LIMITS_EACH_PATH, TRIES = EnergiDataServiceFeed.LIMITS, True, 1

    def __init__(self, settings: EnergiDataServicePriceSettings, site: Site, area: str) -> None:
        super().__init__(settings, site, area)

    def poll(self) -> Values[Price]:
        """One request, from yesterday, or from a week ago, to tomorrow's end."""
        now = self._clock.now()
        body = self.ask("/dataset/DayAheadPrices", query(now - self.since(), now, self.zone, "TimeUTC"))
        records = self.parse(_Records, body.json).records
        for record in records:
            if record.area != self.zone:
                raise FeedError(f"{self._url}: the answer is of {record.area[:20]!r}, not of {self.zone}")
        known = [(record.at, record.eur_per_mwh) for record in records if record.eur_per_mwh is not None]
        return self.answer(intervals(known, STEP, LONGEST), body)
