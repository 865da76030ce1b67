"""Polls the Transparency Platform (ENTSO-E) for the day-ahead price of a bidding zone (A44).

EUR/MWh at 15, 30 or 60 minutes, tomorrow's from about 13:00 in Brussels. A zone may have several series for one day that
differ in their classification sequence alone: 1, or none, is the coupled auction's; 2 is another auction's (EXAA at 10:15 in DE-LU),
or, before the change to quarters, another resolution's; their order in the document means nothing
(https://github.com/EnergieID/entsoe-py, and answers of 2026-09 and 2026-10 in public repositories). Zones with a currency of their
own are refused rather than converted. Token, limits and curve types are those of the feed of intensities. The Web API was reported
out since 2026-08-30, so have another source behind this one.
"""

from collections.abc import Iterator
from datetime import datetime
from typing import Annotated, Final, Literal
from xml.etree import ElementTree

from pydantic import StringConstraints, ValidationError

from carbonsched.errors import FeedError
from carbonsched.feeds.base import Site, Values
from carbonsched.feeds.entso_e_documents import HINTS, LIMITS, URL, code_of, document, not_documented, points
from carbonsched.feeds.http_settings import TokenKeys
from carbonsched.feeds.prices.base import AHEAD, LATELY, STEP, HttpPriceSettings, MarketPrices
from carbonsched.feeds.provider import Interval, place
from carbonsched.model.grid import Price

_SEQUENCE: Final = "{*}classificationSequence_AttributeInstanceComponent.position"


class EntsoePriceSettings(TokenKeys, HttpPriceSettings):
    """Keys of `[[prices]]` with provider = "entso-e".

    Example:
        >>> EntsoePriceSettings(provider="entso-e", zone="DE-LU", token_env="ENTSOE_TOKEN").zone
        'DE-LU'
    """

    provider: Literal["entso-e"]
    zone: Annotated[str, StringConstraints(min_length=1)] | None = None
    """Bidding zone, by name or EIC code; None: the config's."""

    def build(self, site: Site) -> "EntsoePrices":
        """Raises InputError for a zone that is not known, and for a token that is nowhere."""
        return EntsoePrices(self, site)


class EntsoePrices(MarketPrices):
    """Polls the Transparency Platform's day-ahead prices.

    Example::

        prices = EntsoePrices(EntsoePriceSettings(provider="entso-e", zone="FR", token_env="ENTSOE_TOKEN"), site).poll()
    """

    URL, SHOWN, LIMITS, HINTS = URL, "ENTSO-E", LIMITS, HINTS

    def __init__(self, settings: EntsoePriceSettings, site: Site) -> None:
        name = place(settings.zone, site, "zone")
        self._eic = code_of(name)
        super().__init__(settings, site, name)
        self._token = settings.token()

    def poll(self) -> Values[Price]:
        """One request, from yesterday to tomorrow's end: fewer than the 1,000 rows at which an answer is cut."""
        now = self._clock.now().replace(minute=0, second=0, microsecond=0)
        body = self.ask(
            "/api",
            {
                "securityToken": self._token.read(),
                "documentType": "A44",
                "contract_MarketAgreement.type": "A01",
                "in_Domain": self._eic,
                "out_Domain": self._eic,
                "periodStart": f"{now - LATELY:%Y%m%d%H%M}",
                "periodEnd": f"{now + AHEAD:%Y%m%d%H%M}",
            },
            {"Accept": "application/xml"},
            json=False,
        )
        try:
            root = document(body, "Publication_MarketDocument", self._url, self.zone)
            series = sorted(root.iterfind("{*}TimeSeries"), key=_sequence)
            return self.answer(self._prices(series), body)
        except ValidationError as e:
            raise not_documented(e, self._url) from e

    def _prices(self, series: list[ElementTree.Element]) -> list[Interval]:
        """The prices of the first sequence, each time at its finest resolution."""
        told = (one for of in series if _sequence(of) == _sequence(series[0]) for one in self._of(of))
        taken: dict[datetime, Interval] = {}
        for start, end, value in sorted(told, key=lambda one: one[1] - one[0]):
            quarters = (start + i * STEP for i in range(max((end - start) // STEP, 1)))
            if not any(at in taken for at in quarters):
                taken |= {start + i * STEP: (start, end, value) for i in range((end - start) // STEP)}
        return list(dict.fromkeys(taken.values()))

    def _of(self, series: ElementTree.Element) -> Iterator[Interval]:
        zone = series.findtext("{*}in_Domain.mRID")
        if zone != self._eic:
            raise FeedError(
                f"{self._url}: the answer is of {(zone or 'no zone')[:20]!r}, asked was {self._eic}"
            )
        currency, unit = (
            series.findtext(f"{{*}}{name}") for name in ("currency_Unit.name", "price_Measure_Unit.name")
        )
        if (currency, unit) != ("EUR", "MWH"):
            raise FeedError(f"{self._url}: the prices are in {currency}/{unit}, not in EUR/MWH")
        holds = series.findtext("{*}curveType") == "A03"
        for period in series.iterfind("{*}Period"):
            yield from points(period, "price.amount", self._url, holds=holds)


def _sequence(series: ElementTree.Element) -> str:
    return series.findtext(_SEQUENCE) or "1"
