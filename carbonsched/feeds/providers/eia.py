"""Polls the United States' Energy Information Administration, form EIA-930: what each balancing authority generates.

Hourly net generation by energy source, one to two hours late, of one of some 60 balancing authorities or a region; revised
for days. The intensity is made of it here (see `generation_mix`): production-based, average, lifecycle or direct as `basis`
or the zone's says, an estimate. There is no forecast of it. A free key: https://www.eia.gov/opendata/register.php; public
domain; fewer than 9,000 requests an hour and 5 a second, else the key is suspended. A period is UTC and names the end of its hour, as in the
six-month files of the same form. Storage (BAT, PS and the like) is left out. An answer repeats the key that it was asked with.
https://www.eia.gov/opendata/documentation.php, https://www.eia.gov/electricity/gridmonitor/about
"""

import re
from datetime import UTC, datetime, timedelta
from types import MappingProxyType
from typing import Annotated, Any, Final, Literal

from pydantic import AfterValidator, BeforeValidator, StringConstraints

from carbonsched.errors import FeedError, InputError
from carbonsched.feeds.base import Answer, Site
from carbonsched.feeds.generation_mix import FACTORS, Output, Plant, intensities
from carbonsched.feeds.provider import Answered, HttpFeed, TokenSettings, Value, offered
from carbonsched.feeds.transport import Limit
from carbonsched.model.base import Seconds, utc
from carbonsched.model.grid import Kind

_HOUR: Final = timedelta(hours=1)
_RECENT: Final = timedelta(hours=12)
"""What a poll asks for while the past two days are not due."""
_MOST_ROWS: Final = 5000
_CODE: Final = r"^[A-Z0-9]{2,5}$"
_PATH: Final = "/v2/electricity/rto/fuel-type-data/data/"

PLANTS: Final = {
    "BIO": Plant.BIOMASS,
    "BM": Plant.BIOMASS,
    "COL": Plant.COAL,
    "NG": Plant.GAS,
    "GEO": Plant.GEOTHERMAL,
    "WAT": Plant.HYDRO,
    "NUC": Plant.NUCLEAR,
    "OIL": Plant.OIL,
    "SUN": Plant.SOLAR,
    "SNB": Plant.SOLAR,
    "WND": Plant.WIND_ONSHORE,
    "WNB": Plant.WIND_ONSHORE,
    "BAT": Plant.STORAGE,
    "PS": Plant.STORAGE,
    "OES": Plant.STORAGE,
    "UES": Plant.STORAGE,
}
"""EIA's code of an energy source → what burns or does not; any other is `other`."""


def _hour(value: Any) -> Any:
    """`2026-03-12T10`, which is UTC."""
    # another value is refused as what it is: no datetime of a known zone
    return datetime.strptime(value, "%Y-%m-%dT%H").replace(tzinfo=UTC) if isinstance(value, str) else None


def _number(value: Any) -> Any:
    """Numbers come as numbers or as text, by the API's version."""
    return float(value) if isinstance(value, str) else value


class _Row(Answered):
    period: Annotated[datetime, BeforeValidator(_hour), AfterValidator(utc)]
    respondent: str
    fueltype: str
    value: Annotated[Value | None, BeforeValidator(_number)] = None


class _Response(Answered):
    data: list[_Row]


class _Document(Answered):
    response: _Response


class EiaSettings(TokenSettings):
    """Keys of `[[feeds]]` with provider = "eia".

    Example:
        >>> EiaSettings(provider="eia", respondent="CISO", token_env="EIA_KEY").max_age
        14400.0
    """

    provider: Literal["eia"]
    max_age: Seconds = 14_400.0
    respondent: Annotated[str, StringConstraints(pattern=_CODE)] | None = None
    """Balancing authority or region by EIA's code, e.g. `CISO`, `ERCO`, `US48`; None: the zone, or its last part."""

    def build(self, site: Site) -> "EiaFeed":
        return EiaFeed(self, site)


class EiaFeed(HttpFeed):
    """Polls EIA-930's generation by energy source.

    Example::

        answer = EiaFeed(EiaSettings(provider="eia", respondent="CISO", token_env="EIA_KEY"), site).poll()
    """

    URL, SHOWN = "https://api.eia.gov", "EIA"
    HINTS = MappingProxyType({403: "a free key: https://www.eia.gov/opendata/register.php"})
    LIMITS = (Limit(9000, per_s=3600.0), Limit(5, per_s=1.0))

    def __init__(self, settings: EiaSettings, site: Site) -> None:
        respondent = settings.respondent or site.zone.name.rpartition("-")[2].upper()
        if not re.match(_CODE, respondent):
            problem = f"is missing, and zone.name is {site.zone.name!r}"
            raise InputError("respondent", problem, "give EIA's code of a balancing authority, like CISO")
        basis, self._factors = offered(settings, site, FACTORS)
        super().__init__(settings, site, respondent, basis)
        self._token = settings.token()

    def poll(self) -> Answer:
        """One request: the past twelve hours, once an hour the two days that have passed."""
        now, whole = self._clock.now(), self.is_due("past")
        try:
            body = self.ask(_PATH, self._asked(now - (self.settles if whole else _RECENT), now))
            rows = self.parse(_Document, body.json).response.data
            outputs = [self._output(row) for row in rows if row.value is not None]
            found = intensities(outputs, self._factors.g_per_kwh)
        except FeedError:
            self.ask_soon("past")
            raise
        if not found:
            self.ask_soon("past")
            said = "no hour of which every energy source is known" if rows else "no rows"
            raise FeedError(f"{self._url}: {said} for respondent {self.zone}: is that EIA's code of it?")
        source = self.source(Kind.ESTIMATED, body, note=self._factors.note)
        return Answer(self.readings(found, source))

    def _asked(self, since: datetime, until: datetime) -> dict[str, str]:
        return {
            "api_key": self._token.read(),
            "frequency": "hourly",
            "data[0]": "value",
            "facets[respondent][]": self.zone,
            "start": f"{since:%Y-%m-%dT%H}",
            "end": f"{until + _HOUR:%Y-%m-%dT%H}",
            "sort[0][column]": "period",
            # where rows are cut off they are the oldest
            "sort[0][direction]": "desc",
            "length": str(_MOST_ROWS),
        }

    def _output(self, row: _Row) -> Output:
        if row.respondent != self.zone:
            raise FeedError(f"{self._url}: the answer is of {row.respondent[:20]!r}, asked was {self.zone}")
        plant = PLANTS.get(row.fueltype, Plant.OTHER)
        return Output(row.period - _HOUR, row.period, row.fueltype, plant, row.value or 0.0)
