"""Polls Energy-Charts of Fraunhofer ISE for a European country: no key, CC BY 4.0.

`co2eq` is g CO2 equivalent per kWh of a country's generation, average, at 15 or 60 minutes by the country; it is told about three
hours late, nulls until then. `co2eq_forecast` reaches to the end of today, in the evening to the end of tomorrow.
Its specification (version 1.5, https://api.energy-charts.info/openapi.json) has no word on whether the factors count
combustion alone or the life cycle, and its values tell two tales: a fit to Germany's generation gives direct factors
(https://github.com/vadimusk/netz-live, Emissions.php); the 10 to 17 g of Switzerland, which burns next to nothing, are none
(https://github.com/bluehands/Carbon-Aware-Computing, tests). So the basis is unstated.
It speaks of rate limits "for the public API" and gives no number: one request an interval is made, and one an hour for the past.
"""

import logging
from datetime import datetime, timedelta
from typing import Annotated, Final, Literal, Self

from pydantic import AfterValidator, Field, model_validator

from carbonsched.errors import InputError
from carbonsched.feeds.base import Answer, Site
from carbonsched.feeds.http_settings import HttpSettings
from carbonsched.feeds.provider import SETTLE_EVERY_S, Answered, HttpFeed, Interval, Time, Value, intervals
from carbonsched.model.base import Duration
from carbonsched.model.grid import Basis, Kind, Reading

_STEP: Final = timedelta(minutes=15)
_LONGEST: Final = timedelta(hours=1)
_OTHERWISE_CALLED: Final = {"gb": "uk", "el": "gr"}
COUNTRIES: Final = frozenset(
    [
        "al",
        "am",
        "at",
        "az",
        "ba",
        "be",
        "bg",
        "by",
        "ch",
        "cy",
        "cz",
        "de",
        "dk",
        "ee",
        "es",
        "fi",
        "fr",
        "ge",
        "gr",
        "hr",
        "hu",
        "ie",
        "it",
        "lt",
        "lu",
        "lv",
        "md",
        "me",
        "mk",
        "mt",
        "nie",
        "nl",
        "no",
        "pl",
        "pt",
        "ro",
        "rs",
        "ru",
        "se",
        "si",
        "sk",
        "tr",
        "ua",
        "uk",
        "xk",
        "all",
        "eu",
    ]
)
"""What the specification lists: ISO 3166 in small letters, `nie` for Northern Ireland, `eu`, and `all` for Europe."""

log = logging.getLogger(__name__)


def _country(code: str) -> str:
    small = code.strip().lower()
    return _OTHERWISE_CALLED.get(small, small)


class EnergyChartsSettings(HttpSettings):
    """Keys of `[[feeds]]` with provider = "energy-charts".

    Example:
        >>> EnergyChartsSettings(provider="energy-charts", country="DE").country
        'de'
    """

    provider: Literal["energy-charts"]
    country: Annotated[str, AfterValidator(_country), Field(pattern=r"^\s*[A-Za-z]{2,3}\s*$")] | None = None
    """Country's code; None: the zone's name, where it is one."""
    every: Duration = 900.0
    """Pause between polls."""

    def build(self, site: Site) -> "EnergyChartsFeed":
        """Raises InputError where neither a country is given nor the zone is called like one."""
        country = self.country or _country(site.zone.name)
        if self.country is None and country not in COUNTRIES:
            hint = 'give the country\'s code, e.g. country = "de"'
            raise InputError("country", f"is missing, and the zone {site.zone.name!r} is no country", hint)
        return EnergyChartsFeed(self, site, country)


class _Series(Answered):
    """Columns of one table; the forecast's is missing where there is none."""

    unix_seconds: list[Time]
    co2eq: list[Value | None]
    co2eq_forecast: list[Value | None] = []
    deprecated: bool = False

    @model_validator(mode="after")
    def _as_long(self) -> Self:
        for name in ("co2eq", "co2eq_forecast"):
            if getattr(self, name) and len(getattr(self, name)) != len(self.unix_seconds):
                raise ValueError(f"{name} is not as long as unix_seconds")
        return self

    def column(self, name: Literal["co2eq", "co2eq_forecast"]) -> dict[datetime, float]:
        values: list[float | None] = getattr(self, name)
        return {at: value for at, value in zip(self.unix_seconds, values, strict=False) if value is not None}


class EnergyChartsFeed(HttpFeed):
    """Polls Energy-Charts.

    Example::

        answer = EnergyChartsFeed(EnergyChartsSettings(provider="energy-charts"), site, "de").poll()
    """

    URL, SHOWN = "https://api.energy-charts.info", "Energy-Charts"

    def __init__(self, settings: EnergyChartsSettings, site: Site, country: str) -> None:
        super().__init__(settings, site, country.upper(), Basis.AVERAGE_UNSTATED)
        self._country, self._deprecated = country, False

    def poll(self) -> Answer:
        """One request, and once an hour another for the two days that have passed."""
        body = self.ask("/co2eq", {"country": self._country})
        series = self.parse(_Series, body.json)
        if series.deprecated and not self._deprecated:
            log.warning("feed %s: Energy-Charts is about to end /co2eq: it calls it deprecated", self.name)
        self._deprecated = series.deprecated
        measured, expected = series.column("co2eq"), series.column("co2eq_forecast")
        # one axis for both, so that none overlaps: where nothing is measured the forecast stands in
        merged = self._intervals({**expected, **measured})
        said, now = self.source(Kind.FORECAST, body), self._clock.now()
        past = self.once_in(SETTLE_EVERY_S, "past two days", self._past) or ()
        begun = self.readings((one for one in merged if one[0] <= now and one[0] not in measured), said)
        told = self.readings((one for one in merged if one[0] in measured), self.source(Kind.ACTUAL, body))
        return self.answer((*past, *begun, *told), [one for one in merged if one[0] not in measured], said)

    def _past(self) -> tuple[Reading, ...]:
        now = self._clock.now()
        span = {"start": f"{now - self.settles:%Y-%m-%dT%H:%MZ}", "end": f"{now:%Y-%m-%dT%H:%MZ}"}
        body = self.ask("/co2eq", {"country": self._country, **span})
        measured = self.parse(_Series, body.json).column("co2eq")
        return self.readings(self._intervals(measured), self.source(Kind.ACTUAL, body))

    def _intervals(self, values: dict[datetime, float]) -> list[Interval]:
        return intervals(values.items(), _STEP, _LONGEST)
