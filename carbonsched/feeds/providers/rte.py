"""Polls éCO2mix of RTE, France's grid operator, on the ODRÉ portal: no key, Licence Ouverte 2.0.

`taux_co2` is g CO2 per kWh of France's generation, average, at 15 minutes, an estimate that RTE makes continuously: what burning the
fuel emits, by energy source, and nothing else
(https://www.rte-france.com/eco2mix/les-emissions-de-co2-par-kwh-produit-en-france), so the factors are direct. `nature` says which
values have been consolidated since. Corsica is not in it, imports neither. There is no forecast, and no intensity of a region: the data
set of regions (`eco2mix-regional-tr`) has no `taux_co2`.
A page of the portal's API holds at most 100 records (https://help.opendatasoft.com/apis/ods-explore-v2/); its limit of requests a day
stands in the headers of its answers, not in words.
"""

from datetime import timedelta
from typing import Final, Literal

from carbonsched.errors import FeedError
from carbonsched.feeds.base import Answer, Site
from carbonsched.feeds.countries import check_country
from carbonsched.feeds.http_settings import HttpSettings
from carbonsched.feeds.provider import SETTLE_EVERY_S, Answered, HttpFeed, Time, Value, intervals
from carbonsched.model.base import Duration
from carbonsched.model.grid import Basis, Kind, Reading

_STEP: Final = timedelta(minutes=15)
_LONGEST: Final = timedelta(hours=1)
_PATH: Final = "/api/explore/v2.1/catalog/datasets/eco2mix-national-tr/records"
_PAGE: Final = 100
_RECENT: Final = 16
"""Records that a poll asks for: four hours."""
_REAL_TIME: Final = "temps réel"
"""Part of `nature` that names an estimate."""


class RteSettings(HttpSettings):
    """Keys of `[[feeds]]` with provider = "rte".

    Example:
        >>> RteSettings(provider="rte").every
        900.0
    """

    provider: Literal["rte"]
    every: Duration = 900.0
    """Pause between polls."""

    def build(self, site: Site) -> "RteFeed":
        """Raises InputError where the box stands in another country."""
        check_country(site.zone.name, "FR", self.provider)
        return RteFeed(self, site)


class _Record(Answered):
    date_heure: Time
    nature: str = ""
    perimetre: str = "France"
    taux_co2: Value | None


class _Records(Answered):
    results: list[_Record]


class RteFeed(HttpFeed):
    """Polls éCO2mix.

    Example::

        answer = RteFeed(RteSettings(provider="rte"), site).poll()
    """

    URL, SHOWN = "https://odre.opendatasoft.com", "RTE"

    def __init__(self, settings: RteSettings, site: Site) -> None:
        super().__init__(settings, site, "FR", Basis.AVERAGE_DIRECT)

    def poll(self) -> Answer:
        """One request, and once an hour two for the two days that have passed."""
        newest = self._page(_RECENT)
        past = self.once_in(SETTLE_EVERY_S, "past two days", self._past) or ()
        return self.answer((*past, *newest))

    def _past(self) -> tuple[Reading, ...]:
        since = self._clock.now() - self.settles
        pages = (self._page(_PAGE, offset) for offset in (_PAGE, 0))
        return tuple(reading for page in pages for reading in page if reading.end > since)

    def _page(self, limit: int, offset: int = 0) -> tuple[Reading, ...]:
        query = {"where": "taux_co2 is not null", "order_by": "date_heure desc", "limit": str(limit)}
        body = self.ask(_PATH, query | ({"offset": str(offset)} if offset else {}))
        records = self.parse(_Records, body.json).results
        points, kinds = {}, {}
        # the newest comes first: of two for one time it wins
        for record in reversed(records):
            if record.perimetre != "France":
                raise FeedError(f"{self._url}: the answer is of {record.perimetre[:30]!r}, not of France")
            if record.taux_co2 is not None:
                points[record.date_heure] = record.taux_co2
                kinds[record.date_heure] = _kind(record.nature)
        found = intervals(points.items(), _STEP, _LONGEST)
        return tuple(
            reading
            for kind in (Kind.ESTIMATED, Kind.ACTUAL)
            for reading in self.readings(
                (one for one in found if kinds[one[0]] is kind), self.source(kind, body)
            )
        )


def _kind(nature: str) -> Kind:
    return Kind.ESTIMATED if not nature or _REAL_TIME in nature.lower() else Kind.ACTUAL
