"""Polls Energi Data Service of Energinet, Denmark's grid operator: no key, free of charge.

`CO2Emis` is g CO2 per kWh of the electricity used in a price area: what power plants emit as they burn, per plant above 10 MW, imports
counted, co-produced heat taken off by the 125% method; average, every 5 minutes, written each 15.
https://www.energidataservice.dk/en/dataset/co2emis. So the factors are direct. `CO2EmisProg` is made of the plants' schedules and
reaches at least 9 hours ahead. Times come without an offset, in UTC where the column says so; `start` and `end` are Danish time.
One request a minute for each dataset, for all who share an address (https://www.energidataservice.dk/guides/api-guides, since
2025-08-26): within a minute what was answered before is answered again.
"""

import json
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Final, Literal

from pydantic import Field

from carbonsched.errors import FeedError, InputError
from carbonsched.feeds.base import Answer, Site
from carbonsched.feeds.http_settings import HttpSettings
from carbonsched.feeds.provider import Answered, HttpFeed, Interval, UtcTime, Value, intervals
from carbonsched.feeds.transport import Body, Limit, RetryLaterError
from carbonsched.model.grid import Basis, Kind, Source

_STEP: Final = timedelta(minutes=5)
_LONGEST: Final = timedelta(hours=1)
_LATELY: Final = timedelta(hours=3)
_AHEAD: Final = timedelta(days=2)
_MINUTE_S: Final = 60.0
_PAUSE_S: Final = _MINUTE_S + 1.0
"""The limit counts both ends of its minute."""
_CLOCKS_AHEAD: Final = timedelta(hours=1)
_AREAS: Final = {"DK1": "DK1", "DK2": "DK2", "DK-DK1": "DK1", "DK-DK2": "DK2"}
"""What the zone may be called → the price area."""


class EnergiDataServiceSettings(HttpSettings):
    """Keys of `[[feeds]]` with provider = "energi-data-service".

    Example:
        >>> EnergiDataServiceSettings(provider="energi-data-service", price_area="DK2").every
        300.0
    """

    provider: Literal["energi-data-service"]
    price_area: Literal["DK1", "DK2"] | None = None
    """West or east of the Great Belt; None: the zone's name says it."""

    def build(self, site: Site) -> "EnergiDataServiceFeed":
        """Raises InputError where neither an area is given nor the zone is called like one."""
        return EnergiDataServiceFeed(self, site, price_area(self.price_area, site))


def price_area(given: str | None, site: Site) -> str:
    """The area that is given, or the zone's. Raises InputError where there is neither."""
    area = given or _AREAS.get(site.zone.name)
    if area is None:
        problem = f"is missing, and the zone {site.zone.name!r} is none"
        raise InputError("price_area", problem, "give DK1 (west of the Great Belt) or DK2 (east of it)")
    return area


def query(since: datetime, now: datetime, area: str, column: str) -> dict[str, str]:
    """What a data set is asked for: the records of an area from `since` on, ascending by the column of their time."""
    # Danish clocks are one or two hours ahead of UTC: by one, no record is missed, and an hour more is no harm
    start, end = since + _CLOCKS_AHEAD, now + _CLOCKS_AHEAD + _AHEAD
    return {
        "start": f"{start:%Y-%m-%dT%H:%M}",
        "end": f"{end:%Y-%m-%dT%H:%M}",
        "filter": json.dumps({"PriceArea": [area]}, separators=(",", ":")),
        "sort": f"{column} ASC",
        "limit": "0",
    }


class _Record(Answered):
    at: UtcTime = Field(alias="Minutes5UTC")
    area: str = Field(alias="PriceArea")
    g_per_kwh: Value | None = Field(alias="CO2Emission")


class _Records(Answered):
    records: list[_Record]


class EnergiDataServiceFeed(HttpFeed):
    """Polls Energi Data Service.

    Example::

        answer = EnergiDataServiceFeed(settings, site, "DK1").poll()
    """

    URL, SHOWN = "https://api.energidataservice.dk", "Energi Data Service"
    LIMITS, LIMITS_EACH_PATH, TRIES = (Limit(1, per_s=_MINUTE_S),), True, 1

    def __init__(self, settings: EnergiDataServiceSettings, site: Site, area: str) -> None:
        super().__init__(settings, site, area, Basis.AVERAGE_DIRECT)
        self._area = area
        self._asked: dict[str, tuple[float, Body | FeedError]] = {}
        """Dataset → when it was asked for last, and what came."""

    def poll(self) -> Answer:
        """One request for each dataset; once an hour the first reaches two days back."""
        now = self._clock.now()
        back = self.settles if self._before("CO2Emis") is None and self.is_due("past") else _LATELY
        try:
            body = self._dataset("CO2Emis", now - back)
        except FeedError:
            self.ask_soon("past")
            raise
        told = self.readings(self._intervals(body), self.source(Kind.ACTUAL, body))
        ahead, said = self.unless_missing("forecast", lambda: self._forecast(now)) or ((), None)
        return self.answer(told, ahead, said)

    def _forecast(self, now: datetime) -> tuple[Sequence[Interval], Source]:
        body = self._dataset("CO2EmisProg", now - _LATELY)
        return self._intervals(body), self.source(Kind.FORECAST, body)

    def _intervals(self, body: Body) -> list[Interval]:
        records = self.parse(_Records, body.json).records
        for record in records:
            if record.area != self._area:
                raise FeedError(f"{self._url}: the answer is of {record.area[:20]!r}, not of {self._area}")
        points = ((record.at, record.g_per_kwh) for record in records if record.g_per_kwh is not None)
        return intervals(points, _STEP, _LONGEST)

    def _dataset(self, name: str, since: datetime) -> Body:
        """The records from `since` on; what came before where that is less than a minute ago."""
        if (before := self._before(name)) is not None:
            if isinstance(before, FeedError):
                raise before
            return before
        found: Body | FeedError
        try:
            found = self.ask(f"/dataset/{name}", query(since, self._clock.now(), self._area, "Minutes5UTC"))
        except FeedError as e:
            found = e
        self._asked[name] = self._clock.monotonic(), found
        if isinstance(found, FeedError):
            raise found
        return found

    def _before(self, name: str) -> Body | FeedError | None:
        """What came of the dataset less than a minute ago: an error then says when to come back."""
        asked_s, found = self._asked.get(name, (0.0, None))
        left_s = asked_s + _PAUSE_S - self._clock.monotonic()
        if found is None or left_s <= 0:
            return None
        return RetryLaterError(str(found), left_s) if isinstance(found, FeedError) else found
